"""Students built with another package than Keras 3."""

import numpy as np
import pytest
import tf_keras

from tas_tf.graph.graph import Graph
from tas_tf.graph.layer_library import KERAS
from tas_tf.qat.twin import TF_KERAS
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tests.networks import make, randomize


@pytest.mark.parametrize(
    ("name", "seed", "projected"), [("residual", 0, True), ("preactivation", 1, True), ("gate_of_convs", 2, False)]
)
def test_a_pruned_student_is_the_same_in_keras_2(name, seed, projected):
    space = SearchSpace.from_graph(Graph.from_model(make(name)))
    shape = Shape.random(space, seed)
    student = randomize(build_student(space, shape, logits=True, library=KERAS))
    other = build_student(space, shape, logits=True, library=TF_KERAS)
    assert isinstance(other, tf_keras.Model)
    assert other.name == student.name
    assert [layer.name for layer in other.layers] == [layer.name for layer in student.layers]
    assert any("projection" in layer.name for layer in other.layers) is projected
    for layer in student.layers:
        other.get_layer(layer.name).set_weights([np.array(weight) for weight in layer.weights])
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 3)).astype("float32")
    np.testing.assert_allclose(other(images), student(images), rtol=1e-4, atol=1e-5)
