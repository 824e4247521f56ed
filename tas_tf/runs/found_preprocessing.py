"""Finds how images have to be resized and prepared for a trained network, by its score on training images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from tas_tf.data.preprocessing import PREPROCESSING_KINDS, Preprocessing
from tas_tf.data.resizing import RESIZE_WAYS
from tas_tf.data.settings import DataSettings
from tas_tf.data.source import StreamedSource
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective
from tas_tf.objectives.scoring import Scorer, tally_with_loss
from tas_tf.runs.records import read_record, read_result
from tas_tf.runs.run import Run
from tas_tf.settings import describe_settings
from tas_tf.space.space import SearchSpace
from tas_tf.training.class_order import (
    better_order,
    count_answers,
    given_recall,
    images_to_compare,
    in_another_order,
    new_table,
)
from tas_tf.training.network import check_fits, is_near_chance, logits_of

#: How to give the classes of data in files, or of a Python file, another order.
REMEDY = "Name class folders so that they sort in this order, or give labels as numbers of the outputs."

# Images of streamed data to compute mean and deviation from.
_MEASURED = 2000
# How much better than all others the best kind must be, see `Objective.drop_of`.
_CLEARLY = 0.03
# How much more another order of classes must recognise, averaged over classes, than another kind in the given order.
_RATHER_ORDER = 0.1


@dataclass(frozen=True)
class FoundPreprocessing:
    """The preparation of images that a network was trained with.

    Attributes:
        kind: One of `PREPROCESSING_KINDS`.
        resize: One of `RESIZE_WAYS`.
        scores: Score on training images by kind, such as the accuracy, 0 to 1, if they are resized so.
        resized: Best score by way of resizing, of the ways that were tried.
        objective: What the network is for.
    """

    kind: str
    resize: str
    scores: Mapping[str, float]
    resized: Mapping[str, float]
    objective: Objective

    def lines(self, network: str) -> list[str]:
        """What was found, in a line for each choice between several.

        Args:
            network: Names the network.
        """
        found = []
        for argument, chosen, scores in (
            ("resize", self.resize, self.resized),
            ("preprocess", self.kind, self.scores),
        ):
            others = [score for name, score in scores.items() if name != chosen]
            if others:
                best = max(others, key=self.objective.goodness)
                found.append(
                    f"`{argument}`={chosen} suits {network}: {_told(self.objective, scores[chosen])} on training "
                    f"images, others at {'most' if self.objective.higher_is_better else 'least'} {best:.3f}."
                )
        return found


def ways_to_try(
    data: DataSettings, task: Task, read_streamed: Callable[[], Task]
) -> tuple[dict[str, Task], tuple[str, ...]]:
    """What to find out about a trained network: its data by way of resizing, and kinds of preprocessing.

    Args:
        data: Settings of the data; what they don't leave open isn't tried.
        task: The data.
        read_streamed: Returns the data streamed, which can be resized in every way.
    """
    kinds = PREPROCESSING_KINDS if data.preprocess == "auto" else (data.preprocess,)
    if data.resize == "auto" and task.source.reshaped:
        streamed = read_streamed()
        if isinstance(streamed.source, StreamedSource):
            return {way: streamed.resized_as(way) for way in RESIZE_WAYS}, kinds
    return {task.source.resize: task}, kinds


def find_preprocessing(
    model: keras.Model, space: SearchSpace, tasks: Mapping[str, Task], kinds: Sequence[str] = PREPROCESSING_KINDS
) -> FoundPreprocessing:
    """Scores a trained network under each way of resizing and each kind of preprocessing, and takes the best.

    A kind of preprocessing must be clearly better than all others, and a way of resizing than the first one.

    Args:
        model: The trained network.
        space: Search space of the network.
        tasks: Its data, by way of resizing.
        kinds: Kinds of preprocessing to try.

    Raises:
        UserError: The network doesn't fit the data; its outputs fit the classes in another order; no kind is above
            chance; or two kinds are nearly as good.
    """
    first, task = next(iter(tasks.items()))
    check_fits(model, space, task)
    network = logits_of(model, space)
    colour = task.source.image_shape[-1] == 3
    kinds = [kind for kind in kinds if colour or kind not in ("torch", "caffe")]
    goodness = task.objective.goodness
    outcomes = {way: _try(network, resized, kinds) for way, resized in tasks.items()}
    scores = {way: {kind: one.score for kind, one in by_kind.items()} for way, by_kind in outcomes.items()}
    resized = {way: max(of_kinds.values(), key=goodness) for way, of_kinds in scores.items()}
    way = max(resized, key=lambda name: goodness(resized[name]))
    way = way if task.objective.drop_of(resized[first], resized[way], task.chance) >= _CLEARLY else first
    kind = _best_kind(tasks[way], outcomes[way])
    return FoundPreprocessing(kind, way, scores[way], resized, task.objective)


@dataclass(frozen=True)
class _Outcome:
    """How a network does under a kind of preprocessing.

    Attributes:
        score: Score on training images.
        counts: Number of images by output and class, `[output, class]`, if each image has a class.
    """

    score: float
    counts: np.ndarray | None


def _best_kind(task: Task, outcomes: Mapping[str, _Outcome]) -> str:
    """The kind of preprocessing that is clearly better than the others.

    Raises:
        UserError: Classes are in another order than outputs, no kind is above chance, or two kinds are nearly as good.
    """
    objective, found = task.objective, {kind: one.score for kind, one in outcomes.items()}
    best, *others = sorted(found, key=lambda kind: -objective.goodness(found[kind]))
    _check_order(task, {kind: one.counts for kind, one in outcomes.items() if one.counts is not None})
    if not others:
        return best
    listed = ", ".join(f"{kind} {found[kind]:.3f}" for kind in (best, *others))
    name = objective.metric.replace("_", " ")
    if is_near_chance({objective.metric: found[best]}, task):
        order = "the order of its classes and " if task.source.has_classes else ""
        raise UserError(
            f"`preprocess`: the network is near chance level under every preprocessing. Its {name} on training images: "
            f"{listed}; guessing gives {task.chance:.3f}. Check {order}`resize`. If it was trained with a "
            "preprocessing of its own, put that into the network and give `preprocess`=none. If it isn't trained yet, "
            "give `train_model`."
        )
    if objective.drop_of(found[others[0]], found[best], task.chance) < _CLEARLY:
        raise UserError(
            f"`preprocess`: {best} and {others[0]} suit the network nearly as well. Give the one it was trained with. "
            f"Its {name} on training images: {listed}."
        )
    return best


def _told(objective: Objective, score: float) -> str:
    return f"{objective.metric.replace('_', ' ')} {score:.3f}"


def _try(network: keras.Model, task: Task, kinds: Sequence[str]) -> dict[str, _Outcome]:
    """Scores a network that ends in logits on training images, under each kind of preprocessing."""
    source, measured = task.source, task.indices
    if isinstance(source, StreamedSource):
        measured = source.sample(measured, _MEASURED)
    maps = {kind: Preprocessing.fit(source, kind, indices=measured) for kind in kinds}
    scorers = {kind: Scorer(task.objective) for kind in kinds}
    counts = {kind: new_table(task.objective) for kind in kinds}

    @tf.function(reduce_retracing=True)
    def answer(images: tf.Tensor, labels: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        logits = network(images, training=False)
        return tally_with_loss(task.objective, labels, logits), logits

    for pixels, labels in task.prepared_as("none").calibration(**images_to_compare(task)):
        for kind, preprocessing in maps.items():
            change = preprocessing.apply
            images = change(pixels) if task.form is None else task.form.change_image(pixels, change)
            tally, logits = answer(images, labels)
            scorers[kind].add(tally, labels, logits)
            if (table := counts[kind]) is not None:
                count_answers(logits.numpy(), task.objective.split(labels)[0].numpy(), table)
    return {kind: _Outcome(scorers[kind].result()[task.objective.metric], counts[kind]) for kind in kinds}


def _check_order(task: Task, counts: Mapping[str, np.ndarray]) -> None:
    """Checks that the outputs of a network don't fit the classes clearly better in another order.

    Raises:
        UserError: They do. The message says the order, under the kind of preprocessing that suits it best.
    """
    orders = {kind: better for kind, table in counts.items() if (better := better_order(table)) is not None}
    if not orders:
        return
    best = max(orders, key=lambda kind: orders[kind].recall)
    if any(given_recall(table) + _RATHER_ORDER > orders[best].recall for kind, table in counts.items() if kind != best):
        return  # another kind suits the network as well in the given order
    under = f"`preprocess`={best}" if len(counts) > 1 else ""
    raise in_another_order(orders[best], task.class_names, argument="dataset", remedy=REMEDY, under=under)


def kept_preparation(teacher_run: Run) -> dict[str, str | None]:
    """The way of resizing and the kind of preprocessing that the teacher of a run has, as far as it has them.

    The kind is `None` if a Python file prepared its images.
    """
    metrics, record = teacher_run.metrics("teacher"), teacher_run.path / "teacher" / "digest.json"
    kept = {}
    if metrics.exists():
        kept["preprocess"] = read_result(metrics).get("preprocess", "standardise")
    if record.exists():
        # Records leave out what was the way before there was a choice.
        before = describe_settings(DataSettings)["resize"].setting.before
        kept["resize"] = read_record(record)["settings"].get("data", {}).get("resize", before)
    return kept
