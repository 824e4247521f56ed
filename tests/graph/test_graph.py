import subprocess
import sys

import keras
import pytest
from keras import layers

from tas_tf.graph.graph import Graph, conv_signature
from tas_tf.graph.kinds import Kind
from tas_tf.zoo.loading import load_network
from tests.networks import BODIES, classify, conv_bn, make
from tests.parts import slow_except


def named(body) -> keras.Model:
    """A model whose convolutions have names; Keras numbers the other layers, from an arbitrary start."""
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", name="one")(images)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    return keras.Model(images, layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(body(x))))


def two(x, **options):
    return layers.Conv2D(**{"filters": 6, "kernel_size": 3, "name": "two", **options})(x)


def test_digest_says_nothing_of_automatic_names():
    digests = {Graph.from_model(named(two)).digest for _ in range(3)}
    assert len(digests) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"filters": 7},
        {"kernel_size": 1},
        {"strides": 2},
        {"padding": "same"},
        {"activation": "relu"},
        {"name": "other"},
        {"use_bias": False},
    ],
)
def test_digest_tells_structures_apart(change):
    changed = Graph.from_model(named(lambda x: two(x, **change)))
    assert changed.digest != Graph.from_model(named(two)).digest


@pytest.mark.slow
def test_digest_is_the_same_in_another_process():
    program = (
        "import keras\n"
        "from keras import layers\n"
        "from tas_tf.graph.graph import Graph\n"
        "[layers.ReLU() for _ in range(7)], layers.BatchNormalization(), keras.Input((3,))\n"
        "images = keras.Input((8, 8, 3))\n"
        "x = layers.Conv2D(8, 3, padding='same', name='one')(images)\n"
        "x = layers.Conv2D(6, 3, name='two')(layers.ReLU()(layers.BatchNormalization()(x)))\n"
        "x = layers.Dense(4, name='scores')(layers.GlobalAveragePooling2D()(x))\n"
        "print(Graph.from_model(keras.Model(images, x)).digest)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == Graph.from_model(named(two)).digest


@pytest.mark.parametrize(
    "name",
    slow_except(
        [*BODIES, "resnet8"], ["residual", "gate_of_dense", "concat_in_space", "u_net", "nested", "arithmetic"]
    ),
)
def test_a_saved_model_has_the_same_graph(name, tmp_path):
    model = make(name) if name in BODIES else load_network(name, image_size=8)
    model.save(tmp_path / "model.keras")
    graph, loaded = Graph.from_model(model), Graph.from_model(keras.models.load_model(tmp_path / "model.keras"))
    assert loaded.digest == graph.digest
    assert [(node.name, node.kind, node.shape, node.num_params) for node in loaded] == [
        (node.name, node.kind, node.shape, node.num_params) for node in graph
    ]


def test_cut_tensors_are_on_every_path():
    graph = Graph.from_model(load_network("resnet8", image_size=8))
    block = [node.name for node in graph if node.name.startswith("stage2_block1") and node.name in graph.cut_tensors]
    assert block == ["stage2_block1_add", "stage2_block1_relu2"]
    assert {"images", "stem", "stem_relu", "pool", "classifier"} <= graph.cut_tensors


def test_ancestors_and_sources():
    graph = Graph.from_model(load_network("resnet8", image_size=8))
    assert graph.is_ancestor("stem", of="classifier")
    assert not graph.is_ancestor("stage2_block1_shortcut", of="stage2_block1_conv2")
    assert not graph.is_ancestor("stem", of="stem")
    source, walked = graph.trace("stage1_block1_relu2")
    assert (source, [node.name for node in walked]) == ("stage1_block1_add", ["stage1_block1_relu2"])
    source, walked = graph.trace("stage1_block1_relu1")
    assert (source, len(walked)) == ("stage1_block1_conv1", 2)


def test_left_out_nodes_are_read_no_more():
    graph = Graph.from_model(load_network("resnet14", image_size=8))
    dropped = frozenset(node.name for node in graph if node.name.startswith("stage1_block2"))
    smaller = graph.without(dropped, {"stage1_block2_relu2": "stage1_block1_relu2"})
    assert len(smaller.nodes) == len(graph.nodes) - len(dropped)
    assert "stage1_block1_relu2" in smaller["stage2_block1_pool"].inputs
    assert all(name in smaller.by_name for node in smaller for name in node.inputs)


def test_what_describes_the_classifier():
    images = keras.Input((8, 6, 3))
    graph = Graph.from_model(keras.Model(images, classify(conv_bn(images, 8), 7), name="net"))
    assert (graph.network, graph.num_classes, graph.input.shape) == ("net", 7, (None, 8, 6, 3))
    assert graph.num_params == 8 * 27 + 8 * 4 + 8 * 7 + 7
    (conv,) = [node for node in graph if node.kind is Kind.CONV]
    assert (conv.channels, conv.positions, conv_signature(conv)) == (8, 48, ("Conv2D", False))
