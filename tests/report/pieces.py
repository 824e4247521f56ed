"""What pages of tests are made from: answers of two networks, layers, and files to deploy."""

from __future__ import annotations

import numpy as np

from tas_tf.behaviour.behaviour import Behaviour
from tas_tf.behaviour.counts import AgreementCounts, AnswerCounts
from tas_tf.behaviour.examples import Mistake, to_png


def make_behaviour(classes: tuple[str, ...] = ("cat", "dog", "<b>bird"), images: int = 300) -> Behaviour:
    """Answers of a teacher that is mostly right and of a student that errs more often."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(classes), images)
    counts, agreement, predicted = [], AgreementCounts(), []
    for sharpness in (6.0, 3.0):
        logits = rng.normal(size=(images, len(classes)))
        logits[np.arange(images), labels] += sharpness / 2
        powers = np.exp(logits)
        counts.append(AnswerCounts())
        predicted.append(counts[-1].add(labels, powers / powers.sum(-1, keepdims=True)))
    agreement.add(labels, *predicted)
    mistakes = tuple(Mistake(number, 0, 1, 0.9, 0.95 - number / 100) for number in range(3))
    pngs = tuple(to_png(np.full((8, 8, 3), 40 * number, np.uint8)) for number in range(3))
    return Behaviour(classes, images, *(one.result() for one in counts), agreement.result(), mistakes, pngs)


def layers(scale: float, *, timed: bool = True) -> list[dict]:
    """Layers of a file, as in `metrics.json`."""
    sizes = {"stem": 400, "block": 9000, "top": 600}
    named = [
        {
            "name": name,
            "operator": "CONV_2D",
            "bytes": int(scale * size),
            "milliseconds": scale / size if timed else None,
        }
        for name, size in sizes.items()
    ]
    return [*named, {"name": "everything else", "operator": "", "bytes": 500, "milliseconds": 0.1 if timed else None}]


def deployable(path: str, *, integers: bool = False) -> dict:
    """A file as `describe_file` describes it, with its path."""
    scaled = {"dtype": "int8", "scale": 0.5, "zero_point": -3} if integers else {}
    plain = {"dtype": "float32", "scale": None, "zero_point": None}
    return {
        "path": path,
        "inputs": [{"name": "images", "shape": [1, 8, 8, 3], **plain, **scaled}],
        "outputs": [{"name": "classes", "shape": [1, 10], **plain, **scaled}],
        **{"task": "classification", "output": "logits", "num_labels": 10},
        **{"channel_order": "rgb", "pixel_scale": [0.1, 0.2, 0.3], "pixel_offset": [-1.0]},
    }
