"""Every flag of the project, defined once: a flag that a command doesn't know is fatal in its flagfile."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeVar

from absl import flags

from tas_tf.baselines.rivals import RIVALS
from tas_tf.baselines.shapes import BASELINE_KINDS
from tas_tf.data.preprocessing import PREPROCESSING_KINDS
from tas_tf.errors import UserError
from tas_tf.searching.settings import KEPT_SHAPES
from tas_tf.searching.step import COST_DRIVERS
from tas_tf.space.space import AXES
from tas_tf.supernet.initial_logits import START_KINDS
from tas_tf.training.strategy import STRATEGIES

_T = TypeVar("_T")

#: Flags by the heading that `--help` shows them under, in the order of definition.
GROUPS: dict[str, list[flags.FlagHolder]] = {}


def _in(group: str, holder: flags.FlagHolder[_T]) -> flags.FlagHolder[_T]:
    GROUPS.setdefault(group, []).append(holder)
    return holder


def values(*groups: str, without: Collection[str] = ()) -> dict[str, Any]:
    """The values of all flags of some groups, by name, but for those in `without`."""
    names = [holder.name for group in groups for holder in GROUPS[group]]
    return {name: flags.FLAGS[name].value for name in names if name not in without}


def named(*names: str) -> dict[str, Any]:
    """The values of some flags, by name."""
    return {name: flags.FLAGS[name].value for name in names}


def numbers(holder: flags.FlagHolder[list[str]], count: int) -> tuple[float, ...]:
    """A list flag as so many numbers.

    Raises:
        UserError: It isn't.
    """
    try:
        found = tuple(float(text) for text in holder.value)
    except ValueError:
        found = ()
    if len(found) != count:
        raise UserError(
            f"`--{holder.name}` must be {count} numbers, comma between. Received: {','.join(holder.value)}."
        )
    return found


def one_of(holder: flags.FlagHolder[list[str]], known: Collection[str]) -> list[str]:
    """A list flag whose entries are all known.

    Raises:
        UserError: One isn't.
    """
    for name in holder.value:
        if name not in known:
            raise UserError(f"`--{holder.name}` must name some of {', '.join(known)}. Received: {name!r}.")
    return list(dict.fromkeys(holder.value))


def refuse(holder: flags.FlagHolder[bool]) -> None:
    """Refuses a flag that a command has no meaning for, rather than to pass over it.

    Raises:
        UserError: It is set.
    """
    if holder.value:
        raise UserError(f"`--{holder.name}` means nothing to this command. Leave it out.")


def required(holder: flags.FlagHolder[_T | None]) -> _T:
    """The value of a flag that a command can't do without.

    Raises:
        UserError: It isn't set.
    """
    if holder.value in (None, ""):
        raise UserError(f"`--{holder.name}` is needed: {holder_help(holder)}")
    return holder.value


def holder_help(holder: flags.FlagHolder) -> str:
    """What a flag is for, in one line."""
    return " ".join(flags.FLAGS[holder.name].help.split())


MODEL = _in(
    "Network",
    flags.DEFINE_string(
        "model",
        None,
        "The network to make smaller: resnet20 (8, 14, 20, 32, 44, 56, 110, 164; for ImageNet 18, 34, 50), "
        "keras.applications.NAME, or the path of a .keras file.",
    ),
)
NUM_CLASSES = _in(
    "Network",
    flags.DEFINE_integer("num_classes", None, "Classes; by default the data's, without data 10.", lower_bound=2),
)
IMAGE_SIZE = _in(
    "Network",
    flags.DEFINE_integer(
        "image_size", None, "Height and width of the images; by default the data's, without data 32.", lower_bound=1
    ),
)
CHANNELS = _in(
    "Network",
    flags.DEFINE_integer(
        "channels", None, "Channels of the images; by default the data's, without data 3.", lower_bound=1
    ),
)

AXES_SEARCHED = _in("What is searched", flags.DEFINE_enum("axes", "both", AXES, "What may shrink."))
WIDTH_DIVISOR = _in(
    "What is searched",
    flags.DEFINE_integer("width_divisor", 1, "Widths are rounded to multiples of it, say 8.", lower_bound=1),
)
COUPLE_TRUNK = _in(
    "What is searched",
    flags.DEFINE_bool(
        "couple_trunk",
        None,
        "Gives all block outputs of a stage one width, so that no projections are needed; by default where they would "
        "cost much, as in bottleneck networks.",
    ),
)
SEARCH_DENSE = _in(
    "What is searched", flags.DEFINE_bool("search_dense", False, "Also searches hidden Dense layers on vectors.")
)
SHAPE = _in(
    "What is searched",
    flags.DEFINE_string(
        "shape",
        None,
        "Widths and depths to use: a shape.json, or published/NAME, a shape of the paper's authors such as "
        "published/cifar10-resnet56.",
    ),
)

DATASET = _in(
    "Data",
    flags.DEFINE_string(
        "dataset", "digits", "digits (bundled), fashion_mnist, folder:PATH, or any data set of TensorFlow Datasets."
    ),
)
DATA_DIR = _in("Data", flags.DEFINE_string("data_dir", None, "Where TensorFlow Datasets keeps its files."))
TEST_SHARE = _in(
    "Data",
    flags.DEFINE_float("test_share", None, "Share of a folder's images kept for testing.", 0.0, 1.0),
)
TRAIN_LIMIT = _in(
    "Data",
    flags.DEFINE_integer(
        "train_limit", None, "Uses a fixed stratified subset of so many training images.", lower_bound=1
    ),
)
PREPROCESS = _in(
    "Data",
    flags.DEFINE_enum("preprocess", "standardise", PREPROCESSING_KINDS, "How pixels become the network's input."),
)
PAD_CROP = _in(
    "Data", flags.DEFINE_integer("pad_crop", 0, "Shifts training images by so many pixels at most.", lower_bound=0)
)
FLIP = _in("Data", flags.DEFINE_bool("flip", False, "Mirrors training images, but for digits and the like."))
RANDOM_RESIZED_CROP = _in(
    "Data",
    flags.DEFINE_bool("random_resized_crop", False, "Cuts out random parts of training images, as for ImageNet."),
)

RUN_DIR = _in("Run", flags.DEFINE_string("run_dir", None, "The folder of the run: all results, logs and checkpoints."))
TEACHER_FROM = _in("Run", flags.DEFINE_string("teacher_from", None, "Another run folder whose teacher to use."))
STRATEGY = _in(
    "Run",
    flags.DEFINE_enum("strategy", "auto", STRATEGIES, "Devices: all GPUs if there are two or more, one, or all."),
)
PRECISION = _in(
    "Run", flags.DEFINE_enum("precision", "float32", ["float32", "mixed_bfloat16"], "What layers compute in.")
)
JIT_COMPILE = _in(
    "Run", flags.DEFINE_bool("jit_compile", False, "Compiles the search's gradients by XLA (one device).")
)
DETERMINISTIC = _in("Run", flags.DEFINE_bool("deterministic", False, "Bit-for-bit repeatable, slower on GPUs."))
DRY_RUN = _in("Run", flags.DEFINE_bool("dry_run", False, "Says what would run, its cost, time and memory, and stops."))
OVERWRITE = _in(
    "Run", flags.DEFINE_bool("overwrite", False, "Replaces results; the pipeline only those made from other settings.")
)
PROGRESS = _in("Run", flags.DEFINE_enum("progress", "auto", ["auto", "bar", "lines", "none"], "How progress is shown."))

BATCH_SIZE = _in(
    "Training", flags.DEFINE_integer("batch_size", 256, "Images in a batch, over all devices.", lower_bound=1)
)
LEARNING_RATE = _in("Training", flags.DEFINE_float("lr", 0.1, "Highest learning rate of weights.", 0.0))
MOMENTUM = _in("Training", flags.DEFINE_float("momentum", 0.9, "Nesterov momentum of weights.", 0.0, 1.0))
L2 = _in("Training", flags.DEFINE_float("l2", 5e-4, "Penalty in the gradient of weights.", 0.0))
TEACHER_EPOCHS = _in("Training", flags.DEFINE_integer("teacher_epochs", 300, "Epochs of the teacher.", lower_bound=1))
TEACHER_WARMUP = _in(
    "Training", flags.DEFINE_integer("teacher_warmup", 5, "Epochs before these in which the rate rises.", lower_bound=0)
)
TEACHER_LR = _in("Training", flags.DEFINE_float("teacher_lr", None, "Learning rate of the teacher, if another.", 0.0))

BUDGET = _in(
    "Search",
    flags.DEFINE_multi_string(
        "budget",
        ["macs:0.5"],
        "What the student may cost: macs:0.5 (a share), macs:40M, params:100k, bytes:400k (of the float32 .tflite). "
        "Repeated: one search, by the first, and a student for each.",
    ),
)
TOLERANCE = _in(
    "Search", flags.DEFINE_float("tolerance", 0.05, "How far below the budget, a share of the whole cost.", 0.0, 1.0)
)
SEARCH_EPOCHS = _in("Search", flags.DEFINE_integer("search_epochs", 600, "Epochs of the search.", lower_bound=1))
SEARCH_WARMUP = _in(
    "Search", flags.DEFINE_integer("search_warmup", 0, "Epochs before these in which the rate rises.", lower_bound=0)
)
SEARCH_LR = _in(
    "Search", flags.DEFINE_float("search_lr", None, "Learning rate of the supernet's weights, if another.", 0.0)
)
ARCH_LR = _in(
    "Search",
    flags.DEFINE_float(
        "arch_lr",
        None,
        "Learning rate of the architecture's logits; by default such that they move by about 20 in all.",
        0.0,
    ),
)
ARCH_L2 = _in("Search", flags.DEFINE_float("arch_l2", 1e-3, "Penalty in the gradient of the logits.", 0.0))
ARCH_BETAS = _in("Search", flags.DEFINE_list("arch_betas", ["0.5", "0.999"], "Adam's decay rates for the logits."))
TEMPERATURE_START = _in(
    "Search", flags.DEFINE_float("temperature_start", 5.0, "Temperature of the first epoch's draws.")
)
TEMPERATURE_END = _in("Search", flags.DEFINE_float("temperature_end", 0.1, "Temperature of the last epoch's draws."))
NUM_DRAWN = _in("Search", flags.DEFINE_string("num_drawn", "2", "Widths drawn at once for each unit, or all."))
NOISE = _in("Search", flags.DEFINE_bool("gumbel_noise", True, "Perturbs the draws by Gumbel noise."))
COST_WEIGHT = _in("Search", flags.DEFINE_float("cost_weight", 2.0, "Weight of the cost's loss.", 0.0))
COST_DRIVER = _in(
    "Search",
    flags.DEFINE_enum(
        "cost_driver",
        "max",
        COST_DRIVERS,
        "Cost compared with the budget: the most probable shape's (argmax, the "
        "paper's), or that and the expected one, whichever is higher (max).",
    ),
)
SPLIT_SHARE = _in(
    "Search", flags.DEFINE_float("split_share", 0.5, "Share of the training images for the weights.", 0.0, 1.0)
)
INIT_LOGITS = _in("Search", flags.DEFINE_enum("init_logits", "uniform", START_KINDS, "Where the logits start."))
SEARCH_FROM_TEACHER = _in(
    "Search", flags.DEFINE_bool("search_from_teacher", False, "Starts the supernet from the teacher's weights.")
)
CALIBRATION_BATCHES = _in(
    "Search",
    flags.DEFINE_integer(
        "calibration_batches", 5, "Batches for a shape's BN statistics before it is scored.", lower_bound=1
    ),
)
KEEP_SHAPE = _in(
    "Search",
    flags.DEFINE_enum("keep_shape", "last", KEPT_SHAPES, "The shape of which epoch: the best has held-out accuracy."),
)
HELD_OUT_LIMIT = _in(
    "Search", flags.DEFINE_integer("held_out_limit", 10_000, "Images that a shape is scored on at most.", lower_bound=1)
)

STUDENT_EPOCHS = _in(
    "Distillation", flags.DEFINE_integer("student_epochs", 300, "Epochs of the student.", lower_bound=1)
)
STUDENT_WARMUP = _in(
    "Distillation",
    flags.DEFINE_integer("student_warmup", 5, "Epochs before these in which the rate rises.", lower_bound=0),
)
STUDENT_LR = _in(
    "Distillation", flags.DEFINE_float("student_lr", None, "Learning rate of the student, if another.", 0.0)
)
KD = _in("Distillation", flags.DEFINE_bool("kd", True, "Learns from the teacher besides the labels."))
KD_ALPHA = _in("Distillation", flags.DEFINE_float("kd_alpha", 0.9, "Weight of the teacher's word.", 0.0, 1.0))
KD_TEMPERATURE = _in("Distillation", flags.DEFINE_float("kd_temperature", 4.0, "Temperature of the distillation."))
INHERIT = _in(
    "Distillation",
    flags.DEFINE_enum(
        "inherit",
        "auto",
        ["auto", "none", "teacher", "supernet"],
        "Whose weights the student starts from; auto: those of l1 and fpgm filters, else none.",
    ),
)
RIVALS = _in(
    "Distillation",
    flags.DEFINE_list(
        "rivals",
        [],
        f"Trained alike beside the student by the pipeline: {', '.join(RIVALS)}.",
    ),
)

KIND = _in("Baseline", flags.DEFINE_enum("kind", None, BASELINE_KINDS, "Which shape trainers.baseline writes."))
RANDOM_SHAPES = _in(
    "Baseline",
    flags.DEFINE_integer("random_shapes", 1, "Random shapes to choose the best from, briefly trained.", lower_bound=1),
)
RANDOM_EPOCHS = _in(
    "Baseline", flags.DEFINE_integer("random_epochs", 5, "Epochs that each of several is trained.", lower_bound=1)
)

FORMATS = _in(
    "Export",
    flags.DEFINE_list(
        "formats",
        ["saved_model", "fp32"],
        "What to write: saved_model, and as .tflite fp32, fp16, dynamic (int8 weights), int8 (calibrated), qat_int8 "
        "(fine-tuned for it).",
    ),
)
PREPROCESSING_INSIDE = _in(
    "Export", flags.DEFINE_bool("preprocessing_inside", False, "Puts preprocessing inside: files take pixels 0 to 255.")
)
TEST_LIMIT = _in("Export", flags.DEFINE_integer("test_limit", None, "Test images that files are scored on at most.", 1))
THREADS = _in("Export", flags.DEFINE_integer("threads", 1, "Threads of the TFLite interpreter.", lower_bound=1))
LATENCY_ROUNDS = _in(
    "Export", flags.DEFINE_integer("latency_rounds", 100, "Timed calls of each file, in turns.", lower_bound=1)
)
LATENCY_WARMUP = _in(
    "Export", flags.DEFINE_integer("latency_warmup", 10, "Calls before these that don't count.", lower_bound=0)
)
EXPORT_TOLERANCE = _in(
    "Export",
    flags.DEFINE_float(
        "export_tolerance",
        None,
        "Largest difference from Keras, a share of the largest output, of files that aren't rounded to 8 bits.",
        0.0,
    ),
)
MAX_ACCURACY_DROP = _in(
    "Export",
    flags.DEFINE_float(
        "max_accuracy_drop", 0.02, "What a file of the student may lose of its test accuracy, 0 to 1.", 0.0, 1.0
    ),
)

CALIBRATION_IMAGES = _in(
    "Quantisation",
    flags.DEFINE_integer(
        "calibration_images", 200, "Training images from which int8 takes the ranges of activations.", lower_bound=1
    ),
)
QAT_EPOCHS = _in(
    "Quantisation", flags.DEFINE_integer("qat_epochs", 10, "Epochs of fine-tuning for qat_int8.", lower_bound=1)
)
QAT_LR = _in("Quantisation", flags.DEFINE_float("qat_lr", 0.01, "Learning rate that this starts at.", 0.0))
QAT_FALLBACK = _in(
    "Quantisation",
    flags.DEFINE_bool(
        "qat_fallback", False, "Writes int8 in place of qat_int8 for networks that can't be fine-tuned so."
    ),
)
QAT_FLOAT = _in(
    "Quantisation",
    flags.DEFINE_bool("qat_float", False, "Fine-tunes the float student equally long too, to tell what QAT gains."),
)

COMPARE = _in(
    "Output",
    flags.DEFINE_list(
        "compare", [], "Run folders for trainers.report to set side by side; folders of one name are seeds of one row."
    ),
)
JSON = _in("Output", flags.DEFINE_bool("json", False, "Writes JSON to stdout instead of tables."))
SEED = _in("Output", flags.DEFINE_integer("seed", 0, "Of everything that is drawn.", 0, 2**32 - 1))
