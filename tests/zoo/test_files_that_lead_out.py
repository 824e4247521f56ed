"""Files of models reach nothing outside themselves, and are checked in the format in which they are read."""

import io
import shutil
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from tas_tf.errors import UserError
from tas_tf.zoo.loading import load_file
from tests.zoo.hostile import as_model, old_network, rewrite

# tf_keras says so of every HDF5 file.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file:UserWarning")


@pytest.mark.parametrize("name", ["../outside", "assets/../../outside", "{folder}/outside"])
def test_members_that_lie_outside_the_archive_are_not_unpacked(tmp_path, save, name):
    inside = tmp_path / "some" / "folder"
    inside.mkdir(parents=True)
    path = inside / "mine.keras"
    save(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name.format(folder=tmp_path), "evil")
    with pytest.raises(UserError, match=r"mine\.keras reaches for other files: .*outside' lies outside"):
        load_file(path)
    assert [one.name for one in sorted(tmp_path.rglob("*"))] == ["some", "folder", "mine.keras"]


def first_dataset(file: h5py.File) -> str:
    found = []
    file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) and item.ndim else None)
    return found[0]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
@pytest.mark.parametrize("how", ["link", "link inside", "external data", "virtual data"])
def test_weights_of_other_files_are_not_read(tmp_path, save, suffix, how):
    """Such as those of a file that the user alone may read."""
    path, secret = tmp_path / f"mine{suffix}", tmp_path / "secret.h5"
    save(path)
    weights = path
    if suffix == ".keras":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "unpacked")
        weights = tmp_path / "unpacked" / "model.weights.h5"
    with h5py.File(weights, "r+") as file:
        name = first_dataset(file)
        value = file[name][()]
        del file[name]
        with h5py.File(secret, "w") as other:
            other["value"] = np.full_like(value, 7)
        if how == "link":
            file[name] = h5py.ExternalLink(str(secret), "/value")
        elif how == "link inside":
            file["value"] = value
            file[name] = h5py.SoftLink("/value")
        elif how == "virtual data":
            layout = h5py.VirtualLayout(value.shape, value.dtype)
            layout[...] = h5py.VirtualSource(str(secret), "value", value.shape, value.dtype)
            file.create_virtual_dataset(name, layout)
        else:
            file.create_dataset(name, value.shape, value.dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    if suffix == ".keras":
        path.unlink()
        shutil.make_archive(str(tmp_path / "mine"), "zip", tmp_path / "unpacked")
        (tmp_path / "mine.zip").rename(path)
    with pytest.raises(UserError, match=r"mine\.(keras|h5) reaches for other files: .*(is a link|lie elsewhere)"):
        load_file(path)


def test_a_file_in_two_formats_is_checked_as_it_is_read(tmp_path, evil):
    """HDF5 begins at the start of a file, a zip archive ends at its end."""
    path, archive = tmp_path / "mine.keras", tmp_path / "other.keras"
    old_network(tmp_path / "mine.h5")
    old_network(archive)
    rewrite(archive, as_model)
    path.write_bytes((tmp_path / "mine.h5").read_bytes() + archive.read_bytes())
    with pytest.raises(UserError, match=r"mine\.keras"):
        load_file(path)
    assert not evil.exists()


class Trace:
    """Leaves a trace when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_pickled_weights_are_not_unpickled(tmp_path):
    """tf_keras reads `.npz` as well."""
    path, trace, weights = tmp_path / "mine.keras", tmp_path / "trace", io.BytesIO()
    old_network(path)
    np.savez(weights, __root__=np.array(Trace(trace), dtype=object))
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if not name.endswith(".h5")}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, "model.weights.npz": weights.getvalue()}.items():
            archive.writestr(name, content)
    with pytest.raises(UserError, match=r"mine\.keras"):
        load_file(path)
    assert not trace.exists()
