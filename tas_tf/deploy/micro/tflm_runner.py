"""Runs a network on the interpreter of LiteRT for Microcontrollers, in a process of its own.

The interpreter ends the process on some errors, and prints how much memory it uses. This file imports nothing from this
project.
"""

import sys

import numpy as np
from tflite_micro import runtime


def run(model: str, arena: int, num_outputs: int, inputs: str, outputs: str) -> None:
    """Runs examples one by one, writes their outputs and prints how much of the arena is used.

    Args:
        model: Path of the `.tflite` file.
        arena: Bytes of the arena.
        num_outputs: How many outputs the network has.
        inputs: Path of an `.npz` file with an array `[examples, 1, ...]` for each input, in the order of the file.
        outputs: Path of the `.npz` file to write: an array `[examples, 1, ...]` for each output.
    """
    interpreter = runtime.Interpreter.from_file(model, arena_size=arena)
    with np.load(inputs) as content:
        arrays = [content[f"arr_{number}"] for number in range(len(content.files))]
    found: list[list[np.ndarray]] = [[] for _ in range(num_outputs)]
    for example in zip(*arrays, strict=True):
        for number, array in enumerate(example):
            interpreter.set_input(array, number)
        interpreter.invoke()
        for number, own in enumerate(found):
            own.append(np.array(interpreter.get_output(number)))
    np.savez(outputs, *map(np.stack, found))
    interpreter.print_allocations()


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
