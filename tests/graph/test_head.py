"""The end of a network: logits, or a softmax or sigmoid that is split off."""

import keras
import pytest

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph


def network(end, *more) -> keras.Model:
    images = keras.Input((4, 4, 1))
    x = end(keras.layers.Dense(3)(keras.layers.Flatten()(images)))
    for layer in more:
        x = layer(x)
    return keras.Model(images, x)


@pytest.mark.parametrize("name", ["relu", "selu", "tanh", "log_softmax"])
def test_other_activations_at_the_end_stay(name):
    for end in (getattr(keras.ops, name), keras.layers.Activation(name)):
        graph = Graph.from_model(network(end))
        assert graph.end.head is None
        assert graph.activation_of(graph.end) == name
        assert graph[graph.output].class_name != "Dense"


@pytest.mark.parametrize("name", ["softmax", "sigmoid"])
def test_probabilities_are_split_off(name):
    for end in (
        getattr(keras.ops, name),
        keras.layers.Activation(name),
        *[keras.layers.Softmax()] * (name == "softmax"),
    ):
        graph = Graph.from_model(network(end))
        assert graph.end.head is not None
        assert (graph[graph.output].class_name, graph.activation_of(graph.end)) == ("Dense", name)


def test_an_activation_inside_the_last_layer_is_split_off():
    images = keras.Input((4, 4, 1))
    graph = Graph.from_model(keras.Model(images, keras.layers.Conv2D(2, 1, activation="sigmoid", name="last")(images)))
    assert graph.end.head.name == graph.output == "last"
    assert graph[graph.output].activation == "linear"
    assert graph[graph.output].shape == (None, 4, 4, 2)


def test_logits_may_be_reshaped_but_not_probabilities():
    linear = keras.layers.Activation("linear")
    graph = Graph.from_model(network(linear, keras.layers.Reshape((3, 1))))
    assert graph.activation_of(graph.end) == "linear"
    for name in ("softmax", "sigmoid"):
        with pytest.raises(UserError, match=f"ends in `{name}`.*and then .*Reshape.*as the last operation"):
            Graph.from_model(network(keras.layers.Activation(name), keras.layers.Reshape((3, 1))))


def test_a_network_without_an_axis_for_outputs():
    images = keras.Input((4, 4, 1))
    with pytest.raises(UserError, match="must end in numbers for each image"):
        Graph.from_model(keras.Model(images, keras.ops.sum(keras.layers.Conv2D(2, 1)(images), axis=(1, 2, 3))))
