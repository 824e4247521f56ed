from pathlib import Path

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

from tas_tf.deploy.lite_graph import LiteGraph
from tas_tf.deploy.micro.export import export_c_array
from tas_tf.errors import UserError
from tests.deploy.conftest import NETWORKS


@pytest.mark.parametrize("name", NETWORKS)
def test_it_reads_what_litert_does(make_int8, name):
    path = make_int8(name)
    graph, interpreter = LiteGraph.read(path.read_bytes()), Interpreter(str(path))
    # LiteRT merges what it delegates, unless nothing is allocated; scratch tensors come behind those of the file.
    operators = interpreter._get_ops_details()
    assert [one.name for one in graph.operators] == [one["op_name"] for one in operators]
    assert [one.outputs for one in graph.operators] == [tuple(one["outputs"].tolist()) for one in operators]
    for detail in interpreter.get_tensor_details()[: len(graph.tensors)]:
        tensor = graph.tensors[detail["index"]]
        assert tensor.name == detail["name"]
        assert tensor.shape == tuple(detail["shape"].tolist())
        assert tensor.num_bytes == np.prod(detail["shape"]) * np.dtype(detail["dtype"]).itemsize
        assert tensor.stored in (0, tensor.num_bytes)
        scales = detail["quantization_parameters"]["scales"]
        assert tensor.scales == tuple(scales.tolist())
        assert tensor.zero_point == (detail["quantization_parameters"]["zero_points"][0] if len(scales) else 0)


def test_several_outputs_have_their_names(make_int8):
    graph = LiteGraph.read(make_int8("squeezing").read_bytes())
    assert {name: graph.tensors[number].shape for name, number in graph.outputs.items()} == {
        "most": (1, 8),
        "score": (1, 2),
    }
    assert [*graph.inputs] == ["images"]


def with_variable(path: Path) -> bytes:
    """The same network, its input declared a variable."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].isVariable = True
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_variables_are_seen_and_refused_for_microcontrollers(make_int8, tmp_path):
    path = tmp_path / "variable.tflite"
    path.write_bytes(with_variable(make_int8("plain")))
    plain, other = LiteGraph.read(make_int8("plain").read_bytes()), LiteGraph.read(path.read_bytes())
    assert (plain.is_plain, other.is_plain) == (True, False)
    assert plain.operators == other.operators
    with pytest.raises(UserError, match=r"without branches, loops and variables\. Received: .*variable\.tflite"):
        export_c_array(path, tmp_path / "net.cc")
