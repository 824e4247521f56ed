"""A user's own data for training, search and scores, read as streams."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

import tensorflow as tf

from tas_tf import workers
from tas_tf.data.augmentation import Augmentation, augment_batch
from tas_tf.data.form import Form
from tas_tf.data.labels import Labels
from tas_tf.data.order import Epoch, epoch_after_epoch, seed_of_epoch, shuffled
from tas_tf.data.pipeline import dataset_options, evaluation_batch, steps_per_epoch
from tas_tf.data.several_labels import make_labels, weighed
from tas_tf.data.stream import Stream, UserData, open_stream
from tas_tf.data.survey import Survey, bucket_of, limit_of, survey
from tas_tf.data.training_data import EpochsDataset, TrainingData
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective


@dataclass(frozen=True, eq=False)
class StreamedData(TrainingData):
    """A user's data. Memory holds only a batch or two of it and a shuffle buffer.

    The contents of an image decide which of the two parts of a search it belongs to, so the split doesn't depend on the
    order of the data. Random augmentation inside the data breaks the split, because the images then differ in every
    epoch. Use `augment` instead.

    Attributes:
        train: Training images.
        validation: Images for scores; `None` if there are none.
        labels: Form of the labels of `train` and, if given, `validation`.
        surveys: Surveys of `train` and, if given, `validation`.
        names: Names of the classes 0, 1, ...
        augment: Changes to training images.
        seed: Seed for augmentation and shuffle buffers.
        share: Share of the training images to use; below 1, they are the first part of a search.
    """

    train: Stream
    validation: Stream | None
    labels: tuple[Labels, ...]
    surveys: tuple[Survey, ...]
    names: tuple[str, ...]
    augment: Augmentation
    seed: int
    share: float = 1.0

    @property
    def name(self) -> str:
        """The name of the argument that holds the training images."""
        return self.train.argument

    @property
    def form(self) -> Form:
        """What the network takes and returns."""
        return self.train.form

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image; of several inputs, how many numbers they are together."""
        return self.form.packed_shape

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes 0, 1, ..."""
        return self.names

    @property
    def objective(self) -> Objective:
        """What networks are trained for."""
        return self.surveys[0].objective

    @property
    def num_train(self) -> int:
        """Number of training images in use."""
        return self.surveys[0].count_below(self.share)

    @property
    def chance(self) -> float:
        """Score of the best constant output on the images for scores."""
        return self.surveys[-1].chance

    @property
    def repeats(self) -> bool:
        """Whether the data are arrays: an order of the user's may be another one each time."""
        return self.train.is_mixed

    def training(self, batch_size: int) -> tuple[EpochsDataset, int]:
        """Batches of the training images, by first epoch, and the steps of an epoch; see `TrainingData`."""
        steps = steps_per_epoch(self.num_train, batch_size)

        def dataset(first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
            def batches(examples: tf.data.Dataset) -> tf.data.Dataset:
                return examples.batch(batch_size, drop_remainder=True)

            return self._in_epochs(batches, first_epoch, first_step, steps)

        return dataset, steps

    def searching(self, batch_size: int, share: float = 0.5) -> tuple[EpochsDataset, int]:
        """Pairs of batches of two disjoint parts, read in one pass; see `TrainingData`."""
        first = self.surveys[0].count_below(share * self.share)
        steps = steps_per_epoch(min(first, self.num_train - first), batch_size)
        is_second = partial(_is_from, limit=limit_of(share * self.share))

        def dataset(first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
            def pairs(examples: tf.data.Dataset) -> tf.data.Dataset:
                examples = examples.map(lambda image, label: (image, label, is_second(image)))
                return _pair(examples, batch_size, min(share, 1 - share))

            return self._in_epochs(pairs, first_epoch, first_step, steps, paired=True)

        return dataset, steps

    def weights_part(self, share: float) -> Self:
        """The same data with the first part of a search as its training images."""
        return replace(self, share=share * self.share)

    def held_out(self, share: float, limit: int) -> tf.data.Dataset:
        """The first images of the second part, at most `limit`, plain."""
        start = limit_of(share * self.share)
        examples = self._train_examples(None).filter(lambda image, _: _is_from(image, start))
        return self._plain(examples.take(limit).batch(evaluation_batch(self.image_shape)))

    def calibration(self, batch_size: int, batches: int) -> tf.data.Dataset:
        """A few batches of training images, plain, shuffled within the buffer."""
        examples = self._train_examples(None)
        return self._plain(examples.batch(min(batch_size, self.num_train), drop_remainder=True).take(batches))

    def test(self) -> tf.data.Dataset | None:
        """The images for scores, once and plain; `None` if there are none."""
        if self.validation is None:
            return None
        examples = self._examples(self.validation, self.labels[-1], None)
        return self._plain(examples.batch(evaluation_batch(self.image_shape)))

    def _examples(self, stream: Stream, labels: Labels, epoch: Epoch) -> tf.data.Dataset:
        return stream.examples(epoch).map(lambda image, label: (image, labels.convert(label, self.names)))

    def _train_examples(self, epoch: Epoch) -> tf.data.Dataset:
        """Training images one by one, shuffled: those of an epoch of training, or apart from training."""
        examples = self._examples(self.train, self.labels[0], epoch)
        if self.share < 1:
            end = limit_of(self.share)
            examples = examples.filter(lambda image, _: tf.logical_not(_is_from(image, end)))
        if not self.train.is_mixed:
            examples = shuffled(examples, self.train.mixed, seed_of_epoch(self.seed, epoch))
        return examples

    def _in_epochs(
        self,
        gather: Callable[[tf.data.Dataset], tf.data.Dataset],
        first_epoch: int,
        first_step: int,
        steps: int,
        *,
        paired: bool = False,
    ) -> tf.data.Dataset:
        """Gathers images in batches and augments them. Each epoch begins anew, whatever was read before it.

        Args:
            gather: Makes batches, or pairs of batches, of images one by one.
            first_epoch: Number of the first epoch.
            first_step: Number of batches to leave out. Their images are read, as only reading tells which they are.
            steps: Batches in an epoch.
            paired: Whether there are pairs.
        """
        epochs_before, first_step = divmod(first_step, steps)
        first_epoch += epochs_before

        def read(epoch: tf.Tensor) -> tf.data.Dataset:
            # An epoch that falls short, as pairs of batches make it, goes on with images of the next one.
            return gather(epoch_after_epoch(epoch, self._train_examples)).take(steps)

        batches = epoch_after_epoch(first_epoch, read).skip(first_step)
        return self._augmented(batches, first_epoch * steps + first_step, paired=paired)

    def _augmented(self, batches: tf.data.Dataset, first_step: int, *, paired: bool = False) -> tf.data.Dataset:
        """Augments images, with a different seed for each batch, and makes them floats.

        Args:
            batches: Batches of images and labels, or pairs of such batches.
            first_step: Number of the first batch.
            paired: Whether `batches` holds pairs.
        """

        def change(step: tf.Tensor, *elements: Any) -> Any:
            pairs = elements if paired else (elements,)
            done = []
            for number, (images, labels) in enumerate(pairs):
                seed = tf.random.fold_in(tf.constant((self.seed, number), tf.int64), step)
                done.append((self._changed(images, seed), labels))
            return tuple(done) if paired else done[0]

        batches = batches.enumerate(first_step).map(
            lambda step, batch: change(step, *batch), num_parallel_calls=tf.data.AUTOTUNE
        )
        return batches.prefetch(tf.data.AUTOTUNE).with_options(dataset_options())

    def _changed(self, images: Any, seed: tf.Tensor) -> tf.Tensor:
        """Augments a batch and makes it what networks take; of several inputs, only the image is changed."""
        if not self.form.is_packed:
            return tf.cast(augment_batch(images, self.augment, seed=seed), tf.float32)
        number = self.form.image
        changed = augment_batch(images[number], self.augment, seed=seed)
        return self.form.pack((*images[:number], changed, *images[number + 1 :]))

    def _plain(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        batches = batches.map(lambda images, labels: (self.form.pack(images), labels))
        return batches.prefetch(tf.data.AUTOTUNE).with_options(dataset_options())


def open_data(
    train: UserData,
    validation: UserData | None = None,
    *,
    form: Form,
    objective: Objective,
    augment: Augmentation | None = None,
    seed: int = 0,
    divided: bool = True,
    scored: str = "validation",
) -> StreamedData:
    """Checks a user's data in one pass over it and prepares it for training.

    A warning says so if random changes inside the data don't do what they are for.

    Args:
        train: Training images and labels, in a form that `open_stream` takes.
        validation: Other images and labels, for scores only; a search doesn't need them.
        form: What the network takes and returns.
        objective: What the outputs of the network mean; weights of images in the data are added.
        augment: Changes to training images.
        seed: Seed for augmentation and order.
        divided: Whether a part of the training images will be held out for scores.
        scored: Name of `validation` in messages.

    Raises:
        UserError: The data can't be read, doesn't fit the network, or is unsuitable for training.
    """
    arguments = {"train": train} if validation is None else {"train": train, scored: validation}
    streams = [open_stream(argument, data, form, seed=seed) for argument, data in arguments.items()]
    for stream in streams:
        _check_size(stream, form)
    augment = augment or Augmentation()
    _check_augmentation(augment, streams[0], objective)
    objective = weighed(objective, streams[0].spec[1])
    labels = tuple(make_labels(stream.argument, stream.spec[1], objective, stream.class_names) for stream in streams)
    surveys = workers.once(lambda: tuple(map(survey, streams, labels)))
    names = labels[0].class_names(surveys[0].counts)
    for kind, found in zip(labels[1:], surveys[1:], strict=True):
        kind.check_known(found.counts, names)
    _warn_of_changes(streams[0], surveys[0], divided=divided)
    return StreamedData(streams[0], streams[1] if len(streams) > 1 else None, labels, surveys, names, augment, seed)


def _warn_of_changes(stream: Stream, found: Survey, *, divided: bool) -> None:
    argument = stream.argument
    if stream.changes_once:
        warnings.warn(
            f"`{argument}` changes images at random and then caches them, so each image has the same change in all "
            "epochs. Put `cache` before the random changes, or pass `augment` instead.",
            stacklevel=4,
        )
    if divided and (stream.changes_anew or found.varies):  # with a global seed, two readings may be alike
        warnings.warn(
            f"`{argument}` gives other images each time that it is read, so shapes are also scored on images that they "
            "have learned from. Pass `augment` instead of changing images at random.",
            stacklevel=4,
        )


def _check_augmentation(augment: Augmentation, stream: Stream, objective: Objective) -> None:
    if augment == Augmentation():
        return
    shape = stream.form.shapes[stream.form.image]
    if sum(len(other) == len(shape) for other in stream.form.shapes) > 1:
        raise UserError(
            "`augment` changes a single image. Leave it out for several ones, and augment them in your data."
        )
    if len(shape) != 3:
        raise UserError(f"`augment` changes images. Leave it out for a model of {_in_words(shape)}.")
    augment.check_channels(shape[-1], "train")
    if (augment.random_resized_crop or augment.changes_colours) and stream.image_type != tf.uint8:
        raise UserError(
            "`augment`: `random_resized_crop`, `color_jitter` and `lighting` take uint8 images. "
            f"Received images of {stream.image_type.name} in `train`."
        )
    if objective.has_positions:
        raise UserError(
            "`augment` changes only images. Leave it out for labels per pixel, and augment both in your data."
        )


def _check_size(stream: Stream, form: Form) -> None:
    for name, found, wanted in zip(form.inputs, stream.shapes, form.shapes, strict=True):
        if found != wanted:
            named = f" for `{name}`" if form.is_packed else ""
            raise UserError(
                f"`{stream.argument}` must have images of {_in_words(wanted)}{named}, the input size of the model. "
                f"Received: {_in_words(found)}."
            )


def _in_words(shape: tuple[int | None, ...]) -> str:
    return "x".join(map(str, shape))


def _is_from(image: Any, limit: int) -> tf.Tensor:
    return bucket_of(image) >= limit


def _pair(examples: tf.data.Dataset, batch_size: int, smaller_share: float) -> tf.data.Dataset:
    """Sorts `(image, label, is_second)` into two queues and yields a pair of batches whenever both are long enough.

    A queue that grows beyond two batches drops its oldest examples.
    """
    nothing = tf.nest.map_structure(lambda spec: tf.zeros([0, *spec.shape], spec.dtype), examples.element_spec[:2])
    chunks = examples.batch(max(1, round(batch_size / smaller_share)))

    def take(rows: Any, chunk: Any) -> Any:
        images, labels, is_second = chunk
        masks = (tf.logical_not(is_second), is_second)
        rows = [
            tf.nest.map_structure(lambda old, new, mask=mask: tf.concat([old, new[mask]], 0), row, (images, labels))
            for row, mask in zip(rows, masks, strict=True)
        ]
        ready = tf.reduce_min([tf.shape(row[1])[0] for row in rows]) >= batch_size
        taken = tf.where(ready, batch_size, 0)
        batches = tuple(tf.nest.map_structure(lambda part: part[:batch_size], row) for row in rows)
        left = tuple(tf.nest.map_structure(lambda part: part[taken:][-2 * batch_size :], row) for row in rows)
        return left, (ready, batches)

    pairs = chunks.scan((nothing, nothing), take).filter(lambda ready, _: ready)

    def sized(_: tf.Tensor, batches: Any) -> Any:
        return tf.nest.map_structure(lambda part: tf.ensure_shape(part, [batch_size, *part.shape[1:]]), batches)

    return pairs.map(sized)
