"""Files made by someone else run no code, and reach nothing outside themselves."""

import json
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tas_tf.errors import UserError
from tas_tf.zoo.loading import load_file
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


@pytest.fixture
def evil(tmp_path, monkeypatch) -> Path:
    """A module that can be imported; returns the file that exists once it was."""
    (tmp_path / "evil_module.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "trace"


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


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("change", [as_layer, as_registered_layer, as_function, as_initializer, of_the_system])
def test_modules_that_a_file_names_are_not_imported(tmp_path, evil, suffix, change):
    path = tmp_path / f"mine{suffix}"
    tiny_network().save(path)
    rewrite(path, change)
    with pytest.raises(UserError, match=r"mine\.(keras|h5)"):
        load_file(path)
    assert not evil.exists()


@pytest.mark.parametrize("name", ["../outside", "assets/../../outside", "{folder}/outside"])
def test_members_that_lie_outside_the_archive_are_not_unpacked(tmp_path, name):
    inside = tmp_path / "some" / "folder"
    inside.mkdir(parents=True)
    path = inside / "mine.keras"
    tiny_network().save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name.format(folder=tmp_path), "evil")
    with pytest.raises(UserError, match=r"mine\.keras can't be loaded .* invalid path"):
        load_file(path)
    assert [one.name for one in sorted(tmp_path.rglob("*"))] == ["some", "folder", "mine.keras"]


def first_dataset(file: h5py.File) -> str:
    found = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) and item.ndim else None)
    return found[0]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("how", ["link", "external data"])
def test_weights_of_other_files_are_not_read(tmp_path, suffix, how):
    """Such as those of a file that the user alone may read."""
    path, secret = tmp_path / f"mine{suffix}", tmp_path / "secret.h5"
    tiny_network().save(path)
    weights = path
    if suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "unpacked")
        weights = tmp_path / "unpacked" / "model.weights.h5"
    with h5py.File(weights, "r+") as file:
        name = first_dataset(file)
        value = file[name][()]
        del file[name]
        if how == "link":
            with h5py.File(secret, "w") as other:
                other["value"] = np.full_like(value, 7)
            file[name] = h5py.ExternalLink(str(secret), "/value")
        else:
            secret.write_bytes(np.full_like(value, 7).tobytes())
            file.create_dataset(name, value.shape, value.dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    if suffix == ".keras":
        path.unlink()
        shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "unpacked")
        (tmp_path / "mine.zip").rename(path)
    with pytest.raises(UserError, match=r"mine\.(keras|h5)"):
        load_file(path)
