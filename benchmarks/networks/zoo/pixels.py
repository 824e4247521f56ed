"""Networks with outputs for each pixel, and the pyramids and decoders that they are made of."""

from __future__ import annotations

from keras import layers, ops

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.parts import conv, conv_norm, depthwise_unit, unit

PIXELS = Catalogue()


def _down(x, widths=(16, 24, 32)):
    """The encoder of a U-Net: features before each pooling, and the last ones."""
    skipped = []
    for filters in widths:
        skipped.append(unit(unit(x, filters), filters))
        x = layers.MaxPooling2D()(skipped[-1])
    return skipped, unit(x, 48)


@PIXELS.add("U-Net by Conv2DTranspose", "3 classes for each pixel")
def _u_net_transposed(x):
    skipped, x = _down(x)
    for one in reversed(skipped):
        x = layers.Conv2DTranspose(one.shape[-1], 2, strides=2, activation="relu")(x)
        x = unit(layers.Concatenate()([one, x]), one.shape[-1])
    return conv(x, 3, 1, activation="softmax")


@PIXELS.add("U-Net by UpSampling2D", "one sigmoid for each pixel")
def _u_net_upsampling(x):
    skipped, x = _down(x)
    for one in reversed(skipped):
        x = layers.UpSampling2D(interpolation="bilinear")(x)
        x = unit(layers.Concatenate()([x, one]), one.shape[-1])
    return conv(x, 1, 1, activation="sigmoid")


@PIXELS.add("Attention U-Net", "gates on the skip connections")
def _attention_u_net(x):
    skipped, x = _down(x, (12, 16))
    for one in reversed(skipped):
        x = unit(layers.UpSampling2D()(x), one.shape[-1])
        gate = layers.ReLU()(layers.Add()([conv_norm(x, 8, 1), conv_norm(one, 8, 1)]))
        gate = layers.Activation("sigmoid")(conv_norm(gate, 1, 1))
        x = unit(layers.Concatenate()([x, layers.Multiply()([one, gate])]), one.shape[-1])
    return conv(x, 3, 1)


@PIXELS.add("U-Net of Keras's segmentation tutorial", "Xception-style blocks, residual decoder")
def _tutorial(x):
    x = unit(x, 16, strides=2)
    previous = x
    for filters in (24, 32):
        for _ in range(2):
            x = layers.Activation("relu")(x)
            x = layers.BatchNormalization()(layers.SeparableConv2D(filters, 3, padding="same")(x))
        x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
        x = previous = layers.add([x, conv(previous, filters, 1, 2)])
    for filters in (32, 24, 16):
        for _ in range(2):
            x = layers.Activation("relu")(x)
            x = layers.BatchNormalization()(layers.Conv2DTranspose(filters, 3, padding="same")(x))
        x = layers.UpSampling2D(2)(x)
        x = previous = layers.add([x, conv(layers.UpSampling2D(2)(previous), filters, 1)])
    return conv(x, 3, activation="softmax")


@PIXELS.add("DeepLab", "dilated convolutions, image-level pooling, bilinear resizing by `ops`")
def _deeplab(x):
    low = unit(x, 16, strides=2)
    x = unit(unit(low, 24, strides=2), 32, dilation_rate=2)
    pooled = unit(layers.GlobalAveragePooling2D(keepdims=True)(x), 16, 1)
    branches = [unit(x, 16, 1), *(unit(x, 16, dilation_rate=rate) for rate in (2, 4))]
    branches.append(layers.UpSampling2D(x.shape[1:3], interpolation="bilinear")(pooled))
    x = ops.image.resize(unit(layers.Concatenate()(branches), 24, 1), (16, 16))
    x = unit(layers.Concatenate()([x, unit(low, 8, 1)]), 24)
    return layers.Softmax()(layers.UpSampling2D(2, interpolation="bilinear")(conv(x, 3, 1)))


@PIXELS.add("PSPNet", "a pyramid of average poolings, resized and concatenated")
def _pspnet(x):
    x = unit(unit(x, 16, strides=2), 24)
    levels = [x]
    for size in (16, 8, 4):
        level = unit(layers.AveragePooling2D(size)(x), 8, 1)
        levels.append(layers.UpSampling2D(size, interpolation="bilinear")(level))
    x = conv(unit(layers.Concatenate()(levels), 24), 3, 1)
    return layers.UpSampling2D(2, interpolation="bilinear")(x)


@PIXELS.add("Feature pyramid", "three scales added from coarse to fine, with a classifier")
def _fpn(x):
    scales = []
    for filters in (16, 24, 32):
        x = unit(unit(x, filters, strides=2), filters)
        scales.append(x)
    top = conv(scales.pop(), 16, 1)
    merged = [top]
    while scales:
        top = layers.Add()([layers.UpSampling2D()(top), conv(scales.pop(), 16, 1)])
        merged.append(top)
    pooled = [layers.GlobalAveragePooling2D()(conv(one, 16, activation="relu")) for one in merged]
    return layers.Dense(10)(layers.Concatenate()(pooled))


@PIXELS.add("Fast segmentation", "depthwise encoder, a decoder of additions", shape=(48, 64, 3))
def _fast(x):
    half = unit(x, 12, strides=2)
    quarter = unit(depthwise_unit(half, strides=2), 24, 1)
    x = unit(depthwise_unit(quarter, strides=2), 32, 1)
    x = unit(depthwise_unit(x), 24, 1)
    x = layers.Add()([layers.UpSampling2D()(x), quarter])
    x = layers.Add()([layers.UpSampling2D()(unit(x, 12, 1)), half])
    return layers.Conv2DTranspose(4, 2, strides=2, activation="softmax")(x)


@PIXELS.add("Autoencoder", "reconstructs its images, one sigmoid for each value", task="regression")
def _autoencoder(x):
    for filters in (16, 8):
        x = layers.MaxPooling2D()(conv(x, filters, activation="relu"))
    for filters in (8, 16):
        x = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="relu")(x)
    return conv(x, 3, activation="sigmoid")


@PIXELS.add("Super-resolution", "EDSR blocks, sub-pixel shuffle by Reshape and Permute", task="regression")
def _super_resolution(x):
    x = first = conv(x, 16)
    for _ in range(3):
        x = layers.Add()([x, conv(conv(x, 16, activation="relu"), 16) * 0.1])
    x = conv(layers.Add()([x, first]), 12)
    x = layers.Permute((1, 3, 2, 4, 5))(layers.Reshape((32, 32, 2, 2, 3))(x))
    return layers.Reshape((64, 64, 3))(x)
