import tensorflow as tf

from tas_tf.training.callbacks import TensorBoardScalars
from tas_tf.training.checkpoint import Saving
from tas_tf.training.loop import fit
from tas_tf.training.strategy import make_strategy


def read_scalars(folder):
    """Scalars by tag, without the layout."""
    found = {}
    for path in sorted(folder.glob("events*")):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = float(tf.make_ndarray(value.tensor))
                    found.setdefault(value.tag, []).append((event.step, number))
    return {tag: sorted(points) for tag, points in found.items()}


def test_scalars_of_a_resumed_run_join(make_classifier, compile_classifier, epochs_dataset, tmp_path):
    for epochs in (2, 3):
        history = fit(
            compile_classifier(make_classifier()),
            epochs_dataset,
            strategy=make_strategy("one_device"),
            epochs=epochs,
            steps_per_epoch=4,
            callbacks=[TensorBoardScalars(tmp_path / "logs")],
            saving=Saving(tmp_path / "checkpoints"),
            validation=lambda: {"accuracy": 0.5, "cost/macs": 7},
            verbose=0,
        )
    train = read_scalars(tmp_path / "logs" / "train")
    assert train.keys() == {"loss/loss", "score/accuracy", "learning_rate/weights"}
    assert train["loss/loss"] == list(enumerate(tf.cast(history.history["loss"], tf.float32).numpy()))
    assert [step for step, _ in train["learning_rate/weights"]] == [0, 1, 2]
    validation = read_scalars(tmp_path / "logs" / "validation")
    assert validation["score/accuracy"] == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert validation["cost/macs"] == [(0, 7.0), (1, 7.0), (2, 7.0)]
