"""The table's statements about operations, compared with what each operation of Keras does to numbers."""

import inspect
from dataclasses import replace

import keras
import numpy as np
import tensorflow as tf
from keras.src.ops import core, image, linalg, math, nn
from keras.src.ops import numpy as arrays

from tas_tf.graph.kinds import Kind, is_augmentation, kind_of
from tas_tf.graph.nodes import Node, Ref
from tas_tf.graph.operations import (
    _ALONG_AXES,
    _COMBINING,
    _ELEMENTWISE,
    _REDUCTIONS,
    counts_channels,
    kind_of_operation,
    neutral_value,
)

INPUTS = np.random.default_rng(0).uniform(0.1, 0.9, size=(2, 4, 3, 5)).astype("float32")
OPERATIONS = {
    name: found
    for module in (arrays, nn, math, core, image, linalg)
    for name, found in vars(module).items()
    if inspect.isclass(found) and issubclass(found, keras.Operation) and found.__module__ == module.__name__
}
#: Arguments that an operation may be made with, tried one after another.
ARGUMENTS = (
    {},
    *({"axis": axis} for axis in (1, 2, -1, (1, 2), (1, 2, 3), None)),
    *({"axis": axis, "keepdims": True} for axis in (1, -1, (1, 2), (2, -1))),
    {"axes": (0, 2, 1, 3)},
    {"axes": (0, 3, 1, 2)},
    *({"source": one, "destination": other} for one, other in ((1, 2), (1, 3))),
    *({"axis1": one, "axis2": other} for one, other in ((1, 2), (2, -1))),
    *({"repeats": repeats, "axis": axis} for repeats, axis in ((2, 1), (2, -1))),
    *({"repeats": repeats} for repeats in ((1, 2, 1, 1), (1, 1, 1, 2), (2, 1), 2)),
    *({"shift": 1, "axis": axis} for axis in (1, -1)),
    *(
        {"pad_width": [[0, 0], [1, 0], [0, 2], channels], "mode": mode}
        for channels in ([0, 0], [1, 2])
        for mode in ("constant", "reflect")
    ),
    *({"indices_or_sections": sections, "axis": axis} for sections, axis in ((2, 1), ([2], -1))),
    *({"x_min": low, "x_max": high} for low, high in ((-0.2, 0.5), (0.2, 0.5), (-3.0, -0.5))),
    {"dtype": "float16"},
    {"pool_size": 2, "strides": 1, "padding": "same", "data_format": "channels_last"},
    {"output_size": 2, "data_format": "channels_last"},
    {"size": (2, 3), "data_format": "channels_last"},  # no larger than the images: such convolutions return noise
    {"newshape": (-1, 3, 4, 5)},
    {"threshold": 0.3, "value": 0.2},
    {"threshold": 0.3, "default_value": 0.2},
    {"ord": 1, "axis": 1},
    {"ord": 1, "axis": (1, 2)},
    {"num": 4, "axis": 1},
)
#: Arguments of a call: a tensor alone, with a number behind or before it, and with another tensor.
CALLS = ((Ref("x"),), (Ref("x"), 2.0), (Ref("x"), 0.5), (2.0, Ref("x")), (Ref("x"), Ref("y")))
#: Operations that take a list of tensors, are slow, or need arrays of certain shapes.
SKIPPED = frozenset(
    [
        *("Append", "Concatenate", "Dstack", "Hstack", "Meshgrid", "Stack", "Vstack"),
        *("ElasticTransform", "Nanmedian", "Nanpercentile", "Nanquantile", "Percentile", "Quantile", "Rot90"),
    ]
)
#: Operations that act on each channel alone in some calls, but for which networks have no use.
LEFT_OPAQUE = frozenset(
    [
        *("Angle", "Average", "BinaryCrossentropy", "CDist", "CategoricalCrossentropy", "Cross", "Diagonal", "Dot"),
        *("Fliplr", "GaussianBlur", "Geomspace", "Glu", "Imag", "Inner", "Kron", "LayerNorm", "Linspace", "Logspace"),
        *("Nextafter", "Norm", "Qr", "RMSNorm", "SVD"),
        *("Sparsemax", "Squeeze", "TakeAlongAxis", "Trace", "Tril", "Triu", "Unique", "Unstack", "View"),
        *("Cumprod", "Nancumprod", "Nanmax", "Nanprod", "Nansum"),
    ]
)


def calls():
    """Yields all calls that work: a node, and the function of one tensor."""
    for name, found in OPERATIONS.items():
        accepted = set(inspect.signature(found.__init__).parameters)
        numbers = len(inspect.signature(found.call).parameters) - 1
        for options in ARGUMENTS:
            if name in SKIPPED or not accepted.issuperset(options):
                continue
            for args in CALLS[: 1 if numbers == 1 else None]:
                call = _call(name, found, options, args)
                if call is not None:
                    yield call


def _call(name, found, options, args):
    try:
        operation = found(**options)
        config = operation.get_config()
    except (TypeError, ValueError, NotImplementedError):  # these options don't suit the operation
        return None

    def function(x):
        tensors = {"x": x, "y": tf.reverse(x, [1]) * 0.9}
        made = operation(*(tensors[one.name] if isinstance(one, Ref) else one for one in args))
        return keras.tree.flatten(made)[0]

    try:
        output = function(tf.constant(INPUTS))
    except Exception:  # whatever an operation says about arguments that it wasn't made for
        return None
    if (
        not isinstance(output, tf.Tensor)
        or not output.dtype.is_floating
        or not np.isfinite(output).all()
        or not len(output.shape)
    ):
        return None
    node = Node(name, "keras.src.ops", name, None, config, args, {}, ("x",), (), Kind.OPAQUE)
    shapes = (INPUTS.shape,) * sum(isinstance(one, Ref) for one in args)
    return replace(node, kind=kind_of_operation(node, shapes)), function


def observed(function, node) -> Kind:
    """Finds out by trying what a function of one tensor does to channels."""
    output = _run(function, INPUTS)
    changed = INPUTS.copy()
    changed[0] += 0.05
    if output.shape[0] != 2 or not np.allclose(_run(function, changed)[1:], output[1:], atol=1e-5):
        return Kind.OPAQUE  # images influence each other
    changed = INPUTS.copy()
    changed[..., 0] += 0.05
    channels = INPUTS.shape[-1]
    if output.shape[-1] == channels and np.allclose(_run(function, changed)[..., 1:], output[..., 1:], atol=1e-5):
        return _observed_alone(function)
    neutral = np.full((*INPUTS.shape[:-1], 3), neutral_value(node), "float32")
    try:
        longer = _run(function, np.concatenate([INPUTS, neutral], -1))
    except (tf.errors.InvalidArgumentError, ValueError, TypeError):
        return Kind.OPAQUE
    if longer.shape == (*output.shape[:-1], channels + 3) and np.allclose(longer[..., :channels], output, atol=1e-5):
        return Kind.UNIT_NORM if not longer[..., channels:].any() else Kind.OPAQUE
    scale = (channels + 3) / channels if counts_channels(node) else 1
    same = longer.shape == output.shape and np.allclose(longer * scale, output, atol=1e-5)
    return Kind.REDUCE if same else Kind.OPAQUE


def _observed_alone(function) -> Kind:
    if not _is_regular(function, np.zeros_like(INPUTS)):
        return Kind.FROM_ONES if _is_regular(function, np.ones_like(INPUTS)) else Kind.OPAQUE
    zeros = _run(function, np.zeros_like(INPUTS))
    return Kind.KEEPS_ZEROS if np.abs(zeros).max() < 1e-6 else Kind.SHIFTS_ZEROS


def _run(function, images) -> np.ndarray:
    return np.asarray(function(tf.constant(images)))


def _is_regular(function, images) -> bool:
    """Whether value and slope are finite."""
    inputs = tf.constant(images)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        output = function(inputs)
    try:
        slope = tape.gradient(output, inputs)
    except tf.errors.AbortedError:  # some CPUs lack kernels for the slopes of unusual convolutions
        slope = None
    return bool(np.isfinite(output).all() and (slope is None or np.isfinite(tf.convert_to_tensor(slope)).all()))


#: What an operation may be in the table if it is seen to do the key: masking once more does no harm.
SAFE = {
    Kind.KEEPS_ZEROS: {
        *(Kind.KEEPS_ZEROS, Kind.SHIFTS_ZEROS, Kind.FROM_ONES, Kind.POOL, Kind.ADD, Kind.MULTIPLY, Kind.COMBINE),
        *(Kind.CONCAT, Kind.RESHAPE),
    },
    Kind.SHIFTS_ZEROS: {Kind.SHIFTS_ZEROS, Kind.FROM_ONES},
    Kind.FROM_ONES: {Kind.FROM_ONES},
    Kind.REDUCE: {Kind.REDUCE, Kind.SELECT},
    Kind.UNIT_NORM: {Kind.UNIT_NORM},
    Kind.OPAQUE: {Kind.OPAQUE, Kind.SELECT, Kind.PAD},
}


def test_operations_do_what_the_table_says():
    seen = set()
    for node, function in calls():
        left = node.kind is Kind.OPAQUE
        if left and node.class_name in LEFT_OPAQUE:
            continue
        seen.add(node.class_name)
        found = observed(function, node)
        assert node.kind in SAFE[found], (node.class_name, node.config, node.args, node.kind, found)
    assert len(seen) > 120
    assert seen >= (_ELEMENTWISE.keys() | _COMBINING.keys() | _REDUCTIONS.keys() | _ALONG_AXES.keys())


#: Arguments that a layer may be made with, tried one after another.
OF_LAYERS = (
    {},
    *({"axis": axis} for axis in (1, (1, 2), -1)),
    *({"dims": dims} for dims in ((2, 1, 3), (1, 3, 2))),
    {"height": 2, "width": 2},
    {"pool_size": 2},
    {"output_size": 2},
    {"size": 2},
    {"scale": 2.0, "offset": 0.0},
    {"scale": 2.0, "offset": 1.0},
    {"rate": 0.2},
    {"stddev": 0.2},
    {"activation": "relu"},
    {"activation": "sigmoid"},
    {"shared_axes": (1, 2), "alpha_initializer": "ones"},
    {"negative_slope": 0.1, "threshold": 0.5},
    {"target_shape": (12, 5)},
)
LAYERS = {
    name: found
    for name, found in vars(keras.layers).items()
    if inspect.isclass(found) and issubclass(found, keras.layers.Layer)
}
#: Layers that need their weights, of which others know, or that networks have no use for.
SKIPPED_LAYERS = frozenset(
    [
        *("AutoContrast", "ContrastLimitedAdaptiveHistogramEqualization", "Equalization", "Layer", "Masking"),
        *("BatchNormalization", "Flatten", "LayerNormalization", "Normalization", "RMSNormalization"),
        "Solarization",
    ]
)


def _layer_call(name, options):
    try:
        layer = LAYERS[name](**options)
        output = layer(INPUTS, training=False) if layer._call_has_training_arg else layer(INPUTS)
    except Exception:  # whatever a layer says about arguments that it wasn't made for
        return None
    if (layer.weights and not options) or not isinstance(output, tf.Tensor) or not output.dtype.is_floating:
        return None
    kind = kind_of("keras.layers", type(layer).__name__, layer.get_config(), (INPUTS.shape,))
    node = Node(name, "keras.layers", type(layer).__name__, None, layer.get_config(), (), {}, ("x",), (), kind)
    return node, lambda x: layer(x, training=False) if layer._call_has_training_arg else layer(x)


def test_layers_do_what_the_table_says():
    seen = set()
    for name in sorted(LAYERS.keys() - SKIPPED_LAYERS):
        for options in OF_LAYERS:
            call = _layer_call(name, options)
            if call is None or is_augmentation("keras.layers", name, {}):
                continue
            node, function = call
            found = observed(function, node)
            seen.add(name)
            assert node.kind in SAFE[found], (name, options, node.kind, found)
    assert len(seen) > 30
