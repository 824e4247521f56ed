"""What each layer class does to channels. Graph, cost, supernet and student all read this table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple


class Kind(enum.Enum):
    """How an operation treats the channel axis (the last one) of its inputs."""

    INPUT = "input"
    CONV = "conv"  # every filter reads every input channel
    DENSE = "dense"
    TRANSPOSED = "transposed"  # a convolution whose kernel is [..., out, in]
    DEPTHWISE = "depthwise"  # every filter reads one channel, or one group of consecutive channels
    SEPARABLE = "separable"  # depthwise, then pointwise
    BATCH_NORM = "batch_norm"
    LAYER_NORM = "layer_norm"  # normalises over the channels of each position
    GROUP_NORM = "group_norm"  # normalises over groups of consecutive channels
    KEEPS_ZEROS = "keeps_zeros"  # acts on each channel alone, 0 -> 0
    SHIFTS_ZEROS = "shifts_zeros"  # acts on each channel alone, 0 -> something else
    POOL = "pool"
    ADD = "add"
    MULTIPLY = "multiply"
    COMBINE = "combine"  # other operations on several tensors, channel by channel
    FROM_ONES = "from_ones"  # acts on each channel alone, on one tensor or several; its value or slope at 0 is infinite
    UNIT_NORM = "unit_norm"  # divides by a norm of the channels, to which zeros add nothing
    REDUCE = "reduce"  # reduces the channels to one number; inactive ones can be left out
    CONCAT = "concat"
    SELECT = "select"  # takes consecutive channels
    PAD = "pad"  # adds channels of zeros
    FLATTEN = "flatten"
    RESHAPE = "reshape"
    OPAQUE = "opaque"  # unknown: channels that reach it must not change


#: Classes whose multiply-adds are counted even if the search leaves the layer as it is.
CONV_CLASSES = frozenset(
    f"{kind}{rank}D"
    for kind, ranks in {"Conv": "123", "DepthwiseConv": "12", "SeparableConv": "12"}.items()
    for rank in ranks
)
TRANSPOSED_CLASSES = frozenset(f"Conv{rank}DTranspose" for rank in (1, 2, 3))

#: Kinds that create new channels.
MAKES_CHANNELS = frozenset({Kind.CONV, Kind.TRANSPOSED, Kind.DENSE, Kind.SEPARABLE})
#: Kinds that contain a convolution or a matrix product.
CONVOLVES = MAKES_CHANNELS | {Kind.DEPTHWISE}
#: Kinds to walk through when looking for a tensor's source. They mix neither channels nor the meaning of positions.
TRANSPARENT = frozenset({Kind.KEEPS_ZEROS, Kind.SHIFTS_ZEROS, Kind.POOL, Kind.BATCH_NORM})
#: Kinds that read several tensors with the same channels.
MERGES = frozenset({Kind.ADD, Kind.MULTIPLY, Kind.COMBINE, Kind.FROM_ONES})


class Activation(NamedTuple):
    """An activation function under all its names in Keras.

    Attributes:
        names: Values of a layer's `activation` argument.
        op: Class name of the functional operation.
        layer: Class name of the activation layer.
        kind: How the activation treats channels.
        num_operations: Operations that it adds to a TFLite file; 0 if it merges into the layer before it.
    """

    names: tuple[str, ...] = ()
    op: str | None = None
    layer: str | None = None
    kind: Kind = Kind.KEEPS_ZEROS
    num_operations: int = 1


#: All known activation functions. Any other activation is opaque.
ACTIVATIONS = (
    Activation(("linear",), num_operations=0),
    Activation(("relu",), "Relu", "ReLU", num_operations=0),
    Activation(("relu6",), "Relu6", num_operations=0),
    Activation(("leaky_relu",), "LeakyRelu", "LeakyReLU"),
    Activation((), None, "PReLU"),
    Activation(("elu",), "Elu", "ELU"),
    Activation(("selu",), "Selu"),
    Activation(("celu",), "Celu"),
    Activation(("gelu",), "Gelu"),
    Activation(("silu", "swish"), "Silu", num_operations=2),
    Activation(("hard_silu", "hard_swish"), "HardSilu"),
    Activation(("mish",)),
    Activation(("tanh",), "Tanh"),
    Activation(("hard_tanh",), "HardTanh"),
    Activation(("tanh_shrink",), "TanhShrink"),
    Activation(("softsign",), "Softsign"),
    Activation(("soft_shrink",), "SoftShrink"),
    Activation(("hard_shrink",), "HardShrink"),
    Activation(("sigmoid",), "Sigmoid", kind=Kind.SHIFTS_ZEROS),
    Activation(("hard_sigmoid",), "HardSigmoid", kind=Kind.SHIFTS_ZEROS),
    Activation(("log_sigmoid",), "LogSigmoid", kind=Kind.SHIFTS_ZEROS),
    Activation(("sparse_sigmoid",), "SparseSigmoid", kind=Kind.SHIFTS_ZEROS),
    Activation(("softplus",), "Softplus", kind=Kind.SHIFTS_ZEROS),
    Activation(("sparse_plus",), "SparsePlus", kind=Kind.SHIFTS_ZEROS),
    Activation(("squareplus",), "Squareplus", kind=Kind.SHIFTS_ZEROS),
    Activation(("exponential",), "Exp", kind=Kind.SHIFTS_ZEROS),
    Activation(("softmax",), "Softmax", "Softmax", Kind.OPAQUE),
    Activation(("log_softmax",), "LogSoftmax", kind=Kind.OPAQUE),
)
#: Activations by name, and by class name of the operation or layer.
ACTIVATION_BY_NAME = {name: known for known in ACTIVATIONS for name in known.names}
ACTIVATION_BY_CLASS = {cls: known for known in ACTIVATIONS for cls in (known.op, known.layer) if cls}
#: Key of an activation's config that makes it unknown, as layers that serve as activations once were.
ONCE_UNKNOWN = "once_unknown"
#: Layers without weights that may serve as the activation of another layer.
_ACTIVATION_LAYERS = ("ReLU", "LeakyReLU", "ELU")

_POOLS = frozenset(
    f"{scope}{kind}Pooling{rank}D"
    for scope in ("", "Global", "Adaptive")
    for kind in ("Average", "Max")
    for rank in (1, 2, 3)
)
_LAYERS: dict[str, Kind] = {
    "InputLayer": Kind.INPUT,
    "Dense": Kind.DENSE,
    "SeparableConv1D": Kind.SEPARABLE,
    "SeparableConv2D": Kind.SEPARABLE,
    "BatchNormalization": Kind.BATCH_NORM,
    "LayerNormalization": Kind.LAYER_NORM,
    "RMSNormalization": Kind.LAYER_NORM,
    "Add": Kind.ADD,
    "Multiply": Kind.MULTIPLY,
    "Subtract": Kind.COMBINE,
    "Average": Kind.COMBINE,
    "Maximum": Kind.COMBINE,
    "Minimum": Kind.COMBINE,
    "Concatenate": Kind.CONCAT,
    "Flatten": Kind.FLATTEN,
    "Reshape": Kind.RESHAPE,
    **dict.fromkeys(_POOLS, Kind.POOL),
    **dict.fromkeys(
        [
            f"{name}{rank}D"
            for name in ("ZeroPadding", "Cropping", "UpSampling", "SpatialDropout")
            for rank in (1, 2, 3)
        ],
        Kind.KEEPS_ZEROS,
    ),
    **{known.layer: known.kind for known in ACTIVATIONS if known.layer},
    **dict.fromkeys(["Identity", "ActivityRegularization", "Resizing", "Dropout", "GaussianDropout"], Kind.KEEPS_ZEROS),
    **dict.fromkeys(["CenterCrop", "RepeatVector"], Kind.KEEPS_ZEROS),
    **dict.fromkeys(["AlphaDropout", "GaussianNoise"], Kind.SHIFTS_ZEROS),
}
#: Those that treat channels as the table says if they normalise along the last axis.
_NORMALISATIONS = ("BatchNormalization", "LayerNormalization", "RMSNormalization")
#: Layers that `keras.applications` defines for itself, and how they treat channels.
_APPLICATION_LAYERS: dict[str, Kind] = {"LayerScale": Kind.KEEPS_ZEROS, "StochasticDepth": Kind.KEEPS_ZEROS}
#: Keras layers that change images in training and leave them unchanged in inference.
_AUGMENTATIONS = frozenset(
    [
        *("AugMix", "CutMix", "Equalization", "MaxNumBoundingBoxes", "MixUp", "RandAugment", "RandomBrightness"),
        *("RandomColorDegeneration", "RandomColorJitter", "RandomContrast", "RandomCrop", "RandomElasticTransform"),
        *("RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert"),
        *("RandomPerspective", "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness"),
        *("RandomShear", "RandomTranslation", "RandomZoom", "Solarization"),
    ]
)
#: Layers that add noise in training and do nothing in inference.
NOISES = frozenset({"AlphaDropout", "GaussianDropout", "GaussianNoise"})


def is_augmentation(module: str, class_name: str, config: Mapping[str, Any]) -> bool:
    """Whether a layer changes images only in training. A `Pipeline` does if all its layers do.

    >>> is_augmentation("keras.layers", "RandomFlip", {}), is_augmentation("keras.layers", "Resizing", {})
    (True, False)
    """
    if not module.startswith("keras"):
        return False
    if class_name == "Pipeline":
        entries = config.get("layers", ())  # the module of a class that a script defines is None
        return bool(entries) and all(is_augmentation(e["module"] or "", e["class_name"], e["config"]) for e in entries)
    return class_name in _AUGMENTATIONS


def activation_name(value: Any) -> str:
    """Name of the activation in a layer's config, in any of the forms that Keras writes.

    A layer that serves as an activation has the name of its class, with a package if it isn't one of Keras's.

    >>> activation_name(None), activation_name("relu"), activation_name({"config": "gelu"})
    ('linear', 'relu', 'gelu')
    >>> activation_name({"class_name": "ELU", "config": {}}), activation_name({"registered_name": "my>ELU"})
    ('ELU', 'my>ELU')
    """
    if value is None:
        return "linear"
    if isinstance(value, str):
        return value
    inner = value.get("config") if isinstance(value, Mapping) else None
    if isinstance(inner, str):
        return inner
    if not isinstance(value, Mapping) or value.get(ONCE_UNKNOWN):
        return "unknown"
    return str(value.get("registered_name") or value.get("class_name", "unknown"))


def activation_kind(name: str) -> Kind:
    """How the activation of that name treats channels."""
    if name in _ACTIVATION_LAYERS:
        return Kind.SHIFTS_ZEROS  # a ReLU may have a threshold and a slope
    known = ACTIVATION_BY_NAME.get(name)
    return Kind.OPAQUE if known is None else known.kind


def is_op(module: str) -> bool:
    """Whether a config entry is a functional operation rather than a layer."""
    # Calling `keras.activations.relu` on a symbolic tensor creates an operation of that module.
    return module.startswith(("keras.src.ops", "keras.ops", "keras.src.activations"))


def kind_of_relu(config: Mapping[str, Any]) -> Kind:
    """How a ReLU treats channels: either the layer or the operation that `keras.activations.relu` creates.

    It maps 0 to slope * (0 - threshold), so zeros stay zero only if one of the two is 0.
    """
    return Kind.SHIFTS_ZEROS if config["threshold"] and config["negative_slope"] else Kind.KEEPS_ZEROS


def kind_of(module: str, class_name: str, config: Mapping[str, Any], input_shapes: tuple) -> Kind:
    """Tells how a layer treats channels.

    Args:
        module: Module name in the config, such as `keras.layers`.
        class_name: Class name in the config.
        config: The layer's own config.
        input_shapes: Static shapes of the input tensors, batch first.
    """
    if module.startswith("keras.src.applications"):
        return _APPLICATION_LAYERS.get(class_name, Kind.OPAQUE)
    if not module.startswith("keras."):
        return Kind.OPAQUE
    if config.get("data_format") == "channels_first":
        return Kind.OPAQUE
    if class_name == "ReLU":
        return kind_of_relu(config)
    if class_name in _ALONG_AXES:
        return _ALONG_AXES[class_name](config, len(input_shapes[0]))
    if class_name in TRANSPOSED_CLASSES:
        return Kind.TRANSPOSED
    if class_name in CONV_CLASSES and not class_name.startswith("Separable"):
        if config.get("groups", 1) == 1 and not class_name.startswith("Depthwise"):
            return Kind.CONV
        alone = activation_kind(activation_name(config["activation"])) is not Kind.OPAQUE
        return Kind.DEPTHWISE if alone else Kind.OPAQUE
    if class_name == "Activation":
        return activation_kind(activation_name(config["activation"]))
    if class_name in _NORMALISATIONS:
        return _LAYERS[class_name] if _is_last_axis(config["axis"], len(input_shapes[0])) else Kind.OPAQUE
    if class_name == "GroupNormalization":
        if not _is_last_axis(config["axis"], len(input_shapes[0])):
            return Kind.OPAQUE
        return Kind.SHIFTS_ZEROS if config["groups"] == -1 else Kind.GROUP_NORM
    if class_name == "Rescaling":
        scalar = all(isinstance(config[key], (int, float)) for key in ("scale", "offset"))
        if not scalar:
            return Kind.OPAQUE
        return Kind.SHIFTS_ZEROS if config["offset"] else Kind.KEEPS_ZEROS
    if class_name == "PReLU" and len(input_shapes[0]) - 1 in (config["shared_axes"] or ()):
        return Kind.OPAQUE  # all channels share its slopes
    return _LAYERS.get(class_name, Kind.OPAQUE)


def are_positions(axis: Any, rank: int) -> bool:
    """Whether axes, of a tensor of this rank, are neither the batch nor the channels; None means all axes."""
    axes = range(rank) if axis is None else axis if isinstance(axis, (list, tuple)) else (axis,)
    return all(0 < one % rank < rank - 1 for one in axes)


def _kind_of_softmax(config: Mapping[str, Any], rank: int) -> Kind:
    return Kind.SHIFTS_ZEROS if are_positions(config["axis"], rank) else Kind.OPAQUE


def _kind_of_permutation(config: Mapping[str, Any], rank: int) -> Kind:
    return Kind.KEEPS_ZEROS if config["dims"][-1] == rank - 1 else Kind.OPAQUE


def _kind_of_unit_norm(config: Mapping[str, Any], rank: int) -> Kind:
    if are_positions(config["axis"], rank):
        return Kind.FROM_ONES
    axes = config["axis"] if isinstance(config["axis"], (list, tuple)) else (config["axis"],)
    return Kind.OPAQUE if 0 in axes else Kind.UNIT_NORM


#: Layers whose kind depends on an axis.
_ALONG_AXES = {
    "Softmax": _kind_of_softmax,
    "Permute": _kind_of_permutation,
    "UnitNormalization": _kind_of_unit_norm,
}


def _is_last_axis(axis: Any, rank: int) -> bool:
    axes = list(axis) if isinstance(axis, (list, tuple)) else [axis]
    return len(axes) == 1 and axes[0] % rank == rank - 1
