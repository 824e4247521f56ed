"""Callbacks that Keras lacks."""

from pathlib import Path

import keras

from tas_tf.board.scalars import EpochScalars
from tas_tf.training.checkpoint import list_optimizers


class TensorBoardScalars(keras.callbacks.Callback):
    """Writes the logs of each epoch, and the learning rate of each optimizer, for TensorBoard.

    Unlike `keras.callbacks.TensorBoard`, this callback groups the scalars and supports several optimizers.

    Args:
        log_dir: Folder of the event files.
    """

    def __init__(self, log_dir: str | Path):
        super().__init__()
        self._scalars = EpochScalars(log_dir)

    def on_epoch_end(self, epoch, logs=None):
        """Writes one epoch."""
        self._scalars.write(epoch, logs or {}, [one.learning_rate for one in list_optimizers(self.model)])

    def on_train_end(self, logs=None):
        """Closes the event files."""
        self._scalars.close()
