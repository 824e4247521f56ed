"""What the script knows of each network that it checks, and how files of builders add networks to the list."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras


@dataclass(frozen=True)
class Network:
    """A network to check.

    Attributes:
        name: Name in the table.
        special: What is special about it, in a few words; empty for networks of `keras.applications`.
        build: Builds it, with new weights.
        image_size: Height and width at which a network of variable size is checked.
        task: What it is for, or each of its outputs, if its end doesn't say so.
        own_code: Whether its files hold layers or functions that other programs don't know.
        random_in_training: Whether it draws random numbers in training, as dropout does.
        tolerance: Largest difference allowed between supernet and student, as a share of the largest output.
    """

    name: str
    special: str
    build: Callable[[], keras.Model]
    image_size: tuple[int, int] | None = None
    task: str | Mapping[str, str] | None = None
    own_code: bool = False
    random_in_training: bool = False
    tolerance: float = 1e-4

    @property
    def slug(self) -> str:
        """The name as part of a file's name.

        >>> Network("ResNet-20 (CIFAR)", "", keras.Sequential).slug
        'resnet_20_cifar'
        """
        return re.sub(r"\W+", "_", self.name).strip("_").lower()


class Catalogue(dict[str, Network]):
    """Networks by name, in the order in which they were added."""

    def add(
        self, name: str, special: str, *, shape: tuple[int | None, ...] = (32, 32, 3), **options: Any
    ) -> Callable[[Callable], Callable]:
        """Returns a decorator that adds a network.

        The decorated function takes images of the given shape as a Keras tensor and returns outputs, or a model.

        Args:
            name: See `Network`.
            special: See `Network`.
            shape: Shape of the images.
            **options: See `Network`.

        Raises:
            ValueError: Another network has this name.
        """

        def decorate(function: Callable) -> Callable:
            def build() -> keras.Model:
                images = keras.Input(shape, name="images")
                made = function(images)
                return made if isinstance(made, keras.Model) else keras.Model(images, made, name=network.slug)

            network = Network(name, special, build, **options)
            if network.slug in {other.slug for other in self.values()}:
                raise ValueError(f"Two networks are called {name!r}.")
            self[name] = network
            return function

        return decorate
