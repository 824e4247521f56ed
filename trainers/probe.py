"""Writes a folder of small networks to time on another device, for a budget in time there.

Copy the folder to the device and run `python3 measure.py` in it: it needs numpy and ai-edge-litert alone. On Android,
`sh measure_android.sh PATH_OF_BENCHMARK_MODEL` times it by adb. Either writes latency.json, which --latency_from takes.

Examples:
    python -m trainers.probe --run_dir=runs/mine --latency_format=int8 --threads=4
    python -m trainers.probe --run_dir=runs/digits --flagfile=flags/digits.cfg
    python -m trainers.pipeline --run_dir=runs/mine --budget=latency:0.5 --latency_from=latency.json
"""

from __future__ import annotations

from tas_tf import workers
from tas_tf.cli.command import run, start
from tas_tf.deploy.file_contents import layers_inside
from tas_tf.latency.measure import Target
from tas_tf.latency.probe import write_probe


def main() -> None:
    """Writes the folder, and says what to do with it."""
    workspace, _ = start(earlier=True)
    config = workspace.config
    network = workspace.unpruned_network()
    space = workspace.space_of(network, anew=True)
    workspace.check_deployable(network)
    inside = config.export.preprocessing_inside
    target = Target(
        config.latency.file_format, config.latency.threads, lambda: layers_inside(workspace.task, inside=inside)
    )

    def on_written(done: int, count: int) -> None:
        if done == count or done % 10 == 0:
            workspace.say(f"{done} of {count} networks written ({target.format})")

    folder = workers.once(lambda: write_probe(space, target, config.run.probe_dir, on_written=on_written))
    workspace.say(
        f"Copy {folder} to the device and run `python3 measure.py` there, then give the latency.json that it writes: "
        f"--budget=latency:0.5 --latency_from=latency.json --latency_format={target.format} --threads={target.threads}"
    )


if __name__ == "__main__":
    run(main)
