"""Measures the speed-up of a published shape on LiteRT, next to a uniform shape of equal cost.

    python -m benchmarks.speed [--shape=cifar10-resnet56] [--formats=fp32,int8] [--threads=1] [--rounds=300]

All three networks have random weights, which take the same time as trained ones. They are exported, checked and timed
in turns, as in `export.student`. Prints latencies, speed-ups and reductions in multiply-adds. If the speed-up is
clearly smaller than the reduction, the operators that take the time are listed.
"""

from __future__ import annotations

import argparse
import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from tas_tf.baselines.shapes import baseline_shape
from tas_tf.cost.cost_model import CostModel
from tas_tf.deploy.artefacts import STUDENT, export_models
from tas_tf.deploy.jobs import Extras
from tas_tf.deploy.settings import Checks
from tas_tf.published import PUBLISHED, shape_file
from tas_tf.report.formatting import format_count, format_ms, format_ratio
from tas_tf.report.report import build_report
from tas_tf.report.speed import compare_speed, explain
from tas_tf.space.shape import Shape
from tas_tf.space.space import SearchSpace
from tas_tf.student.build import build_student
from tas_tf.zoo.loading import load_network

_TEACHER, _UNIFORM = "teacher", "uniform"
_IMAGES = 64


def main() -> None:
    options = _parse()
    models, macs = build(options.shape)
    rng = np.random.default_rng(0)
    images = rng.normal(size=(_IMAGES, *models[STUDENT].input_shape[1:])).astype(np.float32)
    with tempfile.TemporaryDirectory() as scratch:
        metrics = export_models(
            models,
            scratch,
            images=images,
            labels=np.zeros(_IMAGES, int),
            formats=options.formats,
            extras=Extras(calibration=images),
            # Accuracy is meaningless with random weights.
            checks=Checks(max_accuracy_drop=1.0, threads=options.threads, rounds=options.rounds, warmup=30),
        )
    show(metrics, macs, options.formats)


def build(name: str) -> tuple[dict[str, keras.Model], dict[str, int]]:
    """Returns the unpruned network, the published student and a uniform one of equal cost, and the cost of each."""
    known = PUBLISHED[name]
    network = load_network(known.network, num_classes=known.num_classes, image_size=known.image_size)
    published = Shape.load(shape_file(f"published/{name}"))
    space = SearchSpace.from_model(network, units=published.widths)
    cost = CostModel(space)
    shapes = {STUDENT: published, _TEACHER: Shape.full(space)}
    shapes[_UNIFORM] = baseline_shape("uniform", cost, limit=cost(shapes[STUDENT]), tolerance=0)
    models = {label: build_student(space, shape) for label, shape in shapes.items()}
    return models, {label: cost(shape) for label, shape in shapes.items()}


def show(metrics: dict, macs: dict[str, int], formats: list[str]) -> None:
    """Prints the table, and the operators of students whose speed-up falls short."""
    measured = {label: metrics if label == STUDENT else metrics[label] for label in macs}
    columns = [f"{format} {what}" for format in formats for what in ("latency", "speed-up")]
    print("| network | MACs | fewer MACs |", " | ".join(columns), "|")
    print("| --- |", " | ".join(["---:"] * (2 + len(columns))), "|")
    for label in (_TEACHER, STUDENT, _UNIFORM):
        cells = [format_count(macs[label]), format_ratio(macs[_TEACHER] / macs[label])]
        for format in formats:
            own, teacher = measured[label][format], measured[_TEACHER][format]
            spread = f"{own['latency_spread_ms'] / 2:.2g}"
            ratio = format_ratio(teacher["latency_ms"] / own["latency_ms"])
            cells += [f"{format_ms(own['latency_ms'])} ± {spread}", ratio]
        print(f"| {label} |", " | ".join(cells), "|")
    for label in (STUDENT, _UNIFORM):
        one = {"teacher": measured[_TEACHER], **measured[label]}
        costs = {"teacher": {"macs": macs[_TEACHER]}, "student": {"macs": macs[label]}}
        for speed in compare_speed(build_report(**costs, export=one)):
            if speed.falls_short:
                print(f"{label}, {explain(speed)}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=PUBLISHED, default="cifar10-resnet56", metavar="NAME")
    parser.add_argument(
        "--formats", type=lambda text: text.split(","), default=["fp32", "int8"], help="comma-separated names"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=300)
    return parser.parse_args()


if __name__ == "__main__":
    main()
