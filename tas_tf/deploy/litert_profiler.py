"""LiteRT's own profiler through its C API: a script on the standard library alone, to be run in a process of its own.

LiteRT's Python package has no profiler, its shared library has. Signatures and layouts are those of LiteRT 2.3; with
others a call may crash, which is why nobody should import this into a process they care about.

The only argument holds the arguments of `profile` as JSON, all but `images`, whose bytes come on standard input. The
result of `profile` goes to standard output as JSON.
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

# The profiler cuts each operator's time down to whole microseconds. At this mean that loses about one percent.
_MICROSECONDS_AN_OPERATOR = 50

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
    images: bytes,
    most_copies: int,
    threads: int,
    rounds: int,
    warmup: int,
    seconds: float,
) -> dict[str, object]:
    """Runs a classifier of one input and one output again and again, on a batch that is large enough to be timed.

    Args:
        library: LiteRT's shared library.
        model: The `.tflite` file.
        shape: Shape of the smallest input that the model takes, its batch size included.
        images: Content of that input, row by row.
        most_copies: How many times `images` may be repeated in one batch; 1 if the file fixes its batch size.
        threads: Threads of XNNPACK.
        rounds: Runs that count.
        warmup: Runs before them that don't.
        seconds: No further run is started after so long; one at least counts.

    Returns:
        `copies`, how many times a run repeats `images`, and `rounds`, one mapping for each run that counts: the type
        of operator to how many the run had and how many microseconds they took together.

    Raises:
        OSError: If there is no such library.
        AttributeError: If it lacks a function.
        RuntimeError: If a function reports a failure, or writes what this script can't read.
    """
    deadline = time.monotonic() + seconds
    session = _Session(_Library(library), model, threads)
    copies = _feed_enough(session, shape, images, most_copies=most_copies, deadline=deadline)
    for _ in range(warmup):
        if time.monotonic() > deadline:
            break
        session.run()
    counted = [session.run()]
    while len(counted) < rounds and time.monotonic() < deadline:
        counted.append(session.run())
    return {"copies": copies, "rounds": counted}


def _feed_enough(session: "_Session", shape: list[int], images: bytes, *, most_copies: int, deadline: float) -> int:
    """Doubles the batch until the profiler can resolve its operators; returns how often it repeats the images."""
    copies = 1
    while True:
        session.feed([copies * shape[0], *shape[1:]], copies * images)
        session.run()  # The first run on a new shape also prepares the kernels.
        operators = session.run().values()
        enough = _MICROSECONDS_AN_OPERATOR * sum(count for count, _ in operators)
        if sum(microseconds for _, microseconds in operators) >= enough:
            return copies
        if copies >= most_copies or time.monotonic() > deadline:
            return copies
        copies = min(2 * copies, most_copies)


class _Library:
    """LiteRT's C functions, called by name; all but `free` return a status."""

    def __init__(self, path: str):
        self._library = ctypes.CDLL(path)

    def __call__(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} returned status {status}.")

    def free(self, name: str, handle: ctypes.c_void_p) -> None:
        """Calls a function that destroys what a handle stands for, and returns nothing."""
        function = getattr(self._library, name)
        function.restype = None
        function(handle)

    def make(self, name: str, *arguments: object) -> ctypes.c_void_p:
        """Calls a function whose last argument is where it puts a handle; returns the handle."""
        handle = ctypes.c_void_p()
        self(name, *arguments, ctypes.byref(handle))
        return handle


class _Session:
    """A compiled model, its buffers and its profiler; to be fed before it is run.

    Only buffers that others replace are freed: the process ends with the rest.
    """

    def __init__(self, call: _Library, model: str, threads: int):
        self._call = call
        self._environment = call.make("LiteRtCreateEnvironment", 0, None)
        loaded = call.make("LiteRtCreateModelFromFile", self._environment, os.fsencode(model))
        self._compiled = call.make("LiteRtCreateCompiledModel", self._environment, loaded, self._options(threads))
        self._profiler = call.make("LiteRtCompiledModelGetProfiler", self._compiled)
        self._signature = call.make("LiteRtGetModelSignature", loaded, ctypes.c_size_t(0))
        self._buffers: tuple[ctypes.c_void_p, ...] = ()

    def feed(self, shape: list[int], content: bytes) -> None:
        """Gives the input another shape and content."""
        for buffer in self._buffers:
            self._call.free("LiteRtDestroyTensorBuffer", buffer)
        self._buffers = (self._input_buffer(shape, content), self._output_buffer())

    def run(self) -> dict[str, tuple[int, int]]:
        """Runs the model once; returns number and microseconds of its operators by type."""
        one, first = ctypes.c_size_t(1), ctypes.c_size_t(0)
        fed, made = self._buffers
        self._call("LiteRtStartProfiler", self._profiler)  # forgets the events of the run before, too
        self._call(
            "LiteRtRunCompiledModel", self._compiled, first,
            one, ctypes.byref(fed), one, ctypes.byref(made),
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

    def _input_buffer(self, shape: list[int], content: bytes) -> ctypes.c_void_p:
        call, first = self._call, ctypes.c_size_t(0)
        dimensions = (ctypes.c_int * len(shape))(*shape)
        call(
            "LiteRtCompiledModelResizeInputTensor", self._compiled, first, first,
            dimensions, ctypes.c_size_t(len(shape)),
        )  # fmt: skip
        tensor = call.make("LiteRtGetSignatureInputTensorByIndex", self._signature, first)
        kind = self._tensor_type(tensor)
        layout = ctypes.byref(kind, _LAYOUT_OFFSET)
        call("LiteRtGetCompiledModelInputTensorLayout", self._compiled, first, first, layout)
        needs = call.make("LiteRtGetCompiledModelInputBufferRequirements", self._compiled, first, first)
        buffer = call.make("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs)
        self._fill(buffer, content)
        return buffer

    def _output_buffer(self) -> ctypes.c_void_p:
        call, first, one = self._call, ctypes.c_size_t(0), ctypes.c_size_t(1)
        tensor = call.make("LiteRtGetSignatureOutputTensorByIndex", self._signature, first)
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
            raise RuntimeError(f"The input takes {size.value} bytes, the images have {len(content)}.")
        address = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _LOCK_FOR_WRITING)
        ctypes.memmove(address, content, len(content))
        self._call("LiteRtUnlockTensorBuffer", buffer)


if __name__ == "__main__":
    json.dump(profile(images=sys.stdin.buffer.read(), **json.loads(sys.argv[1])), sys.stdout)
