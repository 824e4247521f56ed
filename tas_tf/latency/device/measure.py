"""Times the networks in this folder on this device and writes latency.json, or compares two .tflite files.

It needs Python 3.10 or newer with numpy, and ai-edge-litert or tflite-runtime or tensorflow:

    python3 measure.py                                     # writes latency.json: copy it back
    python3 measure.py --pair teacher.tflite student.tflite
    python3 measure.py --from_android android.log          # what measure_android.sh calls
"""

import argparse
import json
import platform
import re
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent
GROUP = 7  # networks that are timed in turns, with the unpruned one
SECONDS = 3.0  # for each group


def load_runtime():
    """The interpreter class, and the name and version of its package."""
    for package, module in (
        ("ai-edge-litert", "ai_edge_litert.interpreter"),
        ("tflite-runtime", "tflite_runtime.interpreter"),
        ("tensorflow", "tensorflow.lite"),
    ):
        try:
            loaded = __import__(module, fromlist=["Interpreter"])
        except ImportError:
            continue
        try:
            return loaded.Interpreter, f"{package} {version(package)}"
        except PackageNotFoundError:  # a build of another name
            return loaded.Interpreter, package
    raise SystemExit("error: install ai-edge-litert: pip install ai-edge-litert numpy")


def device_name():
    """Name of the processor, or of the board."""
    for path in ("/proc/device-tree/model", "/proc/cpuinfo"):
        if not Path(path).exists():
            continue
        text = Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ")
        if "cpuinfo" not in path:
            return text
        found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", text, re.MULTILINE)
        if found:
            return found.group(1).strip()
    return platform.processor() or platform.machine()


def load(interpreter_class, path, threads):
    """Loads a file for images one by one."""
    interpreter = interpreter_class(model_path=str(path), num_threads=threads)
    detail = interpreter.get_input_details()[0]
    shape = [1, *map(int, detail["shape"][1:])]
    interpreter.resize_tensor_input(detail["index"], shape)
    interpreter.allocate_tensors()
    return interpreter


def bind(interpreter):
    """A function that runs a loaded file once, on an image of zeros."""
    detail, output = interpreter.get_input_details()[0], interpreter.get_output_details()[0]["index"]
    image = np.zeros(detail["shape"], detail["dtype"])

    def run():
        interpreter.set_tensor(detail["index"], image)
        interpreter.invoke()
        interpreter.get_tensor(output)

    return run


def is_accelerated(interpreter):
    """Whether XNNPACK's kernels run a part of the network; runtimes that don't tell are taken to have them."""
    operators = getattr(interpreter, "_get_ops_details", lambda: [{"op_name": "DELEGATE"}])()
    return any(operator["op_name"] == "DELEGATE" for operator in operators)


def time_in_turns(calls, seconds):
    """Times calls in turns, twice; returns their 10th percentiles in milliseconds for both halves.

    Each turn calls a function twice and times the second call. Other processes only ever make a call slower.
    """

    def rounds(count):
        times: list[list[float]] = [[] for _ in calls]
        for _ in range(count):
            for call, own in zip(calls, times, strict=True):
                call()
                start = time.perf_counter()
                call()
                own.append(1000 * (time.perf_counter() - start))
        return [sorted(own)[len(own) // 10] for own in times]

    rounds(1)
    count = int(min(1000, max(5, seconds / 2 / (2 * sum(rounds(2)) / 1000))))
    return rounds(count), rounds(count)


def compare(files, threads):
    """Prints how long the second file takes, as a share of the first."""
    interpreter_class, runtime = load_runtime()
    for file in files:
        if not Path(file).is_file():
            raise SystemExit(f"error: there is no file {file}")
    first, second = time_in_turns([bind(load(interpreter_class, file, threads)) for file in files], SECONDS)
    shares = [half[1] / half[0] for half in (first, second)]
    print(
        f"{files[1]} takes {statistics.mean(shares):.3f} of the time of {files[0]} ({first[1]:.4g} of {first[0]:.4g} "
        f"ms, threads: {threads}, {runtime}; measured twice in turns, {abs(shares[0] - shares[1]):.3f} apart)"
    )


def measure(header):
    """Times all networks of the folder."""
    interpreter_class, runtime = load_runtime()
    files = sorted(FOLDER.glob("[0-9]*.tflite"))
    ratios, noises, full = [], [], []
    for start in range(0, len(files), GROUP):
        group = [files[0], *files[start : start + GROUP]]
        loaded = [load(interpreter_class, file, header["threads"]) for file in group]
        halves = time_in_turns([bind(one) for one in loaded], SECONDS)
        for one, other in zip(halves[0][1:], halves[1][1:], strict=True):
            pair = (one / halves[0][0], other / halves[1][0])
            ratios.append(statistics.mean(pair))
            noises.append(abs(pair[0] - pair[1]) / ratios[-1])
        full.append(statistics.mean(half[0] for half in halves))
        print(f"{len(ratios)} of {len(files)} networks timed", flush=True)
    return {
        "runtime": runtime if is_accelerated(loaded[0]) else f"{runtime}, without XNNPACK",
        "device": device_name(),
        "full_ms": statistics.median(full),
        "noise": statistics.median(noises),
        "ratios": ratios,
    }


def read_android(log):
    """Reads the times that TFLite's benchmark_model printed for all networks, twice."""
    text = log.read_text(encoding="utf-8")
    found = re.findall(r"^== (\d+)\.tflite$.*?Inference \(avg\):\s*([\d.e+]+)", text, re.MULTILINE | re.DOTALL)
    device = re.search(r"^device: (.+)$", text, re.MULTILINE)
    times: dict[int, list[float]] = {}
    for number, microseconds in found:
        times.setdefault(int(number), []).append(float(microseconds) / 1000)
    if sorted(times) != list(range(len(times))) or any(len(own) < 2 for own in times.values()):
        raise SystemExit(f"error: {log} must hold two times of each network. Run measure_android.sh again.")
    halves = [[times[number][half] for number in range(len(times))] for half in (0, 1)]
    pairs = [(one / halves[0][0], other / halves[1][0]) for one, other in zip(*halves, strict=True)]
    ratios = [statistics.mean(pair) for pair in pairs]
    return {
        "runtime": "benchmark_model",
        "device": device.group(1).strip() if device else "Android",
        "full_ms": statistics.mean(half[0] for half in halves),
        "noise": statistics.median(abs(pair[0] - pair[1]) / ratio for pair, ratio in zip(pairs, ratios, strict=True)),
        "ratios": ratios,
    }


def main():
    """Measures, or compares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", nargs=2, metavar=("TEACHER", "STUDENT"), help="two .tflite files")
    parser.add_argument("--from_android", type=Path, metavar="LOG", help="the log of measure_android.sh")
    options = parser.parse_args()
    header = json.loads((FOLDER / "shapes.json").read_text(encoding="utf-8"))
    if options.pair:
        compare(options.pair, header["threads"])
        return
    found = read_android(options.from_android) if options.from_android else measure(header)
    (FOLDER / "latency.json").write_text(json.dumps({**header, **found}, indent=2) + "\n", encoding="utf-8")
    if "without XNNPACK" in found["runtime"]:
        print("warning: this runtime lacks XNNPACK, whose kernels are several times faster. Do you deploy on it?")
    print(
        f"latency.json: {found['full_ms']:.4g} ms for the unpruned network on {found['device']}; repeated measurements "
        f"differ by {found['noise']:.1%}."
    )


if __name__ == "__main__":
    main()
