"""Residual networks for ImageNet, as plain Keras models.

Reference:
    He et al. 2016, table 1, https://arxiv.org/abs/1512.03385, with the stride in the 3x3 convolution and shortcuts that
    pool, as in Dong and Yang 2019, https://arxiv.org/abs/1905.09717
"""

from __future__ import annotations

import keras
from keras import layers

from tas_tf.zoo.blocks import add_stages, basic_block, bottleneck_block, classify, conv_bn, image_input

_STAGE_WIDTHS = (64, 128, 256, 512)
_BLOCKS = {
    18: (basic_block, (2, 2, 2, 2)),
    34: (basic_block, (3, 4, 6, 3)),
    50: (bottleneck_block, (3, 4, 6, 3)),
}


def resnet_imagenet(
    depth: int,
    *,
    zero_init: bool = False,
    num_classes: int = 1000,
    image_size: int | tuple[int, int] = 224,
    channels: int = 3,
) -> keras.Model:
    """Builds a residual network of a 7x7 convolution, max pooling and four stages that ends in logits.

    Args:
        depth: Number of layers with weights: 18, 34 or 50.
        zero_init: Starts the scale of each block's last BN at 0 (Goyal et al. 2017, https://arxiv.org/abs/1706.02677).
        num_classes: Number of logits.
        image_size: Height and width of the images, or one number for both.
        channels: Channels of the images.

    Raises:
        ValueError: No network has that depth.
    """
    if depth not in _BLOCKS:
        raise ValueError(f"`depth` must be one of {', '.join(map(str, _BLOCKS))}. Received: {depth}.")
    block, counts = _BLOCKS[depth]
    images = image_input(image_size, channels)
    x = conv_bn(images, _STAGE_WIDTHS[0], 7, strides=2, name="stem")
    x = layers.ReLU(name="stem_relu")(x)
    # ReLU outputs are at least 0, so a border of zeros changes no maximum.
    x = layers.ZeroPadding2D(1, name="stem_pool_pad")(x)
    x = layers.MaxPooling2D(3, strides=2, name="stem_pool")(x)
    x = add_stages(x, block, _STAGE_WIDTHS, counts, shortcut_bn=True, zero_init=zero_init)
    return keras.Model(images, classify(x, num_classes), name=f"resnet{depth}")
