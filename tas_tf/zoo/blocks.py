"""What the residual networks of the zoo are built of: convolutions with BN, residual blocks, the classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
from keras import layers

#: Width of a bottleneck block's output, in widths of its 3x3 convolution.
EXPANSION = 4


def conv(x, width: int, kernel_size: int, *, strides: int = 1, name: str):
    """Adds a convolution without bias, fan-out He normal; a strided one is padded alike on all sides."""
    if strides > 1 and kernel_size > 1:
        # As many pixels on each side, whatever the size: "same" would pad an even size more at its end.
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
    """Adds a convolution and its BN, whose scale starts at 0 on request."""
    x = conv(x, width, kernel_size, strides=strides, name=name)
    return layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, gamma_initializer="zeros" if zero_init else "ones", name=f"{name}_bn"
    )(x)


def basic_block(x, width: int, *, strides: int = 1, shortcut_bn: bool, zero_init: bool = False, name: str):
    """Adds a block of two 3x3 convolutions, the stride in the first.

    Args:
        x: `[batch, height, width, channels]`.
        width: Filters of both convolutions.
        strides: 1 or 2.
        shortcut_bn: Whether a shortcut with a convolution has BN.
        zero_init: Starts the scale of the last BN at 0: the block begins as its shortcut.
        name: Prefix of the layers' names.
    """
    y = layers.ReLU(name=f"{name}_relu1")(conv_bn(x, width, 3, strides=strides, name=f"{name}_conv1"))
    y = conv_bn(y, width, 3, zero_init=zero_init, name=f"{name}_conv2")
    y = _add_shortcut(x, y, strides=strides, bn=shortcut_bn, name=name)
    return layers.ReLU(name=f"{name}_relu2")(y)


def bottleneck_block(x, width: int, *, strides: int = 1, shortcut_bn: bool, zero_init: bool = False, name: str):
    """Adds a block of a 1x1, a 3x3 and a 1x1 convolution, the stride in the second; it makes 4 `width` channels.

    Args:
        x: `[batch, height, width, channels]`.
        width: Filters of the first two convolutions.
        strides: 1 or 2.
        shortcut_bn: Whether a shortcut with a convolution has BN.
        zero_init: Starts the scale of the last BN at 0: the block begins as its shortcut.
        name: Prefix of the layers' names.
    """
    y = layers.ReLU(name=f"{name}_relu1")(conv_bn(x, width, 1, name=f"{name}_conv1"))
    y = layers.ReLU(name=f"{name}_relu2")(conv_bn(y, width, 3, strides=strides, name=f"{name}_conv2"))
    y = conv_bn(y, EXPANSION * width, 1, zero_init=zero_init, name=f"{name}_conv3")
    y = _add_shortcut(x, y, strides=strides, bn=shortcut_bn, name=name)
    return layers.ReLU(name=f"{name}_relu3")(y)


def add_stages(x, block: Callable, widths: Sequence[int], counts: Sequence[int], **options):
    """Adds stages of blocks; each stage but the first halves the image's sides in its first block.

    Args:
        x: Features, `[batch, height, width, channels]`.
        block: `basic_block` or `bottleneck_block`.
        widths: Filters of each stage.
        counts: Blocks of each stage.
        **options: Options of all blocks.
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
    """Adds a block's input to its branch, through pooling and a 1x1 convolution where their shapes differ."""
    channels = y.shape[-1]
    if strides > 1:
        # "same" matters for odd sizes only: it rounds up, as the convolution does.
        x = layers.AveragePooling2D(strides, padding="same", name=f"{name}_pool")(x)
    if strides > 1 or x.shape[-1] != channels:
        x = (conv_bn if bn else conv)(x, channels, 1, name=f"{name}_shortcut")
    return layers.Add(name=f"{name}_add")([x, y])
