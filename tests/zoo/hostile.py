"""Makes harmless files of models, and changes them into harmful ones."""

import json
import zipfile
from pathlib import Path

import h5py
import tf_keras

from tests.digits import tiny_network

#: A module that leaves a trace when it is imported, and when its class or function is used.
MODULE = """
from pathlib import Path
import keras

TRACE = Path(__file__).with_name("trace")
TRACE.touch()

class Evil(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__()
        TRACE.touch()

def evil(x, *args, **kwargs):
    TRACE.touch()
    return x
"""


def new_network(path: Path) -> None:
    tiny_network().save(path)


def old_network(path: Path) -> None:
    """A network that tf_keras has to read: Keras 3 doesn't know the `groups` of its depthwise convolution."""
    images = tf_keras.Input((8, 8, 3))
    x = tf_keras.layers.DepthwiseConv2D(3)(tf_keras.layers.Conv2D(4, 3, name="conv")(images))
    tf_keras.Model(images, tf_keras.layers.Dense(4)(tf_keras.layers.GlobalAveragePooling2D()(x))).save(path)


def rewrite(path: Path, change) -> None:
    """Changes the config in a `.keras` or `.h5` file."""
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            config = json.loads(file.attrs["model_config"])
            change(config)
            file.attrs["model_config"] = json.dumps(config)
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "config.json": json.dumps(config).encode()}.items():
            archive.writestr(name, content)


def as_model(config) -> None:
    config.update(module="evil_module", class_name="Evil", registered_name=None)


def object_of(class_name: str, config, module="keras.layers"):
    return {"module": module, "class_name": class_name, "config": config, "registered_name": None}


def function_of(module: str, name: str):
    return {"module": module, "class_name": "function", "config": name, "registered_name": name}


def in_sequence(config, *layers, shape=(8, 8, 3)) -> None:
    """Turns a config into that of a Sequential model."""
    old_input = {
        "name": "in",
        "batch_input_shape": [None, *shape],
        "dtype": "float32",
        "sparse": False,
        "ragged": False,
    }
    new_input = {"name": "in", "batch_shape": [None, *shape], "dtype": "float32", "sparse": False}
    is_old = "groups" in json.dumps(config["config"]["layers"][2])
    kept = [object_of("InputLayer", old_input if is_old else new_input), *json.loads(json.dumps(layers))]
    config.clear()
    config.update(object_of("Sequential", {"name": "sequence", "layers": kept}, "keras"))
