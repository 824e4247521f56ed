"""Takes apart what pipelines carry along with images: labels, weights and what networks read besides."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tas_tf.data.form import Form
from tas_tf.data.several_labels import with_weights
from tas_tf.data.source import Source
from tas_tf.objectives.objective import Objective


def take_apart(batches: tf.data.Dataset, source: Source, objective: Objective, form: Form | None) -> tf.data.Dataset:
    """Batches, or pairs of batches, as networks take them, with labels as an objective has them.

    Args:
        batches: Images with their rows, see `Source.rows`, or pairs of such batches.
        source: Where they come from.
        objective: What networks are trained for.
        form: What networks take, if they have several inputs.
    """
    count = source.num_inputs
    if objective.label_shape == () and not count:
        return batches  # class numbers

    def convert(images: Any, rows: Any) -> Any:
        if isinstance(images, tuple):
            return convert(*images), convert(*rows)
        size = -1 if rows.shape[0] is None else rows.shape[0]
        if count:
            rows, values = rows[:, :-count], rows[:, -count:]
            images = form.pack(form.with_image(images, values))
        labels = tf.cast(rows, objective.label_dtype)
        if source.split_weights:
            labels = with_weights(objective, labels)
        return images, tf.reshape(labels, [size, *objective.label_shape])

    return batches.map(convert, num_parallel_calls=tf.data.AUTOTUNE)
