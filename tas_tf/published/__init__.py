"""The shapes that the authors of TAS published, by name: one file of ours for each, and where it is from."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from tas_tf.errors import UserError

_FOLDER = Path(__file__).parent
_PREFIX = "published/"


@dataclass(frozen=True)
class PublishedShape:
    """What is known of a published shape.

    Attributes:
        network: Name of the network it is for.
        num_classes: Classes of its data set.
        image_size: Height and width of its images.
        accuracy: Top-1 with distillation, quoted from the paper second hand; `None` where nothing is quoted.
    """

    network: str
    num_classes: int
    image_size: int
    accuracy: float | None = None


_IMAGES = {"cifar10": (10, 32), "cifar100": (100, 32), "imagenet": (1000, 224)}
_ACCURACIES = {
    "cifar10-resnet56": 0.9369,
    "cifar10-resnet110": 0.9433,
    "cifar100-resnet32": 0.7241,
    "imagenet-resnet18": 0.6915,
    "imagenet-resnet50": 0.7620,
}


def _describe(name: str) -> PublishedShape:
    dataset, network = name.split("-")
    return PublishedShape(network, *_IMAGES[dataset], _ACCURACIES.get(name))


#: By name, as in `--shape=published/NAME`.
PUBLISHED = {path.stem: _describe(path.stem) for path in sorted(_FOLDER.glob("*.json"))}


def published_shape(text: str | Path | None) -> PublishedShape | None:
    """What a `--shape` stands for, if that is a published shape."""
    name = str(text or "")
    return PUBLISHED.get(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else None


def shape_file(text: str | Path) -> Path:
    """Finds the file that a `--shape` stands for.

    Args:
        text: `published/NAME` with a name out of `PUBLISHED`, or the path of a shape file.

    Raises:
        UserError: No shape of that name was published.
    """
    path = Path(text)
    if published_shape(text):
        return _FOLDER / f"{path.name}.json"
    if str(text).startswith(_PREFIX) and not path.exists():
        name = str(text).removeprefix(_PREFIX)
        close = difflib.get_close_matches(name, PUBLISHED, 3, 0.8) or PUBLISHED
        raise UserError(
            f"`shape`: no shape {name!r} was published. Expected {_PREFIX} and one of {', '.join(close)}, "
            "or the path of a shape file."
        )
    return path
