"""Default settings for a model that is already trained; they keep the time moderate."""

from __future__ import annotations

from tas_tf.data.training_data import TrainingData
from tas_tf.searching.settings import SearchSettings
from tas_tf.training.settings import TrainSettings

#: Epochs of the search and of the student's training.
EPOCHS = 20
_BATCH = 64
# The paper's learning rate, 0.1 for batches of 256, scaled with the batch size.
_RATE_PER_IMAGE = 0.1 / 256
_HELD_OUT = 2000


def default_search(data: TrainingData, replicas: int = 1) -> SearchSettings:
    """Settings of a search of 20 epochs from the model's weights.

    Args:
        data: Data of the search.
        replicas: Devices that share a batch.
    """
    share = SearchSettings.split_share
    smaller = min(part := data.weights_part(share).num_train, data.num_train - part)
    batch = _batch_size(smaller, replicas)
    return SearchSettings(
        epochs=EPOCHS,
        batch_size=batch,
        lr=_RATE_PER_IMAGE * batch,
        from_teacher=True,
        held_out_limit=_HELD_OUT,
    )


def default_training(data: TrainingData, replicas: int = 1) -> TrainSettings:
    """Settings of a training of 20 epochs from trained weights, which need no warm-up.

    Args:
        data: Data of the training.
        replicas: Devices that share a batch.
    """
    batch = _batch_size(data.num_train, replicas)
    return TrainSettings(epochs=EPOCHS, warmup_epochs=0, batch_size=batch, lr=_RATE_PER_IMAGE * batch)


def _batch_size(num_images: int, replicas: int) -> int:
    """64, or all images if there are fewer, rounded down so that all replicas get the same number."""
    return max(1, min(_BATCH, num_images) // replicas) * replicas
