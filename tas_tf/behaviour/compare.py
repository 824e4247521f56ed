"""Runs teacher and student on the test images, once and batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tas_tf.behaviour.behaviour import Behaviour
from tas_tf.behaviour.counts import AgreementCounts, AnswerCounts
from tas_tf.behaviour.examples import Mistake, Mistakes, is_picture, to_png
from tas_tf.data.run_data import RunData
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.space.space import SearchSpace
from tas_tf.training.network import logits_of

#: Maps a batch to probabilities.
_Network = Callable[[tf.Tensor], tf.Tensor]
#: Example images to keep.
EXAMPLES = 16
# Up to so many images, tracing the networks takes longer than running them operator by operator.
_FEW = 1024


def compare_behaviour(
    teacher: keras.Model, student: keras.Model, data: RunData, *, examples: int = EXAMPLES
) -> Behaviour:
    """Compares two networks in one pass over the test images, of which memory holds a batch and the examples.

    Args:
        teacher: The unpruned network, a classifier with one output, which may end in logits, softmax or sigmoid.
        student: The small network, which ends in the same way.
        data: Data with test images.
        examples: Largest number of example images.

    Raises:
        UserError: There are no test images, or a network gives NaN or infinity.

    Example:
        ```python
        found = compare_behaviour(teacher, student, task)
        print(found.agreement, found.student.calibration.error)
        ```
    """
    if not data.num_test:
        raise UserError("`test` must hold at least one image. Received: none.")
    answers = {"teacher": AnswerCounts(), "student": AnswerCounts()}
    agreement, mistakes, total = AgreementCounts(), Mistakes(examples), 0
    ask = _both(*(_probabilities(model, several=bool(data.inputs)) for model in (teacher, student)))
    ask = tf.function(ask, reduce_retracing=True) if data.num_test > _FEW else ask
    shown = is_picture(data.input_shape)
    for inputs, labels in data.test():
        labels = np.asarray(data.objective.split(labels)[0]).reshape(len(labels)).astype(np.int64)
        by_teacher, by_student = (np.asarray(one, np.float64) for one in ask(inputs))
        for name, found in (("teacher", by_teacher), ("student", by_student)):
            if not np.isfinite(found).all():
                raise UserError(f"`{name}` must give finite outputs. Received: NaN or infinity for a test image.")
        teachers, students = answers["teacher"].add(labels, by_teacher), answers["student"].add(labels, by_student)
        agreement.add(labels, teachers, students)
        images = data.pictures(np.asarray(inputs)) if shown else np.zeros(len(labels))
        mistakes.saw(images)
        for one in np.flatnonzero((teachers == labels) & (students != labels)):
            chances = float(by_teacher[one, labels[one]]), float(by_student[one, students[one]])
            mistakes.add(Mistake(total + int(one), int(labels[one]), int(students[one]), *chances), images[one])
        total += len(labels)
    kept = mistakes.result()
    count = by_student.shape[-1]
    names = tuple(map(str, data.class_names))
    return Behaviour(
        classes=names if len(names) == count else tuple(map(str, range(count))),
        images=total,
        teacher=answers["teacher"].result(),
        student=answers["student"].result(),
        agreement=agreement.result(),
        mistakes=tuple(mistake for mistake, _ in kept),
        pngs=tuple(to_png(pixels) for _, pixels in kept) if shown else (),
    )


def _both(teacher: _Network, student: _Network) -> Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]:
    """A function from a batch to the probabilities of both networks."""
    return lambda inputs: (teacher(inputs), student(inputs))


def _probabilities(model: keras.Model, *, several: bool) -> _Network:
    """A function from a batch to probabilities of classes, `[batch, classes]`; those of a decision are no and yes.

    Args:
        model: The network.
        several: Whether it has several inputs, which come side by side.
    """
    graph = Graph.from_model(model)
    finished = graph.gives_probabilities and not several
    if several:
        model = logits_of(model, SearchSpace.from_graph(graph, may_be_fixed=True))

    def ask(inputs: tf.Tensor) -> tf.Tensor:
        outputs = tf.cast(model(inputs, training=False), tf.float64)
        if outputs.shape[-1] == 1:
            yes = outputs if finished else tf.sigmoid(outputs)
            return tf.concat([1 - yes, yes], axis=-1)
        return outputs if finished else tf.nn.softmax(outputs)

    return ask
