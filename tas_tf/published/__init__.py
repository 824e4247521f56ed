"""The shapes that the authors of TAS published, by name, with a shape file for each."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

from tas_tf.errors import UserError

_FOLDER = Path(__file__).parent
_PREFIX = "published/"


@dataclass(frozen=True)
class PublishedShape:
    """A published shape.

    Attributes:
        network: Name of the network that the shape belongs to.
        num_classes: Number of classes in the data set.
        image_size: Height and width of the images.
        accuracy: Top-1 accuracy with distillation, quoted second-hand from the paper; `None` if there is no quote.
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


#: Published shapes by name, as in `--shape=published/NAME`.
PUBLISHED = {path.stem: _describe(path.stem) for path in sorted(_FOLDER.glob("*.json"))}


def published_shape(text: str | Path | None) -> PublishedShape | None:
    """Returns the published shape that `--shape` names, if any."""
    name = str(text or "")
    return PUBLISHED.get(name.removeprefix(_PREFIX)) if name.startswith(_PREFIX) else None


def shape_file(text: str | Path) -> Path:
    """Finds the file that `--shape` names.

    Args:
        text: `published/NAME` with a name from `PUBLISHED`, or the path of a shape file.

    Raises:
        UserError: No published shape has that name.
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
