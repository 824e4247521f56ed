"""LiteRT's own profiler through its C API: a script on the standard library alone, to be run in a process of its own.

LiteRT's Python package has no profiler, its shared library has. Signatures and layouts are those of LiteRT 2.3; with
others a call may crash, which is why nobody should import this into a process they care about.

Takes the arguments of `profile` but `image` as JSON in its only argument, and the image's bytes on standard input;
writes what `profile` returns as JSON to standard output.
"""

import ctypes
import json
import os
import sys
import time

_CPU = 1  # LiteRtHwAccelerators
_LOCK_FOR_WRITING = 1  # LiteRtTensorBufferLockMode

# Kinds of event that stand for one operator each, and never for one inside another: operators of LiteRT itself, and
# those that a delegate (XNNPACK) reports in the place of its own node.
_OPERATOR_EVENTS = (1 << 1, 1 << 3)

# Room for LiteRtRankedTensorType (element type, then layout), which is passed on without being read.
_TENSOR_TYPE_BYTES = 256
_LAYOUT_OFFSET = 4


class _MemoryUsage(ctypes.Structure):
    _fields_ = [("footprint_kb", ctypes.c_int64), ("allocated", ctypes.c_size_t), ("in_use", ctypes.c_size_t)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("kind", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory_before", _MemoryUsage),
        ("memory_after", _MemoryUsage),
        ("metadata1", ctypes.c_uint64),
        ("metadata2", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


def profile(
    *,
    library: str,
    model: str,
    shape: list[int],
    image: bytes,
    threads: int,
    rounds: int,
    warmup: int,
    seconds: float,
) -> list[dict[str, tuple[int, int]]]:
    """Runs a classifier of one input and one output again and again.

    Args:
        library: LiteRT's shared library.
        model: The `.tflite` file.
        shape: Shape of the input, its batch size included.
        image: Content of the input, row by row.
        threads: Threads of XNNPACK.
        rounds: Runs that count.
        warmup: Runs before them that don't.
        seconds: No further run is started after so long; one at least counts.

    Returns:
        For each run that counts: how many operators of a type it ran, and their microseconds together, by type.

    Raises:
        OSError: If there is no such library.
        AttributeError: If it lacks a function.
        RuntimeError: If a function reports a failure, or writes what this script can't read.
    """
    deadline = time.monotonic() + seconds
    session = _Session(_Library(library), model, shape, image, threads)
    for _ in range(warmup):
        session.run()
        if time.monotonic() > deadline:
            break
    counted = [session.run()]
    while len(counted) < rounds and time.monotonic() < deadline:
        counted.append(session.run())
    return counted


class _Library:
    """LiteRT's C functions, called by name; all return a status."""

    def __init__(self, path: str):
        self._library = ctypes.CDLL(path)

    def __call__(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} returned status {status}.")

    def make(self, name: str, *arguments: object) -> ctypes.c_void_p:
        """Calls a function whose last argument is where it puts a handle; returns the handle."""
        handle = ctypes.c_void_p()
        self(name, *arguments, ctypes.byref(handle))
        return handle


class _Session:
    """A compiled model, its buffers and its profiler. Nothing is freed: the process ends with it."""

    def __init__(self, call: _Library, model: str, shape: list[int], image: bytes, threads: int):
        self._call = call
        self._environment = call.make("LiteRtCreateEnvironment", 0, None)
        loaded = call.make("LiteRtCreateModelFromFile", self._environment, os.fsencode(model))
        self._compiled = call.make("LiteRtCreateCompiledModel", self._environment, loaded, self._options(threads))
        self._profiler = call.make("LiteRtCompiledModelGetProfiler", self._compiled)
        signature = call.make("LiteRtGetModelSignature", loaded, ctypes.c_size_t(0))
        self._input = self._input_buffer(signature, shape, image)
        self._output = self._output_buffer(signature)

    def run(self) -> dict[str, tuple[int, int]]:
        """Runs the model once; returns number and microseconds of its operators by type."""
        one, first = ctypes.c_size_t(1), ctypes.c_size_t(0)
        self._call("LiteRtStartProfiler", self._profiler)  # forgets the events of the run before, too
        self._call(
            "LiteRtRunCompiledModel", self._compiled, first,
            one, ctypes.byref(self._input), one, ctypes.byref(self._output),
        )  # fmt: skip
        self._call("LiteRtStopProfiler", self._profiler)
        operators: dict[str, tuple[int, int]] = {}
        for event in self._events():
            if event.kind in _OPERATOR_EVENTS:
                name = event.tag.decode()
                count, microseconds = operators.get(name, (0, 0))
                operators[name] = (count + 1, microseconds + event.elapsed_us)
        return operators

    def _events(self) -> list[_Event]:
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        # Twice the room: events of a larger layout than ours then show in the second half instead of elsewhere.
        events = (_Event * (2 * count.value))()
        used = count.value * ctypes.sizeof(_Event)
        ctypes.memset(events, 0xFF, 2 * used)
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        if bytes(events)[used:].strip(b"\xff"):
            raise RuntimeError("This LiteRT's profiler events are of an unknown layout.")
        return events[: count.value]

    def _options(self, threads: int) -> ctypes.c_void_p:
        call = self._call
        options = call.make("LiteRtCreateOptions")
        call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        # LiteRT keeps what it is given: the texts must live as long as the model, and Python frees them.
        self._payloads = {
            b"runtime_options_string": ctypes.create_string_buffer(b"enable_profiling = true\n"),
            b"xnnpack": ctypes.create_string_buffer(b"num_threads = %d\n" % threads),
        }
        self._free_nothing = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(lambda payload: None)
        for identifier, payload in self._payloads.items():
            opaque = call.make("LiteRtCreateOpaqueOptions", identifier, payload, self._free_nothing)
            call("LiteRtAddOpaqueOptions", options, opaque)
        return options

    def _input_buffer(self, signature: ctypes.c_void_p, shape: list[int], image: bytes) -> ctypes.c_void_p:
        call, first = self._call, ctypes.c_size_t(0)
        dimensions = (ctypes.c_int * len(shape))(*shape)
        call(
            "LiteRtCompiledModelResizeInputTensor", self._compiled, first, first,
            dimensions, ctypes.c_size_t(len(shape)),
        )  # fmt: skip
        tensor = call.make("LiteRtGetSignatureInputTensorByIndex", signature, first)
        kind = self._tensor_type(tensor)
        layout = ctypes.byref(kind, _LAYOUT_OFFSET)
        call("LiteRtGetCompiledModelInputTensorLayout", self._compiled, first, first, layout)
        needs = call.make("LiteRtGetCompiledModelInputBufferRequirements", self._compiled, first, first)
        buffer = call.make("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs)
        self._fill(buffer, image)
        return buffer

    def _output_buffer(self, signature: ctypes.c_void_p) -> ctypes.c_void_p:
        call, first, one = self._call, ctypes.c_size_t(0), ctypes.c_size_t(1)
        tensor = call.make("LiteRtGetSignatureOutputTensorByIndex", signature, first)
        kind = self._tensor_type(tensor)
        layout = ctypes.byref(kind, _LAYOUT_OFFSET)
        call("LiteRtGetCompiledModelOutputTensorLayouts", self._compiled, first, one, layout, ctypes.c_bool(True))
        needs = call.make("LiteRtGetCompiledModelOutputBufferRequirements", self._compiled, first, first)
        return call.make("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs)

    def _tensor_type(self, tensor: ctypes.c_void_p) -> ctypes.Array:
        # As the file has it; its layout, which may leave the batch size open, is overwritten by the compiled model's.
        kind = ctypes.create_string_buffer(_TENSOR_TYPE_BYTES)
        self._call("LiteRtGetRankedTensorType", tensor, kind)
        return kind

    def _fill(self, buffer: ctypes.c_void_p, content: bytes) -> None:
        size = ctypes.c_size_t()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != len(content):
            raise RuntimeError(f"The input takes {size.value} bytes, the image has {len(content)}.")
        address = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _LOCK_FOR_WRITING)
        ctypes.memmove(address, content, len(content))
        self._call("LiteRtUnlockTensorBuffer", buffer)


if __name__ == "__main__":
    json.dump(profile(image=sys.stdin.buffer.read(), **json.loads(sys.argv[1])), sys.stdout)
