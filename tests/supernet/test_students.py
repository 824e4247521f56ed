"""The supernet is its students: at one-hot choices it computes what the student of that shape computes."""

import keras
import numpy as np
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from keras import layers
from keras.src.applications import resnet
from keras.src.applications.convnext import LayerScale

from benchmarks.random_cases import can_be_searched, check, draw_case
from tas_tf.space.shape import Shape
from tas_tf.zoo.loading import load_network
from tests.networks import BODIES, make
from tests.parts import slow_except
from tests.supernets import Comparison, space_of


def random_images(count, size, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size, size, 3)).astype("float32")


def check_random_shapes(model, count):
    size = model.input.shape[1]
    comparison = Comparison(space_of(model, couple_trunk=False), random_images(8, size), compiled=True)
    for seed in range(count):
        comparison.check(Shape.random(comparison.space, seed))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("resnet20", 16, 8),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (("resnet20", 16, 20), ("ResNet50V2", 32, 5), ("MobileNetV2", 32, 8))
        ),
    ],
)
def test_random_shapes_of_known_networks(name, size, count):
    check_random_shapes(load_network(name, image_size=size), count)


@pytest.mark.slow
def test_random_shapes_of_shallow_resnets_with_preactivation():
    """ResNet50V2 has four such stages, of three to six blocks."""

    def stages(x):
        x = resnet.stack_residual_blocks_v2(x, 16, 2, name="conv2")
        return resnet.stack_residual_blocks_v2(x, 24, 3, stride1=1, name="conv3")

    model = resnet.ResNet(stages, preact=True, use_bias=True, weights=None, input_shape=(32, 32, 3), classes=10)
    check_random_shapes(model, 5)


def assert_is_its_students(model, seed, **options):
    comparison = Comparison(space_of(model, **options), random_images(8, model.input.shape[1]), seed=seed)
    comparison.check(Shape.random(comparison.space, seed))


@pytest.mark.parametrize("name", BODIES)
def test_small_networks_of_every_kind(name):
    assert_is_its_students(make(name), seed=1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("residual", {"axes": "width"}),
        ("residual", {"axes": "depth"}),
        ("residual", {"couple_trunk": True}),
        ("preactivation", {"width_divisor": 4}),
        ("flatten", {"search_dense": True}),
    ],
    ids=str,
)
def test_spaces_of_every_kind(name, options):
    assert_is_its_students(make(name), seed=2, **options)


def end(x):
    return layers.Dense(4)(layers.GlobalAveragePooling2D()(x))


def conv(x, filters, size=3, **options):
    return layers.Conv2D(filters, size, padding="same", **options)(x)


def normed(x):
    return layers.ReLU()(layers.BatchNormalization()(x))


#: Where zeros don't stay zeros, or where something reaches channels that are inactive.
TRAPS = {
    "map of one channel added": lambda x: conv(layers.Add()([conv(x, 10), conv(x, 1)]), 8, 1),
    "map of one channel subtracted": lambda x: conv(conv(x, 10) - conv(x, 1), 8, 1),
    "map of one channel in a maximum": lambda x: conv(layers.Maximum()([conv(x, 10), conv(x, 1)]), 8, 1),
    "added to all places": lambda x: conv(conv(x, 10) + layers.GlobalMaxPooling2D(keepdims=True)(conv(x, 10)), 8, 1),
    "depthwise with bias": lambda x: conv(layers.DepthwiseConv2D(3)(conv(x, 9)), 8, 1),
    "depthwise with sigmoid": lambda x: conv(layers.DepthwiseConv2D(3, activation="sigmoid")(conv(x, 9)), 8, 1),
    "exponential": lambda x: conv(layers.Activation("exponential")(conv(x, 9)), 8, 1),
    "shifted ReLU": lambda x: conv(layers.ReLU(negative_slope=0.1, threshold=0.5)(conv(x, 9)), 8, 1),
    "rescaling": lambda x: conv(layers.Rescaling(2.0, offset=1.0)(conv(x, 9)), 8, 1),
    "slopes by place": lambda x: conv(layers.PReLU(alpha_initializer="uniform")(conv(x, 9)), 8, 1),
    "BN behind an activation": lambda x: conv(layers.BatchNormalization()(conv(x, 9, activation="sigmoid")), 8, 1),
    "BN with two readers": lambda x: conv(layers.Concatenate()([y := conv(x, 9), layers.BatchNormalization()(y)]), 8),
    "BN of tiny epsilon": lambda x: conv(layers.BatchNormalization(epsilon=1e-8)(layers.ReLU()(conv(x, 9))), 8, 1),
    "synchronized BN": lambda x: conv(layers.BatchNormalization(synchronized=True)(layers.ReLU()(conv(x, 9))), 8, 1),
    "LN without scale": lambda x: conv(layers.LayerNormalization(scale=False)(conv(x, 9)), 8, 1),
    "LN of a concatenation": lambda x: conv(layers.LayerNormalization()(layers.Concatenate()([conv(x, 9), x])), 8),
    "concatenated with itself": lambda x: conv(layers.Concatenate()([y := conv(x, 7), y, conv(x, 5), y]), 8, 1),
    "gated by what is frozen": lambda x: conv(conv(x, 10) * layers.Softmax()(conv(x, 10)), 8, 1),
    "quotient": lambda x: conv(layers.GlobalAveragePooling2D(keepdims=True)(conv(x, 10)) / 3.0 - 1.0, 8, 1),
    "dense on images": lambda x: layers.Dense(9)(layers.BatchNormalization()(layers.Dense(11)(x))),
    "scale of ConvNeXt": lambda x: conv(LayerScale(1.0, 9, name="scale")(layers.LayerNormalization()(conv(x, 9))), 8),
    "transposed": lambda x: conv(conv(layers.Conv2DTranspose(6, 2, strides=2)(conv(x, 9)), 10), 8),
    "transposed with gaps": lambda x: conv(normed(layers.Conv2DTranspose(9, 1, strides=2)(conv(x, 7))), 8),
    "transposed and padded": lambda x: conv(
        normed(
            layers.Conv2DTranspose(9, 3, strides=2, padding="same", output_padding=0, activation="tanh")(conv(x, 7))
        ),
        8,
    ),
    "groups with bias": lambda x: conv(normed(conv(normed(conv(x, 12)), 12, groups=4)), 8, 1),
    "groups with sigmoid": lambda x: conv(conv(conv(x, 12), 8, groups=4, activation="sigmoid"), 8, 1),
    "groups in groups": lambda x: conv(conv(conv(conv(x, 24), 24, groups=4), 16, groups=8), 8, 1),
    "groups of a concatenation": lambda x: conv(conv(layers.Concatenate()([conv(x, 8), conv(x, 4)]), 12, groups=6), 8),
    "multiplied with bias": lambda x: conv(normed(layers.DepthwiseConv2D(3, depth_multiplier=2)(conv(x, 7))), 8, 1),
    "multiplied, then groups": lambda x: conv(
        conv(layers.DepthwiseConv2D(3, depth_multiplier=3)(conv(x, 8)), 12, groups=4), 8, 1
    ),
    "multiplied, then LN": lambda x: conv(
        layers.LayerNormalization()(layers.DepthwiseConv2D(3, depth_multiplier=2)(conv(x, 9))), 8, 1
    ),
    "multiplied, then flat": lambda x: layers.Reshape((1, 1, 9))(
        layers.Dense(9)(layers.Flatten()(layers.DepthwiseConv2D(3, depth_multiplier=2)(conv(x, 7))))
    ),
    "separable and multiplied": lambda x: conv(normed(layers.SeparableConv2D(9, 3, depth_multiplier=3)(conv(x, 7))), 8),
}


#: Traps that differ from another one in a detail.
VARIANTS = {
    *("map of one channel subtracted", "map of one channel in a maximum", "depthwise with sigmoid", "shifted ReLU"),
    *("BN with two readers", "synchronized BN", "LN of a concatenation", "transposed with gaps", "groups with sigmoid"),
    *("groups of a concatenation", "multiplied, then groups", "multiplied, then LN", "separable and multiplied"),
}


@pytest.mark.parametrize("name", slow_except(TRAPS, TRAPS.keys() - VARIANTS))
def test_traps(name):
    images = keras.Input((6, 6, 3))
    assert_is_its_students(keras.Model(images, end(TRAPS[name](images))), seed=3)


#: What random networks have failed on: constructions that amplify rounding, each at the width that did it.
AMPLIFIERS = {
    "LN of one channel": lambda x: conv(layers.LayerNormalization()(conv(x, 3)), 8, 1),
    "LN of one channel, then BN": lambda x: layers.BatchNormalization(epsilon=1e-6)(
        conv(layers.LayerNormalization()(conv(x, 3)), 8, 1)
    ),
    "ReLU with a jump": lambda x: conv(layers.ReLU(negative_slope=0.1, threshold=0.5)(conv(x, 9)), 8, 1),
    "BN of small epsilon": lambda x: conv(layers.BatchNormalization(epsilon=1e-6)(layers.ReLU()(conv(x, 9))), 8, 1),
}


@pytest.mark.parametrize("name", AMPLIFIERS)
def test_what_random_networks_have_failed_on(name):
    images = keras.Input((6, 6, 3))
    space = space_of(keras.Model(images, end(AMPLIFIERS[name](images))))
    Comparison(space, random_images(8, 6), seed=4).check(Shape.smallest(space))


@pytest.mark.parametrize("rank", [1, 3])
def test_transposed_and_grouped_at_other_ranks(rank):
    size = (6,) * rank
    images = keras.Input((*size, 4))
    x = normed(getattr(layers, f"Conv{rank}D")(12, 2)(images))
    x = normed(getattr(layers, f"Conv{rank}D")(12, 2, groups=3)(x))
    x = normed(getattr(layers, f"Conv{rank}DTranspose")(7, 2, strides=2)(x))
    model = keras.Model(images, layers.Dense(4)(getattr(layers, f"GlobalAveragePooling{rank}D")()(x)))
    comparison = Comparison(space_of(model), np.random.default_rng(0).normal(size=(8, *size, 4)).astype("float32"))
    comparison.check(Shape.random(comparison.space, 1))


def test_sequences():
    source = keras.Input((12, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(10, 3, padding="causal", dilation_rate=2)(source)))
    x = layers.ReLU()(layers.BatchNormalization()(layers.SeparableConv1D(12, 3, strides=2)(x)))
    model = keras.Model(source, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))
    images = np.random.default_rng(0).normal(size=(8, 12, 3)).astype("float32")
    comparison = Comparison(space_of(model), images)
    comparison.check(Shape.random(comparison.space, 0))


@pytest.mark.filterwarnings("ignore:You are using a softmax over axis -1")  # of a map of one channel
@settings(
    max_examples=3,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # a smaller seed is no smaller network
)
@given(st.integers(0, 999_999))
def test_random_networks(seed):
    """`python -m benchmarks.random_networks --only=SEED` shows the network that failed."""
    case = draw_case(seed)
    assume(can_be_searched(case))
    check(case)
