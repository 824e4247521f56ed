"""Names of layers in files: the bytes of each operator are those of the weights of the layer that it is named after."""

from collections.abc import Callable

import keras
import numpy as np
import pytest

from tas_tf.deploy.layer_names import name_operators
from tas_tf.deploy.layers import layers_of_file
from tas_tf.deploy.tflite import export_tflite

WIDTHS = {"fp32": 4, "int8": 1}


def chain(*names: str | None) -> keras.Model:
    """Convolutions of different sizes, and two dense layers without names."""
    layers = keras.layers
    x = images = keras.Input((8, 8, 3))
    for number, name in enumerate(names, 1):
        x = layers.ReLU()(layers.Conv2D(4 * number, 3, padding="same", **({"name": name} if name else {}))(x))
    x = layers.Dense(7, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return keras.Model(images, layers.Dense(5)(x))


def sequential() -> keras.Model:
    layers = keras.layers
    images = keras.Input((8, 8, 3))
    convolutions = [layers.Conv2D(4, 3), layers.DepthwiseConv2D(3), layers.Conv2D(6, 1), layers.Conv2D(7, 1)]
    return keras.Sequential([images, *convolutions, layers.Flatten(), layers.Dense(5)])


def nested() -> keras.Model:
    """Models in models whose layers have the same names; one of the models is called twice."""
    layers = keras.layers

    def model(name: str, sizes: tuple[int, ...], *inner: keras.Model, channels: int = 4) -> keras.Model:
        x = images = keras.Input((8, 8, channels))
        for number, size in enumerate(sizes):
            layer = layers.Conv2D(
                size, 3, padding="same", activation="relu", name=f"conv_{number}" if number else "conv"
            )
            x = layer(x)
            for one in inner[number : number + 1]:
                x = one(one(x))
        return keras.Model(images, x, name=name)

    return model("net", (4, 9, 2), model("block", (5, 4), model("block_1", (5,), channels=5)), channels=3)


def shared() -> keras.Model:
    layers = keras.layers
    images = keras.Input((8, 8, 4))
    one, other = layers.Conv2D(4, 3, padding="same"), layers.Conv2D(6, 3, padding="same")
    return keras.Model(images, other(layers.ReLU()(one(layers.ReLU()(one(images))))))


NETWORKS = {
    "unnamed": lambda: chain(None, None, None),
    "numbered": lambda: chain("conv", "conv_1", "conv_2"),
    "backwards": lambda: chain("conv_2", "conv_1", "conv"),
    "numbered twice": lambda: chain("conv_1", "conv_1_2", "conv_1_1"),
    "sequential": sequential,
    "nested": nested,
    "shared": shared,
}


def sizes_of(model: keras.Model, width: int, *names: str) -> dict[str, tuple[int, int]]:
    """Bytes of each layer's kernel and bias, which has 32 bits. Layers in models have their names before them."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= sizes_of(layer, width, *names, layer.name)
        elif layer.weights:
            kernel, bias = (int(np.prod(weight.shape)) for weight in layer.weights)
            found["/".join((*names, layer.name))] = width * kernel, 4 * bias
    return found


@pytest.mark.parametrize("format", WIDTHS)
@pytest.mark.parametrize("make", NETWORKS.values(), ids=[*NETWORKS])
def test_each_layer_has_the_bytes_of_its_own_weights(make: Callable[[], keras.Model], format, tmp_path):
    keras.backend.clear_session()  # layers without names are numbered from the start
    model, rng = make(), np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    images = rng.normal(size=(8, *model.input_shape[1:])).astype(np.float32)
    options = {"calibration": images} if format == "int8" else {}
    path = export_tflite(model, tmp_path / "net.tflite", format=format, **options)
    rows = layers_of_file(path, model)[:-1]
    sizes = sizes_of(model, WIDTHS[format])
    assert {row.name for row in rows} == sizes.keys()
    for name, (kernel, bias) in sizes.items():
        own = [row.bytes for row in rows if row.name == name]
        # In int8, each call of a layer has its own bias: its scale is that of the call's input.
        assert sum(own) in {kernel + count * bias for count in range(1, len(own) + 1 if format == "int8" else 2)}, name


def stub(*names: str) -> keras.Model:
    return keras.Sequential([keras.Input((4, 4, 2)), *(keras.layers.Conv2D(2, 1, name=name) for name in names)])


@pytest.mark.parametrize(
    ("texts", "names"),
    [
        (["net/stem_relu_1/Relu;net/stem_1/convolution", "net/stem_1_2/convolution"], ["stem", "stem_1"]),
        (["net/stem_relu/Relu;net/stem/Conv2D", "net/stem_1/Conv2D"], ["stem", "stem_1"]),
        (["net/quant_stem/Conv2D", "net/quant_stem_1/Conv2D"], ["stem", "stem_1"]),
        (["net/quant_stem_1/Conv2D", "net/quant_stem_1_2/Conv2D"], ["stem", "stem_1"]),
        (["net/stem_1/convolution", "StatefulPartitionedCall:0"], ["stem", "stem_1"]),
        (["arith.constant", "StatefulPartitionedCall:0"], ["", ""]),
    ],
)
def test_all_names_of_a_file_are_spelt_in_one_way(texts, names):
    assert name_operators([[text] for text in texts], stub("stem", "stem_1")) == names
