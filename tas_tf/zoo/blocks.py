"""Building blocks of the zoo's residual networks: convolutions with BN, residual blocks and the classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import layers

#: Output channels of a bottleneck block for each filter of its 3x3 convolution.
EXPANSION = 4


def image_input(image_size: int | tuple[int, int], channels: int):
    """Returns the input of a network for images of a height and width, or of one number for both."""
    size = (image_size, image_size) if isinstance(image_size, int) else image_size
    return keras.Input((*size, channels), name="images")


def conv(x, width: int, kernel_size: int, *, strides: int = 1, name: str):
    """Adds a convolution without bias (He normal by fan-out); strided ones are padded equally on all sides."""
    if strides > 1 and kernel_size > 1:
        # Pads both sides equally at any image size; "same" pads even sizes more at the end.
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


def conv_bn(x, width: int, kernel_size: int, *, strides: int = 1, zero_init: bool = False, name: str):
    """Adds a convolution and BN, whose scale starts at 0 if `zero_init` is set."""
    x = conv(x, width, kernel_size, strides=strides, name=name)
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer="zeros" if zero_init else "ones", name=f"{name}_bn"
    )(x)


def basic_block(x, width: int, *, strides: int = 1, shortcut_bn: bool, zero_init: bool = False, name: str):
    """Adds a block of two 3x3 convolutions; the first one has the stride.

    Args:
        x: `[batch, height, width, channels]`.
        width: Filters of both convolutions.
        strides: 1 or 2.
        shortcut_bn: Whether a shortcut with a convolution has BN.
        zero_init: Starts the last BN's scale at 0, so that the block begins as its shortcut.
        name: Prefix of the layers' names.
    """
    y = layers.ReLU(name=f"{name}_relu1")(conv_bn(x, width, 3, strides=strides, name=f"{name}_conv1"))
    y = conv_bn(y, width, 3, zero_init=zero_init, name=f"{name}_conv2")
    y = _add_shortcut(x, y, strides=strides, bn=shortcut_bn, name=name)
    return layers.ReLU(name=f"{name}_relu2")(y)


def bottleneck_block(x, width: int, *, strides: int = 1, shortcut_bn: bool, zero_init: bool = False, name: str):
    """Adds a block of 1x1, 3x3 (with the stride) and 1x1 convolutions; it has `4 * width` output channels.

    Args:
        x: `[batch, height, width, channels]`.
        width: Filters of the first two convolutions.
        strides: 1 or 2.
        shortcut_bn: Whether a shortcut with a convolution has BN.
        zero_init: Starts the last BN's scale at 0, so that the block begins as its shortcut.
        name: Prefix of the layers' names.
    """
    y = layers.ReLU(name=f"{name}_relu1")(conv_bn(x, width, 1, name=f"{name}_conv1"))
    y = layers.ReLU(name=f"{name}_relu2")(conv_bn(y, width, 3, strides=strides, name=f"{name}_conv2"))
    y = conv_bn(y, EXPANSION * width, 1, zero_init=zero_init, name=f"{name}_conv3")
    y = _add_shortcut(x, y, strides=strides, bn=shortcut_bn, name=name)
    return layers.ReLU(name=f"{name}_relu3")(y)


def add_stages(x, block: Callable, widths: Sequence[int], counts: Sequence[int], **options):
    """Adds stages of blocks; the first block of each stage but the first halves height and width.

    Args:
        x: Features, `[batch, height, width, channels]`.
        block: `basic_block` or `bottleneck_block`.
        widths: Filters of each stage.
        counts: Blocks of each stage.
        **options: Options passed to every block.
    """
    for stage, (width, count) in enumerate(zip(widths, counts, strict=True), 1):
        for number in range(1, count + 1):
            strides = 2 if stage > 1 and number == 1 else 1
            x = block(x, width, strides=strides, name=f"stage{stage}_block{number}", **options)
    return x


def classify(x, num_classes: int):
    """Adds global average pooling and the logits."""
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    initializer = keras.initializers.RandomNormal(stddev=0.01)
    return layers.Dense(num_classes, kernel_initializer=initializer, name="classifier")(x)


def _add_shortcut(x, y, *, strides: int, bn: bool, name: str):
    """Adds a block's input to its branch, after pooling and a 1x1 convolution if their shapes differ."""
    channels = y.shape[-1]
    if strides > 1:
        # "same" matters for odd sizes only: it rounds up, as the convolution does.
        x = layers.AveragePooling2D(strides, padding="same", name=f"{name}_pool")(x)
    if strides > 1 or x.shape[-1] != channels:
        x = (conv_bn if bn else conv)(x, channels, 1, name=f"{name}_shortcut")
    return layers.Add(name=f"{name}_add")([x, y])
