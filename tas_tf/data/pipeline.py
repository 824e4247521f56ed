"""Batches for training, search and evaluation, each a pure function of its seed."""

import dataclasses
import math
from functools import partial

import numpy as np
import tensorflow as tf

from tas_tf.data.augmentation import Augmentation, augment_batch, random_resized_crop
from tas_tf.data.colour import change_colours
from tas_tf.data.order import epoch_after_epoch
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.resizing import central_view
from tas_tf.data.share import WHOLE, Share, current_share
from tas_tf.data.source import ArraySource, Source, StreamedSource
from tas_tf.errors import UserError

# Images to score at once, and their size as floats.
_EVALUATION_BATCH, _EVALUATION_BYTES = 256, 2**28
# Each kind of draw has its own random numbers.
_ORDER, _CROP, _CHANGE, _COLOUR = range(4)


def evaluation_batch(image_shape: tuple[int, ...]) -> int:
    """Returns the number of images to score at once: 256, or fewer if images are so large that memory can't hold them.

    >>> evaluation_batch((224, 224, 3)), evaluation_batch((1024, 1024, 3))
    (256, 21)
    """
    return max(1, min(_EVALUATION_BATCH, _EVALUATION_BYTES // (4 * math.prod(image_shape))))


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """Returns the number of full batches.

    >>> steps_per_epoch(100, 32)
    3

    Raises:
        UserError: If there is no full batch.
    """
    if not 1 <= batch_size <= num_examples:
        raise UserError(
            f"`batch_size` doesn't fit the data. Expected 1 to {num_examples}, the number of training "
            f"examples in this part. Received: {batch_size}."
        )
    return num_examples // batch_size


def epochs(
    source: Source,
    indices: np.ndarray | None = None,
    *,
    batch_size: int,
    preprocessing: Preprocessing,
    augment: Augmentation | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
    test_resize: int | None = None,
) -> tf.data.Dataset:
    """Yields batches of one epoch after another, endlessly.

    Order and augmentation of an epoch depend only on `seed` and its number: `first_epoch=3` gives exactly what an
    uninterrupted run gives from its fourth epoch on. Each epoch has a new random order, and leaves out the examples
    beyond its last full batch.

    Args:
        source: Data set.
        indices: Training examples to use; by default all.
        batch_size: Images in a batch, over all replicas.
        preprocessing: Preprocessing, applied after augmentation.
        augment: Random changes; by default none.
        seed: Seed of order and augmentation.
        first_epoch: Number of the first epoch.
        first_step: Number of batches to leave out, without reading their images.
        test_resize: As in `evaluation`, to show images as in an evaluation; excludes `augment`.

    Returns:
        Elements: float32 `[batch_size, height, width, channels]`, int64 `[batch_size]`.

    Raises:
        UserError: If `batch_size` doesn't fit the data.
    """
    indices = _all_or(source, "train", indices)
    plan = _Plan(
        source=source,
        indices=indices,
        batch_size=batch_size,
        num_steps=steps_per_epoch(len(indices), batch_size),
        preprocessing=preprocessing,
        augment=augment or Augmentation(),
        seed=(seed, 0),
        test_resize=test_resize,
    )
    return plan.batches(first_epoch, first_step)


def paired_epochs(
    source: Source,
    weights_indices: np.ndarray,
    arch_indices: np.ndarray,
    *,
    batch_size: int,
    preprocessing: Preprocessing,
    augment: Augmentation | None = None,
    seed: int = 0,
    first_epoch: int = 0,
    first_step: int = 0,
) -> tf.data.Dataset:
    """Yields pairs of batches, one from each half, for the search; an epoch ends with the smaller half.

    Args:
        source: Data set, of which the training split is used.
        weights_indices: Examples that update the weights.
        arch_indices: Examples that update the architecture.
        batch_size: Images in each of the two batches, over all replicas.
        preprocessing: Preprocessing, applied after augmentation.
        augment: Random changes to both halves; by default none.
        seed: Seed of order and augmentation.
        first_epoch: Number of the first epoch.
        first_step: Number of pairs to leave out, without reading their images.

    Returns:
        Elements: `((images, labels), (images, labels))`, the weights' batch first.

    Raises:
        UserError: If `batch_size` doesn't fit the smaller half.
    """
    halves = (np.asarray(weights_indices), np.asarray(arch_indices))
    num_steps = steps_per_epoch(min(len(half) for half in halves), batch_size)
    plans = [
        _Plan(
            source=source,
            indices=half,
            batch_size=batch_size,
            num_steps=num_steps,
            preprocessing=preprocessing,
            augment=augment or Augmentation(),
            seed=(seed, number),
        )
        for number, half in enumerate(halves)
    ]
    pairs = tf.data.Dataset.zip(tuple(plan.batches(first_epoch, first_step) for plan in plans))
    return pairs.with_options(dataset_options())


def evaluation(
    source: Source,
    split: str,
    indices: np.ndarray | None = None,
    *,
    batch_size: int,
    preprocessing: Preprocessing,
    test_resize: int | None = None,
) -> tf.data.Dataset:
    """Yields each example once, in a fixed order, without augmentation; the last batch may be smaller.

    Args:
        source: Data set.
        split: "train" or "test".
        indices: Examples to use; by default all. Sources in memory keep the order of `indices`.
        batch_size: Images in a batch.
        preprocessing: Preprocessing of the images.
        test_resize: Height and width that images are resized to before their centre is cut out; by default, images are
            resized to the network's size and nothing is cut off. Images in memory already have the network's size, so
            they are enlarged before the cut.

    Returns:
        Elements: float32 `[n, height, width, channels]`, int64 `[n]`, n up to `batch_size`.
    """
    indices = _all_or(source, split, indices)
    if batch_size < 1:
        raise UserError(f"`batch_size` is out of range. Expected at least 1. Received: {batch_size}.")
    if isinstance(source, StreamedSource):
        size, way = source.image_shape[:2], source.resize
        dataset = source.examples(split, indices)
        dataset = _parallel(
            dataset, lambda _, image, label: (central_view(source.decode(image), size, way, test_resize), label)
        )
        dataset = dataset.batch(batch_size)
    else:
        dataset = tf.data.Dataset.from_tensor_slices(indices).batch(batch_size)
        dataset = _parallel(dataset, lambda rows: _gather(source, split, rows, test_resize))
    dataset = _parallel(dataset, lambda images, labels: (preprocessing.apply(images), labels))
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(dataset_options())


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Plan:
    """Parameters of every epoch; see `epochs`."""

    source: Source
    indices: np.ndarray
    batch_size: int
    num_steps: int
    preprocessing: Preprocessing
    augment: Augmentation
    seed: tuple[int, int]
    test_resize: int | None = None
    share: Share = dataclasses.field(default_factory=current_share)

    def batches(self, first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
        """Yields `(images, labels)` from a step of an epoch on, endlessly; of streamed sources, each batch's share."""
        epochs_before, first_step = divmod(first_step, self.num_steps)
        first_epoch += epochs_before
        if isinstance(self.source, StreamedSource):
            read = partial(self._streamed_epoch, self.source, later=first_step > 0)
        else:
            read = self._row_epoch

        def numbered(epoch: tf.Tensor) -> tf.data.Dataset:
            first = tf.where(epoch == first_epoch, tf.constant(first_step, tf.int64), 0)
            batches = read(self._epoch_seed(epoch), first).take(self.num_steps - first)
            return batches.enumerate(first).map(lambda step, *batch: (epoch, step, *batch))

        dataset = _parallel(epoch_after_epoch(first_epoch, numbered), self._finish)
        return dataset.prefetch(tf.data.AUTOTUNE).with_options(dataset_options())

    def _epoch_seed(self, epoch: tf.Tensor) -> tf.Tensor:
        return tf.random.fold_in(tf.constant(self.seed, tf.int64), epoch)

    def _row_epoch(self, seed: tf.Tensor, first: tf.Tensor) -> tf.data.Dataset:
        """Yields the indices of each batch from the first one on, which `_finish` then reads in parallel."""
        order = tf.random.experimental.stateless_shuffle(
            tf.constant(self.indices, tf.int64), seed=tf.random.fold_in(seed, _ORDER)
        )
        rows = tf.data.Dataset.from_tensor_slices(order[first * self.batch_size :])
        return rows.batch(self.batch_size, drop_remainder=True)

    def _streamed_epoch(
        self, source: StreamedSource, seed: tf.Tensor, first: tf.Tensor, *, later: bool
    ) -> tf.data.Dataset:
        """Yields `(images, labels)`, uint8; images differ in size, so they are cropped and resized one by one.

        Args:
            source: The source.
            seed: Seed of the epoch.
            first: Number of the first batch.
            later: Whether it may be another than 0.
        """
        crop_seed = tf.random.fold_in(seed, _CROP)

        def read(index: tf.Tensor, encoded: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = source.decode(encoded)
            size = source.image_shape[:2]
            image_seed = tf.random.fold_in(crop_seed, index)
            if self.augment.random_resized_crop:
                image = random_resized_crop(image[tf.newaxis], size=size, seed=image_seed)[0]
            else:
                image = central_view(image, size, source.resize, self.test_resize)
            # Recolour one by one, so that no batch of large images is held as floats.
            return self._recoloured(image[tf.newaxis], image_seed)[0], label

        def wanted(position: tf.Tensor) -> tf.Tensor:
            position = tf.cast(position, tf.int64)
            return (position >= first * self.batch_size) & self.share.holds(position, self.batch_size)

        only = wanted if later or self.share != WHOLE else None
        examples = source.examples("train", self.indices, seed=tf.random.fold_in(seed, _ORDER), only=only)
        return _parallel(examples, read).batch(self.share.size(self.batch_size), drop_remainder=True)

    def _finish(
        self, epoch: tf.Tensor, step: tf.Tensor, batch: tf.Tensor | tuple[tf.Tensor, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Reads the batch (for sources in memory), augments it and normalises it."""
        seed = tf.random.fold_in(tf.random.fold_in(self._epoch_seed(epoch), _CHANGE), step)
        if isinstance(batch, tuple):
            images, labels = batch
        else:
            images, labels = _gather(self.source, "train", batch, self.test_resize)
        todo, share = self.augment, WHOLE
        if isinstance(batch, tuple):
            # Streamed images have already been cropped and recoloured one by one.
            todo, share = Augmentation(pad_crop=todo.pad_crop, flip=todo.flip), self.share
        return self.preprocessing.apply(augment_batch(images, todo, seed=seed, share=share)), labels

    def _recoloured(self, images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        augment = self.augment
        if not augment.changes_colours:
            return images
        colour_seed = tf.random.fold_in(seed, _COLOUR)
        return change_colours(images, color_jitter=augment.color_jitter, lighting=augment.lighting, seed=colour_seed)


def _gather(
    source: ArraySource, split: str, rows: tf.Tensor, test_resize: int | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    images, labels = (tf.gather(tensor, rows) for tensor in source.tensors[split])
    if test_resize is not None:
        size = source.image_shape[:2]
        images = tf.map_fn(lambda image: central_view(image, size, first=test_resize), images)
    return images, labels


def _all_or(source: Source, split: str, indices: np.ndarray | None) -> np.ndarray:
    if indices is None:
        return np.arange(len(source.labels(split)))
    indices = np.asarray(indices, np.int64)
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(source.labels(split)):
        raise UserError(
            f"`indices` are out of range. Expected 0 to {len(source.labels(split)) - 1}. "
            f"Received: {indices.min()} to {indices.max()}."
        )
    return indices


def _parallel(dataset: tf.data.Dataset, function) -> tf.data.Dataset:
    return dataset.map(function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def dataset_options() -> tf.data.Options:
    """Returns options of all datasets: a fixed order, and shares of each batch for the replicas of a strategy."""
    options = tf.data.Options()
    options.deterministic = True
    # To rewrite a pipeline, TensorFlow writes it down as a graph with all its tensors: a second copy of the images, and
    # a third of those of a search. Pipelines here are parallel and prefetch already, so that it makes none faster.
    options.experimental_optimization.apply_default_optimizations = False
    # Sharding files would mix the batches.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return options
