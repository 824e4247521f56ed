"""What may shrink together, what may be dropped, and what is frozen and why."""

import re

import keras
import pytest
from keras import layers

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.space.space import SearchSpace
from tas_tf.zoo.loading import load_network
from tests.networks import classify, conv_bn, graph_of, make, residual


def space_of(body, size=(8, 8, 3), **options) -> SearchSpace:
    images = keras.Input(size)
    return SearchSpace.from_graph(Graph.from_model(keras.Model(images, body(images))), **options)


def conv(width: int, name: str, **options):
    return layers.Conv2D(width, 3, padding="same", name=name, **options)


def groups(space: SearchSpace) -> list[tuple[str, ...]]:
    return [unit.members for unit in space.units]


# Stages.


@pytest.mark.parametrize(
    ("name", "ends"),
    [
        ("resnet20", [(f"stage{stage}_block{{}}_relu2", 1, 3) for stage in (1, 2, 3)]),
        pytest.param(
            "resnet56", [(f"stage{stage}_block{{}}_relu2", 1, 9) for stage in (1, 2, 3)], marks=pytest.mark.slow
        ),
        ("ResNet50", [(f"conv{stage}_block{{}}_out", 1, last) for stage, last in ((2, 3), (3, 4), (4, 6), (5, 3))]),
        # Its strided blocks stand last, so belong to no stage.
        ("ResNet50V2", [(f"conv{stage}_block{{}}_out", 1, last) for stage, last in ((2, 2), (3, 3), (4, 5), (5, 3))]),
    ],
)
def test_residual_networks_have_their_stages(name, ends):
    space = SearchSpace.from_graph(graph_of(name))
    expected = [tuple(text.format(block) for block in range(first, last + 1)) for text, first, last in ends]
    assert [stage.ends for stage in space.stages] == expected
    assert [stage.name for stage in space.stages] == [f"stage_{place}" for place in range(1, len(ends) + 1)]


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("MobileNetV2", [2, 3, 4, 3, 3]),
        ("EfficientNetB0", [2, 2, 3, 3, 4]),
        ("ConvNeXtTiny", [3, 3, 9, 3]),
        ("VGG16", []),
        pytest.param("DenseNet121", [], marks=pytest.mark.slow),
    ],
)
def test_other_networks_have_their_stages(name, blocks):
    graph = graph_of(f"keras.applications.{name}")
    space = SearchSpace.from_graph(graph)
    assert [stage.blocks for stage in space.stages] == blocks
    for stage in space.stages:
        first, *others = stage.ends
        assert all(graph[end].kind is Kind.ADD for end in others)
        # Inverted bottlenecks begin a stage with a block that adds nothing, and ends in a BN.
        assert graph[first].kind in (Kind.ADD, Kind.BATCH_NORM)
        assert len({graph[end].shape for end in stage.ends}) == 1


def test_a_stem_is_no_block_unless_it_ends_like_one():
    def body(x, stem: int):
        for _ in range(stem):
            x = conv_bn(x, 8)
        for _ in range(2):
            x = residual(x, 8, 6)
        return classify(x)

    assert [stage.blocks for stage in space_of(lambda x: body(x, 1)).stages] == [2]
    assert [stage.blocks for stage in space_of(lambda x: body(x, 2)).stages] == [3]


def test_the_last_block_ends_behind_the_same_operations():
    def body(x, last):
        x = conv_bn(x, 8)
        for block in (1, 2, 3):
            y = conv(8, f"second{block}")(conv(6, f"first{block}")(x))
            x = layers.Add(name=f"add{block}")([x, y])
            x = layers.ReLU(name=f"relu{block}")(x) if block < 3 else last(x)
        return classify(x)

    same = space_of(lambda x: body(x, layers.ReLU(name="relu3")))
    assert same.stages[0].ends == ("relu1", "relu2", "relu3")
    # Behind another operation the last block can't be told to end where the others do: it stays.
    other = space_of(lambda x: body(x, layers.Activation("tanh")))
    assert other.stages[0].ends == ("relu1", "relu2")


def test_what_is_dropped_lies_between_the_ends():
    space = SearchSpace.from_graph(Graph.from_model(load_network("resnet14", image_size=8)))
    assert set(space.block_of.values()) == {(f"stage_{stage}", 2) for stage in (1, 2, 3)}
    assert all(name.startswith(f"stage{stage[-1]}_block2") for name, (stage, _) in space.block_of.items())
    assert len(space.block_of) == 3 * 7


# Coupling.


def test_a_shortcut_shares_the_width_of_its_branch_and_an_identity_does_not():
    space = SearchSpace.from_graph(Graph.from_model(load_network("resnet8", image_size=8)))
    assert groups(space) == [
        ("stem",),
        ("stage1_block1_conv1",),
        ("stage1_block1_conv2",),
        ("stage2_block1_conv1",),
        ("stage2_block1_conv2", "stage2_block1_shortcut"),
        ("stage3_block1_conv1",),
        ("stage3_block1_conv2", "stage3_block1_shortcut"),
    ]
    assert space.identities == {"stage1_block1_add": ("stem_relu",)}
    assert [add for add, *_ in space.projections()] == ["stage1_block1_add"]
    assert space.norms["stem"] == "stem_bn"
    assert "stage2_block1_shortcut" not in space.norms
    assert list(space.frozen) == ["classifier"]


def test_a_coupled_trunk_needs_no_projection_inside_a_stage():
    graph = Graph.from_model(load_network("resnet20", image_size=8))
    space = SearchSpace.from_graph(graph, couple_trunk=True)
    trunk = tuple(f"stage1_block{block}_conv2" for block in (1, 2, 3))
    assert trunk in groups(space)
    assert {add for add, *_ in space.projections()} == {"stage1_block1_add"}  # the stem has a width of its own


def test_a_gate_is_as_wide_as_what_it_gates():
    for name, squeeze in (("gate_of_convs", True), ("gate_of_dense", False)):
        space = SearchSpace.from_graph(Graph.from_model(make(name)))
        assert [len(members) for members in groups(space)] == ([2, 1, 1] if squeeze else [2, 1])
        assert ("searched only on request" in str(space.frozen)) == (not squeeze)
    searched = SearchSpace.from_graph(Graph.from_model(make("gate_of_dense")), search_dense=True)
    assert [len(members) for members in groups(searched)] == [2, 1, 1]


def test_one_number_for_all_channels_couples_nothing():
    def body(x):
        x = conv_bn(x, 8)
        x = layers.Multiply()([x, conv(1, "where", activation="sigmoid")(x)])
        return classify(conv(6, "last")(layers.Add()([x, conv(1, "shift")(x)])))

    space = space_of(body)
    assert all(not unit.coupled_with for unit in space.units)
    assert space.unit["where"].candidates == (1,)
    assert space.identities == {}


def test_concatenated_channels_keep_their_own_widths():
    space = space_of(lambda x: classify(layers.Concatenate(name="both")([conv(8, "a")(x), conv(4, "b")(x)])))
    assert [(segment.source, segment.width) for segment in space.segments["both"]] == [("a", 8), ("b", 4)]
    side = space_of(lambda x: classify(layers.Concatenate(axis=2)([conv(8, "a")(x), conv(8, "b")(x)])))
    assert groups(side) == [("a", "b")]


def test_sums_of_a_tensor_with_itself_couple_nothing():
    def body(x):
        for block in range(3):
            x = layers.ReLU()(layers.Add()([x, conv(8, f"end{block}")(x)])) if block else conv_bn(x, 8)
        return classify(x + x)

    assert all(not unit.coupled_with for unit in space_of(body).units)


def test_sums_inside_cells_couple_all():
    def body(x):
        x = conv_bn(x, 8)
        y = layers.Add()([conv(8, "a")(x), conv(8, "b")(layers.ReLU()(x))])
        z = layers.Add()([y, conv(8, "c")(y)])  # not all paths lead through it
        return classify(layers.Concatenate()([z, y]))

    assert ("a", "b", "c") in groups(space_of(body))


# What is frozen.


@keras.saving.register_keras_serializable(package="tests")
class Mixes(layers.Layer):
    def call(self, inputs):
        return inputs[..., ::-1]


@pytest.mark.parametrize(
    ("body", "frozen", "reason"),
    [
        (lambda x: Mixes(name="mixes")(conv(8, "a")(x)), "a", "`mixes` \\(Mixes\\), which needs them all"),
        (lambda x: conv(8, "a", activation="softmax")(x), "a", "`softmax` isn't known"),
        (lambda x: conv(8, "g", groups=2, activation="softmax")(conv(6, "a")(x)), "a", "`g` \\(Conv2D\\)"),
        (lambda x: conv(8, "g", groups=2, activation="softmax")(conv(6, "a")(x)), "g", "`softmax` isn't known"),
        (lambda x: layers.DepthwiseConv2D(3, depth_multiplier=2, name="m")(x), "m", "all that it reads are kept"),
        (lambda x: layers.Conv2DTranspose(8, 2, name="t", activation="softmax")(x), "t", "`softmax` isn't known"),
        (
            lambda x: layers.SpectralNormalization(conv(8, "inner"), name="s")(conv(6, "a")(x)),
            "s",
            "multiply-adds aren't counted",
        ),
        (
            lambda x: layers.Add(name="sum")(
                [layers.Concatenate()([conv(4, "a")(x), conv(4, "b")(x)]), conv(8, "c")(x)]
            ),
            "a",
            "different layouts meet at `sum`",
        ),
        (
            lambda x: layers.Concatenate(1, name="side")(
                [layers.Concatenate()([conv(4, "a")(x), conv(4, "b")(x)]), conv(8, "c")(x)]
            ),
            "c",
            "different layouts meet at `side`",
        ),
        (lambda x: layers.Multiply()([conv(3, "a")(x), x]), "a", "coupled with channels that can't be dropped"),
    ],
)
def test_frozen_layers_have_a_reason_and_the_rest_is_searched(body, frozen, reason):
    space = space_of(lambda x: classify(conv(9, "free")(body(x))))
    assert space.unit["free"].candidates[-1] == 9
    assert frozen not in space.unit_of
    assert re.search(reason, space.frozen[frozen])


def test_blocks_of_different_make_up_are_frozen_but_can_be_dropped():
    def body(x, alike: bool):
        x = conv(8, "stem")(x)
        for block in range(4):
            parts = [conv(4, f"a{block}")(x), conv(4, f"b{block}")(x)]
            branch = layers.Concatenate()(parts) if alike or block % 2 else conv(8, f"c{block}")(x)
            x = layers.ReLU()(layers.Add()([x, branch]))
        return classify(conv(6, "free")(x))

    for alike in (True, False):
        space = space_of(lambda x, alike=alike: body(x, alike))
        assert space.stages[0].blocks >= 4
        # The stem meets a branch of its own make-up in one case only.
        assert list(space.unit_of) == (["free"] if alike else ["stem", "free"])


# Options.


def test_one_axis_alone():
    graph = Graph.from_model(load_network("resnet14", image_size=8))
    width, depth = (SearchSpace.from_graph(graph, axes=axes) for axes in ("width", "depth"))
    assert all(len(stage.candidates) == 1 for stage in width.stages)
    assert len(width.searched_units) == len(width.units) == len(depth.units)
    assert all(unit.candidates == (unit.width,) for unit in depth.units)
    assert [stage.candidates for stage in depth.searched_stages] == [(1, 2)] * 3


def test_widths_in_multiples():
    graph = Graph.from_model(load_network("resnet8", image_size=8))
    space = SearchSpace.from_graph(graph, width_divisor=8)
    assert space.unit["stem"].candidates == (8, 16)
    assert space.unit["stage3_block1_conv1"].candidates == (16, 24, 32, 40, 48, 56, 64)


def test_what_leaves_no_choice_is_refused():
    images = keras.Input((8, 8, 3))
    graph = Graph.from_model(keras.Model(images, layers.Dense(4, name="scores")(layers.Flatten()(images)), name="flat"))
    with pytest.raises(UserError, match=r"Nothing can be searched in `flat`.*scores: it makes the outputs"):
        SearchSpace.from_graph(graph)
    plain = Graph.from_model(make("plain"))
    with pytest.raises(UserError, match=r"Nothing can be searched in `plain` with axes=depth"):
        SearchSpace.from_graph(plain, axes="depth")
    with pytest.raises(UserError, match=r"`axes` must be one of both, width, depth\. Received: 'height'"):
        SearchSpace.from_graph(plain, axes="height")


# Dense layers.


def test_hidden_dense_layers_are_searched_if_nothing_else_can_be():
    autoencoder = keras.Sequential([keras.Input((16,)), layers.Dense(12, "relu"), layers.Dense(4), layers.Dense(16)])
    graph = Graph.from_model(autoencoder)
    space = SearchSpace.from_graph(graph)
    assert [unit.width for unit in space.units] == [12, 4]
    assert space.units == SearchSpace.from_graph(graph, search_dense=True).units
    assert SearchSpace.from_graph(graph, units=space.unit).units == space.units
    with pytest.raises(UserError, match="Nothing can be searched"):
        SearchSpace.from_graph(graph, axes="depth")


def test_hidden_dense_layers_keep_their_width_beside_blocks_that_can_be_dropped():
    def body(x):
        x = layers.Dense(8)(x)
        for _ in range(2):
            x = layers.Add()([x, layers.Dense(8)(layers.Dense(5, "relu")(x))])
        return layers.Dense(4)(x)

    space = space_of(body, size=(6,))
    assert ([stage.blocks for stage in space.stages], space.units) == ([2], ())
