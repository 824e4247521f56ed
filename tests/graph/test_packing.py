"""Several inputs and outputs: the graph packs them into one of each, and students have them again."""

from collections import OrderedDict

import keras
import numpy as np
import pytest
from keras import layers

from benchmarks.small_networks import draw_weights
from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, copy_weights, inherit_weights


def blocks(x, count: int = 3):
    """Residual blocks of 8 channels; yields the features after each."""
    for _ in range(count):
        y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = layers.Add()([x, layers.Conv2D(8, 3, padding="same")(y)])
        yield x


def image_and_table(*, listed: bool = False) -> keras.Model:
    """Images and a table; a value, classes and a mask, in dictionaries or in lists."""
    table, image = keras.Input((4,), name="table"), keras.Input((8, 8, 3), name="image")
    *_, x = blocks(layers.Conv2D(8, 3, padding="same")(image))
    mask = layers.Conv2D(2, 1, activation="sigmoid", name="mask")(x)
    rows = layers.Dense(6, "relu", name="rows")(table)
    x = layers.Concatenate()([rows, layers.GlobalAveragePooling2D()(x)])
    outputs = {"size": layers.Dense(1)(x), "kind": layers.Dense(3, "softmax", name="kind")(x), "mask": mask}
    if listed:
        return keras.Model([table, image], list(outputs.values()))
    return keras.Model({"table": table, "image": image}, outputs)


def examples(model: keras.Model, count: int = 3):
    """Random inputs of a model, in its structure."""
    rng = np.random.default_rng(0)
    return keras.tree.map_structure(
        lambda tensor: rng.normal(size=(count, *tensor.shape[1:])).astype("float32"), model.input
    )


def assert_kept(model: keras.Model) -> None:
    """Asserts that the student of the full shape is the network, with its inputs and outputs."""
    space = SearchSpace.from_graph(Graph.from_model(model), may_be_fixed=True)
    student = build_student(space, Shape.full(space))
    inherit_weights(student, model, space, Shape.full(space))
    given = examples(model)
    outputs, expected = student(given), model(given)
    keras.tree.assert_same_structure(outputs, expected)
    for one, other in zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_inputs_and_outputs_have_their_names():
    graph = Graph.from_model(image_and_table())
    assert graph.packing.input_names == ("image", "table")
    assert [end.name for end in graph.ends] == ["kind", "mask", "size"]
    assert [graph.activation_of(end) for end in graph.ends] == ["softmax", "sigmoid", "linear"]
    assert (graph.input.shape, graph[graph.output].shape) == ((None, 196), (None, 3 + 128 + 1))
    listed = Graph.from_model(image_and_table(listed=True))
    assert listed.packing.input_names == ("table", "image")
    assert [end.name for end in listed.ends][1:] == ["kind", "mask"]


@pytest.mark.parametrize("listed", [False, True])
def test_the_student_of_the_full_shape_is_the_network(listed):
    model = image_and_table(listed=listed)
    draw_weights(model.weights, np.random.default_rng(1))
    assert_kept(model)


def test_packed_students_compute_the_logits_side_by_side():
    model = image_and_table()
    space = SearchSpace.from_model(model)
    shape = Shape.random(space, 3)
    packed = build_student(space, shape, logits=True)
    draw_weights(packed.weights, np.random.default_rng(2))
    student = copy_weights(packed, build_student(space, shape))
    given = examples(model)
    flat = np.concatenate([given[name].reshape(3, -1) for name in ("image", "table")], axis=1)
    kind, mask, size = np.split(np.asarray(packed(flat)), [3, 131], axis=1)
    outputs = student(given)
    np.testing.assert_allclose(keras.ops.softmax(kind), outputs["kind"], atol=1e-6)
    np.testing.assert_allclose(keras.ops.sigmoid(mask.reshape(3, 8, 8, 2)), outputs["mask"], atol=1e-6)
    np.testing.assert_allclose(size, outputs["size"], atol=1e-6)


def test_depth_is_searched_beside_other_branches():
    """Wherever a table comes in and further outputs go out, except inside of blocks."""
    assert [stage.blocks for stage in SearchSpace.from_model(image_and_table()).stages] == [3]

    image = keras.Input((8, 8, 3))
    first, *_, last = blocks(layers.Conv2D(8, 3, padding="same")(image), 4)
    branch = layers.Conv2D(5, 3, activation="relu")(layers.Conv2D(6, 3, activation="relu")(first))
    model = keras.Model(image, [layers.Dense(2)(layers.GlobalAveragePooling2D()(x)) for x in (branch, last)])
    space = SearchSpace.from_model(model)
    assert [stage.blocks for stage in space.stages] == [4]
    assert build_student(space, Shape.smallest(space)).layers  # whatever lies between blocks in the order of layers

    x = layers.Conv2D(8, 3, padding="same")(image)
    *_, x = blocks(x, 2)
    inside = layers.Conv2D(8, 3, padding="same", name="inside")(x)
    *_, x = blocks(layers.Add()([x, layers.Conv2D(8, 3, padding="same")(inside)]), 2)
    ends = [layers.Dense(2)(layers.GlobalAveragePooling2D()(one)) for one in (inside, x)]
    space = SearchSpace.from_model(keras.Model(image, ends))
    smallest = Shape.smallest(space)
    assert "inside" in {layer.name for layer in build_student(space, smallest).layers}


def test_a_nested_model_with_several_inputs():
    left, right = keras.Input((6, 6, 4), name="left"), keras.Input((6, 6, 2), name="right")
    inner = keras.Model({"right": right, "left": left}, layers.Concatenate()([layers.Conv2D(5, 1)(left), right]))
    image = keras.Input((6, 6, 3))
    wide, narrow = (layers.Conv2D(width, 3, padding="same")(image) for width in (4, 2))
    x = inner({"right": narrow, "left": wide})
    model = keras.Model(image, layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    assert_kept(model)


def test_one_layer_may_make_two_outputs():
    """And an activation may be an output and go on."""
    image = keras.Input((6, 6, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(image))
    chances = layers.Softmax(name="chances")(layers.Dense(4)(x))
    model = keras.Model(image, [chances, chances, layers.Dense(2)(chances)])
    assert [end.name for end in Graph.from_model(model).ends][:2] == ["chances", "chances_1"]
    assert_kept(model)


def features(image):
    return layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(image))


def test_ends_may_share_their_activation_or_its_name():
    image = keras.Input((6, 6, 3))
    x, end = features(image), layers.Activation("sigmoid")
    assert_kept(keras.Model(image, [end(layers.Dense(2)(x)), end(layers.Dense(2)(x))]))
    heads = []
    for _ in range(2):
        inner = keras.Input((6,))
        heads.append(keras.Model(inner, layers.Softmax(name="probs")(layers.Dense(3)(inner)))(x))
    assert_kept(keras.Model(image, heads))


def test_the_order_of_an_ordered_dictionary_stays():
    image = keras.Input((6, 6, 3))
    x = features(image)
    assert_kept(keras.Model(image, OrderedDict(z=layers.Dense(2)(x), y=layers.Dense(2)(x))))


def test_a_dictionary_of_one_stays_one():
    image = keras.Input((6, 6, 3), name="pixels")
    model = keras.Model({"pixels": image}, {"kind": layers.Dense(2, "softmax")(features(image))})
    assert_kept(model)
    assert [end.name for end in Graph.from_model(model).ends] == ["kind"]


def test_inner_layers_may_have_the_names_of_inputs():
    inner = keras.Input((6, 6, 3))
    nested = keras.Model(inner, layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="table")(inner)))
    image, table = keras.Input((6, 6, 3), name="image"), keras.Input((2,), name="table")
    assert_kept(keras.Model([image, table], layers.Dense(2)(layers.Concatenate()([nested(image), table]))))


def test_an_input_may_lead_nowhere():
    image, unused = keras.Input((8, 8, 3), name="image"), keras.Input((16, 16, 3), name="unused")
    *_, x = blocks(layers.Conv2D(8, 3, padding="same")(image))
    model = keras.Model([image, unused], layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    assert_kept(model)
    assert [stage.blocks for stage in SearchSpace.from_model(model).stages] == [3]
