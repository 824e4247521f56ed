"""The supernet as a whole: against NumPy, under every way of running it, saved and restored."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from tas_tf.graph.graph import Graph
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.supernet.build import Supernet, build_supernet
from tas_tf.supernet.layers.statistics import running_momentum
from tas_tf.supernet.sample import Sample
from tas_tf.zoo.blocks import basic_block, conv_bn
from tests.networks import make, randomize
from tests.parts import slow_except
from tests.supernets import apply_supernet, freeze, random_supernet, residual_network, space_of


@pytest.fixture(scope="module")
def space():
    return space_of(residual_network())


@pytest.fixture(scope="module")
def supernet(space):
    """Shared by tests that change none of its weights."""
    return random_supernet(space)


def random_images(count=6, size=8, seed=0):
    return np.random.default_rng(seed).normal(size=(count, size, size, 3)).astype("float32")


def random_sample(space, seed, num_drawn=2):
    """Distinct candidates with random weights at every unit, all depths of every stage."""
    rng = np.random.default_rng(seed)
    widths = {}
    for unit in space.searched_units:
        indices = rng.choice(len(unit.candidates), num_drawn, replace=False)
        widths[unit.name] = (tuple(map(int, indices)), tuple(rng.dirichlet(np.ones(num_drawn))))
    return Sample(widths, {s.name: tuple(rng.dirichlet(np.ones(len(s.candidates)))) for s in space.searched_stages})


class NumpySupernet:
    """The definition of the search written out for `residual_network`, in float64 and channel lists cut to size."""

    def __init__(self, supernet, space, sample, training):
        self.sample, self.training, self.space = sample, training, space
        self.weights = {
            layer.name: {weight.name: np.float64(np.array(weight)) for weight in layer.weights}
            for layer in supernet.body.layers
        }

    def __call__(self, images):
        x = relu(self.unit(np.float64(images), "stem"))
        x = self.stage(x, "stage_1", [("block1", 1), ("block2", 1)])
        x = self.stage(x, "stage_2", [("block3", 2), ("block4", 1)])
        classifier = self.weights["classifier"]
        return x.mean((1, 2)) @ classifier["kernel"][: x.shape[-1]] + classifier["bias"]

    def stage(self, x, name, blocks):
        ends = []
        for block, strides in blocks:
            x = self.block(x, block, strides)
            ends.append(x)
        widest = max(end.shape[-1] for end in ends)
        return sum(share * cwi(end, widest) for share, end in zip(self.sample.depths[name], ends, strict=True))

    def block(self, x, name, strides):
        y = relu(self.unit(x, f"{name}_conv1", strides))
        y = self.unit(y, f"{name}_conv2")
        if strides > 1:
            x = self.unit(x, f"{name}_shortcut", strides)
        return relu(resized(x, y.shape[-1]) + y)

    def unit(self, x, name, strides=1):
        weights = self.weights[name]
        features = convolve(x, weights["kernel"][:, :, : x.shape[-1]], strides)
        unit = self.space.unit[self.space.unit_of[name]]
        drawn = list(zip(*self.sample.widths[unit.name], strict=True))
        widest = max(unit.candidates[index] for index, _ in drawn)
        mixed = 0.0
        for index, weight in drawn:
            own = features[..., : unit.candidates[index]]
            mean, variance = own.mean((0, 1, 2)), own.var((0, 1, 2))
            if not self.training:
                mean, variance = (weights[f"moving_{key}"][: own.shape[-1]] for key in ("mean", "variance"))
            own = (own - mean) / np.sqrt(variance + 1e-3)
            own = own * weights["gamma"][index, : own.shape[-1]] + weights["beta"][index, : own.shape[-1]]
            mixed = mixed + weight * cwi(own, widest)
        return mixed


def relu(x):
    return np.maximum(x, 0)


def cwi(x, target):
    width = x.shape[-1]
    windows = [slice(i * width // target, -(-(i + 1) * width // target)) for i in range(target)]
    return np.stack([x[..., window].mean(-1) for window in windows], -1)


def resized(x, width):
    """A narrower identity is padded with zeros, a wider one is cut."""
    return np.pad(x, [(0, 0)] * 3 + [(0, max(0, width - x.shape[-1]))])[..., :width]


def convolve(x, kernel, strides):
    """`same` convolution as TensorFlow pads it."""
    size = kernel.shape[0]
    places = -(-x.shape[1] // strides)
    total = max((places - 1) * strides + size - x.shape[1], 0)
    x = np.pad(x, [(0, 0), *[(total // 2, total - total // 2)] * 2, (0, 0)])
    outputs = 0.0
    for row in range(size):
        for column in range(size):
            rows, columns = (slice(start, start + (places - 1) * strides + 1, strides) for start in (row, column))
            outputs = outputs + x[:, rows, columns] @ kernel[row, column]
    return outputs


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
def test_equals_the_definition_in_numpy(space, supernet, training):
    assert [stage.candidates for stage in space.searched_stages] == [(1, 2), (1, 2)]
    for seed in range(5):
        sample = random_sample(space, seed)
        wanted = NumpySupernet(supernet, space, sample, training)(random_images())
        with running_momentum(1.0):
            logits = apply_supernet(supernet, space, random_images(), sample, training=training)
        np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.abs(wanted).max())


def test_three_drawn_and_single_depths_in_numpy(space, supernet):
    sample = random_sample(space, 9, num_drawn=3)
    sample = Sample(sample.widths, {"stage_1": (0.0, 1.0), "stage_2": (1.0, 0.0)})
    numpy_supernet = NumpySupernet(supernet, space, sample, False)
    numpy_supernet.stage = lambda x, name, blocks, own=numpy_supernet: (
        own.block(own.block(x, "block1", 1), "block2", 1) if name == "stage_1" else own.block(x, "block3", 2)
    )
    wanted = numpy_supernet(random_images())
    logits = apply_supernet(supernet, space, random_images(), sample)
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.abs(wanted).max())


def loss_and_gradients(supernet, images, step):
    """A loss with the gradients of weights and logits, training mode; running statistics stay."""
    variables = supernet.weight_variables + supernet.architecture_variables
    with running_momentum(1.0), tf.GradientTape() as tape:
        logits = supernet(images, sample=supernet.gates(step), training=True)
        loss = tf.reduce_mean(tf.square(logits))
    # Biases in front of BN reach no loss.
    sources = [variable.value for variable in variables]
    return loss, tape.gradient(loss, sources, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def assert_compiled_equals_eager(supernet, **options):
    images, step = tf.constant(random_images()), tf.constant(4)
    loss, gradients = loss_and_gradients(supernet, images, step)
    compiled = tf.function(lambda images, step: loss_and_gradients(supernet, images, step), **options)
    compiled_loss, compiled_gradients = compiled(images, step)
    assert float(loss) == pytest.approx(float(compiled_loss), rel=1e-4)
    assert len(gradients) == len(compiled_gradients)
    for one, other in zip(gradients, compiled_gradients, strict=True):
        one, other = (tf.convert_to_tensor(gradient).numpy() for gradient in (one, other))
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * max(1e-2, np.abs(one).max()))


def test_graph_equals_eager(supernet):
    assert_compiled_equals_eager(supernet)


@pytest.mark.slow
def test_xla_equals_eager():
    """Forms of mixing, a masked BN and a stage; few layers, since compiling takes long."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(8, 1, use_bias=False)(images)
    x = keras.layers.ReLU()(keras.layers.BatchNormalization()(x))
    for _ in range(2):
        y = keras.layers.BatchNormalization()(keras.layers.Conv2D(8, 3, padding="same")(x))
        x = keras.layers.Add()([x, y])
    x = keras.layers.BatchNormalization()(x)
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    space = space_of(model)
    assert len(space.searched_stages) == 1
    assert_compiled_equals_eager(random_supernet(space), jit_compile=True)


def test_two_replicas_equal_one(two_replicas):
    """With synchronized BN; each replica normalises by its own batch otherwise."""
    space = space_of(residual_network(num_stages=1, synchronized=True))
    with two_replicas.scope():
        supernet = random_supernet(space)
    images = random_images()

    @tf.function
    def on_replicas():
        def each():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            return loss_and_gradients(supernet, tf.stack(tf.split(images, 2))[number], tf.constant(3))

        return two_replicas.run(each)

    losses, gradients = on_replicas()
    alone = random_supernet(space)
    loss, wanted = loss_and_gradients(alone, tf.constant(images), tf.constant(3))
    halves = two_replicas.experimental_local_results
    assert np.mean([float(half) for half in halves(losses)]) == pytest.approx(float(loss), rel=1e-5)
    for one, other in zip(gradients, wanted, strict=True):
        mean = np.mean([tf.convert_to_tensor(half).numpy() for half in halves(one)], 0)
        other = tf.convert_to_tensor(other).numpy()
        np.testing.assert_allclose(mean, other, rtol=1e-3, atol=1e-5 * max(1e-2, np.abs(other).max()))


@pytest.mark.parametrize(
    "name", slow_except(["residual", "separable", "u_net", "grouped", "multiplied"], ["residual", "separable", "u_net"])
)
def test_mixed_bfloat16(name):
    exact_space = space_of(randomize(make(name)))
    exact = random_supernet(exact_space)
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        space = space_of(make(name))
        supernet = random_supernet(space)
        assert {weight.dtype for weight in supernet.weights} == {"float32"}
        for training in (False, True):
            rough, wanted = (
                net(tf.constant(random_images(16)), sample=net.gates(tf.constant(1)), training=training)
                for net in (supernet, exact)
            )
            assert rough.dtype == tf.float32
            np.testing.assert_allclose(rough, wanted, atol=0.08 * np.abs(wanted).max())
        loss, gradients = loss_and_gradients(supernet, tf.constant(random_images()), tf.constant(1))
        assert np.isfinite(loss)
        assert all(np.isfinite(tf.convert_to_tensor(gradient)).all() for gradient in gradients)
    finally:
        keras.mixed_precision.set_global_policy("float32")


@pytest.mark.slow
def test_saved_and_restored_in_another_process(space, tmp_path):
    supernet = random_supernet(space, num_drawn=3, seed=2)
    images, path = random_images(), tmp_path / "supernet.keras"
    wanted = supernet(images, sample=supernet.gates(tf.constant(5))).numpy()
    supernet.save(path)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import keras, numpy, tensorflow, tas_tf.supernet.build\n"
        f"net = keras.models.load_model({str(path)!r})\n"
        f"images = numpy.load({str(tmp_path / 'images.npy')!r})\n"
        "logits = net(images, sample=net.gates(tensorflow.constant(5)))\n"
        f"numpy.save({str(tmp_path / 'logits.npy')!r}, logits)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, cwd=Path(__file__).parents[2])
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), wanted, rtol=1e-5, atol=1e-6)


def test_weights_alone_are_saved_and_restored(space, tmp_path):
    supernet, other = random_supernet(space, seed=2), build_supernet(space)
    supernet.gates.temperature.assign(0.7)
    supernet.gates.logits_of("stem").assign(np.linspace(-1, 1, 7))
    supernet.save_weights(tmp_path / "supernet.weights.h5")
    other.load_weights(tmp_path / "supernet.weights.h5")
    for one, wanted in zip(other.weights, supernet.weights, strict=True):
        np.testing.assert_array_equal(one, wanted)
    copy = Supernet.from_config(supernet.get_config())
    assert [weight.shape for weight in copy.weights] == [weight.shape for weight in supernet.weights]


def test_variables_are_split_between_weights_and_logits(space):
    supernet = build_supernet(space)
    names = {variable.name for variable in supernet.architecture_variables}
    assert names == {f"{choice.name}_logits" for choice in (*space.searched_units, *space.searched_stages)}
    freeze(supernet.gates, ["stem", "stage_2"])
    assert {variable.name for variable in supernet.architecture_variables} == names - {"stem_logits", "stage_2_logits"}
    assert not any("logits" in variable.name for variable in supernet.weight_variables)
    together = supernet.weight_variables + supernet.architecture_variables
    assert len(together) == len(supernet.trainable_variables)


@pytest.mark.parametrize("options", [{"axes": "width"}, {"axes": "depth"}, {"couple_trunk": True}], ids=str)
def test_restricted_spaces_draw_and_learn(options):
    space = space_of(residual_network(), **options)
    supernet = random_supernet(space)
    loss, gradients = loss_and_gradients(supernet, tf.constant(random_images()), tf.constant(0))
    assert np.isfinite(loss)
    assert all(gradient is not None for gradient in gradients)
    assert len(supernet.architecture_variables) == len(space.searched_units) + len(space.searched_stages)


def test_layers_of_the_network_may_have_our_names():
    images = keras.Input((8, 8, 3), name="images_of_mine")
    x = keras.layers.Conv2D(10, 3, name="plan")(images)
    x = keras.layers.Activation("sigmoid", name="kept_0")(keras.layers.Conv2D(9, 1, name="candidates")(x))
    x = keras.layers.GlobalAveragePooling2D(name="kept_0_mask")(x)
    space = space_of(keras.Model(images, keras.layers.Dense(3, name="depth_weights")(x)))
    supernet = random_supernet(space)
    assert supernet(random_images()).shape == (6, 3)


def test_without_a_sample_one_is_drawn(space, supernet):
    images = random_images()
    np.testing.assert_array_equal(supernet(images), supernet(images, sample=supernet.gates(tf.constant(0))))
    explicit = apply_supernet(supernet, space, images, Sample.one_hot(space, Shape.full(space)))
    assert not np.allclose(supernet(images), explicit)


def test_every_scale_starts_at_one():
    """The last normalisation of each block starts at 0 in the network and in students, searched or not."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.ReLU()(conv_bn(images, 8, 3, name="stem"))
    for name in ("a", "b"):
        x = basic_block(x, 8, shortcut_bn=True, zero_init=True, name=name)
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(x)))
    silent = [weight for weight in model.weights if weight.name == "gamma" and not np.any(weight)]
    assert len(silent) == 2
    # Once with candidates for each width, once with none, where the normalisation is a layer of its own.
    for axes in ("width", "depth"):
        space = SearchSpace.from_graph(Graph.from_model(model), axes=axes)
        scales = [weight for weight in build_supernet(space).weights if weight.name == "gamma"]
        assert len(scales) == 5
        assert all(np.all(np.array(scale) == 1) for scale in scales)
        student = build_student(space, Shape.full(space))
        assert sum(not np.any(weight) for weight in student.weights if weight.name == "gamma") == 2
