"""Describes a network before a search: which parts can shrink, which can't and why, and what the network costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from io import StringIO
from typing import Any

import keras
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from tas_tf.cost.cost_model import CostModel, told
from tas_tf.cost.frozen import frozen_macs
from tas_tf.cost.projections import projected_share, projections
from tas_tf.data.form import Form
from tas_tf.decode.decode import smallest_shape
from tas_tf.deploy.checks import check_deployable
from tas_tf.errors import UserError
from tas_tf.graph.custom import CustomObjects, admit
from tas_tf.graph.graph import Graph
from tas_tf.graph.image_size import with_image_size
from tas_tf.objectives.choose import choose_objective
from tas_tf.objectives.losses import loss_of
from tas_tf.objectives.objective import Objective
from tas_tf.space.settings import SpaceSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace, Stage, WidthUnit

_TEXT_WIDTH = 120
_MOST_NAMED = 3


@dataclass(frozen=True)
class ShapeCost:
    """What one shape of a network costs.

    Attributes:
        macs: Multiply-adds for one image, including those of the projections.
        params: Number of parameters.
        projections: The 1x1 convolutions that the shape makes necessary, each with `layer`, `in`, `out` and `macs`.
    """

    macs: int
    params: int
    projections: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Description:
    """Describes what a search may change in a network. `print` it, or read its attributes.

    Attributes:
        model: Name of the network.
        inputs: Shape of each input by name, such as height, width and channels of an image.
        task: What the network is for; `None` if neither its end nor its loss tells.
        outputs: What its outputs are, in words, such as `10 classes`.
        macs: Multiply-adds for one image.
        params: Number of parameters.
        min_macs_ratio: Fewest multiply-adds that a shape can have, as a share of `macs`.
        min_params_ratio: Fewest parameters that a shape can have, as a share of `params`.
        projected_share: Share of the multiply-adds that projections take, on average over random shapes.
        is_coupled: Whether all blocks of a stage have the same output width.
        units: Convolutions, or coupled groups of convolutions, whose number of filters can change.
        stages: Chains of blocks whose number can change.
        frozen: Layers that keep all their channels, with the reason.
        frozen_shares: Share of `macs` that no shape can reduce, by layer; layers that have no such share are left out.
        deployment: `ok` if the network can be exported to SavedModel and TFLite, otherwise the reason why it can't;
            `None` if that wasn't tried.
        shape: Cost of the shape that was given, if any.
        budgets: The `limit`, the `full` cost and the `smallest` reachable cost for each budget that was given.
        paper_accuracy: Test accuracy that a paper reports for the shape, 0 to 1, if known.

    Example:
        >>> import tas_tf
        >>> found = tas_tf.describe(tas_tf.load_network("resnet8", image_size=8))
        >>> found.frozen, found.to_json()["stages"]
        ({'classifier': 'it makes the outputs'}, [])
    """

    model: str
    inputs: Mapping[str, tuple[int | None, ...]]
    task: str | None
    outputs: str
    macs: int
    params: int
    min_macs_ratio: float
    min_params_ratio: float
    projected_share: float
    is_coupled: bool
    units: tuple[WidthUnit, ...] = field(repr=False)
    stages: tuple[Stage, ...] = field(repr=False)
    frozen: Mapping[str, str] = field(repr=False)
    frozen_shares: Mapping[str, float] = field(repr=False)
    deployment: str | None = None
    shape: ShapeCost | None = field(default=None, repr=False)
    budgets: Mapping[str, Mapping[str, int]] | None = None
    paper_accuracy: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Returns the data that `python -m trainers.describe --json` prints."""
        found: dict[str, Any] = {
            "model": self.model,
            "task": self.task,
            "macs": self.macs,
            "params": self.params,
            "min_macs_ratio": self.min_macs_ratio,
            "min_params_ratio": self.min_params_ratio,
            "projected_share": self.projected_share,
            "units": [
                {
                    "name": unit.name,
                    "width": unit.width,
                    "candidates": list(unit.candidates),
                    "coupled_with": list(unit.coupled_with),
                }
                for unit in self.units
            ],
            "stages": [
                {"name": stage.name, "blocks": stage.blocks, "candidates": list(stage.candidates)}
                for stage in self.stages
            ],
            "frozen": [{"layer": layer, "reason": reason} for layer, reason in self.frozen.items()],
            "frozen_share": sum(self.frozen_shares.values()),
            "frozen_shares": dict(self.frozen_shares),
        }
        if self.deployment is not None:
            found["deployment"] = self.deployment
        if self.shape is not None:
            found["shape_macs"] = self.shape.macs
            found["shape_params"] = self.shape.params
            found["projections"] = list(self.shape.projections)
        if self.budgets is not None:
            found["budgets"] = {name: dict(numbers) for name, numbers in self.budgets.items()}
        if self.paper_accuracy is not None:
            found["paper_accuracy"] = self.paper_accuracy
        return found

    def __str__(self) -> str:
        text = StringIO()
        Console(file=text, width=_TEXT_WIDTH, color_system=None).print(self)
        return text.getvalue().rstrip("\n")

    def __rich_console__(self, console: Console, options: Any) -> Iterator[RenderableType]:
        """Yields the parts of the text, for a `rich` console of any width."""
        shapes = {name: "x".join(map(str, shape)) for name, shape in self.inputs.items()}
        images = " and ".join(f"`{name}` of {shape}" for name, shape in shapes.items())
        images = images if len(shapes) > 1 else f"images of {next(iter(shapes.values()))}"
        yield Text.assemble((self.model, "bold"), f", {images}, {self.outputs}")
        yield Text(f"{self.macs:,} MACs, {self.params:,} parameters")
        if self.deployment is not None:
            yield Text(f"deployment: {self.deployment}", overflow="fold")
        # Rounded up, so that a budget of this share can be reached.
        macs, params = (math.ceil(1000 * share) / 1000 for share in (self.min_macs_ratio, self.min_params_ratio))
        yield Text(f"smallest reachable: {macs:.3f} of its MACs, {params:.3f} of its parameters")
        for budget, numbers in (self.budgets or {}).items():
            yield _budget_line(budget, **numbers)
        coupled = "; blocks of a stage end in one width (couple_trunk)" if self.is_coupled else ""
        yield Text(f"projections: {self.projected_share:.0%} of the MACs of random shapes, on average{coupled}")
        units = [[one.name, one.width, _numbers(one.candidates), ", ".join(one.coupled_with)] for one in self.units]
        stages = [[stage.name, stage.blocks, _numbers(stage.candidates)] for stage in self.stages]
        yield _table("Width units", ["name", "width", "candidates", "coupled with"], units)
        yield _table("Stages", ["name", "blocks", "candidates"], stages)
        yield Text(self._frozen_line())
        rows = [[*row, _percent(self.frozen_shares.get(row[0], 0.0))] for row in self.frozen.items()]
        yield _table("Frozen", ["layer", "reason", "MACs"], rows)
        if self.shape is not None:
            yield from self._shape_lines(self.shape)
        if self.paper_accuracy is not None:
            yield Text(f"top-1 in the paper, with distillation: {self.paper_accuracy:.2%} (quoted second hand)")

    def _frozen_line(self) -> str:
        """How much of the cost is frozen, and in which layers most of it is."""
        largest = sorted(self.frozen_shares, key=lambda layer: self.frozen_shares[layer], reverse=True)[:_MOST_NAMED]
        named = ", ".join(f"{layer} {_percent(self.frozen_shares[layer])}" for layer in largest)
        more = len(self.frozen_shares) - len(largest)
        where = f": {named}{f' and {more} more' if more else ''}" if named else ""
        return f"frozen: {_percent(sum(self.frozen_shares.values()))} of the MACs can't shrink{where}"

    def _shape_lines(self, shape: ShapeCost) -> Iterator[RenderableType]:
        rows = [[one["layer"], one["in"], one["out"], f"{one['macs']:,}"] for one in shape.projections]
        share = sum(one["macs"] for one in shape.projections) / shape.macs
        yield _table("Projections", ["layer", "in", "out", "MACs"], rows)
        yield Text(
            f"shape: {shape.macs:,} MACs ({shape.macs / self.macs:.3f}), {shape.params:,} parameters; "
            f"its projections, {len(rows)} of them, take {share:.1%} of that"
        )


def describe(
    model: keras.Model,
    *,
    axes: str = SpaceSettings.axes,
    width_divisor: int = SpaceSettings.width_divisor,
    couple_trunk: bool | None = None,
    search_dense: bool = SpaceSettings.search_dense,
    task: str | Mapping[str, str] | None = None,
    image_size: int | tuple[int, int] | None = None,
    custom_objects: CustomObjects | None = None,
    unsafe_load: bool = False,
) -> Description:
    """Describes what a search may change in a network, before anything is trained.

    Args:
        model: Functional or Sequential CNN; its weights don't matter.
        axes: What the search may reduce: `width`, `depth` or `both`.
        width_divisor: Widths are rounded to multiples of this number.
        couple_trunk: Gives all blocks of a stage the same width; by default only if projections would be expensive.
        search_dense: Also searches hidden Dense layers that act on vectors. They are always searched if nothing else
            can be.
        task: What the model is for, see `compress`.
        image_size: Height and width of the images, or one number for both, for a model that takes any size.
        custom_objects: Layer classes and functions of the model's own, see `compress`.
        unsafe_load: Also accepts Lambda layers, see `compress`.

    Returns:
        A description to print or to read.

    Raises:
        UserError: The model can't be read or doesn't suit `task`, nothing in it can shrink, or an option is invalid.

    Example:
        >>> import tas_tf
        >>> found = tas_tf.describe(tas_tf.load_network("resnet14"))
        >>> f"{found.macs:,}", [stage.candidates for stage in found.stages]
        ('26,657,408', [(1, 2), (1, 2), (1, 2)])
        >>> print(str(found).splitlines()[3])
        smallest reachable: 0.038 of its MACs, 0.040 of its parameters
    """
    admit(custom_objects, unsafe_load=unsafe_load)
    compiled = model
    if image_size is not None:
        sides = (image_size, image_size) if isinstance(image_size, int) else image_size
        model = with_image_size(model, (*sides, model.inputs[0].shape[-1]))
    space = SearchSpace.from_graph(
        Graph.from_model(model),
        couple_trunk=couple_trunk,
        axes=axes,
        width_divisor=width_divisor,
        search_dense=search_dense,
    )
    objective = find_objective(space.graph, task=task, loss=loss_of(compiled))
    return replace(describe_space(space, objective), deployment=find_deployment(model))


def find_objective(graph: Graph, *, task: str | Mapping[str, str] | None, loss: Any) -> Objective | None:
    """What a network is for, see `choose_objective`; `None` if only its user knows.

    Raises:
        UserError: The network doesn't suit `task`.
    """
    try:
        return choose_objective(graph, task=task, loss=loss)
    except UserError:
        if task is not None:
            raise
        return None


def find_deployment(model: keras.Model) -> str:
    """Tests whether a network can be exported; returns `ok`, or the reason why it can't."""
    try:
        check_deployable(model)
    except UserError as error:
        return str(error)
    return "ok"


def describe_space(
    space: SearchSpace, objective: Objective | None, *, name: str | None = None, shape: Shape | None = None
) -> Description:
    """Describes a search space.

    Args:
        space: The search space.
        objective: What the network is for, if that is known.
        name: What the user calls the network; by default its own name.
        shape: Adds the costs of this shape.

    Raises:
        UserError: The shape belongs to another network.
    """
    macs, params = CostModel(space), CostModel(space, "params")
    if shape is not None:
        shape.check(space)
    form = Form.of(space.graph)
    return Description(
        model=space.graph.network if name is None else name,
        inputs=dict(zip(form.inputs, form.shapes, strict=True)),
        task=None if objective is None else objective.task,
        outputs=_unknown(form, space.graph.num_classes) if objective is None else objective.outputs_in_words,
        macs=macs.full,
        params=params.full,
        min_macs_ratio=macs(smallest_shape(macs)) / macs.full,
        min_params_ratio=params(smallest_shape(params)) / params.full,
        projected_share=projected_share(space),
        is_coupled=space.is_coupled,
        units=space.units,
        stages=space.stages,
        frozen=space.frozen,
        frozen_shares={layer: count / macs.full for layer, count in frozen_macs(space).items()},
        shape=None if shape is None else ShapeCost(macs(shape), params(shape), projections(space, shape)),
    )


def _unknown(form: Form, num_outputs: int) -> str:
    """Outputs of a network that may be for several tasks."""
    outputs = num_outputs if len(form.outputs) == 1 else ", ".join(form.outputs)
    return f"outputs: {outputs}, for a `task` that must be given"


def _budget_line(budget: str, *, limit: float, full: float, smallest: float) -> Text:
    kind = budget.partition(":")[0]
    at_most, whole, least = (told(kind, value) for value in (limit, full, smallest))
    unit = f" {kind}"  # said once
    line = f"budget {budget}: {at_most.removesuffix(unit)} of {whole} ({limit / full:.3f}), smallest {least}"
    return Text(line, no_wrap=True, overflow="ignore")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share else "0%"


def _numbers(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> RenderableType:
    if not rows:
        return Text(f"{title}: none")
    table = Table(title=title, title_justify="left")
    for column, value in zip(columns, rows[0], strict=True):
        numeric = isinstance(value, int) or column == "MACs"
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    return table
