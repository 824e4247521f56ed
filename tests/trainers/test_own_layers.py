"""Commands on networks with layers of the user's own, and with Python code inside."""

import sys
from unittest import mock

import keras
import numpy as np
import pytest
from keras import layers

from export import student as export
from tas_tf.graph import custom
from tas_tf.runs.config import NetworkSettings
from tas_tf.settings import recorded
from tas_tf.space.shape import Shape
from trainers import baseline, describe, distill, report, teacher

MY_LAYERS = """
import keras
import tas_tf

class Gate(keras.layers.Layer):
    def build(self, shape):
        self.slope = self.add_weight(shape=shape[-1:], initializer="ones", name="slope")

    def call(self, images):
        return images * keras.ops.sigmoid(8 * self.slope * images)

tas_tf.register_layer(Gate, keeps_channels=True, keeps_zeros=True)
"""

pytestmark = pytest.mark.usefixtures("own_layers")


def forget() -> None:
    """Forgets what is known, as a new process would."""
    custom._declared.clear()
    sys.modules.pop("my_layers", None)
    keras.saving.get_custom_objects().pop("Gate", None)


def with_layer(model, own):
    """The network with another layer behind its stem."""

    def call(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        return own(outputs) if layer.name == "stem_relu" else outputs

    return keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)


@pytest.fixture
def own_network(tmp_path, trained_tiny, monkeypatch):
    (tmp_path / "my_layers.py").write_text(MY_LAYERS)
    custom.make_known(tmp_path / "my_layers.py")
    gate = keras.saving.get_registered_object("Gate")(name="gate")
    with_layer(keras.models.load_model(trained_tiny), gate).save(tmp_path / "own.keras")
    forget()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_run_remembers_where_its_layers_are(command, own_network, tiny_flags, monkeypatch):
    run = own_network / "run"
    start = [f"--run_dir={run}", "--model=own.keras", *tiny_flags]
    outcome = command(teacher, *start)
    assert outcome.code == 1, outcome
    assert "layer `gate` needs the class Gate" in outcome.err
    assert "`--custom_objects`" in outcome.err
    assert command(teacher, *start, "--custom_objects=my_layers.py").code == 0
    assert f"--custom_objects={own_network}/my_layers.py" in (run / "flags.cfg").read_text().splitlines()

    (own_network / "elsewhere").mkdir()
    monkeypatch.chdir(own_network / "elsewhere")
    later = {
        baseline: ["--kind=uniform", "--budget=macs:0.6"],
        distill: tiny_flags,
        export: ["--formats=fp32", "--test_limit=64"],
        report: [],
    }
    for module, arguments in later.items():
        forget()
        outcome = command(module, f"--run_dir={run}", *arguments)
        assert outcome.code == 0, outcome
        assert f"Imports {own_network}/my_layers.py, as the run did before." in outcome.out
    assert "stem" in Shape.load(run / "search/shape.json").widths  # its channels reach the gate
    student = keras.models.load_model(run / "student/model.keras")
    assert student.get_layer("gate").slope.shape == (student.get_layer("stem").filters,)

    forget()
    outcome = command(baseline, f"--run_dir={own_network}/other", f"--teacher_from={run}", "--kind=uniform")
    assert outcome.code == 0, outcome
    assert f"--custom_objects={own_network}/my_layers.py" in (own_network / "other/flags.cfg").read_text().splitlines()

    (own_network / "my_layers.py").rename(own_network / "moved.py")
    forget()
    outcome = command(report, f"--run_dir={run}")
    assert outcome.code == 1
    assert "`--custom_objects` must name a Python file" in outcome.err


def test_describe_takes_own_layers_and_calls_files_by_their_names(command, own_network):
    outcome = command(describe, "own.keras", "--custom_objects=my_layers.py")
    assert outcome.code == 0, outcome
    assert outcome.out.startswith("own, images of 8x8x1")
    images = keras.Input((8, 8, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(images))
    keras.Model(images, layers.Dense(3)(x)).save("pets.keras")
    assert command(describe, "pets.keras").out.startswith("pets, images of 8x8x3, 3 classes")


@pytest.fixture
def code_network(tmp_path, trained_tiny):
    own = layers.Lambda(lambda x: x * 1.5, name="code")
    with_layer(keras.models.load_model(trained_tiny), own).save(tmp_path / "code.keras")
    return tmp_path / "code.keras"


@pytest.mark.slow
def test_code_in_a_file_is_accepted_by_each_command(command, code_network, tmp_path, tiny_flags):
    start = [f"--run_dir={tmp_path}/run", f"--model={code_network}", *tiny_flags]
    outcome = command(teacher, *start)
    assert outcome.code == 1
    assert "holds Python code, in Lambda layers (code)" in outcome.err
    assert "`--unsafe_load`" in outcome.err
    outcome = command(teacher, *start, "--unsafe_load")
    assert outcome.code == 0, outcome
    assert outcome.out.count("can do whatever you can do") == 1
    assert "unsafe_load" not in (tmp_path / "run/flags.cfg").read_text()

    for module, arguments in {baseline: ["--kind=uniform", "--budget=macs:0.6"], distill: tiny_flags}.items():
        places = [f"--run_dir={tmp_path}/run", *arguments]
        with mock.patch.object(custom, "_accepted", set()):
            assert "`--unsafe_load`" in command(module, *places).err
        outcome = command(module, *places, "--unsafe_load")
        assert outcome.code == 0, outcome
    assert "stem" not in Shape.load(tmp_path / "run/search/shape.json").widths
    path = tmp_path / "run/student/model.keras"
    with pytest.raises(ValueError, match="lambda"):
        keras.models.load_model(path)
    found = keras.models.load_model(path, safe_mode=False)
    assert found.get_layer("code")(np.ones((1, 4, 4, 8), "float32")).numpy().mean() == 1.5
    assert "unsafe_load" in command(describe, str(path)).err
    assert command(describe, str(path), "--unsafe_load").code == 0


def test_neither_setting_makes_results_stale():
    given = NetworkSettings(model="resnet20", custom_objects=("my_layers.py",), unsafe_load=True)
    assert recorded(given) == recorded(NetworkSettings(model="resnet20"))
