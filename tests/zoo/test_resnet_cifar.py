import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.cost.cost_model import CostModel
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.resnet_cifar import resnet_cifar
from tests.networks import count_macs, graph_of, network
from tests.parts import slow_except

MACS = {20: 40_813_184, 32: 69_124_736, 44: 97_436_288, 56: 125_747_840, 110: 253_149_824}
#: Of ResNet-164: the stem; the first block of each stage; the 17 others; the classifier.
BOTTLENECK_MACS = (
    32 * 32 * 9 * 3 * 16
    + sum(
        size * size * (in_width * width * (4 if stage else 1) + 9 * width * width + 4 * width * width)
        + size * size * 4 * width * in_width
        for stage, (size, in_width, width) in enumerate([(32, 16, 16), (16, 64, 32), (8, 128, 64)])
    )
    + sum(17 * size * size * 17 * width * width for size, width in [(32, 16), (16, 32), (8, 64)])
    + 256 * 10
)


@pytest.mark.parametrize(("depth", "macs"), slow_except(MACS.items(), [pair for pair in MACS.items() if pair[0] < 100]))
def test_macs_of_the_unpruned_networks(depth, macs):
    model, space = network(f"resnet{depth}"), SearchSpace.from_graph(graph_of(f"resnet{depth}"))
    assert CostModel(space).full == macs
    assert count_macs(model) == macs
    assert [stage.blocks for stage in space.stages] == [(depth - 2) // 6] * 3


@pytest.mark.parametrize("depth", [20, 56])
def test_macs_by_the_profiler_of_tensorflow(depth):
    """TensorFlow counts 2 operations for a multiply-add, and other operations, which are all accounted for."""
    model = network(f"resnet{depth}")
    operations = _profile(model)
    # A Dense layer's bias is counted apart, so both products are pure multiply-adds.
    assert operations.pop("Conv2D") + operations.pop("MatMul") == 2 * MACS[depth]
    assert operations.pop("BiasAdd") == 10

    def outputs(kind: type) -> list[tuple[int, ...]]:
        return [layer.output.shape[1:] for layer in model.layers if isinstance(layer, kind)]

    norms, adds = outputs(keras.layers.BatchNormalization), outputs(keras.layers.Add)
    normalized, channels = sum(map(np.prod, norms)), sum(shape[-1] for shape in norms)
    # BN is `x * s + (beta - mean * s)` with `s = gamma * rsqrt(variance + epsilon)`; a root counts as two.
    assert operations.pop("Mul") == normalized + 2 * channels
    assert operations.pop("AddV2") == normalized + channels + sum(map(np.prod, adds))
    assert operations.pop("Sub") == channels
    assert operations.pop("Rsqrt") == 2 * channels
    assert operations.pop("AvgPool") == 2 * 2 * sum(map(np.prod, outputs(keras.layers.AveragePooling2D)))
    assert operations.pop("Mean") == 8 * 8 * 64
    assert not operations


def _profile(model: keras.Model) -> dict[str, int]:
    """Floating-point operations of one image, by operation."""
    function = tf.function(lambda images: model(images, training=False))
    graph = function.get_concrete_function(tf.TensorSpec((1, *model.input_shape[1:]))).graph
    builder = tf.compat.v1.profiler.ProfileOptionBuilder
    options = builder(builder.float_operation()).with_empty_output().build()
    node = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    found = {}
    while node.children:  # one chain, most expensive first
        (node,) = node.children
        found[node.name] = node.float_ops
    return {name: count for name, count in found.items() if count}


@pytest.mark.slow
def test_resnet164_is_made_of_bottlenecks():
    model, space = network("resnet164"), SearchSpace.from_graph(graph_of("resnet164"), couple_trunk=False)
    assert CostModel(space).full == count_macs(model) == BOTTLENECK_MACS
    assert [stage.blocks for stage in space.stages] == [18] * 3
    assert [stage.ends[0] for stage in space.stages] == [f"stage{number}_block1_relu3" for number in (1, 2, 3)]
    assert len(space.units) == 163
    main_path = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.name[-1] != "t"]
    assert len(main_path) + 1 == 164
    widths = [model.get_layer(f"stage2_block1_conv{number}").filters for number in (1, 2, 3)]
    strides = [model.get_layer(f"stage2_block1_conv{number}").strides[0] for number in (1, 2, 3)]
    assert (widths, strides) == ([32, 32, 128], [1, 2, 1])
    norms = {layer.input.name for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)}
    for stage in (1, 2, 3):
        shortcut = model.get_layer(f"stage{stage}_block1_shortcut")
        assert (shortcut.kernel_size, shortcut.strides, shortcut.use_bias) == ((1, 1), (1, 1), False)
        assert shortcut.output.name not in norms
    assert len([layer for layer in model.layers if layer.name.endswith("shortcut")]) == 3


def test_any_image_size_channels_and_classes():
    model = resnet_cifar(8, num_classes=7, image_size=13, channels=1)
    assert model(np.zeros((2, 13, 13, 1), "float32")).shape == (2, 7)


def test_initialisation_and_normalisation_are_the_papers():
    model = network("resnet20")
    kernel = model.get_layer("stage2_block1_conv1").kernel.numpy()
    assert kernel.std() == pytest.approx(np.sqrt(2 / (9 * 32)), rel=0.05)  # fan-out
    assert model.get_layer("classifier").kernel.numpy().std() == pytest.approx(0.01, rel=0.15)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}
    assert model.get_layer("stage2_block1_shortcut").output.name not in {norm.input.name for norm in norms}


def test_a_depth_that_is_none_is_refused():
    with pytest.raises(ValueError, match="6 n \\+ 2"):
        resnet_cifar(21)
    with pytest.raises(ValueError, match="9 n \\+ 2"):
        resnet_cifar(19, bottleneck=True)
