"""One case, budget and seed of the comparison: data, teacher, costs, and what its methods have in common."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras

from tas_tf.baselines.shapes import baseline_shape
from tas_tf.cost.budget import Budget
from tas_tf.cost.cost_model import CostModel
from tas_tf.data.task import Task
from tas_tf.deploy.tflite import file_size
from tas_tf.files import read_json, write_json, write_model
from tas_tf.importance.order import channel_order, reorder
from tas_tf.latency.meter import meter_of
from tas_tf.latency.settings import LatencySettings
from tas_tf.proposals.sensitivities import IMAGES, measure_sensitivities
from tas_tf.proposals.uniform import cheapest_uniform_shape, uniform_shape
from tas_tf.race.race import plan_rounds
from tas_tf.race.settings import RaceSettings
from tas_tf.recipes import DEFAULT, of_recipe
from tas_tf.searching.monitor import SearchResult
from tas_tf.searching.run import cost_and_limit, run_search
from tas_tf.searching.settings import SearchSettings
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.meter import find_within
from tas_tf.training.network import inherited, logits_of, train_network
from tas_tf.training.settings import TrainSettings
from tas_tf.training.strategy import make_strategy
from tas_tf.zoo.loading import load_file, load_network


@dataclass(frozen=True)
class Case:
    """A network and its data.

    Attributes:
        network: Name of the network.
        images: Training images of Fashion-MNIST.
        budgets: Budgets to reach.
        methods: Methods to compare.
        epochs: Epochs of the default recipe's student.
        teacher_epochs: Epochs of the teacher, after one of warm-up: enough that the teacher doesn't hold its students
            back, see docs/RESULTS.md.
        ablated: Budget at which variants of the default recipe are compared with it.
        image_size: Height and width of the images.
        preprocess: How pixels are mapped to the network's input.
        latency_format: Format whose latency a budget in time limits.
    """

    network: str
    images: int
    budgets: tuple[str, ...]
    methods: tuple[str, ...]
    epochs: int = 50
    teacher_epochs: int = 39
    ablated: str = ""
    image_size: int = 28
    preprocess: str = "standardise"
    latency_format: str = "fp32"


@dataclass(frozen=True)
class Start:
    """What a method found.

    Attributes:
        shape: Widths and depths.
        network: Network that the student starts from; `None` for fresh weights.
        spent: What finding it cost, in MACs times images.
    """

    shape: Shape
    network: keras.Model | None
    spent: float


@dataclass(frozen=True)
class Variant:
    """A method with one part changed.

    Attributes:
        importance: How channels are ranked.
        couple_trunk: Whether all blocks of a stage have the same width; `None` as the library decides.
        kd: Whether students learn from the teacher.
        race: Changes to the settings of the race.
        training: Changes to the settings of the student's training.
    """

    importance: str = "l1"
    couple_trunk: bool | None = None
    kd: bool = True
    race: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)


class Cell:
    """One case, budget and seed: everything that methods share.

    Args:
        case: Network and data.
        budget: Budget to reach.
        seed: Seed of teacher, data order and students.
        folder: Where teachers are kept.
        variant: What differs from the default recipe.
    """

    def __init__(self, case: Case, budget: str, seed: int, folder: Path, variant: Variant | None = None) -> None:
        variant = variant or Variant()
        self.case, self.budget, self.seed, self.folder, self.variant = case, budget, seed, folder, variant
        self.strategy = make_strategy("one_device")
        self.data = Task.load(
            "fashion_mnist",
            train_limit=case.images,
            image_size=case.image_size,
            preprocess=case.preprocess,
            pad_crop=2,
            flip=True,
            seed=seed,
        )
        defaults = {**of_recipe(DEFAULT, "student"), "epochs": case.epochs, "lr": 0.1, "seed": seed, **variant.training}
        self.training = TrainSettings(**defaults)
        self.race = RaceSettings(**{**of_recipe(DEFAULT, "race"), **variant.race})
        self.teacher, self.teacher_accuracy = self._load_teacher(folder)
        self.space = SearchSpace.from_model(self.teacher, couple_trunk=variant.couple_trunk)
        self.macs = CostModel(self.space)
        kind, latency = Budget.parse(budget).kind, LatencySettings(file_format=case.latency_format)
        self.meter = meter_of(kind, self.space, latency, measure_file=file_size, say=print)
        self.cost, self.limit = cost_and_limit(self.space, Budget.parse(budget), self.meter)
        self.taught_by = None
        if variant.kd:
            with self.strategy.scope():
                self.taught_by = logits_of(self.teacher, self.space)

    def _load_teacher(self, folder: Path) -> tuple[keras.Model, float]:
        path = folder / f"{self.case.network}_{self.case.images}_{self.case.teacher_epochs}_seed{self.seed}.keras"
        if not path.exists():
            network = build_network(self.case)
            space = SearchSpace.from_model(network)
            settings = replace(self.training, epochs=self.case.teacher_epochs, warmup_epochs=1)
            trained = train_network(space, Shape.full(space), self.data, settings, strategy=self.strategy, verbose=2)
            write_model(path, trained.model)
            write_json(path.with_suffix(".json"), trained.metrics)
        return load_file(path), read_json(path.with_suffix(".json"))["accuracy"]

    @cached_property
    def ranked(self) -> keras.Model:
        """The teacher with its channels in order of importance."""
        return self.sorted_by(self.variant.importance)

    def sorted_by(self, criterion: str) -> keras.Model:
        """The teacher with its channels in order of a criterion."""
        if criterion == "none":
            return self.teacher
        return reorder(self.teacher, self.space, channel_order(criterion, self.teacher, self.space))

    @cached_property
    def damage(self):
        """Damage of each candidate."""
        return measure_sensitivities(self.ranked, self.space, self.data.calibration(**IMAGES), self.data.objective)

    @property
    def damage_cost(self) -> float:
        """What measuring it costs: about four smaller candidates of each choice, at full width."""
        choices = [*self.space.searched_units, *self.space.searched_stages]
        passes = 1 + sum(min(4, len(choice.candidates) - 1) for choice in choices)
        return passes * IMAGES["batch_size"] * IMAGES["batches"] * self.macs.full

    def steps_cost(self, macs: float, steps: float) -> float:
        """Cost of training steps of a network, forward and twice as much backward."""
        return steps * self.training.batch_size * 3 * macs

    def asking_cost(self, steps: float) -> float:
        """Cost of asking the teacher about the batches of some steps."""
        return steps * self.training.batch_size * self.macs.full if self.variant.kd else 0.0

    def training_cost(self, macs: float, epochs: int) -> float:
        """Cost of a student's training."""
        asked = min(epochs, self.training.views or epochs)
        return self.steps_cost(macs, epochs * self.steps_per_epoch) + self.asking_cost(asked * self.steps_per_epoch)

    def epochs_for(self, macs: float, spent: float, *, computed: float = 1.0) -> int:
        """Epochs of a student's training after which as much was computed as by the default recipe.

        Args:
            macs: Multiply-adds of the student.
            spent: What was computed before.
            computed: What the recipe computed, as a share of `total`.
        """
        total = computed * self.total
        found = (epochs for epochs in itertools.count(1) if spent + self.training_cost(macs, epochs) > total)
        first = next(found)
        over, under = (abs(spent + self.training_cost(macs, one) - total) for one in (first, first - 1))
        return max(1, first if over < under else first - 1)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return self.data.training(self.training.batch_size)[1]

    @cached_property
    def total(self) -> float:
        """What the default recipe computes, with shapes that use the whole budget."""
        whole = self if self.variant == Variant() else Cell(self.case, self.budget, self.seed, self.folder)
        rounds = plan_rounds(whole.data, whole.training, whole.race, whole.race.proposals)
        race = whole.steps_cost(whole.allowed_macs, rounds.num_steps) + whole.asking_cost(sum(rounds.steps))
        return whole.damage_cost + race + whole.training_cost(whole.allowed_macs, whole.case.epochs)

    @cached_property
    def allowed_macs(self) -> float:
        """The budget in MACs; for other budgets, those of the uniform shape."""
        return self.limit if self.cost.kind == "macs" else self.macs(self.uniform(fill=True))

    def within(self, find: Callable[[int], Shape], cheapest: Callable[[], Shape] | None = None) -> Shape:
        """A shape that is within the budget as measured."""
        return find_within(find, self.cost, self.limit, self.meter, cheapest=cheapest)[0]

    def uniform(self, *, fill: bool = False, **options) -> Shape:
        """The widest uniform shape."""
        return self.within(
            lambda limit: uniform_shape(self.cost, limit=limit, fill=fill, **options),
            lambda: cheapest_uniform_shape(self.cost, **options),
        )

    def brief(self, shape: Shape, start: keras.Model, steps: int) -> tuple[float, keras.Model, float]:
        """Trains for some steps; returns the held-out loss, the network and the cost without the teacher's."""
        share = self.race.race_share
        trained = train_network(
            self.space,
            shape,
            self.data.weights_part(share),
            replace(self.training, lr=self.training.lr / 2),
            strategy=self.strategy,
            teacher=self.taught_by,
            start=start,
            verbose=0,
            scored_on=self.data.held_out(share, 10_000),
            steps=steps,
        )
        return trained.metrics["loss"], trained.model, self.steps_cost(self.macs(shape), steps)

    def best_of(self, shapes: list[Shape]) -> Start:
        """Trains several shapes briefly, at a quarter of all that may be spent, and goes on with the best."""
        one = self.steps_cost(self.allowed_macs, 1) * len(shapes) + self.asking_cost(1)
        steps = max(20, int(0.25 * self.total / one))
        found = [self.brief(shape, inherited(self.ranked, self.space, shape), steps) for shape in shapes]
        best = min(range(len(shapes)), key=lambda number: found[number][0])
        # All shapes see the same images, so that one pass of the teacher would do.
        return Start(shapes[best], found[best][1], sum(cost for _, _, cost in found) + self.asking_cost(steps))

    def search(self, *, from_teacher: bool) -> tuple[SearchResult, float]:
        """Searches differentiably for 12 epochs; returns what was found and the cost."""
        settings = SearchSettings(
            epochs=12, batch_size=64, lr=0.05, from_teacher=from_teacher, held_out_limit=3000, seed=self.seed
        )
        budget = Budget.parse(self.budget)
        options = {"strategy": self.strategy, "teacher": self.ranked, "verbose": 2, "meter": self.meter}
        found = run_search(self.space, self.data, budget, settings, **options)
        _, steps = self.data.searching(settings.batch_size, settings.split_share)
        # Two steps of the whole supernet, without a teacher.
        images = settings.epochs * steps * settings.batch_size
        return found, images * 2 * 3 * self.macs.full

    def random(self, number: int) -> Shape:
        """A random shape that uses at least 98 % of the budget."""
        seed = [self.seed, number]
        return self.within(
            lambda limit: baseline_shape("random", self.cost, limit=limit, tolerance=limit // 50, seed=seed)
        )

    def from_teacher(self, shape: Shape, *, criterion: str = "l1", spent: float = 0.0) -> Start:
        """A shape with the teacher's best filters."""
        return Start(shape, inherited(self.sorted_by(criterion), self.space, shape), spent)


def build_network(case: Case) -> keras.Model:
    """The network of a case with random weights; MobileNetV2 is that of examples/train_mobilenet.py."""
    if case.network != "keras.applications.MobileNetV2":
        return load_network(case.network, num_classes=10, image_size=case.image_size, channels=1)
    shape = (case.image_size, case.image_size, 1)
    network = keras.applications.MobileNetV2(alpha=0.5, input_shape=shape, weights=None, classes=10)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # with 0.999, the initial statistics would outlast these few epochs
    return network
