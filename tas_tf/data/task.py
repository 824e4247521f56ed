"""A data set prepared for training, with preprocessing and augmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import tensorflow as tf

from tas_tf.data.augmentation import Augmentation
from tas_tf.data.decodable import watch
from tas_tf.data.decoded import keep_decoded
from tas_tf.data.form import Arrays, Form
from tas_tf.data.pipeline import epochs, evaluation, evaluation_batch, paired_epochs, steps_per_epoch
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.rows import take_apart
from tas_tf.data.run_data import RunData
from tas_tf.data.settings import DataSettings
from tas_tf.data.several_labels import all_weighed
from tas_tf.data.source import Source, StreamedSource
from tas_tf.data.sources import load_source
from tas_tf.data.split import stratified_halves, stratified_subset
from tas_tf.data.suitable import check_takes_images, chosen_images
from tas_tf.data.training_data import EpochsDataset
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.objective import Objective

#: Settings that `load_source` takes as they are.
_OF_SOURCES = ("data_dir", "features", "label_columns", "image_size", "test_share", "channels", "skip_broken")


@dataclass(frozen=True, eq=False)
class Task(RunData):
    """The data that teacher, search and student learn from.

    Attributes:
        source: Images and labels.
        preprocessing: Map from pixels to the network's input.
        augment: Random changes to training images.
        indices: Training images to use.
        seed: Seed of order and augmentation.
        test_resize: Height and width that images without augmentation are resized to before their centre is cut out;
            see `evaluation`.
        trained_for: What networks are trained for; by default, the classes of the images.
        form: What networks take, if they have several inputs.
        cache_dir: Folder for decoded training images of streamed data, see `keep_decoded`.
    """

    source: Source
    preprocessing: Preprocessing
    augment: Augmentation
    indices: np.ndarray
    seed: int
    test_resize: int | None = None
    trained_for: Objective | None = None
    form: Form | None = None
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        watch(self.source)
        height, width, channels = self.source.image_shape
        if self.form is not None:
            check_takes_images(self.source, self.form)
        self.augment.check_channels(channels, self.source.name)
        if self.test_resize is not None and not height == width <= self.test_resize:
            raise UserError(
                f"`test_resize` must be at least the size of the network's images, which must be square. Received: "
                f"{self.test_resize} for images of {height}x{width} in `{self.source.name}`."
            )

    @classmethod
    def load(
        cls,
        dataset: str,
        *,
        objective: Objective | None = None,
        form: Form | None = None,
        streamed: bool = False,
        **settings: Any,
    ) -> Task:
        """Loads a data set by name.

        Args:
            dataset: Name of a data set, as in `load_source`.
            objective: What networks are trained for; by default, the classes of the images.
            form: What networks take, if they have several inputs.
            streamed: Whether images are read when they are used, as in `load_source`.
            **settings: Other settings of `DataSettings`. The seed determines order and augmentation, but not which
                images are used.

        Raises:
            UserError: An argument is invalid, or the data isn't available or doesn't suit the objective.
        """
        wanted = DataSettings(dataset=dataset, **settings)
        if objective is not None and objective.positions:
            wanted.check_plain("labels of whole images, not of their pixels")
        source = load_source(
            dataset,
            objective,
            **{name: getattr(wanted, name) for name in _OF_SOURCES},
            resize="squash" if wanted.resize == "auto" else wanted.resize,
            checked=wanted.checked,
            streamed=streamed,
            form=form,
        )
        watch(source)  # preprocessing may need its images
        indices = chosen_images(source, wanted.train_limit)
        return cls(
            source=source,
            preprocessing=Preprocessing.fit(source, _trained_with(wanted.preprocess), indices=indices),
            augment=replace(wanted.augment, flip=wanted.flip and source.flip_ok),
            indices=indices,
            seed=wanted.seed,
            test_resize=wanted.test_resize,
            trained_for=objective,
            form=form,
            cache_dir=wanted.cache_dir,
        )

    def prepared_as(self, kind: str) -> Task:
        """The same data with another preprocessing, one of `PREPROCESSING_KINDS`."""
        return replace(self, preprocessing=Preprocessing.fit(self.source, kind, indices=self.indices))

    def resized_as(self, way: str) -> Task:
        """The same streamed data, resized in another way, one of `RESIZE_WAYS`; the preprocessing stays."""
        return replace(self, source=replace(self.source, resize=way))

    @property
    def name(self) -> str:
        """Name of the data set, as the user gave it."""
        return self.source.name

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image; of several inputs, their size when they are packed."""
        return tuple(self.source.image_shape) if self.form is None else self.form.packed_shape

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Height, width and channels of an image, also if a network has other inputs beside it."""
        return tuple(self.source.image_shape)

    @property
    def inputs(self) -> Mapping[str, tuple[int | None, ...]]:
        """Shape of each input by name, if there are several."""
        return {} if self.form is None else self.form.several

    @property
    def resize(self) -> str:
        """How images of other proportions are brought to `input_shape`."""
        return self.source.resize

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for the user on what isn't read as it lies there."""
        return self.source.notes

    @property
    def num_test(self) -> int:
        """Number of test images."""
        return len(self.source.labels("test"))

    @property
    def is_streamed(self) -> bool:
        """Whether images are read from files."""
        return isinstance(self.source, StreamedSource)

    @property
    def class_names(self) -> Sequence[str]:
        """Names of the classes 0, 1, ..., or of the values."""
        return self.source.class_names

    @property
    def output_classes(self) -> Mapping[str, Sequence[str]]:
        """Names of the classes of each of several outputs that has classes."""
        return self.source.output_classes

    @property
    def objective(self) -> Objective:
        """What networks are trained for."""
        return all_weighed(self._scaled) if self.source.split_weights else self._scaled

    @cached_property
    def _scaled(self) -> Objective:
        objective = self._unweighed
        if objective.has_positions or self.source.has_classes:
            return objective
        labels = self.source.labels("train")[self.indices].astype(objective.label_dtype.as_numpy_dtype)
        return objective.scaled(objective.summary(labels.reshape(len(labels), *objective.label_shape)))

    @property
    def _unweighed(self) -> Objective:
        return self.trained_for or Classification(self.source.num_classes)

    @property
    def num_train(self) -> int:
        """Number of training images that are used."""
        return len(self.indices)

    @cached_property
    def chance(self) -> float:
        """Score of the best constant output on the test images, such as the share of the most frequent class."""
        objective = self._unweighed
        if objective.positions:
            labels = (found for _, found in self.test().as_numpy_iterator())
        else:
            found = self.source.labels("test").astype(objective.label_dtype.as_numpy_dtype)
            labels = [found.reshape(len(found), *objective.label_shape)]
        return objective.constant_score(np.concatenate([objective.summary(each) for each in labels]))

    @property
    def repeats(self) -> bool:
        """Yes: order and augmentation depend on the seed and the number of the epoch alone."""
        return True

    def training(self, batch_size: int) -> tuple[EpochsDataset, int]:
        """Returns a function from the first epoch to a dataset of all training images, and the steps of an epoch."""

        def dataset(first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
            batches = epochs(
                *(self._trained_on, self.indices),
                batch_size=batch_size,
                preprocessing=self.preprocessing,
                augment=self.augment,
                seed=self.seed,
                first_epoch=first_epoch,
                first_step=first_step,
            )
            return self._apart(batches)

        return dataset, steps_per_epoch(len(self.indices), batch_size)

    @cached_property
    def _trained_on(self) -> Source:
        """The source that a training reads."""
        return keep_decoded(self.source, self.cache_dir) if self.cache_dir and self.is_streamed else self.source

    def halves(self, share: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
        """Returns disjoint training images for weights and architecture, stratified by class if there are classes.

        Args:
            share: Share of the images for the weights.
        """
        strata = self.source.strata("train")[self.indices]
        weights, architecture = stratified_halves(strata, share=share, seed=self.seed)
        return self.indices[weights], self.indices[architecture]

    def weights_part(self, share: float) -> Self:
        """Returns the same data with only the weights' part as training images."""
        return replace(self, indices=self.halves(share)[0])

    def searching(self, batch_size: int, share: float = 0.5) -> tuple[EpochsDataset, int]:
        """Returns a function from the first epoch to pairs of batches of both halves, and the steps of an epoch."""
        weights, architecture = self.halves(share)

        def dataset(first_epoch: int, first_step: int = 0) -> tf.data.Dataset:
            pairs = paired_epochs(
                *(self._trained_on, weights, architecture),
                batch_size=batch_size,
                preprocessing=self.preprocessing,
                augment=self.augment,
                seed=self.seed,
                first_epoch=first_epoch,
                first_step=first_step,
            )
            return self._apart(pairs)

        return dataset, steps_per_epoch(min(len(weights), len(architecture)), batch_size)

    def held_out(self, share: float, limit: int) -> tf.data.Dataset:
        """Returns the images of the architecture's half once, unaugmented, the same ones each time.

        Args:
            share: Share of the images for the weights.
            limit: Largest number of images; more than these are sampled at random.
        """
        _, architecture = self.halves(share)
        chosen = np.random.default_rng(self.seed).choice(architecture, min(limit, len(architecture)), replace=False)
        return self.plain(np.sort(chosen))

    def calibration(self, batch_size: int, batches: int) -> tf.data.Dataset:
        """Returns a few batches of training images, shuffled and unaugmented, the same ones each time."""
        return self.shuffled(self.indices, min(batch_size, len(self.indices)), batches)

    def shuffled(self, indices: np.ndarray, batch_size: int, batches: int) -> tf.data.Dataset:
        """Returns a few batches of the given training images, shuffled and unaugmented, the same ones each time."""
        dataset = epochs(
            self.source,
            indices,
            batch_size=batch_size,
            preprocessing=self.preprocessing,
            seed=self.seed,
            test_resize=self.test_resize,
        )
        return self._apart(dataset).take(batches)

    def plain(self, indices: np.ndarray) -> tf.data.Dataset:
        """Returns the given training images once, in order, unaugmented."""
        return self._evaluation("train", indices)

    def test(self) -> tf.data.Dataset:
        """Returns the test images once, in order."""
        return self._evaluation("test", None)

    def test_arrays(self, limit: int | None = None, *, raw: bool = False) -> tuple[Arrays, np.ndarray]:
        """Returns test images and labels in memory, chosen by stratified sampling; see `RunData`."""
        strata = self.source.strata("test")
        chosen = np.arange(len(strata))
        if limit is not None and limit < len(strata):
            chosen = np.sort(stratified_subset(strata, count=limit))
        return self._arrays("test", chosen, raw=raw)

    def train_images(self, limit: int, *, raw: bool = False) -> Arrays:
        """Returns training images in memory, chosen by stratified sampling; see `RunData`."""
        strata = self.source.strata("train")[self.indices]
        chosen = stratified_subset(strata, count=min(limit, len(strata)))
        return self._arrays("train", self.indices[chosen], raw=raw)[0]

    def _arrays(self, split: str, indices: np.ndarray, *, raw: bool) -> tuple[Arrays, np.ndarray]:
        batches = self._evaluation(split, indices, raw=raw)
        read, found = zip(*batches.as_numpy_iterator(), strict=True)
        images = np.concatenate(read)
        if self.form is not None:
            return self.form.unpack(images), np.concatenate(found)
        return images.astype(np.uint8) if raw else images, np.concatenate(found)

    def _evaluation(self, split: str, indices: np.ndarray | None, *, raw: bool = False) -> tf.data.Dataset:
        batches = evaluation(
            self.source,
            split,
            indices,
            batch_size=evaluation_batch(self.source.image_shape),
            preprocessing=Preprocessing("none") if raw else self.preprocessing,
            test_resize=self.test_resize,
        )
        return self._apart(batches)

    def _apart(self, batches: tf.data.Dataset) -> tf.data.Dataset:
        """Batches, or pairs of batches, as networks and the objective have them."""
        return take_apart(batches, self.source, self.objective, self.form)


def _trained_with(preprocess: str) -> str:
    """The kind of preprocessing for a network to be trained."""
    return "standardise" if preprocess == "auto" else preprocess
