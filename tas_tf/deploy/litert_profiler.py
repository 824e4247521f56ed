"""Runs LiteRT's own profiler through its C API; a script for a separate process that needs the standard library only.

LiteRT's shared library has a profiler, but its Python package doesn't offer it. Signatures and layouts are those of
LiteRT 2.3. With other versions a call may crash, so run this in a separate process rather than importing it.

The only command-line argument holds the arguments of `profile` as JSON, without `images`. The bytes of `images` are
read from standard input. The result of `profile` is written to standard output as JSON.
"""

import ctypes
import json
import os
import sys
import time

_CPU = 1  # LiteRtHwAccelerators
_LOCK_FOR_WRITING = 1  # LiteRtTensorBufferLockMode

# Kinds of event that each represent one operator and never nest: operators of LiteRT itself, and the operators that a
# delegate (XNNPACK) reports in place of its own node.
_OPERATOR_EVENTS = (1 << 1, 1 << 3)

# The profiler truncates each operator's time to whole microseconds, which loses about one percent at this mean.
_MICROSECONDS_AN_OPERATOR = 50

# Room for a LiteRtRankedTensorType (element type, then layout), which is passed on unread.
_TENSOR_TYPE_BYTES = 256
_LAYOUT_OFFSET = 4
# A LiteRtLayout: rank, then 8 sides and 8 strides of 4 bytes.
_LAYOUT_BYTES = 68


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
    """Runs a network with one input repeatedly, on a batch that is large enough to be timed.

    Args:
        library: Path of LiteRT's shared library.
        model: Path of the `.tflite` file.
        shape: Shape of the smallest input that the model takes, including its batch size.
        images: Content of that input, row by row.
        most_copies: How many times `images` may be repeated in one batch; 1 if the file fixes its batch size.
        threads: Threads of XNNPACK.
        rounds: Number of timed runs.
        warmup: Number of untimed runs before them.
        seconds: Seconds after which no further run is started; there is always at least one timed run.

    Returns:
        `copies`, how many times a run repeats `images`, and `rounds`, for each timed run the operators in the order in
        which they ran, each as its type and the microseconds that it took.

    Raises:
        OSError: If the library doesn't exist.
        AttributeError: If the library lacks a function.
        RuntimeError: If a function fails or returns an unknown layout.
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
        session.run()  # The first run with a new shape also prepares the kernels.
        operators = session.run()
        if sum(microseconds for _, microseconds in operators) >= _MICROSECONDS_AN_OPERATOR * len(operators):
            return copies
        if copies >= most_copies or time.monotonic() > deadline:
            return copies
        copies = min(2 * copies, most_copies)


class _Library:
    """LiteRT's C functions, called by name; all except those called through `free` return a status."""

    def __init__(self, path: str):
        self._library = ctypes.CDLL(path)

    def __call__(self, name: str, *arguments: object) -> None:
        status = getattr(self._library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} returned status {status}.")

    def free(self, name: str, handle: ctypes.c_void_p) -> None:
        """Calls a function that destroys the object of a handle and returns nothing."""
        function = getattr(self._library, name)
        function.restype = None
        function(handle)

    def make(self, name: str, *arguments: object) -> ctypes.c_void_p:
        """Calls a function that writes a handle to its last argument; returns the handle."""
        handle = ctypes.c_void_p()
        self(name, *arguments, ctypes.byref(handle))
        return handle


class _Session:
    """A compiled model, its buffers and its profiler. Call `feed` before `run`.

    Only replaced buffers are freed; the end of the process frees the rest.
    """

    def __init__(self, call: _Library, model: str, threads: int):
        self._call = call
        self._environment = call.make("LiteRtCreateEnvironment", 0, None)
        loaded = call.make("LiteRtCreateModelFromFile", self._environment, os.fsencode(model))
        self._compiled = call.make("LiteRtCreateCompiledModel", self._environment, loaded, self._options(threads))
        self._profiler = call.make("LiteRtCompiledModelGetProfiler", self._compiled)
        self._signature = call.make("LiteRtGetModelSignature", loaded, ctypes.c_size_t(0))
        outputs = ctypes.c_size_t()
        call("LiteRtGetNumSignatureOutputs", self._signature, ctypes.byref(outputs))
        self._num_outputs = outputs.value
        self._buffers: tuple[ctypes.c_void_p, ...] = ()

    def feed(self, shape: list[int], content: bytes) -> None:
        """Sets the shape and the content of the input."""
        for buffer in self._buffers:
            self._call.free("LiteRtDestroyTensorBuffer", buffer)
        self._buffers = (self._input_buffer(shape, content), *self._output_buffers())

    def run(self) -> list[tuple[str, int]]:
        """Runs the model once; returns type and microseconds of its operators in the order in which they ran."""
        one, first = ctypes.c_size_t(1), ctypes.c_size_t(0)
        fed, *made = self._buffers
        self._call("LiteRtStartProfiler", self._profiler)  # also clears the events of the previous run
        self._call(
            "LiteRtRunCompiledModel", self._compiled, first,
            one, ctypes.byref(fed), ctypes.c_size_t(len(made)), (ctypes.c_void_p * len(made))(*made),
        )  # fmt: skip
        self._call("LiteRtStopProfiler", self._profiler)
        return [(event.tag.decode(), event.elapsed_us) for event in self._events() if event.kind in _OPERATOR_EVENTS]

    def _events(self) -> list[_Event]:
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        # Twice the room: events with a larger layout than ours then write to the second half, not to other memory.
        events = (_Event * (2 * count.value))()
        used = count.value * ctypes.sizeof(_Event)
        ctypes.memset(events, 0xFF, 2 * used)
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        if bytes(events)[used:].strip(b"\xff"):
            raise RuntimeError("The profiler events of this LiteRT version have an unknown layout.")
        return events[: count.value]

    def _options(self, threads: int) -> ctypes.c_void_p:
        call = self._call
        options = call.make("LiteRtCreateOptions")
        call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        # LiteRT keeps pointers to these texts, so they must live as long as the model; Python frees them.
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

    def _output_buffers(self) -> list[ctypes.c_void_p]:
        call, first, count = self._call, ctypes.c_size_t(0), ctypes.c_size_t(self._num_outputs)
        layouts = ctypes.create_string_buffer(self._num_outputs * _LAYOUT_BYTES)
        call("LiteRtGetCompiledModelOutputTensorLayouts", self._compiled, first, count, layouts, ctypes.c_bool(True))
        buffers = []
        for number in range(self._num_outputs):
            place, layout = ctypes.c_size_t(number), layouts[number * _LAYOUT_BYTES : (number + 1) * _LAYOUT_BYTES]
            tensor = call.make("LiteRtGetSignatureOutputTensorByIndex", self._signature, place)
            kind = self._tensor_type(tensor)
            ctypes.memmove(ctypes.byref(kind, _LAYOUT_OFFSET), layout, _LAYOUT_BYTES)
            needs = call.make("LiteRtGetCompiledModelOutputBufferRequirements", self._compiled, first, place)
            buffers.append(call.make("LiteRtCreateManagedTensorBufferFromRequirements", self._environment, kind, needs))
        return buffers

    def _tensor_type(self, tensor: ctypes.c_void_p) -> ctypes.Array:
        # The type in the file. Its layout may leave the batch size open; the compiled model's layout overwrites it.
        kind = ctypes.create_string_buffer(_TENSOR_TYPE_BYTES)
        self._call("LiteRtGetRankedTensorType", tensor, kind)
        return kind

    def _fill(self, buffer: ctypes.c_void_p, content: bytes) -> None:
        size = ctypes.c_size_t()
        self._call("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != len(content):
            raise RuntimeError(f"The input takes {size.value} bytes, but the images have {len(content)}.")
        address = ctypes.c_void_p()
        self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _LOCK_FOR_WRITING)
        ctypes.memmove(address, content, len(content))
        self._call("LiteRtUnlockTensorBuffer", buffer)


if __name__ == "__main__":
    json.dump(profile(images=sys.stdin.buffer.read(), **json.loads(sys.argv[1])), sys.stdout)
