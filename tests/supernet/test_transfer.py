"""Weights from a teacher into the supernet, and out of it into students."""

import keras
import numpy as np
import pytest
from keras import layers

from tas_tf.space.shape import Shape
from tas_tf.student.build import build_student
from tas_tf.supernet.build import build_supernet
from tas_tf.supernet.sample import Sample
from tas_tf.supernet.transfer import inherit_from_supernet, load_teacher
from tests.networks import make, randomize
from tests.supernets import apply_supernet, random_supernet, residual_network, space_of


def images(size=8, seed=0):
    return np.random.default_rng(seed).normal(size=(6, size, size, 3)).astype("float32")


def logits_of(model):
    """The model up to what its softmax reads."""
    last = model.layers[-1]
    if last.get_config().get("activation") == "softmax":
        last.activation = None
        return keras.Model(model.input, last(last.input))
    return keras.Model(model.input, last.input) if isinstance(last, layers.Softmax) else model


@pytest.mark.parametrize("name", ["residual", "preactivation", "gate_of_dense", "separable", "nested"])
def test_at_the_full_shape_a_loaded_supernet_is_the_teacher(name):
    teacher = randomize(make(name))
    space = space_of(teacher)
    supernet = build_supernet(space)
    load_teacher(supernet, teacher, space)
    sample, teacher = Sample.one_hot(space, Shape.full(space)), logits_of(teacher)
    for training in (False, True):
        logits = apply_supernet(supernet, space, images(), sample, training=training)
        wanted = teacher(images(), training=training).numpy()
        np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


def test_every_candidate_starts_from_the_teachers_scale_and_offset():
    teacher = randomize(residual_network())
    space = space_of(teacher)
    supernet = build_supernet(space)
    load_teacher(supernet, teacher, space)
    layer = supernet.body.get_layer("stem")
    norm = teacher.get_layer("stem_bn")
    assert layer.gamma.shape == (len(layer.candidates), 8)
    for gamma, beta in zip(np.array(layer.gamma), np.array(layer.beta), strict=True):
        np.testing.assert_array_equal(gamma, norm.gamma)
        np.testing.assert_array_equal(beta, norm.beta)
    np.testing.assert_array_equal(layer.moving_variance, norm.moving_variance)


def test_students_get_the_slices_of_their_own_candidate():
    space = space_of(residual_network())
    supernet = random_supernet(space)
    shape = Shape.random(space, 1)
    student = build_student(space, shape)
    inherit_from_supernet(student, supernet, space, shape)
    width_in, width = shape.widths["stem"], shape.widths["block1_conv1"]
    layer = supernet.body.get_layer("block1_conv1")
    candidate = layer.candidates.index(width)
    np.testing.assert_array_equal(
        student.get_layer("block1_conv1").kernel, np.array(layer.kernel)[:, :, :width_in, :width]
    )
    norm = student.get_layer("block1_conv1_bn")
    np.testing.assert_array_equal(norm.gamma, np.array(layer.gamma)[candidate, :width])
    np.testing.assert_array_equal(norm.beta, np.array(layer.beta)[candidate, :width])
    np.testing.assert_array_equal(norm.moving_mean, np.array(layer.moving_mean)[:width])


def test_projections_copy_the_channels_that_both_sides_share():
    space = space_of(residual_network())
    widths = {unit.name: unit.width for unit in space.units}
    shape = Shape.from_counts(space, {**widths, "stem": 4, "block1_conv2": 6}.values(), [2, 2])
    student = build_student(space, shape)
    inherit_from_supernet(student, random_supernet(space), space, shape)
    np.testing.assert_array_equal(student.get_layer("block1_add_projection").kernel[0, 0], np.eye(4, 6))
    np.testing.assert_array_equal(student.get_layer("block2_add_projection").kernel[0, 0], np.eye(6, 8))


@keras.saving.register_keras_serializable(package="tests")
class NamelessScale(layers.Layer):
    """A layer whose weight Keras names, by a count through the whole process."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones")

    def call(self, inputs):
        return inputs * self.scale


def opaque_layers():
    source = keras.Input((8, 8, 3))
    x = NamelessScale()(layers.Conv2D(12, 3, strides=2)(source))
    x = layers.Reshape((9, 12))(layers.ReLU()(x))
    x = layers.MultiHeadAttention(2, 4)(x, x)  # holds four kernels of one name
    x = layers.ReLU()(layers.Conv1D(10, 3)(x))
    return keras.Model(source, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def test_layers_that_are_kept_as_they_are_keep_all_their_weights():
    teacher = opaque_layers()
    rng = np.random.default_rng(0)
    for weight in teacher.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    space = space_of(teacher)
    supernet = build_supernet(space)
    load_teacher(supernet, teacher, space)
    for shape in (Shape.full(space), Shape.smallest(space)):
        student = build_student(space, shape)
        inherit_from_supernet(student, supernet, space, shape)
        logits = apply_supernet(supernet, space, images(), Sample.one_hot(space, shape))
        np.testing.assert_allclose(logits, student(images()), rtol=1e-4, atol=1e-5)
        if shape == Shape.full(space):
            np.testing.assert_allclose(logits, teacher(images()), rtol=1e-4, atol=1e-5)
