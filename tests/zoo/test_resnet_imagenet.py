"""ResNet-18, -34 and -50 against published figures, and layer by layer against the authors' description."""

import functools

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.cost.cost_model import CostModel
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tas_tf.zoo.resnet_imagenet import resnet_imagenet
from tests.parts import slow_except

# torchvision's ResNet18_Weights, ResNet34_Weights and ResNet50_Weights.IMAGENET1K_V1: `num_params`, and GFLOPS as
# `_ops` in its source (in its tables 1.81, 3.66 and 4.09), which are multiply-adds, as ours.
# https://pytorch.org/vision/stable/models.html, https://github.com/pytorch/vision/blob/main/torchvision/models/resnet.py
# No difference is left to explain: its shortcuts stride the 1x1 convolution that ours put behind pooling, which costs
# the same, and pooling has neither parameters nor multiply-adds.
PARAMETERS = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}
MACS = {18: 1_814_073_344, 34: 3_663_761_408, 50: 4_089_184_256}
GFLOPS = {18: 1.814, 34: 3.664, 50: 4.089}
BLOCKS = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3]}


@functools.cache
def network(depth: int) -> keras.Model:
    return resnet_imagenet(depth)


@functools.cache
def space(depth: int) -> SearchSpace:
    return SearchSpace.from_model(network(depth), couple_trunk=False)


@pytest.mark.parametrize("depth", slow_except(MACS, [18, 50]))
def test_macs_and_parameters_are_the_published_ones(depth):
    macs = parameters = 0
    for layer in network(depth).layers:
        if isinstance(layer, layers.Conv2D):
            height, width = layer.kernel_size
            operations = height * width * layer.input.shape[-1] * layer.filters
            macs += operations * layer.output.shape[1] * layer.output.shape[2]
            parameters += operations
            assert not layer.use_bias
        elif isinstance(layer, layers.BatchNormalization):
            parameters += 2 * layer.input.shape[-1]  # what is learned: statistics are no parameters in the table
        elif isinstance(layer, layers.Dense):
            macs += layer.input.shape[-1] * layer.units
            parameters += (layer.input.shape[-1] + 1) * layer.units
    assert (macs, parameters) == (MACS[depth], PARAMETERS[depth])
    assert round(macs / 1e9, 3) == GFLOPS[depth]
    assert CostModel(space(depth)).full == macs
    assert sum(int(np.prod(weight.shape)) for weight in network(depth).trainable_weights) == parameters


@pytest.mark.parametrize("depth", BLOCKS)
def test_stages_are_the_papers_and_the_stem_is_no_block(depth):
    stages = space(depth).stages
    assert [stage.blocks for stage in stages] == BLOCKS[depth]
    last = 3 if depth == 50 else 2
    assert [stage.ends[0] for stage in stages] == [f"stage{number}_block1_relu{last}" for number in (1, 2, 3, 4)]
    assert [network(depth).get_layer(stage.ends[-1]).output.shape[1] for stage in stages] == [56, 28, 14, 7]
    # The stem, then the convolutions of every main path; a shortcut shares the width of its block's last one.
    assert len(space(depth).units) == 1 + last * sum(BLOCKS[depth])


@pytest.mark.parametrize("depth", [18, 50])
def test_strides_and_shortcuts(depth):
    convolutions = {layer.name: layer for layer in network(depth).layers if isinstance(layer, layers.Conv2D)}
    norms = {layer.input.name for layer in network(depth).layers if isinstance(layer, layers.BatchNormalization)}
    strided = {name for name, layer in convolutions.items() if layer.strides == (2, 2)}
    assert strided == {"stem", *(f"stage{stage}_block1_conv{2 if depth == 50 else 1}" for stage in (2, 3, 4))}
    assert all(convolutions[name].kernel_size == (3, 3) for name in strided - {"stem"})
    shortcuts = {name for name in convolutions if name.endswith("shortcut")}
    assert shortcuts == {f"stage{stage}_block1_shortcut" for stage in ((1, 2, 3, 4) if depth == 50 else (2, 3, 4))}
    assert all(convolutions[name].output.name in norms for name in convolutions)
    pools = [layer for layer in network(depth).layers if isinstance(layer, layers.AveragePooling2D)]
    assert [(pool.pool_size, pool.strides) for pool in pools] == [((2, 2), (2, 2))] * 3


def test_the_stem_computes_what_padding_by_minus_infinity_would():
    rng = np.random.default_rng(0)
    model = network(18)
    images = rng.normal(size=(2, 224, 224, 3)).astype("float32")
    before, after = (model.get_layer(name).output for name in ("stem_relu", "stem_pool"))
    features, pooled = (value.numpy() for value in keras.Model(model.input, [before, after])(images))
    padded = np.pad(features, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::2, ::2]
    np.testing.assert_array_equal(pooled, windows.max((-2, -1)))


def test_initialisation_is_the_authors():
    model = network(18)
    kernel = model.get_layer("stage2_block1_conv1").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 128)), rel=0.05)  # fan-out
    assert model.get_layer("classifier").kernel.numpy().std() == pytest.approx(0.01, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [18, 50])
def test_zero_initialisation_silences_each_branch(depth):
    """The network then computes what its shortcuts do, whatever weights the branches have."""
    model = load_network(f"resnet{depth}", num_classes=7, image_size=32)
    last = f"_conv{3 if depth == 50 else 2}_bn"
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            silent = layer.name.endswith(last)
            np.testing.assert_array_equal(layer.gamma, np.full(layer.gamma.shape, 0.0 if silent else 1.0))
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    outputs = keras.Model(model.input, [model.get_layer(f"stage1_block{number}_add").output for number in (1, 2)])
    first, second = outputs(images)
    np.testing.assert_array_equal(second, np.maximum(first, 0))
    plain = resnet_imagenet(depth, num_classes=7, image_size=32)
    assert all(
        (layer.gamma.numpy() == 1).all() for layer in plain.layers if isinstance(layer, layers.BatchNormalization)
    )


def test_any_image_size_channels_and_classes():
    model = load_network("resnet18", num_classes=7, image_size=45, channels=1)
    assert (model.name, model.output_shape) == ("resnet18", (None, 7))
    assert model(np.zeros((2, 45, 45, 1), "float32")).shape == (2, 7)


def test_a_depth_that_is_none_is_refused():
    with pytest.raises(ValueError, match="18, 34, 50"):
        resnet_imagenet(20)
