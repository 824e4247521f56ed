"""Measures seconds and memory of two steps of each flag file's search, at a small batch size.

    python -m benchmarks.flagfile_steps [flags/cifar100.cfg ...] [--batch_size=4]

Runs `trainers.search` with each flag file in its own process, for one epoch of two steps. Data sets that need a
download are replaced by synthetic images of the same size. Seconds and peak memory are those of the whole process.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

FLAGS = Path(__file__).parents[1] / "flags"
#: Data sets that need no download.
_OFFLINE = ("digits", "fashion_mnist")
#: Number of different labels of synthetic images, which a network can learn to distinguish.
_LABELS = 10


class Measured(NamedTuple):
    """Steps, seconds and peak memory of a process."""

    steps: int
    seconds: float
    peak_mb: float


def main() -> None:
    options = _parse()
    if options.child:
        _search(*options.child)
    for flagfile in options.flagfiles or networks_flagfiles():
        measured = measure(flagfile, batch_size=options.batch_size)
        print(
            f"{flagfile.name}: {measured.steps} steps at batch {options.batch_size}, {measured.seconds:.0f} s, "
            f"peak memory {measured.peak_mb:.0f} MB",
            flush=True,
        )


def networks_flagfiles() -> list[Path]:
    """Returns the flag files that name a network; other flag files are only included by them."""
    return [path for path in sorted(FLAGS.glob("*.cfg")) if "\n--model=" in path.read_text()]


def measure(flagfile: Path, *, batch_size: int) -> Measured:
    """Runs a flag file's search for one epoch of two steps, in its own process.

    Raises:
        RuntimeError: If the search failed or took another number of steps.
    """
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as out:
        arguments = [
            f"--flagfile={flagfile.resolve()}",
            f"--run_dir={scratch}/run",
            f"--batch_size={batch_size}",
            "--search_epochs=1",
            "--search_warmup=0",
            "--nosearch_from_teacher",
            # Twice two batches: one half of the images is for the weights, the other for the logits.
            f"--train_limit={4 * batch_size}",
            f"--held_out_limit={batch_size}",
            "--calibration_batches=1",
            "--progress=lines",
        ]
        command = [sys.executable, "-m", "benchmarks.flagfile_steps", "--child", scratch, str(4 * batch_size)]
        started = time.monotonic()
        child = subprocess.Popen([*command, json.dumps(arguments)], cwd=FLAGS.parent, stdout=out, stderr=out)
        _, status, used = os.wait4(child.pid, 0)
        seconds = time.monotonic() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read()
    if child.returncode or not re.search(r"^2/2 - ", printed, re.MULTILINE):
        raise RuntimeError(f"{flagfile}: exit code {child.returncode}, expected two steps. Output:\n{printed}")
    return Measured(2, seconds, used.ru_maxrss / 1024)


def _search(folder: str, num_examples: str, arguments: str) -> None:
    from absl import flags

    from tas_tf.cli.command import run
    from trainers import search

    given = json.loads(arguments)
    values = dict(text.lstrip("-").split("=", 1) for text in flags.FLAGS.read_flags_from_files(given) if "=" in text)
    with contextlib.ExitStack() as stack:
        if values["dataset"] not in _OFFLINE:
            given = [text for text in given if not text.startswith("--train_limit")] + [f"--data_dir={folder}/data"]
            stack.enter_context(made_up(values["dataset"], f"{folder}/data", num_examples=int(num_examples)))
        stack.enter_context(mock.patch.object(sys, "argv", ["trainers.search", *given]))
        run(search.main)


@contextlib.contextmanager
def made_up(name: str, data_dir: str | Path, *, num_examples: int) -> Iterator[None]:
    """Makes TensorFlow Datasets return synthetic images, coloured by label, instead of a data set's own images.

    Args:
        name: Name of the data set.
        data_dir: Folder of TensorFlow Datasets; the data set's metadata is written there.
        num_examples: Number of images in each split.
    """
    import numpy as np
    import tensorflow as tf
    import tensorflow_datasets as tfds

    builder = tfds.builder(name, data_dir=data_dir)
    template = tfds.core.ShardedFileTemplate(data_dir=builder.data_dir, dataset_name=name, filetype_suffix="tfrecord")
    splits = ("train", "validation" if name.startswith("imagenet") else "test")
    infos = [
        tfds.core.SplitInfo(name=split, shard_lengths=[num_examples], num_bytes=1, filename_template=template)
        for split in splits
    ]
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    Path(builder.data_dir).mkdir(parents=True, exist_ok=True)
    builder.info.write_to_directory(builder.data_dir)
    height, width, channels = (side or 256 for side in builder.info.features["image"].shape)

    def as_dataset(_, split: str, **options) -> tf.data.Dataset:
        del options
        rng = np.random.default_rng(splits.index(split))
        labels = np.arange(num_examples) % _LABELS
        colours = np.random.default_rng(2).integers(0, 200, (_LABELS, 1, 1, channels))
        images = colours[labels] + rng.integers(0, 56, (num_examples, height, width, channels))
        return tf.data.Dataset.from_tensor_slices({"image": images.astype(np.uint8), "label": labels})

    policy = tfds.testing.MockPolicy.USE_FILES
    with tfds.testing.mock_data(num_examples, as_dataset_fn=as_dataset, data_dir=str(data_dir), policy=policy):
        yield


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flagfiles", nargs="*", type=Path, help="flag files; by default all that name a network")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
