"""Small networks that do all kinds of things to channels between their convolutions."""

import keras
from keras import layers, ops

from tests.networks import residual


def conv(x, filters, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", **options)(x)


def unit(x, filters, size=3, strides=1):
    return layers.ReLU()(layers.BatchNormalization()(conv(x, filters, size, strides=strides, use_bias=False)))


def end(x):
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def _shared_mlp(x):
    """CBAM's channel attention."""
    x = unit(x, 9)
    squeeze, excite = layers.Dense(7, activation="relu"), layers.Dense(9)
    pooled = [pool(keepdims=True)(x) for pool in (layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D)]
    return conv(x * ops.sigmoid(ops.add(*(excite(squeeze(one)) for one in pooled))), 8, 1)


def _siamese(x):
    inner = keras.Sequential([layers.Conv2D(9, 3), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(7, 1)])
    return conv(ops.absolute(inner(unit(x, 8)) - inner(unit(x, 8))), 8, 1)


def _recurrent(x):
    x, again, norm = conv(x, 8), layers.Conv2D(8, 3, padding="same"), layers.BatchNormalization()
    for _ in range(3):
        x = norm(again(x))
    return conv(x, 6, 1)


def _shared_in_blocks(x):
    x, inner = unit(x, 8), layers.Conv2D(8, 3, padding="same")
    for _ in range(3):
        x = layers.ReLU()(layers.Add()([x, inner(unit(x, 7))]))
    return x


def _shared_beyond_blocks(x):
    x, inner = unit(x, 8), layers.Conv2D(8, 3, padding="same")
    for block in range(3):
        x = layers.ReLU()(layers.Add()([x, inner(unit(x, 7)) if block else conv(unit(x, 7), 8)]))
    return inner(conv(x, 7))


def _spatial_attention(x):
    x = unit(x, 9)
    maps = layers.Concatenate()([ops.mean(x, -1, keepdims=True), ops.max(conv(x, 8), -1, keepdims=True)])
    return conv(x * conv(maps, 1, activation="sigmoid"), 8, 1)


def _normalised_blocks(x, norm):
    x = layers.ReLU()(norm()(conv(x, 8)))
    for filters in (8, 8, 12, 12):
        y = norm()(conv(layers.ReLU()(norm()(conv(x, 8))), filters))
        x = layers.ReLU()(layers.Add()([x if filters == x.shape[-1] else conv(x, filters, 1), y]))
    return conv(norm()(x), 8, 1)


def _option_a(x):
    x = residual(unit(x, 8), 8, 7)
    y = conv(unit(x, 7, strides=2), 14)
    x = layers.ReLU()(layers.Add()([ops.pad(x[:, ::2, ::2], [[0, 0], [0, 0], [0, 0], [3, 3]]), y]))
    return residual(x, 14, 6)


def _option_a_by_zeros(x):
    x = residual(unit(x, 8), 8, 7)
    y = conv(unit(x, 7, strides=2), 16)
    halved = layers.AveragePooling2D(2)(x)
    x = layers.ReLU()(layers.Add()([layers.Concatenate()([halved, ops.zeros_like(halved)]), y]))
    return residual(x, 16, 6)


def _gem(x):
    x = ops.power(ops.clip(conv(x, 9), 1e-3, 10.0), 3.0)
    return conv(ops.power(ops.mean(x, (1, 2), keepdims=True), 1 / 3), 8, 1)


def _global_response(x):
    x = conv(x, 9)
    norms = ops.norm(x, axis=(1, 2), keepdims=True)
    return conv(x + x * (norms / (ops.mean(norms, -1, keepdims=True) + 1e-6)), 8, 1)


def _shuffled_halves(x):
    """A block of ShuffleNet v2 without the shuffle: one half passes."""
    left, right = unit(x, 8), unit(x, 9)
    for _ in range(2):
        x = layers.Concatenate()([left, right])
        left, right = ops.split(x, [8], axis=-1)
        left, right = unit(right, 8), left
    return conv(layers.Concatenate()([left, right]), 8, 1)


def _cropped_and_padded(x):
    x = ops.image.crop_images(unit(x, 9), top_cropping=1, left_cropping=1, target_height=4, target_width=4)
    return conv(ops.image.pad_images(x, top_padding=1, left_padding=2, target_height=8, target_width=7), 8, 1)


@keras.saving.register_keras_serializable(package="tests.operations")
class TwoOutputs(layers.Layer):
    """Makes a tensor and a map."""

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return {"scaled": inputs * self.scale, "map": ops.mean(inputs, -1, keepdims=True)}


def _several_outputs(x):
    made = TwoOutputs()(conv(unit(x, 8), 9))
    return conv(unit(made["map"], 9), 8, 1) + conv(made["scaled"], 8, 1)


def _only_the_second_output(x):
    return conv(unit(TwoOutputs()(conv(unit(x, 8), 9))["map"], 9), 8, 1)


_relu, _pool = layers.ReLU(), layers.MaxPooling2D(2, strides=1, padding="same")
#: Networks between images and the classifier, with the number of widths that are searched.
NETWORKS = {
    "ReLU called three times": (lambda x: _relu(conv(_pool(_relu(conv(_pool(_relu(conv(x, 8))), 9))), 7)), 3),
    "shared MLP": (_shared_mlp, 3),
    "siamese branches": (_siamese, 4),
    "a convolution applied to its own output": (_recurrent, 2),
    "shared in all blocks": (_shared_in_blocks, 3),
    "shared with what is outside": (_shared_beyond_blocks, 5),
    "shared transposed convolution": (
        lambda x: conv(ops.multiply(*map(layers.Conv2DTranspose(9, 2), [conv(x, 7), unit(x, 7)])), 8, 1),
        3,
    ),
    "shared grouped convolution": (
        lambda x: conv(ops.multiply(*map(layers.Conv2D(8, 3, groups=4), [conv(x, 8), unit(x, 8)])), 8, 1),
        2,
    ),
    "shared with frozen channels": (lambda x: ops.add(*map(layers.Conv2D(8, 1), [x, conv(x, 3)])), 1),
    "spatial attention": (_spatial_attention, 3),
    "shortcut with zeros on both sides": (_option_a, 7),
    "shortcut with zeros behind": (_option_a_by_zeros, 7),
    "generalised mean": (_gem, 2),
    "global response normalisation": (_global_response, 2),
    "halves": (_shuffled_halves, 5),
    "several outputs": (_several_outputs, 3),
    "only the second output": (_only_the_second_output, 3),
    "split in the middle": (lambda x: conv(ops.add(*ops.split(unit(conv(x, 8), 8), 2, -1)), 8, 1), 2),
    "split into positions": (lambda x: conv(ops.maximum(*ops.split(unit(x, 8), 2, 1)), 8, 1), 2),
    "slice of channels": (lambda x: conv(layers.Concatenate()([conv(x, 7), conv(x, 9)])[..., :7], 8, 1), 3),
    "slice through channels": (lambda x: conv(layers.Concatenate()([conv(x, 7), conv(x, 9)])[..., 3:], 8, 1), 2),
    "slice of positions": (lambda x: conv(unit(x, 9)[:, 1::2, -3:], 8, 1), 2),
    "one row": (lambda x: layers.Reshape((1, 6, 9))(unit(x, 9)[:, 0]) * conv(x, 1), 1),
    "resized images": (lambda x: conv(ops.image.resize(unit(x, 9), (4, 5)), 8, 1), 2),
    "cropped and padded images": (_cropped_and_padded, 2),
    "instance normalisation": (lambda x: conv(layers.GroupNormalization(-1)(conv(x, 9)), 8, 1), 2),
    "group normalisation": (lambda x: conv(layers.GroupNormalization(4)(conv(x, 12)), 8, 1), 2),
    "group normalisation of a concatenation": (
        lambda x: conv(layers.GroupNormalization(6)(layers.Concatenate()([conv(x, 8), conv(x, 4)])), 8, 1),
        3,
    ),
    "group normalisation of multiplied channels": (
        lambda x: conv(layers.GroupNormalization(4)(layers.DepthwiseConv2D(3, depth_multiplier=3)(conv(x, 8))), 8, 1),
        2,
    ),
    "blocks with group normalisation": (lambda x: _normalised_blocks(x, lambda: layers.GroupNormalization(4)), 10),
    "blocks divided by root mean squares": (lambda x: _normalised_blocks(x, layers.RMSNormalization), 10),
    "shared group normalisation": (lambda x: ops.add(*map(layers.GroupNormalization(2), [conv(x, 8), conv(x, 8)])), 1),
    "root mean square of a concatenation": (
        lambda x: conv(layers.RMSNormalization()(layers.Concatenate()([conv(x, 9), x])), 8, 1),
        2,
    ),
    "layers as activations": (
        lambda x: conv(conv(conv(x, 9, activation=layers.LeakyReLU(0.1)), 8, activation=layers.ReLU(6, 0.1, 1)), 8, 1),
        3,
    ),
    "zeros around": (lambda x: conv(ops.pad(unit(x, 9), [[0, 0], [0, 0], [0, 0], [1, 2]]), 8, 1), 2),
    "sum of squares": (lambda x: conv(ops.sum(ops.square(unit(x, 9)), -1, keepdims=True) * conv(x, 7), 8, 1), 3),
    "largest and smallest": (lambda x: conv((y := conv(x, 9)) - ops.max(y, -1, keepdims=True), 8, 1), 2),
    "mean of all": (lambda x: conv((y := conv(x, 9)) - ops.mean(y, (1, 2, 3), keepdims=True), 8, 1), 2),
    "unit length": (lambda x: conv(layers.UnitNormalization()(conv(x, 9)) + ops.normalize(conv(x, 9)), 8, 1), 2),
    "quotient": (lambda x: conv(conv(x, 9) / (1.5 + ops.sigmoid(conv(x, 9))), 8, 1), 2),
    "reciprocal": (lambda x: conv(2.0 / (1.5 + ops.sigmoid(conv(x, 9))), 8, 1), 2),
    "root and logarithm": (lambda x: conv(ops.log(ops.sqrt(ops.exp(conv(x, 9)))), 8, 1), 2),
    "stacked": (lambda x: conv(ops.max(ops.stack([conv(x, 9), unit(x, 9)], axis=1), axis=1), 8, 1), 2),
    "transposed": (lambda x: conv(layers.Permute((2, 1, 3))(ops.transpose(unit(x, 9), (0, 2, 1, 3))), 8, 1), 2),
    "channel shuffle": (
        lambda x: conv(layers.Reshape((6, 6, 8))(ops.swapaxes(ops.reshape(unit(x, 8), (-1, 6, 6, 2, 4)), 3, 4)), 8, 1),
        1,
    ),
    "logsumexp": (lambda x: conv(conv(x, 9) - ops.logsumexp(conv(x, 7), -1, keepdims=True), 8, 1), 3),
    "softmax of positions": (lambda x: conv(unit(x, 9) * layers.Softmax(axis=(1, 2))(conv(x, 9)), 8, 1), 2),
}


def make_network(name: str, size: int = 6) -> keras.Model:
    """Builds one of `NETWORKS`, with a classifier."""
    images = keras.Input((size, size, 3))
    return keras.Model(images, end(NETWORKS[name][0](images)))
