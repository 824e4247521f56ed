"""The end of a classifier: logits, or a softmax that is split off."""

import keras
import pytest

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph


def classifier(end) -> keras.Model:
    images = keras.Input((4, 4, 1))
    return keras.Model(images, end(keras.layers.Dense(3)(keras.layers.Flatten()(images))))


@pytest.mark.parametrize("name", ["relu", "selu", "sigmoid", "log_softmax"])
def test_other_activations_at_the_end_are_refused(name):
    for end in (getattr(keras.ops, name), keras.layers.Activation(name)):
        with pytest.raises(UserError, match="ends in the activation"):
            Graph.from_model(classifier(end))


@pytest.mark.parametrize("end", [keras.ops.softmax, keras.layers.Softmax(), keras.layers.Activation("softmax")])
def test_a_softmax_is_split_off(end):
    graph = Graph.from_model(classifier(end))
    assert graph.head is not None
    assert graph[graph.output].class_name == "Dense"
