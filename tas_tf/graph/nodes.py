"""A node of the graph: one layer or operation with its input tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tas_tf.graph.kinds import Kind, activation_name, is_augmentation


@dataclass(frozen=True)
class Ref:
    """Placeholder for a tensor in call arguments: the name of the node that makes the tensor."""

    name: str


def map_refs(value: Any, replace: Callable[[Ref], Any]) -> Any:
    """Copies nested call arguments and replaces each tensor by `replace(ref)`.

    >>> map_refs(([Ref("a"), Ref("b")], 3.0), lambda ref: ref.name)
    (['a', 'b'], 3.0)
    """
    if isinstance(value, Ref):
        return replace(value)
    if isinstance(value, Mapping):
        return {key: map_refs(item, replace) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map_refs(item, replace) for item in value)
    return value


def list_refs(value: Any) -> list[str]:
    """Lists the names of the tensors in nested call arguments, in order and with repetitions.

    >>> list_refs(([Ref("a"), Ref("b")], {"scale": Ref("a")}))
    ['a', 'b', 'a']
    """
    names: list[str] = []
    map_refs(value, lambda ref: names.append(ref.name))
    return names


@dataclass(frozen=True)
class Node:
    """One output of one call of a layer or functional operation, and where its inputs come from.

    A layer without weights that is called several times is several layers with the same config.
    """

    name: str
    module: str
    class_name: str
    registered_name: str | None
    config: Mapping[str, Any] = field(repr=False)
    args: tuple = field(repr=False)  # call arguments, with tensors as `Ref`
    kwargs: Mapping[str, Any] = field(repr=False)
    inputs: tuple[str, ...]  # names of the nodes read, without repetitions
    shape: tuple[int | None, ...]  # shape of the output, batch first
    kind: Kind
    num_params: int = 0
    path: tuple[str, ...] = ()  # layer names from the outer model down to this layer
    shares: str | None = None  # the node that calls the same layer first, if the layer has weights
    was_frozen: bool = False  # whether the layer wasn't trainable in the network; `config` says that it is
    output: int | None = None  # which of the layer's outputs this is, if there are several
    sibling: str | None = None  # the node of the same call's first output, for its other outputs

    @property
    def channels(self) -> int:
        """Size of the last axis of the output."""
        return self.shape[-1]

    @property
    def positions(self) -> int:
        """Number of positions in the output: height x width."""
        product = 1
        for size in self.shape[1:-1]:
            product *= size
        return product

    @property
    def is_augmentation(self) -> bool:
        """Whether the layer changes images only in training."""
        return is_augmentation(self.module, self.class_name, self.config)

    @property
    def activation(self) -> str:
        """Name of the activation inside the layer, `linear` if it has none."""
        return activation_name(self.config.get("activation"))
