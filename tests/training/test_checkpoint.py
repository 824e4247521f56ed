import pytest
import tensorflow as tf

from tas_tf import workers
from tas_tf.errors import UserError
from tas_tf.files import read_json, write_json
from tas_tf.training.checkpoint import Checkpoints, Progress, Saving, list_optimizers, saved_progress, variables_of


@pytest.fixture
def make_model(make_classifier, compile_classifier):
    def make(**options):
        model = compile_classifier(make_classifier(**options))
        model.optimizer.build(model.trainable_variables)
        return model

    return make


def checkpoints_of(folder, model, **options):
    return Checkpoints(Saving(folder, **options), variables_of(model))


def test_nothing_saved_is_no_progress(make_model, tmp_path):
    assert checkpoints_of(tmp_path / "new", make_model()).restore() == Progress()


def test_checkpoint_without_its_record_does_not_count(make_model, tmp_path, monkeypatch):
    model = make_model()
    checkpoints = checkpoints_of(tmp_path, model)
    checkpoints.save(Progress(1, history={"loss": [0.1]}))
    model.weights[0].assign_add(model.weights[0])
    kept = model.weights[0].numpy() / 2

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tas_tf.training.checkpoint.write_checked", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(Progress(2, history={"loss": [0.1, 0.2]}))
    fresh = make_model(seed=5)
    assert checkpoints_of(tmp_path, fresh).restore() == Progress(1, history={"loss": [0.1]})
    assert (fresh.weights[0].numpy() == kept).all()


def test_only_two_are_kept(make_model, tmp_path):
    checkpoints = checkpoints_of(tmp_path, make_model())
    for epochs in (1, 2, 3, 4):
        checkpoints.save(Progress(epochs))
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["ckpt-3.index", "ckpt-4.index"]


def test_another_model_is_refused(make_model, tmp_path):
    checkpoints_of(tmp_path, make_model()).save(Progress(1))
    with pytest.raises(UserError, match=r"kernel is float32 \[3, 3, 1, 4\], the model needs .*5\]"):
        checkpoints_of(tmp_path, make_model(filters=5)).restore()
    with pytest.raises(UserError, match="the model and its optimizers have 18"):
        checkpoints_of(tmp_path, make_model(normalise=True)).restore()


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["ckpt-2.index", "ckpt-2.data-00000-of-00001", "progress.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(make_model, tmp_path, name, how):
    model = make_model()
    checkpoints = checkpoints_of(tmp_path, model)
    checkpoints.save(Progress(1, history={"loss": [0.1]}))
    kept = [variable.numpy() for variable in model.variables]
    model.weights[0].assign_add(model.weights[0])
    checkpoints.save(Progress(1, history={"loss": [0.1]}, steps=3, seconds=0.5))
    path = tmp_path / name
    if how == "flipped" and name == "progress.json":
        path.write_text(path.read_text().replace('"checkpoint"', '"checkpoin"'))
    elif how == "flipped":
        damage(path)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    else:
        path.unlink()
    fresh = make_model(seed=5)
    again = checkpoints_of(tmp_path, fresh)
    if path.exists() or name != "progress.json":
        with pytest.warns(UserWarning, match=r"(damaged|can't be read)\. .* from the one before, after epoch 1\."):
            assert again.restore() == Progress(1, history={"loss": [0.1]})
    else:
        assert again.restore() == Progress(1, history={"loss": [0.1]})
    for variable, value in zip(fresh.variables, kept, strict=True):
        assert (variable.numpy() == value).all()
    # From there on, all is as before.
    again.save(Progress(2))
    assert checkpoints_of(tmp_path, make_model()).restore() == Progress(2)
    assert len([*tmp_path.glob("*.index")]) == 2


DAMAGES = {
    "steps": lambda record: record | {"steps": 2},
    "shape": lambda record: record | {"variables": [[path, [9], dtype] for path, _, dtype in record["variables"]]},
    "history": lambda record: record | {"history": [0.1]},
    "list": lambda record: [record],
}


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("damaged", DAMAGES)
def test_a_record_that_says_something_else_gives_way_to_the_one_before(make_model, tmp_path, damaged, old):
    """Also of an earlier version, without a checksum, where its types tell."""
    if old and damaged in ("steps", "shape"):
        pytest.skip("only a checksum tells")
    model = make_model()
    checkpoints = checkpoints_of(tmp_path, model)
    checkpoints.save(Progress(1, history={"loss": [0.1]}))
    checkpoints.save(Progress(1, history={"loss": [0.1]}, steps=3, seconds=0.5, steps_per_epoch=5))
    path = tmp_path / "progress.json"
    record = read_json(path)
    if old:
        del record["checksum"]
    write_json(path, DAMAGES[damaged](record))
    assert saved_progress(tmp_path) is None
    with pytest.warns(UserWarning, match=r"progress\.json is damaged\. .* from the one before, after epoch 1\."):
        assert checkpoints_of(tmp_path, model).restore() == Progress(1, history={"loss": [0.1]})


def test_damage_between_two_saves_leaves_the_one_before(make_model, tmp_path):
    model = make_model()
    checkpoints = checkpoints_of(tmp_path, model)
    for epochs in (1, 2):
        checkpoints.save(Progress(epochs))
    (tmp_path / "progress.json").write_text("{")
    checkpoints.save(Progress(3))
    assert saved_progress(tmp_path) == Progress(3)
    (tmp_path / "progress.json").write_text("{")
    with pytest.warns(UserWarning, match="after epoch 1"):
        assert checkpoints_of(tmp_path, model).restore() == Progress(1)


def test_other_workers_write_nothing(make_model, tmp_path, monkeypatch):
    """A folder for temporary files that is full, or missing, doesn't matter."""
    checkpoints = checkpoints_of(tmp_path / "run", make_model())
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    monkeypatch.setattr(workers, "is_chief", lambda: False)
    monkeypatch.setattr(workers, "once", lambda compute: None)
    written = []
    write = tf.train.Checkpoint.write
    monkeypatch.setattr(tf.train.Checkpoint, "write", lambda self, path: written.append(path) or write(self, path))
    checkpoints.save(Progress(1))
    assert written == ["ram://nowhere-0/ckpt"]
    assert list((tmp_path / "run").iterdir()) == []
    assert not tf.io.gfile.exists("ram://nowhere-0/ckpt.index")


def test_damage_of_all_is_reported(make_model, tmp_path):
    model = make_model()
    checkpoints = checkpoints_of(tmp_path, model)
    for epochs in (1, 2):
        checkpoints.save(Progress(epochs))
    for path in tmp_path.glob("*.index"):
        path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"ckpt-2 can't be read\. Use `overwrite`"):
        checkpoints.restore()
    (tmp_path / "progress.json").write_text("{}")
    assert saved_progress(tmp_path) is None
    with pytest.raises(UserError, match=r"progress\.json is damaged"):
        checkpoints.restore()


def test_what_earlier_versions_saved_is_read(make_model, tmp_path):
    model = make_model()
    groups = {"model": model.variables, "optimizer_0": model.optimizer.variables}
    saved = tf.train.Checkpoint(**{name: [one.value for one in group] for name, group in groups.items()})
    tf.train.CheckpointManager(saved, str(tmp_path), max_to_keep=2).save(checkpoint_number=3)
    signature = [
        [f"{name}: {one.path}", list(one.shape), str(one.dtype)] for name, group in groups.items() for one in group
    ]
    record = {"epochs": 3, "stopped": False, "history": {}, "checkpoint": "ckpt-3", "variables": signature}
    write_json(tmp_path / "progress.json", record)
    fresh = make_model(seed=5)
    checkpoints = checkpoints_of(tmp_path, fresh)
    assert checkpoints.restore() == Progress(3)
    for ours, theirs in zip(fresh.variables, model.variables, strict=True):
        assert (ours.numpy() == theirs.numpy()).all()
    checkpoints.save(Progress(4))
    assert checkpoints_of(tmp_path, make_model()).restore() == Progress(4)


def test_what_earlier_versions_saved_without_a_record_is_refused(make_model, tmp_path):
    model = make_model()
    tf.train.CheckpointManager(tf.train.Checkpoint(model=model), str(tmp_path), max_to_keep=1).save()
    with pytest.raises(UserError, match="holds a checkpoint of an earlier version"):
        checkpoints_of(tmp_path, model).restore()


def test_a_full_disk_leaves_the_earlier_checkpoint(make_model, tmp_path, monkeypatch):
    checkpoints = checkpoints_of(tmp_path, make_model())
    checkpoints.save(Progress(1))

    def write(self, path):
        (tmp_path / "ckpt-2.data-00000-of-00001.tempstate1").write_bytes(b"half")
        (tmp_path / "ckpt-2_temp").mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.Checkpoint, "write", write)
        with pytest.raises(tf.errors.ResourceExhaustedError):
            checkpoints.save(Progress(2))
    assert not [*tmp_path.glob("*temp*")]
    assert checkpoints_of(tmp_path, make_model()).restore() == Progress(1)
    checkpoints.save(Progress(2))
    assert saved_progress(tmp_path) == Progress(2)


def test_it_is_due_when_the_time_has_passed(make_model, tmp_path, monkeypatch):
    now = [100.0]
    monkeypatch.setattr("tas_tf.training.checkpoint.time.monotonic", lambda: now[0])
    checkpoints = checkpoints_of(tmp_path, make_model(), minutes=2)
    now[0] += 119
    assert not checkpoints.due
    now[0] += 1
    assert checkpoints.due
    checkpoints.save(Progress(1))
    assert not checkpoints.due


def test_it_tells_that_it_has_saved(make_model, tmp_path):
    told = []
    model = make_model()
    Checkpoints(Saving(tmp_path, on_saved=lambda: told.append(saved_progress(tmp_path))), variables_of(model)).save(
        Progress(1)
    )
    assert told == [Progress(1)]


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(3), "epoch 3"),
        (Progress(3, steps=7), "epoch 3 and 7 steps of the next"),
        (Progress(0, steps=7), "7 steps of the first epoch"),
    ],
)
def test_progress_is_told(progress, text):
    assert str(progress) == text


def test_each_optimizer_is_listed_once(make_model):
    model = make_model()
    model.optimizers = [model.optimizer]
    assert list_optimizers(model) == [model.optimizer]
