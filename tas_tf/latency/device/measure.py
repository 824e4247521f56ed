"""Times the networks in this folder on this device.

A probe's folder gives latency.json, which `tas-tf pipeline --latency_from=latency.json` takes. The folder check of a
run gives student.json, which tells whether the student keeps its budget here: copy it into the run's folder check.

It needs Python 3.9 or newer with numpy, and ai-edge-litert or tflite-runtime or tensorflow:

    python3 measure.py

Android devices need neither: see measure_android.sh.
"""

import argparse
import importlib
import json
import os
import platform
import re
import statistics
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
GROUP = 7  # networks that are timed in turns, with the unpruned one
SECONDS = 3.0  # for each group
ANDROID_GROUP, ANDROID_FEWEST = 4, 5  # networks between two times of the unpruned one; times of each half, at least
USELESS = 0.2  # noise of a table above which `tas-tf` refuses it


def load_runtime():
    """The interpreter class, and the name and version of its package."""
    for package, module in (
        ("ai-edge-litert", "ai_edge_litert.interpreter"),
        ("tflite-runtime", "tflite_runtime.interpreter"),
        ("tensorflow", "tensorflow"),
    ):
        try:
            loaded = importlib.import_module(module)
        except ImportError as error:
            if error.name != module.partition(".")[0]:  # it is there, but broken, or lacks what it needs
                print(f"warning: {package} can't be imported: {error}", file=sys.stderr)
            continue
        loaded = loaded.lite if module == "tensorflow" else loaded  # an attribute, not a module
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


def networks_of(header):
    """Names of the networks' files, the unpruned one first; ends the program if the folder isn't complete."""
    files = header["files"]
    wrong = [name for name, size in files.items() if not (FOLDER / name).is_file() or _size(name) != size]
    if wrong:
        raise SystemExit(
            f"error: {len(wrong)} of {len(files)} networks are missing or incomplete, such as {wrong[0]}. Copy the "
            "whole folder again."
        )
    return list(files)


def _size(name):
    return (FOLDER / name).stat().st_size


def load(interpreter_class, name, threads):
    """Loads a file for inputs one by one."""
    interpreter = interpreter_class(model_path=str(FOLDER / name), num_threads=threads)
    for detail in interpreter.get_input_details():
        interpreter.resize_tensor_input(detail["index"], [1, *map(int, detail["shape"][1:])])
    interpreter.allocate_tensors()
    return interpreter


def bind(interpreter):
    """A function that runs a loaded file once, on zeros."""
    import numpy as np

    zeros = [(one["index"], np.zeros(one["shape"], one["dtype"])) for one in interpreter.get_input_details()]
    outputs = [one["index"] for one in interpreter.get_output_details()]

    def run():
        for index, value in zeros:
            interpreter.set_tensor(index, value)
        interpreter.invoke()
        for index in outputs:
            interpreter.get_tensor(index)

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
            for call, own in zip(calls, times):
                call()
                start = time.perf_counter()
                call()
                own.append(1000 * (time.perf_counter() - start))
        return [sorted(own)[len(own) // 10] for own in times]

    rounds(1)
    count = int(min(1000, max(5, seconds / 2 / (2 * sum(rounds(2)) / 1000))))
    return rounds(count), rounds(count)


def measure(header):
    """Times all networks of the folder."""
    names = networks_of(header)
    interpreter_class, runtime = load_runtime()
    ratios: tuple[list[float], list[float]] = ([], [])
    full = []
    for start in range(0, len(names), GROUP):
        group = [names[0], *names[start : start + GROUP]]
        loaded = [load(interpreter_class, name, header["threads"]) for name in group]
        for half, own in zip(time_in_turns([bind(one) for one in loaded], SECONDS), ratios):
            own += [one / half[0] for one in half[1:]]
            full.append(half[0])
        print(f"{len(ratios[0])} of {len(names)} networks timed", flush=True)
    return {
        "runtime": runtime if is_accelerated(loaded[0]) else f"{runtime}, without XNNPACK",
        "device": device_name(),
        "full_ms": statistics.median(full),
        **joined(*ratios),
    }


def joined(first, second):
    """Ratios and their noise, from those of both halves."""
    ratios = [statistics.mean(pair) for pair in zip(first, second)]
    return {"ratios": ratios, "noises": [abs(a - b) / ratio for a, b, ratio in zip(first, second, ratios)]}


def android_order(names):
    """The order in which measure_android.sh times networks: twice, the second time backwards.

    The unpruned one comes in between every few others, since a device that becomes hot slows down all that follow.
    """
    full, *others = names
    if not others:
        return [full, full]
    others = others * -(-ANDROID_FEWEST // len(others)) if len(others) < ANDROID_FEWEST else others
    order, size = [full], min(ANDROID_GROUP, len(names) - 1)
    for start in range(0, len(others), size):
        order += [*others[start : start + size], full]
    return order + order[::-1]


def read_android(header, log):
    """Reads what TFLite's benchmark_model printed for all networks."""
    names = networks_of(header)
    text = log.read_text(encoding="utf-8", errors="replace")
    parts = re.split(r"^== (\S+)$", text, flags=re.MULTILINE)
    timed, outputs = parts[1::2], parts[2::2]
    found = [re.search(r"Inference timings in us:.*Inference \(avg\): *([\d.e+]+)", output) for output in outputs]
    about = [re.search(rf"^{key}: (.+)$", parts[0], re.MULTILINE) for key in ("benchmark_model", "device")]
    if timed != android_order(names) or not all((*found, *about)):
        raise SystemExit(f"error: {log} doesn't hold the times of all networks. Run measure_android.sh again.")
    times = [float(one.group(1)) / 1000 for one in found]
    middle = len(times) // 2
    halves = [_beside_full(timed[part], times[part], names) for part in (slice(middle), slice(middle, None))]
    has_kernels = re.search(r"XNNPACK delegate, and the model graph will be (completely|partially)", outputs[0])
    tool, device = (one.group(1).strip() for one in about)
    return {
        "runtime": f"benchmark_model {tool}{'' if has_kernels else ', without XNNPACK'}",
        "device": device,
        "full_ms": statistics.median(value for name, value in zip(timed, times) if name == names[0]),
        **joined(*halves),
    }


def _beside_full(timed, times, names):
    """Times of all networks, each as a share of the mean of the unpruned one's before and after it."""
    places = [place for place, name in enumerate(timed) if name == names[0]]
    shares: dict[str, list[float]] = {name: [] for name in names}
    shares[names[0]].append(1.0)
    for place, (name, value) in enumerate(zip(timed, times)):
        if name != names[0]:
            around = max(one for one in places if one < place), min(one for one in places if one > place)
            shares[name].append(value / statistics.mean(times[one] for one in around))
    return [statistics.mean(own) for own in shares.values()]


def judge(header, found):
    """Whether the student keeps its budget, as a share of the original's time; None if one half alone says so."""
    share, limit = found["ratios"][1], header["budget_share"]
    noise = found["noises"][1] * share
    within = [half <= limit for half in (share - noise / 2, share + noise / 2)]
    kept = within[0] if within[0] == within[1] else None
    verdict = {True: "kept", False: "not kept", None: "too noisy to tell: let the device do nothing else, and repeat"}
    print(
        f"{found['device']}: the student takes {share:.3f} of the original's time ({share * found['full_ms']:.4g} of "
        f"{found['full_ms']:.4g} ms, {header['format']}, threads: {header['threads']}); two measurements differ by "
        f"{noise:.3f}. Budget {header['budget']}, at most {limit:.3f}: {verdict[kept]}."
    )
    return {
        **{"share": share, "noise": noise, "kept": kept},
        **{"teacher_ms": found["full_ms"], "student_ms": share * found["full_ms"]},
    }


def main():
    """Measures, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--android_order", action="store_true", help="lists the files that measure_android.sh times")
    parser.add_argument("--from_android", type=Path, metavar="LOG", help="the log of measure_android.sh")
    options = parser.parse_args()
    header = json.loads((FOLDER / "shapes.json").read_text(encoding="utf-8"))
    if options.android_order:
        print("\n".join(android_order(networks_of(header))))
        return
    found = read_android(header, options.from_android) if options.from_android else measure(header)
    if "without XNNPACK" in found["runtime"]:
        print("warning: this runtime lacks XNNPACK, whose kernels are several times faster. Do you deploy on it?")
    content = {name: value for name, value in header.items() if name != "files"}
    content.update({name: found[name] for name in ("runtime", "device")})
    if "budget_share" in header:
        name = "student.json"
        content.update(judge(header, found))
    else:
        name, noise = "latency.json", statistics.median(found.pop("noises"))
        content.update(found, noise=noise)
        print(
            f"{found['full_ms']:.4g} ms for the unpruned network on {found['device']}; repeated measurements differ "
            f"by {noise:.1%}."
        )
        if noise > USELESS:
            print(
                f"warning: that is too much for a budget, which needs at most {USELESS:.0%}. Let the device do nothing "
                "else, and repeat."
            )
    partial = FOLDER / f".{name}"
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(partial, FOLDER / name)
    print(f"{name} is ready.")


if __name__ == "__main__":
    main()
