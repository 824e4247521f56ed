"""The small network that is built: against its teacher, against a masked teacher, and on its own."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from keras import layers

from tas_tf.cost.cost_model import CostModel
from tas_tf.cost.projections import projections
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.space.shape import ActiveChannels, Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights
from tas_tf.zoo.loading import load_network
from tests.networks import BODIES, classify, conv_bn, count_macs, make, randomize, residual
from tests.parts import slow_except


def images_for(model: keras.Model, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(3, *model.input_shape[1:])).astype("float32")


def student_of(model: keras.Model, space: SearchSpace, shape: Shape) -> keras.Model:
    student = build_student(space, shape)
    inherit_weights(student, model, space, shape)
    return student


@pytest.mark.parametrize("name", slow_except([*BODIES, "resnet20", "keras.applications.MobileNetV2"], BODIES))
def test_the_full_shape_is_the_teacher(name):
    model = randomize(make(name) if name in BODIES else load_network(name, image_size=32))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = student_of(model, space, Shape.full(space))
    assert [weight.shape for weight in student.weights] == [weight.shape for weight in model.weights]
    images = images_for(model)
    np.testing.assert_array_equal(student(images), model(images))
    assert student.name == model.name


def mask_weights(model: keras.Model, space: SearchSpace, shape: Shape) -> None:
    """Sets to zero, in the teacher itself, all that makes dropped channels, and the branches of dropped blocks."""
    for name, unit in space.unit_of.items():
        dropped = np.arange(space.graph[name].channels) >= shape.widths[unit]
        for layer_name in filter(None, (name, space.norms.get(name))):
            for weight in model.get_layer(layer_name).weights:
                if weight.name in ("kernel", "pointwise_kernel", "bias", "gamma", "beta"):
                    value = weight.numpy()
                    value[..., dropped] = 0
                    weight.assign(value)
    for name, (stage, block) in space.block_of.items():
        if block > shape.depths[stage] and space.graph[name].kind in (Kind.CONV, Kind.BATCH_NORM):
            for weight in model.get_layer(name).weights:
                if weight.name in ("kernel", "bias", "gamma", "beta"):
                    weight.assign(np.zeros(weight.shape))


@pytest.mark.parametrize("name", ["plain", "residual", "gate_of_convs", "gate_of_dense", "concat_in_space", "flatten"])
@pytest.mark.parametrize("seed", slow_except(range(3), [0, 1]))
def test_a_pruned_student_computes_what_its_masked_teacher_does(name, seed):
    """Where identities are as wide as branches, so without projections, zeros in the teacher do what pruning does."""
    model = randomize(make(name), seed)
    space = SearchSpace.from_graph(Graph.from_model(model), couple_trunk=True, search_dense=True)
    shape = Shape.random(space, seed)
    for _, _, reads, makes in space.projections():
        for read, made in zip(reads, makes, strict=True):
            shape.widths[read.source] = shape.widths[made.source]
    assert not projections(space, shape)
    assert CostModel(space)(shape) < CostModel(space).full
    student = student_of(model, space, shape)
    mask_weights(model, space, shape)
    images = images_for(model, seed)
    np.testing.assert_allclose(student(images), model(images), rtol=1e-4, atol=1e-5)


def test_a_plain_network_equals_numpy():
    images = keras.Input((5, 5, 2))
    x = layers.Conv2D(10, 3, activation="relu", name="first")(images)
    x = layers.Conv2D(10, 1, activation="tanh", name="second")(x)
    model = randomize(keras.Model(images, layers.Dense(4, name="scores")(layers.Flatten()(x))))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = student_of(model, space, Shape.from_counts(space, [3, 7], []))
    first, second, scores = (model.get_layer(name) for name in ("first", "second", "scores"))
    value = images_for(model)
    windows = np.lib.stride_tricks.sliding_window_view(value, (3, 3), axis=(1, 2))  # [n, 3, 3, in, y, x]
    value = np.einsum("nhwcyx,yxco->nhwo", windows, first.kernel.numpy()[..., :3]) + first.bias.numpy()[:3]
    value = np.tanh(np.maximum(value, 0) @ second.kernel.numpy()[0, 0, :3, :7] + second.bias.numpy()[:7])
    rows = scores.kernel.numpy().reshape(9, 10, 4)[:, :7].reshape(63, 4)
    expected = value.reshape(3, 63) @ rows + scores.bias.numpy()
    np.testing.assert_allclose(student(images_for(model)), expected, rtol=1e-4, atol=1e-5)


def test_a_projection_keeps_what_both_sides_share():
    """An identity wider than the branch is cut, a narrower one padded with zeros."""
    images = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 3, padding="same", name="trunk")(images)
    y = layers.Conv2D(8, 3, padding="same", name="branch")(x)
    model = randomize(keras.Model(images, classify(layers.Add(name="sum")([x, y]))))
    space = SearchSpace.from_graph(Graph.from_model(model))
    for widths in ([3, 6], [6, 3]):
        shape = Shape.from_counts(space, widths, [stage.blocks for stage in space.stages])
        student = student_of(model, space, shape)
        assert student.get_layer("sum_projection").kernel.shape == (1, 1, *widths)
        trunk = model.get_layer("trunk")(images_for(model)).numpy()[..., : widths[0]]
        masked = np.pad(trunk, [(0, 0)] * 3 + [(0, 8 - widths[0])])
        branch = model.get_layer("branch")(masked).numpy()[..., : widths[1]]
        summed = masked[..., : widths[1]] + branch
        scores = model.layers[-1]
        expected = summed.mean((1, 2)) @ scores.kernel.numpy()[: widths[1]] + scores.bias.numpy()
        np.testing.assert_allclose(student(images_for(model)), expected, rtol=1e-4, atol=1e-5)


def test_an_add_with_two_identities_gets_two_projections():
    images = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 3, padding="same")(images)
    y = layers.Conv2D(8, 3, padding="same")(x)
    z = layers.Conv2D(8, 3, padding="same")(y)
    model = keras.Model(images, classify(layers.Add(name="sum")([x, y, z])))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = build_student(space, Shape.from_counts(space, [3, 4, 5], []))
    names = {layer.name for layer in student.layers}
    assert {"sum_projection", "sum_projection_2"} <= names
    assert CostModel(space)(Shape.from_counts(space, [3, 4, 5], [])) == count_macs(student)


@pytest.mark.parametrize("head", ["layer", "inside", "function", "none"])
def test_the_softmax_comes_back_as_it_was(head):
    images = keras.Input((8, 8, 3))
    scores = classify(conv_bn(images, 8), activation="softmax" if head == "inside" else None)
    if head == "layer":
        scores = layers.Activation("softmax", dtype="float32")(scores)
    elif head == "function":
        scores = keras.ops.softmax(scores)
    model = randomize(keras.Model(images, scores))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = student_of(model, space, Shape.full(space))
    np.testing.assert_array_equal(student(images_for(model)), model(images_for(model)))
    assert [type(layer) for layer in student.layers] == [type(layer) for layer in model.layers]
    without = build_student(space, Shape.full(space), logits=True)
    inherit_weights(without, model, space, Shape.full(space))
    logits = keras.ops.convert_to_numpy(without(images_for(model)))
    expected = model(images_for(model)) if head == "none" else None
    if expected is None:
        np.testing.assert_allclose(keras.ops.softmax(logits), model(images_for(model)), rtol=1e-5)
        assert np.abs(logits.sum(1) - 1).max() > 1e-3
    else:
        np.testing.assert_array_equal(logits, expected)


def test_a_saved_student_holds_no_class_of_the_library():
    space = SearchSpace.from_graph(Graph.from_model(load_network("resnet8", image_size=8)))
    assert "tas_tf" not in build_student(space, Shape.random(space, 0)).to_json()


@pytest.mark.slow
def test_a_saved_student_loads_where_the_library_is_not(tmp_path):
    model = randomize(load_network("resnet8", image_size=8))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = student_of(model, space, Shape.random(space, 0))
    images = images_for(model)
    student.save(tmp_path / "student.keras")
    np.save(tmp_path / "images.npy", images)
    program = (
        "import sys; sys.modules['tas_tf'] = None\n"
        "import keras, numpy as np\n"
        "model = keras.models.load_model('student.keras')\n"
        "np.save('scores.npy', model(np.load('images.npy')))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=tmp_path, capture_output=True)
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), student(images), rtol=1e-5, atol=1e-6)


def test_layers_frozen_in_the_teacher_learn_in_the_student():
    image = keras.Input((8, 8, 3))
    base = keras.Model(image, conv_bn(image, 8))
    base.trainable = False
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, classify(base(images, training=False)))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = build_student(space, Shape.full(space))
    assert len(model.trainable_weights) == 2
    assert len(student.trainable_weights) == 5


def test_batch_normalisation_frozen_by_itself_is_frozen_again_when_trained():
    """Its statistics are those of the narrower network; the network ending in logits, which is trained, has none."""
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, classify(conv_bn(conv_bn(images, 8), 8)))
    frozen = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    frozen.trainable = False
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = build_student(space, Shape.smallest(space))
    norms = {layer.name: layer.trainable for layer in student.layers if isinstance(layer, layers.BatchNormalization)}
    assert sorted(norms.values()) == [False, True]
    assert not norms[frozen.name]
    assert all(layer.trainable for layer in build_student(space, Shape.smallest(space), logits=True).layers)
    again = SearchSpace.from_graph(Graph.from_model(student))
    assert not build_student(again, Shape.full(again)).get_layer(frozen.name).trainable


def test_a_fresh_student_normalises_its_images_as_the_teacher_does():
    norm = layers.Normalization()
    norm.adapt(np.random.default_rng(0).normal(3, 2, (50, 8, 8, 3)))
    images = keras.Input((8, 8, 3))
    model = keras.Model(images, classify(conv_bn(norm(images), 8)))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = build_student(space, Shape.full(space))
    batch = images_for(model)
    np.testing.assert_allclose(student.get_layer(norm.name)(batch), norm(batch), rtol=1e-6)
    inherit_weights(student, model, space, Shape.full(space))
    np.testing.assert_allclose(student(batch), model(batch), rtol=1e-6)


def test_types_are_the_teachers():
    policy = keras.dtype_policies.DTypePolicy("mixed_bfloat16")
    images = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same", dtype=policy)(images)
    y = layers.Conv2D(8, 3, padding="same", dtype=policy)(x)
    x = layers.GlobalAveragePooling2D(dtype=policy)(layers.Add(dtype=policy, name="sum")([x, y]))
    model = keras.Model(images, layers.Dense(4, dtype="float32")(x))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = student_of(model, space, Shape.from_counts(space, [4, 5], [2]))
    assert student.get_layer("sum_projection").dtype_policy.name == "mixed_bfloat16"
    assert student(images_for(model)).dtype == "float32"


@keras.saving.register_keras_serializable(package="tests")
class TwoKernels(layers.Layer):
    """A layer of the user's own, whose weights share a name."""

    def build(self, input_shape):
        self.kernels = [self.add_weight(shape=(input_shape[-1],) * 2, name="kernel") for _ in range(2)]

    def call(self, inputs):
        return inputs @ self.kernels[0] - inputs @ self.kernels[1]

    def compute_output_shape(self, input_shape):
        return input_shape


def test_a_layer_of_the_users_keeps_its_weights():
    images = keras.Input((8, 8, 3))
    model = randomize(keras.Model(images, classify(TwoKernels()(conv_bn(conv_bn(images, 8), 8)))))
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = student_of(model, space, Shape.full(space))
    np.testing.assert_array_equal(student(images_for(model)), model(images_for(model)))


def test_a_shape_of_another_network_is_refused():
    spaces = [SearchSpace.from_graph(Graph.from_model(make(name))) for name in ("plain", "residual")]
    with pytest.raises(UserError, match="another network"):
        build_student(spaces[0], Shape.full(spaces[1]))


def _preactivated(x, width: int, inner: int):
    y = layers.Conv2D(inner, 3, padding="same")(layers.ReLU()(layers.BatchNormalization()(x)))
    return layers.Add()([x, layers.Conv2D(width, 3, padding="same")(y)])


def _gated(x):
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(x.shape[-1], 1, activation="sigmoid")(layers.Conv2D(3, 1, activation="relu")(gate))
    return layers.Multiply()([x, gate])


_STEPS = {
    "conv": lambda x, width: conv_bn(x, width),
    "strided": lambda x, width: conv_bn(x, width, strides=2),
    "residual": lambda x, width: residual(x, x.shape[-1], width),
    "shortcut": lambda x, width: residual(x, width, width + 1, strides=2),
    "preactivated": lambda x, width: _preactivated(x, x.shape[-1], width),
    "concat": lambda x, width: layers.Concatenate()([x, conv_bn(x, width)]),
    "gated": lambda x, width: _gated(x),
    "depthwise": lambda x, width: layers.DepthwiseConv2D(3, padding="same")(x),
    "normalised": lambda x, width: layers.BatchNormalization()(x),
    "doubled": lambda x, width: x + x,
}


# Without shrinking: every attempt builds two networks.
@settings(max_examples=12, derandomize=True, phases=[Phase.generate])
@given(
    steps=st.lists(st.tuples(st.sampled_from(sorted(_STEPS)), st.integers(4, 9)), min_size=1, max_size=6),
    flat=st.booleans(),
    seed=st.integers(0, 99),
    options=st.fixed_dictionaries({"couple_trunk": st.booleans(), "search_dense": st.booleans()}),
)
def test_any_network_any_shape(steps, flat, seed, options):
    images = keras.Input((8, 8, 2))
    x = conv_bn(images, 6)
    for step, width in steps:
        x = _STEPS[step](x, width)
    model = keras.Model(images, layers.Dense(3)(layers.Flatten()(x)) if flat else classify(x, 3))
    space = SearchSpace.from_graph(Graph.from_model(model), **options)
    rng = np.random.default_rng(seed)
    widths = [rng.integers(1, unit.width + 1) for unit in space.units]
    shape = Shape.from_counts(space, widths, [rng.integers(1, stage.blocks + 1) for stage in space.stages])
    student = student_of(model, space, shape)
    assert CostModel(space)(shape) == count_macs(student)
    assert CostModel(space, "params")(shape) == student.count_params()
    assert CostModel(space).full == count_macs(model)
    assert student(images_for(model)).shape == (3, 3)
    active = ActiveChannels(space, shape)
    for layer in student.layers:
        if layer.name in space.graph.by_name and layer.name not in space.stage_ending_at:
            assert layer.output.shape[-1] == len(active.made(layer.name))


@pytest.mark.parametrize("name", ["u_net", "grouped", "multiplied"])
def test_only_numbers_of_channels_change_in_what_the_student_is_made_of(name):
    """Precision, penalties and constraints of transposed, grouped and separable convolutions stay."""
    kept = {
        "kernel_regularizer": keras.regularizers.L2(1e-3),
        "depthwise_regularizer": keras.regularizers.L1(1e-3),
        "pointwise_constraint": keras.constraints.MaxNorm(2.0),
        "kernel_constraint": keras.constraints.NonNeg(),
        "dtype": keras.dtype_policies.DTypePolicy("mixed_bfloat16"),
    }

    def dressed(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        return type(layer).from_config(config | {key: value for key, value in kept.items() if key in config})

    model = keras.models.clone_model(make(name), clone_function=dressed)
    space = SearchSpace.from_graph(Graph.from_model(model))
    student = build_student(space, Shape.smallest(space))
    numbers = {"filters", "groups", "units", "batch_shape"}
    changed = 0
    common = {layer.name for layer in model.layers[:-1]}  # logits are float32 in any precision, projections are new
    for layer in filter(lambda layer: layer.name in common, student.layers):
        config, original = layer.get_config(), model.get_layer(layer.name).get_config()
        assert {key for key in config if config[key] != original[key]} <= numbers, layer.name
        changed += config != original
    assert changed > 2
    assert np.isfinite(student(images_for(model)).numpy().astype("float32")).all()
