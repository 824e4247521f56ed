import contextlib
import json

import keras
import numpy as np
import pytest

from tas_tf import workers
from tas_tf.errors import UserError
from tas_tf.files import (
    atomic_folder,
    read_checked,
    read_json,
    read_text,
    write_arrays,
    write_bytes,
    write_checked,
    write_json,
    write_model,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_json_round_trip(tmp_path):
    path = tmp_path / "new" / "metrics.json"
    write_json(path, {"a": np.float32(0.5), "b": np.arange(2), "c": tmp_path})
    assert read_json(path) == {"a": 0.5, "b": [0, 1], "c": str(tmp_path)}
    assert names(path.parent) == ["metrics.json"]
    path.write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)
    with pytest.raises(UserError, match="No such file"):
        read_json(tmp_path / "none.json")


def test_a_checksum_tells_damage(tmp_path):
    path = tmp_path / "progress.json"
    write_checked(path, {"steps": np.int64(12), "history": {"loss": [np.float32(0.1), float("nan")]}, "shape": (1, 2)})
    content = read_checked(path)
    assert content["steps"] == 12
    assert content["shape"] == [1, 2]
    text = path.read_text()
    damages = [text.replace("12", "13"), text.replace("steps", "stepr"), text.replace("1,", "2,"), "[]", text[:-5]]
    for damaged in damages:
        assert damaged != text
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"progress\.json is (damaged|not valid JSON)"):
            read_checked(path)
    write_json(path, {"steps": 12})  # of an earlier version
    assert read_checked(path) == {"steps": 12}


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError, match="object"):
        write_json(path, {"a": 2, "b": object()})
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(path, {"a": 3})
    assert json.loads(path.read_text()) == {"a": 1}
    assert names(tmp_path) == ["metrics.json"]


def test_failed_model_write_leaves_the_old_model(tmp_path, monkeypatch):
    path = tmp_path / "model.keras"
    images = keras.Input((6, 6, 1))
    model = keras.Model(images, keras.layers.Dense(3)(keras.layers.Flatten()(images)))
    write_model(path, model)
    before = path.read_bytes()

    def save_half(partial, **_):
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(model, "save", save_half)
    with pytest.raises(KeyboardInterrupt):
        write_model(path, model)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["model.keras"]
    images = np.ones((2, 6, 6, 1), np.float32)
    np.testing.assert_array_equal(keras.models.load_model(path)(images), model(images))
    with pytest.raises(ValueError, match=r"must end in \.keras"):
        write_model(tmp_path / "model.h5", model)


def test_other_workers_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "is_chief", lambda: False)
    images = keras.Input((3,))
    model, saved = keras.Model(images, keras.layers.Dense(2)(images)), []
    save = model.save
    monkeypatch.setattr(model, "save", lambda path: saved.append(path) or save(path))
    write_model(tmp_path / "model.keras", model)  # all take part, as reading some variables takes all of them
    assert saved == ["ram://nowhere-0/model.keras"]
    write_json(tmp_path / "metrics.json", {})
    write_bytes(tmp_path / "page.html", b"x")
    write_arrays(tmp_path / "weights.npz", [np.zeros(2)])
    assert names(tmp_path) == []


def test_folder_appears_whole_or_not(tmp_path):
    target = tmp_path / "saved_model"
    with atomic_folder(target) as partial:
        (partial / "a").write_text("1")
        assert not target.exists()
    with contextlib.suppress(RuntimeError), atomic_folder(target) as partial:
        (partial / "a").write_text("2")
        raise RuntimeError("half way")
    assert (target / "a").read_text() == "1"
    with atomic_folder(target) as partial:
        (partial / "b").write_text("3")
    assert names(target) == ["b"]
    assert names(tmp_path) == ["saved_model"]


@pytest.mark.parametrize(
    ("write", "content"),
    [(write_json, {"a": 1}), (write_bytes, b"a"), (write_arrays, [np.zeros(2)]), (write_model, None)],
)
def test_a_file_never_replaces_a_folder(tmp_path, write, content):
    target = tmp_path / "runs.keras"
    target.mkdir()
    (target / "precious").write_text("1")
    if write is write_model:
        images = keras.Input((2,))
        content = keras.Model(images, keras.layers.Dense(1)(images))
    with pytest.raises(IsADirectoryError) as caught:
        write(target, content)
    assert caught.value.filename == str(target)
    assert names(tmp_path) == ["runs.keras"]
    assert (target / "precious").read_text() == "1"


def test_what_is_no_text_is_told(tmp_path):
    path = tmp_path / "flags.cfg"
    path.write_bytes(b"--lr=0.1\n\xff\n")
    with pytest.raises(UserError, match=r"flags\.cfg isn't a text in UTF-8: .* at byte 9"):
        read_text(path)
    with pytest.raises(UserError, match="No such file"):
        read_json(tmp_path / "missing.json")
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not valid JSON"):
        read_json(path)
