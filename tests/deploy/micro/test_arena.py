import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from tas_tf.deploy.lite_graph import LiteGraph
from tas_tf.deploy.micro.arena import ALIGNMENT, Buffer, buffers_of, kept_bytes, place, planned_bytes
from tas_tf.deploy.micro.simulate import run
from tests.deploy.conftest import NETWORKS
from tests.parts import slow_except


def live_bytes(path) -> list[int]:
    """Bytes of all tensors that are needed while each operator runs, counted with LiteRT's own lists."""
    interpreter = Interpreter(str(path))
    operators, details = interpreter._get_ops_details(), {one["index"]: one for one in interpreter.get_tensor_details()}
    made = {one["index"]: -1 for one in interpreter.get_input_details()}
    made |= {int(number): step for step, one in enumerate(operators) for number in one["outputs"]}
    ends = {one["index"] for one in interpreter.get_output_details()}
    counts = []
    for step in range(len(operators)):
        later = {int(number) for one in operators[step:] for number in one["inputs"]} | ends
        alive = {number for number, since in made.items() if since < step and number in later}
        alive |= {int(number) for number in operators[step]["outputs"]}
        counts.append(sum(size_of(details[number]) for number in alive))
    return counts


def size_of(detail) -> int:
    size = int(np.prod(detail["shape"])) * np.dtype(detail["dtype"]).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


@pytest.mark.parametrize("name", NETWORKS)
def test_tensors_fit_and_share_memory(make_int8, name):
    path = make_int8(name)
    graph = LiteGraph.read(path.read_bytes())
    live, everything = live_bytes(path), sum(buffer.size for buffer in buffers_of(graph))
    assert max(live) <= planned_bytes(graph) < everything


def test_a_chain_needs_two_neighbours_at_once(make_int8):
    """Input 16x16x3, convolution 8x8x8, which is read until the sum; each of the others is as large or smaller."""
    path = make_int8("plain")
    assert max(live_bytes(path)) == planned_bytes(LiteGraph.read(path.read_bytes())) == 3 * 8 * 8 * 8


@pytest.mark.parametrize("name", slow_except(NETWORKS, ["per_pixel"]))
def test_the_runtime_plans_the_same(make_int8, name):
    pytest.importorskip("tflite_micro", reason="the package is there for Linux on x86-64 alone")
    flatbuffer = make_int8(name).read_bytes()
    graph = LiteGraph.read(flatbuffer)
    images = np.zeros((1, 1, 16, 16, 3), np.int8)
    _, used = run(flatbuffer, [images], num_outputs=len(graph.outputs), arena=2**18)
    assert planned_bytes(graph) == used.planned
    assert used.kept <= kept_bytes(graph) <= 1.35 * used.kept


STEPS = st.integers(0, 12)
BUFFERS = st.lists(
    st.builds(
        lambda size, ends: Buffer(ALIGNMENT * size, min(ends), max(ends)), st.integers(1, 40), st.tuples(STEPS, STEPS)
    ),
    max_size=20,
)


@settings(deadline=None)
@given(BUFFERS)
def test_no_two_buffers_are_in_the_same_place_at_the_same_time(buffers):
    offsets = place(buffers)
    taken = np.zeros((13, sum(buffer.size for buffer in buffers) // ALIGNMENT + 1), int)
    for buffer, offset in zip(buffers, offsets, strict=True):
        assert offset % ALIGNMENT == 0
        taken[buffer.first : buffer.last + 1, offset // ALIGNMENT : (offset + buffer.size) // ALIGNMENT] += 1
    assert taken.max() <= 1


def test_of_equal_buffers_the_last_is_placed_first():
    assert place([Buffer(16, 0, 0), Buffer(16, 0, 0), Buffer(32, 0, 0)]) == [48, 32, 0]
