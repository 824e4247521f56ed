"""Callbacks that Keras lacks."""

from pathlib import Path

import keras
import tensorflow as tf

from tas_tf.training.checkpoint import list_optimizers

_SCALAR = tf.compat.v1.SummaryMetadata(
    plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
    data_class="DATA_CLASS_SCALAR",
)


def scalar_tag(name: str) -> str:
    """Returns the TensorBoard tag, `group/name`, for a log.

    A name with a slash already contains its group.

    >>> [scalar_tag(name) for name in ("loss", "arch_loss", "accuracy", "cost/expected_macs", "temperature")]
    ['loss/loss', 'loss/arch_loss', 'accuracy/accuracy', 'cost/expected_macs', 'training/temperature']
    """
    if "/" in name:
        return name
    for group in ("loss", "accuracy"):
        if name == group or name.endswith(f"_{group}"):
            return f"{group}/{name}"
    return f"training/{name}"


def write_scalar(tag: str, value: float | tf.Tensor, step: int) -> None:
    """Writes a scalar to the current default writer.

    Unlike `tf.summary.scalar`, it doesn't need the package `tensorboard`, which may not be installed.
    """
    tf.summary.write(tag, tf.cast(value, tf.float32), step=step, metadata=_SCALAR)


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes the logs of each epoch, and the learning rate of each optimizer, for TensorBoard.

    Unlike `keras.callbacks.TensorBoard`, this callback groups the scalars and supports several optimizers. Like it,
    it writes training and validation as separate runs, so that `loss` and `val_loss` share a chart. Steps are epochs.
    A resumed run continues the same charts in an additional event file.

    Args:
        log_dir: Folder of the event files.
    """

    def __init__(self, log_dir: str | Path):
        super().__init__()
        self._log_dir = Path(log_dir)
        self._writers: dict[str, tf.summary.SummaryWriter] = {}

    def on_epoch_end(self, epoch, logs=None):
        """Writes one epoch."""
        for name, value in (logs or {}).items():
            run = "validation" if name.startswith("val_") else "train"
            self._write(run, scalar_tag(name.removeprefix("val_")), value, epoch)
        for number, optimizer in enumerate(list_optimizers(self.model)):
            # The optimizer's own name holds a counter that depends on what else the process created.
            tag = f"learning_rate/{number}_{type(optimizer).__name__}"
            self._write("train", tag, optimizer.learning_rate, epoch)
        # Flush, so that an interrupted run shows all finished epochs.
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs=None):
        """Closes the event files."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def _write(self, run: str, tag: str, value, epoch: int) -> None:
        if run not in self._writers:
            self._writers[run] = tf.summary.create_file_writer(str(self._log_dir / run))
        with self._writers[run].as_default():
            write_scalar(tag, value, epoch)
