"""The residual networks for small images, as plain Keras models.

Reference:
    He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385; shortcuts and initialisation as in
    Dong and Yang 2019, https://arxiv.org/abs/1905.09717
"""

from __future__ import annotations

import keras
from keras import layers

_STAGE_WIDTHS = (16, 32, 64)


def resnet_cifar(
    depth: int,
    *,
    num_classes: int = 10,
    image_size: int = 32,
    channels: int = 3,
) -> keras.Model:
    """Builds a residual network of 3x3 convolutions in three stages; it ends in logits.

    Args:
        depth: Layers with weights, 6 n + 2.
        num_classes: Number of logits.
        image_size: Height and width of the images.
        channels: Channels of the images.

    Raises:
        ValueError: `depth` is not 6 n + 2.
    """
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"`depth` must be 6 n + 2, such as 8, 20, 32, 44, 56 or 110. Received: {depth}.")
    images = keras.Input((image_size, image_size, channels), name="images")
    x = _conv_bn(images, _STAGE_WIDTHS[0], 3, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    for stage, width in enumerate(_STAGE_WIDTHS, 1):
        for block in range(1, blocks + 1):
            strides = 2 if stage > 1 and block == 1 else 1
            x = _basic_block(x, width, strides=strides, name=f"stage{stage}_block{block}")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    logits = layers.Dense(num_classes, kernel_initializer=initializer, name="classifier")(x)
    return keras.Model(images, logits, name=f"resnet{depth}")


def _basic_block(x, width: int, *, strides: int, name: str):
    identity = x
    x = _conv_bn(x, width, 3, strides=strides, name=f"{name}_conv1")
    x = layers.ReLU(name=f"{name}_relu1")(x)
    x = _conv_bn(x, width, 3, name=f"{name}_conv2")
    if strides > 1:
        # "same" matters for odd sizes only: it rounds up, as the convolution does.
        identity = layers.AveragePooling2D(2, padding="same", name=f"{name}_pool")(identity)
        identity = _conv(identity, width, 1, name=f"{name}_shortcut")
    x = layers.Add(name=f"{name}_add")([identity, x])
    return layers.ReLU(name=f"{name}_relu2")(x)


def _conv_bn(x, width: int, kernel_size: int, *, strides: int = 1, name: str):
    x = _conv(x, width, kernel_size, strides=strides, name=name)
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_bn")(x)


def _conv(x, width: int, kernel_size: int, *, strides: int = 1, name: str):
    if strides > 1:
        # One pixel on each side, whatever the size: "same" would pad an even size on one side only.
        x = layers.ZeroPadding2D(kernel_size // 2, name=f"{name}_pad")(x)
    return layers.Conv2D(
        width,
        kernel_size,
        strides=strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(2.0, mode="fan_out"),
        name=name,
    )(x)
