"""Data sets as the rest of the library sees them: images with a class, values or a mask each."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tas_tf.data.image_files import Broken
from tas_tf.data.split import has_classes, strata_of
from tas_tf.errors import UserError

#: Selects examples by their positions in an order.
Positions = Callable[[tf.Tensor], tf.Tensor]

SPLITS = ("train", "test")

# Data sets of digits and letters, which mirroring turns into other or meaningless ones.
_TEXT_LIKE = ("digit", "mnist", "svhn", "omniglot", "cmaterdb", "visual_domain_decathlon")


def looks_alike_mirrored(name: str) -> bool:
    """Whether mirrored images keep their labels, judged by the data set's name.

    >>> looks_alike_mirrored("cifar10"), looks_alike_mirrored("fashion_mnist"), looks_alike_mirrored("mnist")
    (True, True, False)
    """
    return "fashion_mnist" in name or not any(part in name for part in _TEXT_LIKE)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """A data set with a training and a test split, and a label for every image.

    Attributes:
        name: Name that the user gave.
        class_names: Names of the classes 0, 1, ..., or of the columns of values.
        image_shape: Height, width and channels that every image has when it reaches a network.
        flip_ok: Whether mirroring an image keeps its label (not so for digits).
        split_labels: Labels by split: class numbers, int64 `[num_examples]`; values, float32 `[num_examples, values]`;
            or masks, uint8 `[num_examples, height, width]`. Streamed masks are given by their paths.
        output_classes: Names of the classes of each of several outputs that has classes.
        split_weights: Weights of images in training by split, float32 `[num_examples]`; empty if all weigh the same.
        split_inputs: What networks read besides the images by split, float32 `[num_examples, numbers]`; may be empty.
        resize: How images are brought to `image_shape`, one of `RESIZE_WAYS`.
        reshaped: Whether images may have other proportions than `image_shape`, so that `resize` matters.
        notes: Lines for the user on what isn't read as it lies there.
        left_out: Paths of files that are left out, and why.
    """

    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    flip_ok: bool
    split_labels: Mapping[str, np.ndarray] = dataclasses.field(repr=False)
    output_classes: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    split_weights: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    split_inputs: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)
    resize: str = "squash"
    reshaped: bool = False
    notes: tuple[str, ...] = ()
    left_out: tuple[tuple[str, str], ...] = dataclasses.field(default=(), repr=False)

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        return len(self.class_names)

    @property
    def has_classes(self) -> bool:
        """Whether each image has a class."""
        return has_classes(self.labels("train"))

    @property
    def num_train(self) -> int:
        """Number of training examples."""
        return len(self.split_labels["train"])

    def labels(self, split: str) -> np.ndarray:
        """Returns the labels of `split` ("train" or "test"), see `split_labels`."""
        _check_split(split)
        return self.split_labels[split]

    @property
    def num_inputs(self) -> int:
        """Numbers that networks read besides each image."""
        return self.split_inputs["train"].shape[1] if self.split_inputs else 0

    def rows(self, split: str) -> np.ndarray:
        """Returns what pipelines carry along with the images of `split`.

        These are the labels; with weights or further inputs, float32 `[num_examples, numbers]`: labels, weights and
        inputs side by side.
        """
        labels = self.labels(split)
        if not self.split_weights and not self.split_inputs:
            return labels
        further = [each[split].reshape(len(labels), -1) for each in (self.split_weights, self.split_inputs) if each]
        return np.concatenate([labels.reshape(len(labels), -1), *further], axis=1).astype(np.float32)

    def strata(self, split: str) -> np.ndarray:
        """Returns the groups of `split` whose proportions its parts keep, see `strata_of`."""
        return strata_of(self.labels(split))


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ArraySource(Source):
    """A source held in memory.

    Attributes:
        split_images: Images by split, uint8 `[num_examples, height, width, channels]`.
    """

    split_images: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    def images(self, split: str) -> np.ndarray:
        """Returns the images of `split`, uint8 `[num_examples, height, width, channels]`."""
        _check_split(split)
        return self.split_images[split]

    @functools.cached_property
    def tensors(self) -> Mapping[str, tuple[tf.Tensor, tf.Tensor]]:
        """Images and labels by split as tensors in the host's memory, made once."""
        # Keep tensors beyond a function that is being traced, and out of GPU memory.
        with tf.init_scope(), tf.device("/CPU:0"):
            return {split: (tf.constant(self.split_images[split]), tf.constant(self.rows(split))) for split in SPLITS}


class StreamedSource(Source, abc.ABC):
    """A source too large for memory, whose images are read again in every epoch."""

    @abc.abstractmethod
    def examples(
        self, split: str, indices: np.ndarray, *, seed: tf.Tensor | None = None, only: Positions | None = None
    ) -> tf.data.Dataset:
        """Yields `(index, image, label)` once for each of `indices`.

        Args:
            split: "train" or "test".
            indices: Examples to read, `[n]`.
            seed: Two integers, which alone determine the order; without a seed, the order is fixed.
            only: Selects examples by their position in that order; by default all.

        Returns:
            Elements: int64 scalar, the encoded image (a string scalar; see `decode`), the label of one image.
        """

    def labelled(
        self, split: str, indices: np.ndarray, *, seed: tf.Tensor | None = None, only: Positions | None = None
    ) -> tf.data.Dataset:
        """Yields `(index, label)` in the order of `examples`, whose arguments these are."""
        return self.examples(split, indices, seed=seed, only=only).map(lambda index, _, label: (index, label))

    @property
    @abc.abstractmethod
    def place(self) -> str:
        """Folder of the files."""

    @abc.abstractmethod
    def stamps(self, split: str) -> Sequence[str]:
        """A text for each example of a split that is another one if the example changes; empty if it is missing."""

    @abc.abstractmethod
    def where(self, split: str, index: int) -> str:
        """Where an example comes from, for messages."""

    @abc.abstractmethod
    def fault(self, split: str, index: int) -> Broken | None:
        """Why an example can't be read; `None` if it can."""

    @abc.abstractmethod
    def fingerprint(self, split: str) -> str:
        """Changes when the files of a split do."""

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Decodes one image, uint8 `[height, width, channels]` in its original size."""
        image = tf.io.decode_image(encoded, channels=self.image_shape[-1], expand_animations=False)
        return tf.ensure_shape(image, [None, None, self.image_shape[-1]])

    @abc.abstractmethod
    def sample(self, indices: np.ndarray, count: int) -> np.ndarray:
        """Picks at most `count` of `indices` that are representative and quick to read."""


def make_array_source(
    name: str,
    class_names: Sequence[str],
    *,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    flip_ok: bool,
    **details: Any,
) -> ArraySource:
    """Makes a source from uint8 images and labels, `(images, labels)` for each split.

    Args:
        name: See `Source`, as all others.
        class_names: See `Source`.
        train: Images and labels for training.
        test: Images and labels for testing.
        flip_ok: Whether mirroring keeps labels.
        **details: Other attributes of `Source`.
    """
    parts = {"train": train, "test": test}
    return ArraySource(
        name=name,
        class_names=tuple(class_names),
        image_shape=tuple(train[0].shape[1:]),
        flip_ok=flip_ok,
        split_labels={split: _frozen(_as_labels(labels)) for split, (_, labels) in parts.items()},
        split_images={split: _frozen(images) for split, (images, _) in parts.items()},
        **details,
    )


def _as_labels(labels: np.ndarray) -> np.ndarray:
    """Class numbers as int64; values and masks as they are."""
    return labels.astype(np.int64) if labels.ndim == 1 else labels


def _frozen(array: np.ndarray) -> np.ndarray:
    # Read-only, because all pipelines share the array.
    view = array.view()
    view.flags.writeable = False
    return view


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise UserError(f'`split` is unknown. Expected "train" or "test". Received: {split!r}.')
