"""Builds the supernet: the full-size network that computes any shape of the space by masking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tas_tf.graph.caller import Caller
from tas_tf.graph.graph import Node
from tas_tf.graph.kinds import Kind, activation_kind
from tas_tf.graph.layers import make_layer
from tas_tf.graph.operations import counts_channels, neutral_value
from tas_tf.space.channels import Segment
from tas_tf.space.space import SearchSpace
from tas_tf.supernet.layers.gates import ArchitectureGates
from tas_tf.supernet.layers.masking import DepthMix, FillChannels, KeptChannels, MaskChannels, MeanOfKept
from tas_tf.supernet.layers.normalization import (
    PACKAGE,
    MaskedBatchNormalization,
    MaskedLayerNormalization,
    MaskedRMSNormalization,
)
from tas_tf.supernet.layers.plan import ChannelPlan
from tas_tf.supernet.layers.searchable_conv import SearchableConv
from tas_tf.supernet.settings import DrawSettings

#: What replaces normalisations over channels where some are inactive.
_OVER_CHANNELS = {"LayerNormalization": MaskedLayerNormalization, "RMSNormalization": MaskedRMSNormalization}


@keras.saving.register_keras_serializable(package=PACKAGE)
class Supernet(keras.Model):
    """The network that the search trains.

    Attributes:
        body: Functional model that maps images and the tensors of one sample to logits.
        gates: Layer with the architecture logits.
    """

    def __init__(self, body: keras.Model, gates: ArchitectureGates, **kwargs: Any):
        super().__init__(**kwargs)
        self.body = body
        self.gates = gates
        self.built = True

    def call(self, images, sample=None, training=None):
        """Computes the logits, `[batch, ..., outputs]`, float32.

        Args:
            images: `[batch, height, width, channels]`.
            sample: Output of `self.gates(step)`. By default, the sample of step 0.
            training: Whether layers act as in training: batch statistics in BN, dropout, augmentation.
        """
        sample = self.gates(tf.constant(0)) if sample is None else sample
        # Not None, because image processing layers would then apply their default, True, to all layers after them.
        return tf.cast(self.body([images, *sample], training=bool(training)), tf.float32)

    @property
    def architecture_variables(self) -> list:
        """Trainable architecture logits."""
        return self.gates.trainable_variables

    @property
    def weight_variables(self) -> list:
        """All other trainable variables."""
        return self.body.trainable_variables

    def get_config(self):
        """Returns the config with both parts serialised."""
        parts = {"body": self.body, "gates": self.gates}
        config = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**config, "name": self.name}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes a supernet from its config."""
        parts = {name: keras.saving.deserialize_keras_object(config.pop(name)) for name in ("body", "gates")}
        return cls(**parts, **config)


def build_supernet(
    space: SearchSpace, *, num_drawn: int = DrawSettings.num_drawn, noise: bool = DrawSettings.noise, seed: int = 0
) -> Supernet:
    """Builds the supernet of a space with new weights.

    All batch normalisation scales start at 1. Some networks, such as ResNets for ImageNet, start the last scale of each
    block at 0; the paper's supernet doesn't do this.

    Args:
        space: Search space.
        num_drawn: Number of widths drawn at once for each unit.
        noise: Whether draws are perturbed by Gumbel noise.
        seed: Random seed of the draws and of the initial logits.
    """
    gates = ArchitectureGates(
        [{"name": unit.name, "candidates": list(unit.candidates)} for unit in space.searched_units],
        [{"name": stage.name, "depths": list(stage.candidates)} for stage in space.searched_stages],
        num_drawn=num_drawn,
        noise=noise,
        seed=seed,
        name="architecture",
    )
    return Supernet(_Body(space).build(), gates, name=f"{space.graph.network}_supernet")


class _Body:
    """Walks the graph once and builds the functional part."""

    def __init__(self, space: SearchSpace) -> None:
        self.space = space
        self.names = {node.name for node in space.graph}
        units = space.width_choices.num_rows
        self.sample = (
            keras.Input(batch_shape=(units, None), dtype="int32", name=self._own("candidates")),
            keras.Input(batch_shape=(units, None), dtype="float32", name=self._own("candidate_weights")),
            keras.Input(batch_shape=space.depth_choices.shape, dtype="float32", name=self._own("depth_weights")),
        )
        self.plan = ChannelPlan(*self._plan_arguments(), name=self._own("plan"))
        planned = self.plan(self.sample)
        self.active, self.taps, self.mixing = planned["active"], planned["units"], planned["stages"]
        self.masks: dict[tuple, Any] = {}
        self.tensors: dict[str, Any] = {}
        self.caller = Caller()

    def _own(self, name: str) -> str:
        """A unique name for a layer that isn't part of the original network."""
        while name in self.names:
            name += "_"
        self.names.add(name)
        return name

    def _plan_arguments(self) -> tuple[list, list, dict]:
        space = self.space
        units = [
            {"name": unit.name, "width": unit.width, "candidates": list(unit.candidates)}
            for unit in space.searched_units
        ]
        constants = {unit.name: unit.width for unit in space.units if len(unit.candidates) == 1}
        stages = []
        for stage in space.searched_stages:
            sources = []
            for depth in stage.candidates:
                (segment, *others) = space.segments[stage.ends[depth - 1]]
                source = segment.source
                if source is None or others:
                    source = f"all_{segment.width}"
                    constants[source] = segment.width
                sources.append(source)
            width = space.graph[stage.ends[0]].channels
            alike = len(set(sources)) == 1
            stages.append(
                {
                    "name": stage.name,
                    "width": width,
                    "ends": sources[:1] if alike else sources,
                    "depths": list(stage.candidates),
                }
            )
        return units, stages, constants

    def build(self) -> keras.Model:
        graph = self.space.graph
        for node in graph:
            if node.kind is Kind.INPUT:
                self.tensors[node.name] = keras.Input(
                    batch_shape=node.shape, dtype=node.config["dtype"], name=node.name
                )
                continue
            if node.name in self.space.norms.values() and self._absorbed(node):
                self.tensors[node.name] = self.tensors[node.inputs[0]]
            else:
                self.tensors[node.name] = self._visit(node)
            stage = self.space.stage_ending_at.get(node.name)
            if stage is not None and len(stage.candidates) > 1:
                ends = [self.tensors[stage.ends[depth - 1]] for depth in stage.candidates]
                self.tensors[node.name] = DepthMix(name=self._own(f"{stage.name}_mix"))(ends, self.mixing[stage.name])
        images = self.tensors[graph.input.name]
        return keras.Model([images, *self.sample], self.tensors[graph.output], name=f"{graph.network}_body")

    def _absorbed(self, norm: Node) -> bool:
        return self._is_searched(norm.inputs[0])

    def _is_searched(self, name: str) -> bool:
        return self.space.unit_of.get(name) in self.taps

    def _visit(self, node: Node) -> Any:
        made = self.space.segments[node.name]
        if self._is_searched(node.shares or node.name):
            outputs = self._searchable(node)
            return outputs if _keeps_zeros(node) else self._masked(node, outputs)
        config = {**node.config, "name": node.name} if "name" in node.config else dict(node.config)
        if node.kind is Kind.BATCH_NORM:
            layer = self.caller.layer(node, lambda: MaskedBatchNormalization.from_config(_with_scale_one(config)))
            return layer(self.tensors[node.inputs[0]], self._kept(made))
        if node.kind is Kind.LAYER_NORM and self._kept(made) is not None:
            masked = _OVER_CHANNELS[node.class_name]
            layer = self.caller.layer(node, lambda: masked.from_config(config))
            return layer(self.tensors[node.inputs[0]], self._kept(made))
        outputs = self.caller.call(node, lambda: make_layer(node, config), self._inputs(node))
        if counts_channels(node):
            kept = self._kept(self.space.read_segments(node.inputs[0]))
            return outputs if kept is None else MeanOfKept(name=self._own(f"{node.name}_kept"))(outputs, kept)
        kept = _keeps_zeros(node) and not self._reads_beyond(node)
        return outputs if kept else self._masked(node, outputs)

    def _inputs(self, node: Node) -> dict[str, Any]:
        """All tensors, with the inactive channels of those that a node reads filled as the node needs it."""
        value = 1.0 if node.kind is Kind.FROM_ONES else neutral_value(node) if node.kind is Kind.REDUCE else 0.0
        filled = dict(self.tensors)
        for name in node.inputs if value else ():
            kept = self._kept(self.space.read_segments(name))
            if kept is not None:
                layer = FillChannels(value, name=self._own(f"{node.name}_filled"))
                filled[name] = layer(self.tensors[name], kept)
        return filled

    def _reads_beyond(self, node: Node) -> bool:
        """Whether an input may be nonzero where the output's channels are inactive."""
        made = self.space.segments[node.name]
        if any(self.space.read_segments(identity) != made for identity in self.space.identities.get(node.name, ())):
            return True
        # A one-channel input is added to all channels.
        graph = self.space.graph
        return node.kind in (Kind.ADD, Kind.COMBINE) and any(
            graph[name].channels != node.channels for name in node.inputs
        )

    def _searchable(self, node: Node) -> Any:
        unit = self.space.unit[self.space.unit_of[node.shares or node.name]]
        norm = self.space.norms.get(node.name)
        layer = self.caller.layer(
            node,
            lambda: SearchableConv(
                conv={**node.config, "dtype": "float32"},
                conv_class=node.class_name,
                norm=None if norm is None else _with_scale_one(self.space.graph[norm].config),
                candidates=unit.candidates,
                dtype=node.config.get("dtype"),
                name=node.name,
            ),
        )
        return layer(self.tensors[node.inputs[0]], self.taps[unit.name])

    def _masked(self, node: Node, tensor: Any) -> Any:
        kept = self._kept(self.space.segments[node.name])
        return tensor if kept is None else MaskChannels(name=self._own(f"{node.name}_mask"))(tensor, kept)

    def _kept(self, segments: tuple) -> Any:
        """The channel mask, shared by all tensors with these segments; None if all channels are always active."""
        if segments not in self.masks:
            places = tuple(self._place(segment) for segment in segments)
            varies = any(place is not None for place, *_ in places)
            layer = KeptChannels(places, name=self._own(f"kept_{len(self.masks)}")) if varies else None
            self.masks[segments] = None if layer is None else layer(self.active)
        return self.masks[segments]

    def _place(self, segment: Segment) -> tuple:
        """What `KeptChannels` needs to know of a segment."""
        source = self._source(segment.source)
        if source is None or self.space.full_width(segment.source) == segment.width:
            return source, segment.width
        return source, segment.width, self.space.full_width(segment.source)

    def _source(self, source: str | None) -> int | None:
        """Index of the source in the plan; None for channels that are always active."""
        if source is None:
            return None
        stage = self.space.stage.get(source)
        if stage is not None and len(stage.candidates) == 1:
            return self._source(self.space.segments[stage.ends[-1]][0].source)
        unit = self.space.unit.get(source)
        if unit is not None and len(unit.candidates) == 1:
            return None
        return self.plan.sources[source]


def _with_scale_one(norm: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a batch normalisation, with an initial scale of 1 instead of 0."""
    starts_at_zero = isinstance(keras.initializers.get(norm["gamma_initializer"]), keras.initializers.Zeros)
    return {**norm, "gamma_initializer": "ones"} if starts_at_zero else dict(norm)


def _keeps_zeros(node: Node) -> bool:
    if node.kind in (Kind.SHIFTS_ZEROS, Kind.FROM_ONES, Kind.BATCH_NORM, Kind.LAYER_NORM, Kind.GROUP_NORM):
        return False
    if node.kind is Kind.DEPTHWISE and node.config["use_bias"]:
        return False
    return node.kind in (Kind.OPAQUE, Kind.KEEPS_ZEROS) or activation_kind(node.activation) is Kind.KEEPS_ZEROS
