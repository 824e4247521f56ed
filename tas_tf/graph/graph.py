"""A small immutable description of a Keras functional model, read from its public config."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tas_tf.graph.ends import End, Packing
from tas_tf.graph.head import last_activation
from tas_tf.graph.kinds import MAKES_CHANNELS, ONCE_UNKNOWN, TRANSPARENT, Kind, activation_name
from tas_tf.graph.nodes import Node, Ref, map_refs

__all__ = ["Graph", "Node", "Ref", "conv_signature"]


@dataclass(frozen=True)
class Graph:
    """The network from its input to its logits.

    Attributes:
        network: The model's name.
        nodes: Nodes in topological order, from the input to the logits.
        end: The output. Of a network with several ones, the node that packs them.
        packing: The original inputs and outputs of a network with several ones, whose graph has one of each.
    """

    network: str
    nodes: tuple[Node, ...]
    end: End
    packing: Packing | None = None

    @classmethod
    def from_model(cls, model: Any) -> Graph:
        """Reads a Keras 3 functional or Sequential model.

        Raises:
            UserError: If the model is of another type or contains a layer that can't be described. The message names
                the layer.
        """
        # Imported here because computing with graphs and shapes doesn't need Keras.
        from tas_tf.graph.reader import read_model

        return cls(*read_model(model))

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def position(self) -> Mapping[str, int]:
        """Index of each node in the topological order."""
        return {node.name: place for place, node in enumerate(self.nodes)}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the nodes that read each node."""
        found: dict[str, list[str]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                found[name].append(node.name)
        return {name: tuple(names) for name, names in found.items()}

    @cached_property
    def repeats(self) -> Mapping[str, tuple[str, ...]]:
        """For each node whose layer is called again, the nodes of the further calls."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            if node.shares:
                found.setdefault(node.shares, []).append(node.name)
        return {name: tuple(names) for name, names in found.items()}

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    @property
    def input(self) -> Node:
        """The input, in which several ones are packed."""
        return self.nodes[0]

    @property
    def output(self) -> str:
        """Name of the node that computes the logits, packed if there are several outputs."""
        return self.end.output

    @property
    def ends(self) -> tuple[End, ...]:
        """All outputs."""
        return (self.end,) if self.packing is None else self.packing.ends

    @property
    def num_classes(self) -> int:
        """Number of logits."""
        return self[self.output].channels

    @property
    def gives_probabilities(self) -> bool:
        """Whether all outputs are probabilities rather than logits."""
        return all(end.head is not None for end in self.ends)

    def activation_of(self, end: End) -> str:
        """Name of the last activation of an output, `linear` if there is none."""
        return last_activation(self.by_name, end.output, end.head)

    def stays_frozen(self, node: Node) -> bool:
        """Whether a layer is batch normalisation that was frozen by itself, behind a layer that is trained.

        What was frozen together, as in transfer learning, isn't meant: all of it gets new weights in a student.
        """
        if node.kind is not Kind.BATCH_NORM or not node.was_frozen:
            return False
        before = self.by_name[node.inputs[0]]
        while before.inputs and not before.num_params and before.shares is None:
            before = self.by_name[before.inputs[0]]
        return bool(before.inputs) and not before.was_frozen

    @property
    def num_params(self) -> int:
        """Number of all weights, including those that aren't trained."""
        return sum(node.num_params for node in self.nodes)

    @cached_property
    def cut_tensors(self) -> frozenset[str]:
        """Nodes that every path from the input to the output passes through.

        Of several inputs and outputs, these are the largest input and the output furthest from it. What branches off to
        another output, or comes from another input, does so at such a node, or where it can't be cut at all.
        """
        main = self.main_path
        on_path = [node for node in self.nodes if node.name in main]
        cuts, branches = set(), False
        furthest = 0  # position of the last reader of any earlier node
        for node in on_path:
            place = self.position[node.name]
            branches |= node is not on_path[0] and any(name not in main for name in node.inputs)
            if furthest <= place:
                if not branches:
                    cuts.add(node.name)
                branches = False
            readers = [name for name in self.consumers[node.name] if name in main]
            branches |= node.name not in cuts and len(readers) < len(self.consumers[node.name])
            furthest = max(furthest, *(self.position[name] for name in readers), 0)
        return frozenset(cuts)

    @cached_property
    def main_path(self) -> frozenset[str]:
        """Nodes between the input and the output; between the main ones, if there are several."""
        if self.packing is None:
            return frozenset(self.by_name)
        inputs = [node.name for node in self.packing.inputs if node.name in self.by_name]
        read = [
            name
            for name in inputs
            if any(name == end.output or self.is_ancestor(name, end.output) for end in self.ends)
        ]
        first = max(read, key=lambda name: (len(self[name].shape), math.prod(self[name].shape[1:])))
        behind = {name for name in self.by_name if name == first or self.is_ancestor(first, of=name)}
        lengths = {end.output: bin(self.ancestors[end.output]).count("1") for end in self.ends if end.output in behind}
        last = max(lengths, key=lengths.__getitem__)
        return frozenset(name for name in behind if name == last or self.is_ancestor(name, of=last))

    @cached_property
    def ancestors(self) -> Mapping[str, int]:
        """Strict ancestors of each node, as a bit set over positions."""
        found: dict[str, int] = {}
        for node in self.nodes:
            bits = 0
            for name in node.inputs:
                bits |= found[name] | (1 << self.position[name])
            found[node.name] = bits
        return found

    def is_ancestor(self, name: str, of: str) -> bool:
        """Whether some path leads from `name` to `of`."""
        return bool(self.ancestors[of] >> self.position[name] & 1)

    def trace(self, name: str, through: Callable[[Node], bool] | None = None) -> tuple[str, tuple[Node, ...]]:
        """Follows a tensor back to the node that made its channels.

        Args:
            name: Node to start at.
            through: Narrows down which nodes to walk through. By default these are all pooling, batch normalization
                and channel-by-channel nodes with one input.

        Returns:
            The source's name, and the nodes between it and `name`, last first.
        """
        walked = []
        node = self[name]
        while node.kind in TRANSPARENT and len(node.inputs) == 1 and (through is None or through(node)):
            walked.append(node)
            node = self[node.inputs[0]]
        return node.name, tuple(walked)

    def leaving_out(self, unwanted: Callable[[Node], bool]) -> Graph:
        """Leaves out nodes that pass on their only input unchanged, and connects their readers to that input."""
        rewired: dict[str, str] = {}
        for node in self.nodes:
            if unwanted(node):
                rewired[node.name] = rewired.get(node.inputs[0], node.inputs[0])
        return self.without(frozenset(rewired), rewired)

    def group_sizes(self, node: Node) -> tuple[int, int]:
        """Channels that each group of a node of kind `DEPTHWISE` or `GROUP_NORM` reads and makes."""
        read = self[node.inputs[0]].channels
        groups = read if node.class_name.startswith("Depthwise") else node.config["groups"]
        return read // groups, node.channels // groups

    @property
    def with_older_kinds(self) -> tuple[Graph, ...]:
        """The graph as earlier versions read it, the latest first: layers that are searched today were opaque.

        Normalisations of groups and by root mean squares were searched last, and transposed and grouped convolutions
        and others before them. The digest is the same, so that shapes saved then are told apart only by their units.
        """
        latest, first = (
            replace(self, nodes=tuple(map(as_read, self.nodes))) for as_read in (_with_opaque_norm, self._as_first_read)
        )
        return latest, first

    def _as_first_read(self, node: Node) -> Node:
        grouped = node.kind is Kind.DEPTHWISE and self.group_sizes(node) != (1, 1)
        multiplied = node.kind is Kind.SEPARABLE and node.config["depth_multiplier"] != 1
        if node.class_name == "GroupNormalization" and node.config["groups"] == -1:
            return replace(node, kind=Kind.OPAQUE, config={**node.config, "groups": node.channels})
        if (layer := _layer_as_activation(node)) is not None:
            config = {**node.config, "activation": {**layer, ONCE_UNKNOWN: True}}
            return replace(node, config=config, kind=Kind.OPAQUE if node.class_name == "Activation" else node.kind)
        once_kept = node.kind is Kind.TRANSPOSED or grouped or multiplied or node.module == "keras.src.ops.image"
        return replace(node, kind=Kind.OPAQUE) if once_kept else _with_opaque_norm(node)

    @cached_property
    def digest(self) -> str:
        """Fingerprint of the structure. It includes only those layer names that a shape refers to.

        Keras numbers unnamed layers by what the process created before, so the other names carry no information.
        """
        entries = []
        for node in map(self._as_first_read, self.nodes):
            named = node.kind in MAKES_CHANNELS
            config = {key: node.config[key] for key in _STRUCTURE if key in node.config}
            if "activation" in config:
                layer = _layer_as_activation(node)
                config["activation"] = activation_name(config["activation"]) if layer is None else layer["class_name"]
            entries.append(
                [
                    node.name if named else "",
                    node.class_name,
                    config,
                    [self.position[name] for name in node.inputs],
                ]
                + [list(node.shape[1:])]
                + ([self.position[node.shares]] if node.shares else [])
                + ([f"output {node.output}"] if node.output is not None else [])
            )
        text = json.dumps(entries, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def without(self, dropped: frozenset[str], rewired: Mapping[str, str]) -> Graph:
        """Leaves out the `dropped` nodes. Nodes that read a key of `rewired` read its value instead."""

        def swap(ref: Ref) -> Ref:
            return Ref(rewired.get(ref.name, ref.name))

        nodes = tuple(
            replace(
                node,
                inputs=tuple(rewired.get(name, name) for name in node.inputs),
                args=map_refs(node.args, swap),
                kwargs=map_refs(node.kwargs, swap),
            )
            for node in self.nodes
            if node.name not in dropped
        )

        def moved(end: End) -> End:
            return replace(end, output=rewired.get(end.output, end.output))

        packing = self.packing and replace(self.packing, ends=tuple(map(moved, self.packing.ends)))
        return Graph(self.network, nodes, moved(self.end), packing)


#: Keys of a layer's config that determine its computation.
_STRUCTURE = (
    *("filters", "units", "kernel_size", "strides", "padding", "dilation_rate", "groups", "depth_multiplier"),
    *("pool_size", "axis", "use_bias", "activation", "keepdims", "target_shape", "size", "cropping"),
)


def _with_opaque_norm(node: Node) -> Node:
    """The node as it was read before these normalisations were searched."""
    searched_since = node.kind is Kind.GROUP_NORM or node.class_name == "RMSNormalization"
    return replace(node, kind=Kind.OPAQUE) if searched_since else node


def _layer_as_activation(node: Node) -> Mapping[str, Any] | None:
    """The config of a layer that serves as the activation of another one, if it does."""
    value = node.config.get("activation")
    is_layer = isinstance(value, Mapping) and "class_name" in value and not isinstance(value.get("config"), str)
    return value if is_layer else None


def conv_signature(node: Node) -> tuple[str, bool]:
    """Describes a convolution coarsely: its class, and whether its kernel covers a single position."""
    size = node.config.get("kernel_size", (1,))
    size = (size,) if isinstance(size, int) else size
    return node.class_name, all(side == 1 for side in size)
