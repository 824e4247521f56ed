"""Files of students: written, and loaded again in this process and in one that doesn't know this project."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import keras
import numpy as np

#: For each folder whose path it reads, loads every file and prints their number and the largest difference.
_STRANGER = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np
try:
    import tas_tf
except ImportError:
    pass
else:
    sys.exit("this project can be imported")
for folder in sys.stdin:
    differences = []
    try:
        for name in sorted(os.listdir(folder.strip())):
            path = os.path.join(folder.strip(), name)
            if name.endswith(".keras"):
                known = np.load(path.replace(".keras", ".npz"))
                student = keras.models.load_model(path, compile=False)
                outputs = np.asarray(student(known["images"], training=False), "float32")
                differences.append(np.abs(outputs - known["outputs"]).max() / np.abs(known["outputs"]).max())
        print("RESULT", len(differences), max(differences), flush=True)
    except Exception as error:
        print("RESULT", type(error).__name__, repr(str(error)), flush=True)
"""


def save_student(student: keras.Model, images: np.ndarray, path: Path) -> None:
    """Saves a student with its outputs for the images."""
    student.save(path)
    np.savez(path.with_suffix(".npz"), images=images, outputs=np.float32(student(images, training=False)))


def load_elsewhere(folder: Path) -> tuple[int, float]:
    """Loads the files of a folder without this project; returns their number and the largest difference."""
    process = _stranger()
    process.stdin.write(f"{folder}\n")
    process.stdin.flush()
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("RESULT"):
            break
    _, count, difference = (lines or [""])[-1].split(maxsplit=2) if lines else ("", "none", "the process has ended")
    assert count.isdigit(), f"loading elsewhere: {count} {difference}"
    return int(count), float(difference)


@cache
def _stranger() -> subprocess.Popen:
    """Starts the process that loads files elsewhere; it ends with this one."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-c", _STRANGER]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd="/", env=environment, stdin=pipe, stdout=pipe, text=True)
    atexit.register(process.stdin.close)
    return process


def load_here(folder: Path) -> tuple[int, float]:
    """Does the same in this process, which knows the network's own layers and trusts its functions."""
    differences = []
    for path in folder.glob("*.keras"):
        known = np.load(path.with_suffix(".npz"))
        student = keras.models.load_model(path, compile=False, safe_mode=False)
        differences.append(relative(np.float32(student(known["images"], training=False)), known["outputs"]))
    return len(differences), max(differences)


def relative(outputs: np.ndarray, expected: np.ndarray) -> float:
    """Returns the largest difference, as a share of the largest output."""
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())
