"""Layers of the user's own: known however they are defined, and narrowed if what is declared about them is true."""

from contextlib import nullcontext

import keras
import numpy as np
import pytest
from keras import layers, ops

from tas_tf.compression.compress import compress
from tas_tf.compression.distill import distill
from tas_tf.compression.rank import rank_channels
from tas_tf.compression.search import search
from tas_tf.description import describe
from tas_tf.errors import UserError
from tas_tf.graph.custom import accept_lambdas, admit, make_known, register_layer
from tas_tf.graph.graph import Graph
from tas_tf.graph.kinds import Kind
from tas_tf.graph.layers import copy_model
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student, inherit_weights
from tests.supernets import Comparison, space_of

pytestmark = pytest.mark.usefixtures("own_layers")

MY_LAYERS = """
import keras
from helping import factor

class Doubled(keras.layers.Layer):
    def call(self, images):
        return images * factor

@keras.saving.register_keras_serializable(package="mine")
class Halved(keras.layers.Layer):
    def call(self, images):
        return images / 2

def steep(x):
    return 3 * keras.ops.relu(x)
"""


class Scale(layers.Layer):
    """Acts on each channel alone, with a weight for each, and doesn't keep zeros."""

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(1, 1, shape[-1]), initializer="zeros", name="shift")

    def call(self, images):
        return images * self.scale + self.shift


class Swish(layers.Layer):
    def call(self, images):
        return images * ops.sigmoid(1.7 * images)


class Difference(layers.Layer):
    def call(self, images):
        return ops.abs(images[0] - images[1])


class Centred(Scale):
    def call(self, images):
        return super().call(images) - ops.mean(images, axis=-1, keepdims=True)


class Mixing(layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], shape[-1]), initializer="identity", name="kernel")

    def call(self, images):
        return images @ self.kernel


class FixedScale(Scale):
    def __init__(self, channels, **options):
        super().__init__(**options)
        self.channels = channels

    def build(self, shape):
        super().build((None, self.channels))

    def get_config(self):
        return {**super().get_config(), "channels": self.channels}


class Doubling(layers.Layer):
    def call(self, images):
        return ops.concatenate([images, images], axis=-1)


def network(*inner):
    """Two convolutions with layers between them."""
    images = keras.Input((6, 6, 3))
    x = layers.Conv2D(9, 3, padding="same", name="first")(images)
    for layer in inner:
        x = layer(x)
    x = layers.Conv2D(8, 3, padding="same", name="second")(x)
    return keras.Model(images, layers.Dense(4, name="scores")(layers.GlobalAveragePooling2D()(x)))


def randomize(model, seed=0):
    random = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape) / 2)
    return model


def images_of(model, count=8):
    return np.random.default_rng(1).normal(size=(count, *model.input_shape[1:])).astype("float32")


@pytest.mark.parametrize("module", [None, "somewhere.that.is.gone"])
def test_a_class_of_a_script_is_read_and_frozen(monkeypatch, module):
    """Keras writes no module for classes of `__main__`, and imports none but its own."""
    monkeypatch.setattr(Scale, "__module__", module or "__main__")
    found = describe(network(Scale(name="mine")))
    assert [unit.name for unit in found.units] == ["second"]
    assert "`mine` (Scale)" in found.frozen["first"]
    assert found.deployment == "ok"


def test_the_latest_class_of_a_name_counts():
    """As when a cell of a notebook runs again."""

    def define(factor):
        return type("Again", (layers.Layer,), {"call": lambda self, images: images * factor})

    for factor in (2, 3):
        model = network(define(factor)())
        images = images_of(model)
        np.testing.assert_allclose(copy_model(model)(images), model(images), rtol=1e-6)


def test_an_activation_function_of_a_script():
    def steep(x):
        return 3 * ops.relu(x)

    model = network(layers.Conv2D(7, 1, activation=steep, name="own"))
    space = SearchSpace.from_model(model)
    assert "`steep`" in space.frozen["own"]
    shape = Shape.smallest(space)
    student = build_student(space, shape)
    inherit_weights(student, model, space, shape)
    assert student.get_layer("own").activation is steep


class Gentle(keras.regularizers.Regularizer):
    def __call__(self, weights):
        return 1e-3 * ops.sum(ops.abs(weights))

    def get_config(self):
        return {}


def test_own_parts_of_layers_are_found():
    inner = layers.Conv2D(7, 1, kernel_regularizer=Gentle())
    space = SearchSpace.from_model(network(layers.SpectralNormalization(inner, name="wrapped")))
    student = build_student(space, Shape.smallest(space))
    assert type(student.get_layer("wrapped").layer.kernel_regularizer) is Gentle


def test_what_is_declared_makes_convolutions_searchable():
    model = randomize(network(Scale(name="mine")))
    assert "first" in space_of(model).frozen
    assert register_layer(Scale, keeps_channels=True) is Scale
    assert "first" in {unit.name for unit in space_of(model).units}
    register_layer(Scale)
    assert "first" in space_of(model).frozen


@pytest.mark.parametrize(
    ("layer", "keeps_zeros", "kind"),
    [(Scale, False, Kind.SHIFTS_ZEROS), (Swish, True, Kind.KEEPS_ZEROS), (Swish, False, Kind.SHIFTS_ZEROS)],
)
def test_supernets_with_declared_layers_are_their_students(layer, keeps_zeros, kind):
    register_layer(layer, keeps_channels=True, keeps_zeros=keeps_zeros)
    model = randomize(network(layers.BatchNormalization(), layer(name="mine")))
    assert Graph.from_model(model)["mine"].kind is kind
    comparison = Comparison(space_of(model), images_of(model))
    for seed in range(3):
        comparison.check(Shape.random(comparison.space, seed))


def two_branches():
    images = keras.Input((6, 6, 3))
    branches = [layers.Conv2D(9, 3, padding="same", name=name)(images) for name in ("first", "other")]
    x = layers.Conv2D(8, 1, name="second")(Difference(name="mine")(branches))
    return keras.Model(images, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def test_a_declared_layer_of_two_tensors_couples_them():
    register_layer(Difference, keeps_channels=True, keeps_zeros=True)
    comparison = Comparison(space_of(randomize(two_branches())), images_of(two_branches()))
    assert [unit.members for unit in comparison.space.units] == [("first", "other"), ("second",)]
    comparison.check(Shape.random(comparison.space, 0))


def test_a_declared_layer_of_two_tensors_that_moves_zeros_stays_frozen():
    register_layer(Difference, keeps_channels=True)
    assert [unit.name for unit in space_of(two_branches()).units] == ["second"]


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Centred(name="mine"), "change when other channels are left out"),
        (Mixing(name="mine"), r"weight `kernel` has the shape \(9, 9\) for 9 channels and \(5, 5\) for 5"),
        (FixedScale(9, name="mine"), "it can't be made for fewer channels"),
        (Doubling(name="mine"), "it makes 18 channels of 9"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_declared_wrongly_is_refused(layer, message):
    register_layer(type(layer), keeps_channels=True)
    with pytest.raises(UserError, match=rf"Layer `mine` .*{message}"):
        Graph.from_model(randomize(network(layer)))


def test_zeros_that_move_are_found():
    register_layer(Scale, keeps_channels=True, keeps_zeros=True)
    with pytest.raises(UserError, match=r"`mine` .*doesn't map zeros to zeros"):
        Graph.from_model(randomize(network(Scale(name="mine"))))


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [(["Scale"], {}, "`layer_class` must be a subclass"), ([Scale], {"keeps_zeros": True}, "`keeps_channels`=True")],
)
def test_bad_declarations(arguments, options, message):
    with pytest.raises(UserError, match=message):
        register_layer(*arguments, **options)


@pytest.fixture
def my_layers(tmp_path):
    (tmp_path / "my_layers.py").write_text(MY_LAYERS)
    (tmp_path / "helping.py").write_text("factor = 2.0\n")
    return tmp_path / "my_layers.py"


def test_classes_functions_and_registered_layers_of_a_file_become_known(my_layers):
    make_known([my_layers])
    known = keras.saving.get_custom_objects()
    assert {"Doubled", "mine>Halved", "steep"} <= known.keys()
    assert known["Doubled"]()(np.ones((1, 2))).numpy().tolist() == [[2, 2]]
    make_known(str(my_layers))  # imported only once
    assert keras.saving.get_custom_objects()["Doubled"] is known["Doubled"]


def test_objects_by_name_become_known_as_in_keras():
    admit({"Other": Scale}, unsafe_load=False)
    assert keras.saving.get_registered_object("Other") is Scale


def test_a_file_called_like_a_module_replaces_none(tmp_path):
    (tmp_path / "json.py").write_text("import keras\nclass Mine(keras.layers.Layer): pass\n")
    make_known(tmp_path / "json.py")
    import json

    assert json.loads("[1]") == [1]
    assert "Mine" in keras.saving.get_custom_objects()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "must name a Python file"),
        ("import keras\nclass Mine(", "can't be imported: SyntaxError"),
        ("1 / 0", "can't be imported: ZeroDivisionError: division by zero"),
        ("def relu(x):\n    return x\n", "function `relu` is called like one of Keras's own"),
    ],
)
def test_unusable_files_are_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "unusable.py").write_text(content)
    with pytest.raises(UserError, match=message):
        make_known(tmp_path / "unusable.py")


def test_files_that_define_the_same_name_are_refused(tmp_path):
    for name in ("one", "other"):
        (tmp_path / f"{name}.py").write_text("import keras\nclass Mine(keras.layers.Layer): pass\n")
    with pytest.raises(UserError, match=r"both .*one.py and .*other.py define `Mine`"):
        make_known([tmp_path / "one.py", tmp_path / "other.py"])


def accepted():
    with pytest.warns(UserWarning, match="can do whatever you can do.*safe_mode=False"):
        accept_lambdas()


def test_a_lambda_is_kept_and_the_rest_is_searched(tmp_path):
    model = randomize(network(layers.Lambda(lambda x: x * 2 + 1, name="code")))
    with pytest.raises(UserError, match=r"`code` is a Lambda.*`unsafe_load`"):
        Graph.from_model(model)
    accepted()
    space = SearchSpace.from_model(model)
    assert [unit.name for unit in space.units] == ["second"]
    comparison = Comparison(space, images_of(model))
    shape = Shape.smallest(comparison.space)
    comparison.check(shape)

    student = build_student(space, shape)
    inherit_weights(student, model, space, shape)
    student.save(tmp_path / "student.keras")
    with pytest.raises(ValueError, match="lambda"):
        keras.models.load_model(tmp_path / "student.keras")
    loaded = keras.models.load_model(tmp_path / "student.keras", safe_mode=False)
    images = images_of(model)
    np.testing.assert_array_equal(loaded(images), student(images))
    np.testing.assert_array_equal(copy_model(model)(images), model(images))


MODELS = {
    "describe": describe,
    "space": SearchSpace.from_model,
    "compress": lambda model, **options: compress(model, None, None, **options),
    "search": lambda model, **options: search(model, None, **options),
    "distill": lambda model, **options: distill(model, model, None, **options),
    "rank_channels": rank_channels,
}


@pytest.mark.parametrize("name", MODELS)
def test_every_function_takes_own_objects_and_lambdas(name, my_layers):
    model = network(layers.Lambda(lambda x: x * 2, name="code"))
    with pytest.raises(UserError, match="`custom_objects` must name a Python file"):
        MODELS[name](model, custom_objects="nowhere.py")
    with pytest.raises(UserError, match="`code` is a Lambda"):
        MODELS[name](model, custom_objects=my_layers)
    assert "steep" in keras.saving.get_custom_objects()
    # Those that need images go on until they find none.
    needs_images = (
        pytest.raises(UserError, match="`train`") if name in ("compress", "search", "distill") else nullcontext()
    )
    with pytest.warns(UserWarning, match="safe_mode=False"), needs_images:
        MODELS[name](model, unsafe_load=True)


def test_a_lambda_of_a_named_function_is_made_from_it():
    def halved(x):
        return x / 2

    accepted()
    space = SearchSpace.from_model(network(layers.Lambda(halved, name="code")))
    assert build_student(space, Shape.full(space)).get_layer("code").function is halved


def test_a_lambda_that_needs_its_program_is_refused():
    accepted()
    with pytest.raises(UserError, match=r"`code` .*name 'FACTOR' is not defined.*Import and define inside"):
        Graph.from_model(network(layers.Lambda(lambda x: x * FACTOR, name="code")))


FACTOR = 2.0
