"""Where layers come from: Keras 3, or another package with the same layers."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import keras

from tas_tf.graph.layers import make_layer
from tas_tf.graph.nodes import Node


class LayerLibrary:
    """Makes layers of Keras 3. Subclasses use another package that has `Input`, `Model` and `layers`.

    Attributes:
        package: Package that the layers come from.
    """

    package: ModuleType = keras

    def layer(self, node: Node, config: Mapping[str, Any]) -> Any:
        """Makes the layer or functional operation that a node describes, with the given config.

        Raises:
            UserError: If the layer can't be made.
        """
        return make_layer(node, config)

    def new(self, class_name: str, config: Mapping[str, Any]) -> Any:
        """Makes a layer by class name, for layers that aren't in the graph."""
        return getattr(self.package.layers, class_name)(**config)


KERAS = LayerLibrary()
