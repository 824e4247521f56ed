import pytest

from tas_tf.errors import UserError
from tas_tf.training.checkpoint import EpochCheckpoints, Progress, list_optimizers


@pytest.fixture
def make_model(make_classifier, compile_classifier):
    def make(**options):
        model = compile_classifier(make_classifier(**options))
        model.optimizer.build(model.trainable_variables)
        return model

    return make


def test_nothing_saved_is_no_progress(make_model, tmp_path):
    assert EpochCheckpoints(tmp_path / "new", make_model()).restore() == Progress()


def test_checkpoint_without_its_record_does_not_count(make_model, tmp_path, monkeypatch):
    model = make_model()
    checkpoints = EpochCheckpoints(tmp_path, model)
    checkpoints.save(Progress(1, history={"loss": [0.1]}))
    model.weights[0].assign_add(model.weights[0])
    kept = model.weights[0].numpy() / 2

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("tas_tf.training.checkpoint.write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(Progress(2, history={"loss": [0.1, 0.2]}))
    fresh = make_model(seed=5)
    assert EpochCheckpoints(tmp_path, fresh).restore() == Progress(1, history={"loss": [0.1]})
    assert (fresh.weights[0].numpy() == kept).all()


def test_only_two_are_kept(make_model, tmp_path):
    checkpoints = EpochCheckpoints(tmp_path, make_model())
    for epochs in (1, 2, 3, 4):
        checkpoints.save(Progress(epochs))
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["ckpt-3.index", "ckpt-4.index"]


def test_another_model_is_refused(make_model, tmp_path):
    EpochCheckpoints(tmp_path, make_model()).save(Progress(1))
    with pytest.raises(UserError, match=r"kernel is float32 \[3, 3, 1, 4\], the model needs .*5\]"):
        EpochCheckpoints(tmp_path, make_model(filters=5)).restore()
    with pytest.raises(UserError, match="the model and its optimizers have 16"):
        EpochCheckpoints(tmp_path, make_model(normalise=True)).restore()


def test_damage_is_reported(make_model, tmp_path):
    model = make_model()
    checkpoints = EpochCheckpoints(tmp_path, model)
    checkpoints.save(Progress(1))
    (tmp_path / "ckpt-1.index").write_bytes(b"x")
    with pytest.raises(UserError, match="can't be read"):
        checkpoints.restore()
    (tmp_path / "progress.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.restore()


def test_each_optimizer_is_listed_once(make_model):
    model = make_model()
    model.optimizers = [model.optimizer]
    assert list_optimizers(model) == [model.optimizer]
