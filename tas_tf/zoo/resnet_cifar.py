"""Residual networks for small images, as plain Keras models.

Reference:
    He et al. 2016, section 4.2, https://arxiv.org/abs/1512.03385; shortcuts and initialisation as in
    Dong and Yang 2019, https://arxiv.org/abs/1905.09717
"""

from __future__ import annotations

import keras
from keras import layers

from tas_tf.zoo.blocks import add_stages, basic_block, bottleneck_block, classify, conv_bn, image_input

_STAGE_WIDTHS = (16, 32, 64)


def resnet_cifar(
    depth: int,
    *,
    bottleneck: bool = False,
    num_classes: int = 10,
    image_size: int | tuple[int, int] = 32,
    channels: int = 3,
) -> keras.Model:
    """Builds a residual network of three stages that ends in logits; its shortcuts have no BN.

    Args:
        depth: Number of layers with weights: 6 n + 2, or 9 n + 2 with bottleneck blocks.
        bottleneck: Whether blocks have three convolutions, as in ResNet-164, instead of two.
        num_classes: Number of logits.
        image_size: Height and width of the images, or one number for both.
        channels: Channels of the images.

    Raises:
        ValueError: No network has that depth.
    """
    blocks, rest = divmod(depth - 2, 9 if bottleneck else 6)
    if rest or blocks < 1:
        expected = "9 n + 2, such as 164, with bottleneck blocks" if bottleneck else "6 n + 2, such as 8, 20, 56 or 110"
        raise ValueError(f"`depth` must be {expected}. Received: {depth}.")
    block = bottleneck_block if bottleneck else basic_block
    images = image_input(image_size, channels)
    x = layers.ReLU(name="stem_relu")(conv_bn(images, _STAGE_WIDTHS[0], 3, name="stem"))
    x = add_stages(x, block, _STAGE_WIDTHS, [blocks] * len(_STAGE_WIDTHS), shortcut_bn=False)
    return keras.Model(images, classify(x, num_classes), name=f"resnet{depth}")
