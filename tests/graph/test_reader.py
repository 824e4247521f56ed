"""Reading models, and rejecting those that can't be read, with the layer's name."""

import keras
import numpy as np
import pytest
import tf_keras
from keras import layers, ops

from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.graph.layers import original_layer
from tests.networks import classify, conv_bn, make


def model_of(body, size=(8, 8, 3)) -> keras.Model:
    images = keras.Input(size)
    return keras.Model(images, body(images))


def kinds(model: keras.Model) -> dict[str, Kind]:
    return {node.class_name: node.kind for node in Graph.from_model(model)}


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scores = layers.Dense(3)

    def call(self, images):
        return self.scores(ops.mean(images, axis=(1, 2)))


@keras.saving.register_keras_serializable(package="tests")
class Registered(Subclassed):
    def get_config(self):
        return {"name": self.name}


@keras.saving.register_keras_serializable(package="tests")
class Halves(layers.Layer):
    def call(self, inputs):
        return inputs[..., :4], inputs[..., 4:]


class Incomplete(layers.Layer):
    """Has a config that leaves out one of its arguments."""

    def __init__(self, factor, **options):
        super().__init__(**options)
        self.factor = factor

    def get_config(self):
        return super().get_config()

    def call(self, inputs):
        return self.factor * inputs


@keras.saving.register_keras_serializable(package="tests")
class WithoutShapeRule(layers.Layer):
    """Gives its output shape once, when the model is built, and fails afterwards."""

    told = False

    def call(self, inputs):
        return inputs

    def compute_output_spec(self, inputs):
        if self.told:
            raise NotImplementedError("No rule for shapes.")
        self.told = True
        return keras.KerasTensor(inputs.shape)


class WithoutConfig(layers.Layer):
    def __init__(self, table):
        super().__init__(name="bare")
        self.table = table

    def call(self, inputs):
        return inputs


def _inputs(*, nested: bool = False, free: bool = False):
    images, more = keras.Input((8, None if free else 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(one) for one in (images, more)])
    return keras.Model({"both": [images, more]} if nested else [images, more], layers.Dense(3)(x))


def _read_beyond_its_end():
    images = keras.Input((8, 8, 3))
    chances = layers.Dense(4, activation="softmax", name="chances")(layers.Flatten()(images))
    return keras.Model(images, [chances, layers.Dense(2)(chances)])


@keras.saving.register_keras_serializable(package="tests")
class OwnTraining(keras.Model):
    """A functional model behind a subclass: its config says nothing of its layers."""

    def __init__(self, width=8, **kwargs):
        images = keras.Input((8, 8, 3))
        super().__init__(images, conv_bn(images, width), **kwargs)
        self.width = width

    def train_step(self, data):
        raise NotImplementedError

    def get_config(self):
        return {"width": self.width, "name": self.name}


class OwnCall(OwnTraining):
    def call(self, inputs):
        return -super().call(inputs)


class OwnSequential(keras.Sequential):
    def __init__(self, width):
        super().__init__([keras.Input((8, 8, 3)), layers.Conv2D(width, 3), layers.Flatten(), layers.Dense(4)])

    def get_config(self):
        return {"width": 8}


def _channels_first():
    pool = layers.GlobalAveragePooling2D(data_format="channels_first", name="first")
    return model_of(lambda x: layers.Dense(3)(pool(conv_bn(x, 8))))


def _tf_keras():
    return tf_keras.Sequential([tf_keras.layers.InputLayer((2,)), tf_keras.layers.Dense(2)])


REFUSED = {
    "subclassed model": (Subclassed, "subclassed model \\(Subclassed\\).*keras.Model\\(inputs, model.call\\(inputs\\)"),
    "subclassed model inside": (
        lambda: model_of(Registered(name="own")),
        "Nested model `own`.*Registered.*`inner.call\\(x\\)`",
    ),
    "functional model with a call of its own": (lambda: model_of(lambda x: classify(OwnCall()(x))), "Nested.*OwnCall"),
    "Lambda": (lambda: model_of(lambda x: classify(layers.Lambda(abs, name="code")(x))), "`code` is a Lambda"),
    "nested inputs": (lambda: _inputs(nested=True), "inputs in one list or dictionary. Received nested ones"),
    "inputs of unknown size": (
        lambda: _inputs(free=True),
        "inputs of fixed size, since it has several. Received: \\(None, 8, None, 3\\), ",
    ),
    "an output that goes on": (_read_beyond_its_end, "output of layer `chances` \\(Dense\\) goes on to `dense"),
    "unbuilt Sequential": (lambda: keras.Sequential([layers.Dense(2)], name="new"), "new.*no input shape yet"),
    "unknown size": (lambda: model_of(lambda x: classify(conv_bn(x, 8)), (None, None, 3)), "input of fixed size"),
    "tf_keras model": (_tf_keras, "tf_keras"),
    "no model": (lambda: "resnet20", "must be a Keras model. Received: str"),
    "softmax, then more": (
        lambda: model_of(lambda x: layers.Reshape((5,))(layers.Softmax(name="soft")(classify(conv_bn(x, 8))))),
        "`softmax` \\(layer `soft`\\) and then .*Reshape",
    ),
    "channels first": (_channels_first, "`first` \\(GlobalAveragePooling2D\\) is channels_first"),
    "class that can't be made from its config": (
        lambda: model_of(lambda x: classify(Incomplete(2, name="mine")(x))),
        "`mine` \\(Incomplete\\) can't be made again.*missing.*'factor'.*get_config",
    ),
    "layer without a rule for its shape": (
        lambda: model_of(lambda x: classify(WithoutShapeRule(name="mute")(x))),
        "`mute` \\(WithoutShapeRule\\) can't be called with its inputs: No rule for shapes",
    ),
    "layer without config": (
        lambda: model_of(lambda x: classify(WithoutConfig(object())(x))),
        "`bare` \\(WithoutConfig\\).*get_config",
    ),
    "sequence layer": (
        lambda: model_of(lambda x: layers.Dense(3)(layers.LSTM(4, name="memory")(layers.Reshape((64, 3))(x)))),
        "`memory` \\(LSTM\\)",
    ),
}


@pytest.mark.parametrize(("make_model", "message"), REFUSED.values(), ids=REFUSED)
def test_refused_with_a_line_that_names_the_place(make_model, message):
    with pytest.raises(UserError, match=message) as caught:
        Graph.from_model(make_model())
    assert str(caught.value).count("\n") == 0


def test_functional_models_behind_subclasses_are_read_alone_and_nested():
    nested = model_of(lambda x: classify(OwnTraining(name="backbone")(x)))
    backbone = nested.get_layer("backbone")
    alone = type(backbone)(name="alone")
    alone_with_scores = keras.Model.__call__(alone, images := keras.Input((8, 8, 3)))

    class Classifier(keras.Model):
        def train_step(self, data):
            raise NotImplementedError

    behind = Classifier(images, classify(alone_with_scores))
    for model in (nested, behind):
        graph = Graph.from_model(model)
        assert [node.class_name for node in graph] == [
            *("InputLayer", "Conv2D", "BatchNormalization", "ReLU", "GlobalAveragePooling2D", "Dense")
        ]
        assert graph.num_params == model.count_params()
    conv = next(node for node in Graph.from_model(nested) if node.kind is Kind.CONV)
    assert original_layer(nested, conv) is backbone.layers[1]
    sequence = Graph.from_model(OwnSequential(8))
    assert [node.shape[1:] for node in sequence] == [(8, 8, 3), (6, 6, 8), (288,), (4,)]


def test_the_advice_for_subclassed_models_works():
    inner = Registered(name="own")
    images = keras.Input((8, 8, 3))
    graph = Graph.from_model(keras.Model(images, inner.call(images)))
    assert graph.num_params == inner.scores.count_params() == 12


def test_each_call_of_a_layer_without_weights_is_a_layer():
    relu = layers.ReLU(name="relu")
    graph = Graph.from_model(model_of(lambda x: classify(relu(layers.Conv2D(4, 3)(relu(x))))))
    assert [node.name for node in graph if node.class_name == "ReLU"] == ["relu", "relu_2"]
    assert not graph.repeats


def test_further_calls_of_a_layer_share_its_weights():
    conv, inner = layers.Conv2D(3, 3, padding="same", name="twice"), keras.Sequential([layers.Conv2D(3, 1)])
    graph = Graph.from_model(model_of(lambda x: classify(inner(conv(inner(conv(x)))))))
    convs = [node for node in graph if node.kind is Kind.CONV]
    assert [node.num_params for node in convs] == [84, 12, 0, 0]
    assert [node.shares for node in convs] == [None, None, "twice", convs[1].name]
    separate = Graph.from_model(model_of(lambda x: classify(conv_bn(conv_bn(x, 3), 3))))
    assert graph.digest != separate.digest


def test_a_layer_between_nested_models_is_read_once():
    image = keras.Input((8, 8, 3))
    conv = layers.Conv2D(3, 3, padding="same", name="inside")
    first, second = keras.Model(image, conv(image)), keras.Model(image, layers.ReLU()(conv(image)))
    graph = Graph.from_model(model_of(lambda x: classify(second(first(x)))))
    assert graph.repeats == {"inside": (next(node.name for node in graph if node.shares),)}


def test_outputs_of_a_nested_model_in_a_dictionary():
    image = keras.Input((8, 8, 3))
    stem = layers.Conv2D(6, 3, name="first")(image)
    inner = keras.Model(image, {"stem": stem, "end": layers.Conv2D(4, 3)(stem)})
    graph = Graph.from_model(model_of(lambda x: classify(inner(x)["stem"])))
    assert [node.name for node in graph if node.kind is Kind.CONV] == ["first"]


@pytest.mark.parametrize("used", [(0,), (1,), (0, 1)])
def test_each_output_of_a_layer_is_a_node(used):
    def body(x):
        halves = Halves(name="halves")(conv_bn(x, 8))
        return classify(layers.Add()([halves[output] for output in used]) if len(used) > 1 else halves[used[0]])

    graph = Graph.from_model(model_of(body))
    assert [node.output for node in graph if node.class_name == "Halves"] == list(range(max(used) + 1))
    assert all(node.shape == (None, 8, 8, 4) for node in graph if node.class_name == "Halves")


def test_nested_models_are_inlined():
    graph = Graph.from_model(make("nested"))
    convs = [node for node in graph if node.kind is Kind.CONV]
    assert [conv.path[-1] for conv in convs] == ["conv", "conv", "conv"]
    assert len({conv.name for conv in convs}) == 3
    assert [conv.shape for conv in convs] == [(None, 6, 6, 8), (None, 4, 4, 12), (None, 4, 4, 6)]
    assert sum(node.kind is Kind.INPUT for node in graph) == 1


def test_names_made_for_nested_layers_never_clash():
    inner = keras.Sequential([layers.Conv2D(8, 3, name="b")], name="a")

    def body(x):
        x = layers.Conv2D(8, 1, name="a_b")(x)
        return classify(inner(layers.Conv2D(8, 1, name="b")(x)))

    names = [node.name for node in Graph.from_model(model_of(body))]
    assert len(set(names)) == len(names)


def test_a_sequential_is_read_however_it_was_built():
    def parts():
        return [layers.Conv2D(8, 3, name="conv"), layers.Flatten(), layers.Dense(4, name="scores")]

    called = keras.Sequential(parts())
    called(np.zeros((1, 8, 8, 3), "float32"))
    declared = keras.Sequential([keras.Input((8, 8, 3)), *parts()])
    nested = keras.Sequential([keras.Input((8, 8, 3)), keras.Sequential(parts())])
    shapes = [[node.shape[1:] for node in Graph.from_model(model)] for model in (called, declared, nested)]
    assert shapes[0] == shapes[1] == shapes[2] == [(8, 8, 3), (6, 6, 8), (288,), (4,)]


def test_inputs_and_outputs_in_dictionaries_and_tensors_by_keyword():
    images = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3)(inputs=images)
    x = layers.Concatenate()(inputs=[x, layers.Conv2D(4, 3)(images)])
    model = keras.Model({"image": images}, {"scores": classify(x)})
    graph = Graph.from_model(model)
    assert graph.num_classes == 5
    assert graph.num_params == model.count_params()


@pytest.mark.parametrize("head", ["inside", "layer", "activation", "function"])
def test_a_softmax_is_split_off(head):
    ends = {
        "inside": lambda x: classify(x, activation="softmax"),
        "layer": lambda x: layers.Softmax()(classify(x)),
        "activation": lambda x: layers.Activation("softmax")(classify(x)),
        "function": lambda x: ops.softmax(classify(x)),
    }
    graph = Graph.from_model(model_of(lambda x: ends[head](conv_bn(x, 8))))
    assert graph.end.head is not None
    assert graph[graph.output].class_name == "Dense"
    assert graph[graph.output].activation == "linear"
    assert (graph.end.head.name in graph.by_name) == (head == "inside")


def test_arithmetic_with_constants():
    def body(x):
        x = layers.Conv2D(8, 3)(x)
        return classify(layers.Conv2D(8, 3)((x + 3.0) * 2.0 / 6.0 - 1.0))

    found = kinds(model_of(body))
    assert found["Add"] is Kind.SHIFTS_ZEROS
    assert found["Multiply"] is Kind.KEEPS_ZEROS
    assert found["TrueDivide"] is Kind.KEEPS_ZEROS
    assert found["Subtract"] is Kind.SHIFTS_ZEROS


def test_relu_as_a_function_acts_as_the_layer():
    images = keras.Input((8, 8, 3))
    x = keras.activations.relu(layers.Conv2D(4, 3)(images))
    x = keras.activations.relu(layers.Conv2D(4, 3)(x), negative_slope=0.1, threshold=0.5)
    graph = Graph.from_model(keras.Model(images, layers.Dense(3)(layers.GlobalAveragePooling2D()(x))))
    assert [node.kind for node in graph if node.class_name == "ReLU"] == [Kind.KEEPS_ZEROS, Kind.SHIFTS_ZEROS]


def test_arithmetic_that_channels_cannot_pass():
    assert kinds(model_of(lambda x: classify(1.0 / layers.Conv2D(8, 3)(x))))["TrueDivide"] is Kind.FROM_ONES
    constant = np.arange(8, dtype="float32")
    assert kinds(model_of(lambda x: classify(layers.Conv2D(8, 3)(x) + constant)))["Add"] is Kind.OPAQUE


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (lambda: layers.DepthwiseConv2D(3), Kind.DEPTHWISE),
        (lambda: layers.Conv2D(8, 3, groups=8), Kind.DEPTHWISE),
        (lambda: layers.Conv2D(8, 3, groups=2), Kind.DEPTHWISE),
        (lambda: layers.Conv2D(16, 3, groups=8), Kind.DEPTHWISE),
        (lambda: layers.Conv2D(8, 3, groups=2, activation="softmax"), Kind.OPAQUE),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), Kind.DEPTHWISE),
        (lambda: layers.DepthwiseConv2D(3, activation="softmax"), Kind.OPAQUE),
        (lambda: layers.SeparableConv2D(8, 3, depth_multiplier=2), Kind.SEPARABLE),
        (lambda: layers.Conv2DTranspose(8, 3), Kind.TRANSPOSED),
        (lambda: layers.BatchNormalization(axis=1), Kind.OPAQUE),
        (lambda: layers.LayerNormalization(axis=[1, 2, 3]), Kind.OPAQUE),
        (lambda: layers.LayerNormalization(), Kind.LAYER_NORM),
        (lambda: layers.RMSNormalization(), Kind.LAYER_NORM),
        (lambda: layers.RMSNormalization(axis=1), Kind.OPAQUE),
        (lambda: layers.GroupNormalization(4), Kind.GROUP_NORM),
        (lambda: layers.GroupNormalization(4, axis=1), Kind.OPAQUE),
        (lambda: layers.GroupNormalization(-1), Kind.SHIFTS_ZEROS),
        (lambda: layers.PReLU(shared_axes=[1, 2]), Kind.KEEPS_ZEROS),
        (lambda: layers.PReLU(shared_axes=[1, 2, 3]), Kind.OPAQUE),
        (lambda: layers.ReLU(threshold=1.0), Kind.KEEPS_ZEROS),
        (lambda: layers.ReLU(threshold=1.0, negative_slope=0.1), Kind.SHIFTS_ZEROS),
        (lambda: layers.GaussianNoise(0.1), Kind.SHIFTS_ZEROS),
        (lambda: layers.Rescaling(2.0), Kind.KEEPS_ZEROS),
        (lambda: layers.Rescaling(2.0, offset=1.0), Kind.SHIFTS_ZEROS),
        (lambda: layers.Softmax(), Kind.OPAQUE),
        (lambda: layers.Softmax(axis=(1, 2)), Kind.SHIFTS_ZEROS),
        (lambda: layers.UnitNormalization(), Kind.UNIT_NORM),
        (lambda: layers.AdaptiveAveragePooling2D(2), Kind.POOL),
        (lambda: layers.Permute((2, 1, 3)), Kind.KEEPS_ZEROS),
        (lambda: layers.Permute((3, 1, 2)), Kind.OPAQUE),
        (lambda: layers.Reshape((16, 4, 8)), Kind.RESHAPE),
    ],
)
def test_kinds_of_layers(layer, kind):
    graph = Graph.from_model(model_of(lambda x: classify(layers.Conv2D(8, 1)(layer()(conv_bn(x, 8))))))
    place = next(place for place, node in enumerate(graph) if node.class_name == "GlobalAveragePooling2D")
    assert graph.nodes[place - 2].kind is kind


@pytest.mark.parametrize(
    "make_layer",
    [
        lambda: layers.ReLU(threshold=1.0),
        lambda: layers.ReLU(threshold=1.0, negative_slope=0.1),
        lambda: layers.ELU(),
        lambda: layers.PReLU(),
        lambda: layers.UpSampling2D(2),
        *(
            lambda name=name: layers.Activation(name)
            for name in (
                *("relu", "relu6", "silu", "gelu", "tanh", "elu", "selu", "leaky_relu", "hard_silu", "softsign"),
                *("hard_tanh", "tanh_shrink", "celu", "mish", "sigmoid", "hard_sigmoid", "softplus", "exponential"),
                "log_sigmoid",
            )
        ),
    ],
)
def test_zeros_are_kept_where_the_table_says_so(make_layer):
    layer = make_layer()
    graph = Graph.from_model(model_of(lambda x: classify(layers.Conv2D(8, 1)(layer(conv_bn(x, 8))))))
    kind = graph[layer.name].kind
    assert kind in (Kind.KEEPS_ZEROS, Kind.SHIFTS_ZEROS)
    value = np.asarray(layer(np.zeros((1, 8, 8, 8), "float32")))
    assert (np.abs(value).max() == 0) == (kind is Kind.KEEPS_ZEROS)
