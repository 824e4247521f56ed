"""Files made by someone else run no code."""

import base64
import json
import marshal
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from tas_tf.errors import UserError
from tas_tf.zoo.loading import load_file, losses_in_file
from tests.zoo.hostile import as_model, function_of, in_sequence, new_network, object_of, old_network, rewrite

# tf_keras says so of every HDF5 file.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")


def as_layer(config) -> None:
    layer = config["config"]["layers"][2]
    layer.update(module="evil_module", class_name="Evil", registered_name=None)


def as_registered_layer(config) -> None:
    layer = config["config"]["layers"][2]
    layer.update(module="evil_module", class_name="Evil", registered_name="evil>Evil")


def as_function(config) -> None:
    function = {"module": "evil_module", "class_name": "function", "config": "evil", "registered_name": "function"}
    config["config"]["layers"][1]["config"]["activation"] = function


def as_initializer(config) -> None:
    function = {"module": "evil_module", "class_name": "Evil", "config": {}, "registered_name": None}
    config["config"]["layers"][1]["config"]["kernel_initializer"] = function


def of_the_system(config) -> None:
    call = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
    config["config"]["layers"][1]["config"]["activation"] = call


def in_a_compiled_model(config) -> None:
    loss = {"module": "evil_module", "class_name": "Evil", "config": {}, "registered_name": None}
    in_sequence(config, {**config, "compile_config": {"optimizer": "sgd", "loss": loss, "metrics": [loss]}})


def in_a_layer_of_texts(config) -> None:
    function = {"module": "evil_module", "class_name": "function", "config": "evil", "registered_name": "evil"}
    layer = {"name": "texts", "standardize": function, "trainable": True, "dtype": "string"}
    in_sequence(config, object_of("TextVectorization", layer))


def of_a_known_name(config) -> None:
    config["config"]["layers"][2].update(module="evil_module", class_name="Dense", registered_name="Dense")


CHANGES = [
    *(as_layer, as_registered_layer, as_function, as_initializer, of_the_system),
    *(as_model, in_a_compiled_model, in_a_layer_of_texts, of_a_known_name),
]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("change", CHANGES)
def test_modules_that_a_file_names_are_not_imported(tmp_path, evil, save, suffix, change):
    path = tmp_path / f"mine{suffix}"
    save(path)
    rewrite(path, change)
    with pytest.raises(UserError, match=r"mine\.(keras|h5)"):
        load_file(path)
    assert not evil.exists()


def code(trace: Path, *, named: bool = True):
    """A Lambda layer whose bytecode leaves a trace, as either version of Keras reads it."""
    function = eval(f"lambda x, *other: (__import__('pathlib').Path({str(trace)!r}).touch(), x)[1]")
    bytecode = base64.b64encode(marshal.dumps(function.__code__)).decode()
    config = {"trainable": True, "dtype": "float32", "arguments": {}, "function_type": "lambda", "module": "builtins"}
    config |= {"function": [bytecode, None, None], "output_shape": None, "output_shape_type": "raw"}
    return object_of("Lambda", {**config, **({"name": "code"} if named else {})})


def code_of_keras_3(trace: Path):
    (bytecode, *_) = code(trace)["config"]["function"]
    return {"class_name": "__lambda__", "config": {"value": [bytecode, None, None]}}


def lambda_layer(config, trace) -> None:
    in_sequence(config, code(trace))


def lambda_of_keras_3(config, trace) -> None:
    in_sequence(config, object_of("Lambda", {"name": "code", "function": code_of_keras_3(trace), "arguments": {}}))


def lambda_without_names(config, trace) -> None:
    in_sequence(config, code(trace, named=False))
    for layer in (config, config["config"]["layers"][0]):
        del layer["config"]["name"]


def lambda_in_a_list(config, trace) -> None:
    """As Keras 1 wrote Sequential models."""
    layer = code(trace, named=False)
    layer["config"]["batch_input_shape"] = [None, 8, 8, 3]
    in_sequence(config)
    config["config"] = [layer]


def lambda_in_time_distributed(config, trace) -> None:
    in_sequence(config, object_of("TimeDistributed", {"name": "time", "layer": code(trace)}))


def lambda_in_bidirectional(config, trace) -> None:
    in_sequence(config, object_of("Bidirectional", {"name": "both", "layer": code(trace)}), shape=(8, 3))


def lambda_in_a_nested_model(config, trace) -> None:
    in_sequence(config, code(trace))
    in_sequence({"config": {"layers": [0, 0, "groups"]}}, config)
    inner = json.loads(json.dumps(config))
    config["config"]["layers"][1] = inner


def lambda_among_inputs(config, trace) -> None:
    config["config"]["layers"][2]["inbound_nodes"].append(code(trace))


def lambda_as_activation(config, trace) -> None:
    config["config"]["layers"][1]["config"]["activation"] = code_of_keras_3(trace)


def code_in_a_wrapped_cell(config, trace) -> None:
    """Wrappers of cells, which aren't public, hold code as Lambda does."""
    cell = object_of("SimpleRNNCell", {"name": "inner", "units": 3})
    function = {
        "residual_fn": code(trace)["config"]["function"],
        "residual_fn_type": "lambda",
        "residual_fn_module": None,
    }
    module = "tf_keras.src.layers.rnn.cell_wrappers"
    wrapped = object_of("ResidualWrapper", {"name": "cell", "cell": cell, **function}, module)
    in_sequence(config, object_of("RNN", {"name": "rnn", "cell": wrapped}), shape=(8, 3))


CODE = [
    *(lambda_layer, lambda_of_keras_3, lambda_without_names, lambda_in_a_list, lambda_in_time_distributed),
    *(lambda_in_bidirectional, lambda_in_a_nested_model, lambda_among_inputs, lambda_as_activation),
    code_in_a_wrapped_cell,
]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("change", CODE)
def test_code_in_a_file_does_not_run(tmp_path, save, suffix, change):
    path, trace = tmp_path / f"mine{suffix}", tmp_path / "trace"
    save(path)
    rewrite(path, lambda config: change(config, trace))
    with pytest.raises(UserError, match=r"mine\.(keras|h5)"):
        load_file(path)
    assert not trace.exists()


@pytest.mark.usefixtures("own_layers")
def test_the_code_of_these_tests_leaves_a_trace(tmp_path):
    path, trace = tmp_path / "mine.h5", tmp_path / "trace"
    old_network(path)
    rewrite(path, lambda config: lambda_in_a_list(config, trace))
    with pytest.raises(UserError, match="Layer count mismatch"):  # the weights are those of another network
        load_file(path, unsafe_load=True, say=lambda text: None)
    assert trace.exists()


def called(function, **kwargs):
    """Inserts an activation layer that calls a function with constants as soon as the network is made."""

    def change(config) -> None:
        layer = object_of("Activation", {"name": "evil", "activation": function})
        node = {"args": [], "kwargs": kwargs}
        config["config"]["layers"].insert(1, {**layer, "name": "evil", "inbound_nodes": [node]})

    return change


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (function_of("keras.config", "set_image_data_format"), "channels_first"),
        (object_of("set_image_data_format", {}, "keras.config"), "channels_first"),
        (function_of("keras.layers", "TFSMLayer"), "folder"),
        (function_of("keras.datasets.mnist", "load_data"), "../mnist.npz"),
        (function_of("keras.saving", "KerasFileEditor"), "other.keras"),
        (function_of("keras.activations", "deserialize"), "relu"),
    ],
    ids=lambda value: value.get("config") or value["class_name"] if isinstance(value, dict) else "",
)
def test_functions_that_do_more_than_compute_are_not_called(tmp_path, function, value):
    path, before = tmp_path / "mine.keras", keras.config.image_data_format()
    new_network(path)
    rewrite(path, called(function, inputs=value))
    with pytest.raises(
        UserError, match=r"mine\.keras isn't loaded: layer `evil` needs the function \w+, which can't be"
    ):
        load_file(path)
    assert keras.config.image_data_format() == before


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize(
    "layer",
    [
        object_of("StringLookup", {"name": "evil", "vocabulary": "secret"}),
        object_of("IntegerLookup", {"name": "evil", "vocabulary": "secret"}),
        object_of("TextVectorization", {"name": "evil", "vocabulary": "secret"}),
        object_of("TFSMLayer", {"name": "evil", "filepath": "secret"}),
        object_of("TorchModuleWrapper", {"name": "evil", "module": "secret"}),
    ],
    ids=lambda layer: layer["class_name"],
)
def test_layers_that_read_other_files_are_not_made(tmp_path, monkeypatch, save, suffix, layer):
    path = tmp_path / f"mine{suffix}"
    save(path)
    rewrite(path, lambda config: in_sequence(config, layer))
    monkeypatch.setattr(tf.io.gfile, "exists", lambda name: pytest.fail(name) if "secret" in str(name) else True)
    with pytest.raises(UserError, match=r"mine\.(keras|h5)"):
        load_file(path)


def test_losses_that_do_more_than_compute_are_unknown(tmp_path):
    path, said = tmp_path / "mine.keras", []
    new_network(path)
    fn = function_of("keras.config", "set_image_data_format")
    loss = object_of("LossFunctionWrapper", {"fn": fn, "data_format": "channels_first"}, "keras.src.losses.losses")
    rewrite(path, lambda config: config.update(compile_config={"loss": loss}))
    assert losses_in_file(path, say=said.append)["loss"] is None
    assert "isn't known" in said[0]
