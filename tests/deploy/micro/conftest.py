from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from tas_tf.data.preprocessing import Preprocessing
from tas_tf.deploy.metadata import Metadata
from tas_tf.deploy.saved_model import serving_model, write_frozen
from tas_tf.deploy.tflite import write_tflite


def plain() -> keras.Model:
    """The operators of residual networks."""
    layers = keras.layers
    images = keras.Input((16, 16, 3))
    x = layers.ReLU(6.0)(layers.Conv2D(8, 3, strides=2, padding="same")(images))
    x = layers.Add()([x, layers.ReLU()(layers.DepthwiseConv2D(3, padding="same")(x))])
    x = layers.Conv2D(12, 1, activation="relu")(layers.MaxPooling2D()(x))
    return keras.Model(images, layers.Dense(4, activation="softmax")(layers.GlobalAveragePooling2D()(x)))


def per_pixel() -> keras.Model:
    """A long skip, and an operator whose kernel needs more memory than its tensors."""
    layers = keras.layers
    images = keras.Input((16, 16, 3))
    skip = layers.Conv2D(6, 3, padding="same", activation="relu")(images)
    x = layers.Conv2D(12, 3, padding="same", activation="relu")(layers.MaxPooling2D()(skip))
    x = layers.Concatenate()([skip, layers.Conv2DTranspose(6, 2, strides=2)(x)])
    return keras.Model(images, layers.Conv2D(3, 1)(layers.UpSampling2D(2, interpolation="bilinear")(x)))


def squeezing() -> keras.Model:
    """Attention over channels, several outputs, a maximum over axes."""
    layers = keras.layers
    images = keras.Input((16, 16, 3), name="images")
    x = layers.Activation("hard_swish")(layers.Conv2D(8, 3, padding="same")(images))
    gate = layers.Dense(8, activation="sigmoid")(layers.GlobalAveragePooling2D()(x))
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])
    outputs = {"most": layers.GlobalMaxPooling2D()(x), "score": layers.Dense(2)(layers.Flatten()(x))}
    return keras.Model(images, outputs)


NETWORKS = {"plain": plain, "per_pixel": per_pixel, "squeezing": squeezing}
METADATA = Metadata("mine", ['a "cat"', "dog\\", "é", "*/"], (16, 16, 3), Preprocessing(), False, True)


@pytest.fixture(scope="session")
def make_int8(tmp_path_factory) -> Callable[[str], Path]:
    """Int8 files of the networks above, made once."""
    folder, made = tmp_path_factory.mktemp("micro"), {}
    images = np.random.default_rng(0).normal(size=(24, 16, 16, 3)).astype(np.float32)

    def make(name: str) -> Path:
        if name not in made:
            frozen = write_frozen(serving_model(NETWORKS[name]()), folder / name)
            made[name] = write_tflite(
                frozen,
                folder / f"{name}.tflite",
                format="int8",
                calibration=images,
                metadata=METADATA if name == "plain" else None,
            )
        return made[name]

    return make
