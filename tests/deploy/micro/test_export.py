import re
import shutil
import subprocess

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import tas_tf
from tas_tf.deploy.micro import export
from tas_tf.deploy.micro.export import export_c_array
from tas_tf.deploy.micro.simulate import NotMeasuredError
from tas_tf.deploy.tflite import export_tflite
from tas_tf.errors import UserError
from tests.deploy.conftest import NETWORKS
from tests.parts import slow_except

COMPILER = shutil.which("g++") or shutil.which("clang++")
#: A program that writes the array as it lies in memory, and what the header says of it.
PROGRAM = """
#include <cstdio>
#include "{header}"
#include "{header}"  // it may be included twice

struct Resolver {{
  int added = 0;
  {methods}
}};

int main() {{
  std::fwrite({name}_model, 1, {name}_model_size, stdout);
  Resolver resolver;
  bool done = {name}_add_operators(resolver);
  std::fprintf(stderr, "%d %d %d %u %zu\\n", done, int(reinterpret_cast<std::uintptr_t>({name}_model) % 16),
               resolver.added, {name}_num_operators, {name}_arena_size);
  {values}
}}
"""


def compiled(report, folder, values: str = "") -> tuple[bytes, list[str]]:
    """What a program with the two files writes."""
    methods = "\n  ".join(f"int {method}() {{ ++added; return 0; }}" for method in report.operators)
    program = folder / "main.cc"
    program.write_text(PROGRAM.format(name=report.name, header=report.files[0].name, methods=methods, values=values))
    command = [COMPILER, "-std=c++17", "-Wall", "-Wextra", "-Werror", program, report.files[1], "-o", folder / "main"]
    subprocess.run(command, check=True, cwd=folder)
    done = subprocess.run([folder / "main"], check=True, capture_output=True)
    return done.stdout, done.stderr.decode().splitlines()


@pytest.mark.skipif(COMPILER is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("name", slow_except(NETWORKS, ["plain"]))
def test_a_compiler_makes_the_file_of_it(make_int8, tmp_path, name):
    source = make_int8(name)
    report = export_c_array(source, tmp_path / "net-1.cc")
    fed = Interpreter(str(source)).get_input_details()[0]
    values = (
        'std::fprintf(stderr, "%d %d %.9g %d\\n", net_1_input_shape[1], int(sizeof(net_1_input_shape) / sizeof(int)), '
        "double(net_1_input_scale), net_1_input_zero_point);"
    )
    content, (first, second) = compiled(report, tmp_path, values)
    assert source.read_bytes().startswith(content)
    assert len(content) == report.flash
    assert Interpreter(model_content=content).get_input_details()[0]["shape"].tolist() == [1, 16, 16, 3]
    count = len(report.operators)
    assert first.split() == ["1", "0", str(count), str(count), str(report.arena)]
    height, axes, scale, zero_point = second.split()
    assert (int(height), int(axes), int(zero_point)) == (16, 4, fed["quantization"][1])
    assert np.float32(scale) == np.float32(fed["quantization"][0])


def test_the_array_has_no_metadata_but_the_header_names_classes(make_int8, tmp_path):
    source = make_int8("plain")
    report = export_c_array(source, tmp_path / "net.cc")
    assert tas_tf.read_metadata(source)["labels"] == ['a "cat"', "dog\\", "é", "*/"]
    assert report.flash < source.stat().st_size
    header = report.files[0].read_text()
    assert '//   0: "a \\"cat\\""\n//   1: "dog\\\\"\n//   2: "\\u00e9"\n//   3: "*/"\n' in header


def test_several_outputs_are_numbered_and_named(make_int8, tmp_path):
    report = export_c_array(make_int8("squeezing"), tmp_path / "net.cpp")
    assert [(port.name, port.shape, port.type) for port in report.outputs] == [
        ("most", (1, 8), "int8"),
        ("score", (1, 2), "int8"),
    ]
    names = re.findall(r"constexpr int (\w+_shape)", report.files[0].read_text())
    assert names == ["net_input_shape", "net_output_0_shape", "net_output_1_shape"]


def test_what_it_says(make_int8, tmp_path, monkeypatch):
    def give_up(*arguments, **options):
        raise NotMeasuredError("its simulation takes more than 10 minutes")

    monkeypatch.setattr(export, "simulate", give_up)
    report = export_c_array(make_int8("plain"), tmp_path / "net.cc")
    assert not report.is_measured
    assert (report.planned, report.arena) == (1536, report.planned + report.kept)
    assert str(report) == (
        f"{tmp_path / 'net.cc'}: {report.flash:,} bytes of flash, an arena of {report.arena:,} bytes (partly "
        "estimated; its simulation takes more than 10 minutes), of which 1,536 for tensors; 7 kinds of operator: "
        "AddAdd, AddConv2D, AddDepthwiseConv2D, AddFullyConnected, AddMaxPool2D, AddMean, AddSoftmax"
    )
    assert "the rest is estimated" in report.files[0].read_text()


def test_pixels_may_go_in_as_they_are(make_classifier, make_pixels, settle, tmp_path):
    pixels = make_pixels(32, seed=4)
    model = settle(make_classifier(), pixels.astype(np.float32))
    source = export_tflite(model, tmp_path / "net.tflite", format="int8", calibration=pixels)
    report = export_c_array(source, tmp_path / "net.cc")
    (port,) = report.inputs
    assert (port.type, port.scale, port.zero_point) == ("uint8", 1.0, 0)
    assert "AddQuantize" in report.operators


@pytest.mark.parametrize("format", ["fp32", "dynamic"])
def test_real_numbers_are_refused(make_classifier, tmp_path, format):
    source = export_tflite(make_classifier(), tmp_path / "net.tflite", format=format)
    with pytest.raises(UserError, match=r"must be an int8 file.*net\.tflite, which has FLOAT32\."):
        export_c_array(source, tmp_path / "net.cc")
    assert [path.name for path in tmp_path.iterdir()] == ["net.tflite"]


def test_operators_that_the_runtime_lacks_are_refused(tmp_path):
    images = keras.Input((8, 8, 3))
    x = keras.layers.Activation("gelu")(keras.layers.Conv2D(4, 3)(images))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.Flatten()(x)))
    photos = np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype(np.float32)
    source = export_tflite(model, tmp_path / "net.tflite", format="int8", calibration=photos)
    with pytest.raises(UserError, match="that LiteRT for Microcontrollers lacks: GELU"):
        export_c_array(source, tmp_path / "net.cc")


@pytest.mark.parametrize("path", ["net.c", "net", "net.tflite"])
def test_the_source_is_a_cpp_file(make_int8, tmp_path, path):
    with pytest.raises(UserError, match=r"`path` must end in \.cc or \.cpp"):
        export_c_array(make_int8("plain"), tmp_path / path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "broken.tflite").write_bytes(b"nonsense" * 8)
    for name in ("broken.tflite", "missing.tflite"):
        with pytest.raises(UserError, match="TFLite model"):
            export_c_array(tmp_path / name, tmp_path / "net.cc")
