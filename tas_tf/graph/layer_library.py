"""What networks are made of: the layers of Keras 3, or of a package that has the same ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import keras

from tas_tf.graph.layers import make_layer
from tas_tf.graph.nodes import Node


class LayerLibrary:
    """Keras 3 itself. A subclass stands for another package with `Input`, `Model` and `layers`.

    Attributes:
        package: The package.
    """

    package: ModuleType = keras

    def layer(self, node: Node, config: Mapping[str, Any]) -> Any:
        """The layer, or for functional arithmetic the operation, that a node describes, with a config of its own.

        Raises:
            UserError: It can't be made.
        """
        return make_layer(node, config)

    def new(self, class_name: str, config: Mapping[str, Any]) -> Any:
        """A layer that no node describes, by the name of its class."""
        return getattr(self.package.layers, class_name)(**config)


KERAS = LayerLibrary()
