"""How models are trained and where their results lie."""

from tas_tf.files import atomic_folder, read_json, write_json, write_model
from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.evaluation import Evaluator, evaluate, make_evaluator
from tas_tf.training.loop import SECONDS, fit, verbosity
from tas_tf.training.optimizers import L2SGD, add_l2, arch_adam, cosine, sgd
from tas_tf.training.runs import Run, Step
from tas_tf.training.seeding import seed_everything
from tas_tf.training.strategy import STRATEGIES, check_batch_size, make_strategy

__all__ = [
    "Evaluator",
    "L2SGD",
    "Run",
    "SECONDS",
    "STRATEGIES",
    "Step",
    "TensorBoardScalars",
    "add_l2",
    "arch_adam",
    "atomic_folder",
    "check_batch_size",
    "cosine",
    "evaluate",
    "fit",
    "make_evaluator",
    "make_strategy",
    "read_json",
    "seed_everything",
    "sgd",
    "verbosity",
    "write_json",
    "write_model",
]
