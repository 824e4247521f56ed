"""Writes a folder of small networks to time on another device, for a budget in time there.

Copy the folder to the device and run `python3 measure.py` in it: it needs numpy and ai-edge-litert alone. On Android,
`sh measure_android.sh PATH_OF_BENCHMARK_MODEL` times it by adb. Either writes latency.json, which --latency_from takes.
A network in a file needs no data, unless its files contain the preprocessing.

Examples:
    python -m trainers.probe --run_dir=runs/mine --model=mine.keras --latency_format=int8 --threads=4
    python -m trainers.probe --run_dir=runs/digits --flagfile=flags/digits.cfg

With what came back (one line):
    python -m trainers.pipeline --run_dir=runs/mine --model=mine.keras --dataset=folder:photos --budget=latency:0.5
    --latency_from=latency.json --latency_format=int8 --threads=4 --formats=fp32,int8
"""

from __future__ import annotations

import keras

from tas_tf import workers
from tas_tf.cli.command import run, start
from tas_tf.cli.options import is_given
from tas_tf.data.resizing import pair
from tas_tf.deploy.file_contents import layers_inside
from tas_tf.deploy.settings import format_to_time
from tas_tf.errors import UserError
from tas_tf.graph.image_size import takes_any_size, with_image_size
from tas_tf.latency.measure import Target
from tas_tf.latency.probe import write_probe
from tas_tf.runs.workspace import Workspace


def main() -> None:
    """Writes the folder, and says what to do with it."""
    workspace, _ = start(earlier=True, prepared=False)
    inside = workspace.config.export.preprocessing_inside
    workspace = workspace.prepared() if inside else workspace
    config, network = workspace.config, _network(workspace)
    space = workspace.space_of(network, anew=True)
    workspace.check_deployable(network)
    target = Target(
        config.latency.file_format,
        config.latency.threads,
        lambda: layers_inside(workspace.task, inside=True) if inside else [],
    )

    def on_written(done: int, count: int) -> None:
        if done == count or done % 10 == 0:
            workspace.say(f"{done} of {count} networks written ({target.format})")

    options = {"overwrite": config.overwrite, "on_written": on_written}
    folder = workers.once(lambda: write_probe(space, target, config.run.probe_dir, **options))
    formats = config.export.formats
    written = "" if format_to_time(target.format, formats) else f" --formats={','.join((*formats, target.format))}"
    workspace.say(
        f"Copy {folder} to the device and run `python3 measure.py` there, then give the latency.json that it writes: "
        f"--budget=latency:0.5 --latency_from=latency.json --latency_format={target.format} --threads={target.threads}"
        f"{written}"
    )


def _network(workspace: Workspace) -> keras.Model:
    """The unpruned network. Its file gives the size of its images, or else `image_size`, or else the data.

    Raises:
        UserError: Nothing does.
    """
    config = workspace.config
    model = workspace.original
    if config.teacher_run.teacher_model.exists() or not (model is None or takes_any_size(model)):
        return workspace.unpruned_network()
    if model is None or is_given("dataset"):
        return workspace.prepared().unpruned_network()
    if config.data.image_size is None:
        raise UserError(
            f"`image_size`: {config.network.model} takes images of any size, on which its latency depends. Give the "
            "size, or the `dataset`."
        )
    return with_image_size(
        model, (*pair(config.data.image_size), model.inputs[0].shape[-1] or config.data.channels or 3)
    )


if __name__ == "__main__":
    run(main)
