"""Data that a Python file of the user's own makes."""

import re
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from tas_tf.data import own_data
from tas_tf.data.form import Form
from tas_tf.data.own_data import OwnData, Script, trouble_with_own_data
from tas_tf.data.settings import DataSettings
from tas_tf.errors import UserError
from tas_tf.graph.graph import Graph
from tas_tf.objectives.choose import choose_objective
from tas_tf.scripts import import_file

TRAIN, TEST = 48, 20


@pytest.fixture
def write(tmp_path):
    """Writes a file of a name of its own, since Python imports each name once."""
    written = []

    def write(text: str) -> str:
        written.append(tmp_path / f"data_{tmp_path.name}_{len(written)}.py")
        written[-1].write_text(text)
        return f"python:{written[-1]}"

    return write


def data(count: int, seed: int):
    rng = np.random.default_rng(seed)
    signals = rng.normal(size=(count, 6, 2)).astype("float32")
    return {"signal": signals, "size": signals[:, 0]}, np.arange(count) % 3


def opened(settings=None, train=None, test=None, file=Path("data.py")) -> OwnData:
    signal, size = keras.Input((6, 2), name="signal"), keras.Input((2,), name="size")
    x = layers.Concatenate()([layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3)(signal)), size])
    graph = Graph.from_model(keras.Model({"signal": signal, "size": size}, layers.Dense(3, "softmax")(x)))
    script = Script(file, train or data(TRAIN, 0), test or data(TEST, 1))
    objective = choose_objective(graph)
    return OwnData.load(script, settings or DataSettings(), form=Form.of(graph), objective=objective)


def test_a_file_has_data_or_functions_that_make_it(write):
    name = write("train = ([1.0], [2])\ndef test():\n    return [3.0], [4]\n")
    script = Script.of(name)
    assert (script.train, script.test) == (([1.0], [2]), ([3.0], [4]))
    assert Script.of(name).train is script.train  # a file runs once


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train = 1", "must define `train` and `test`.*no data for `test`"),
        ("train = 1\ndef test():\n    pass", "no data for `test`"),
        ("train = test = missing", "can't be imported: NameError"),
        ("train = 1\ndef test():\n    return 1 / 0", r"`test` of .* fails: ZeroDivisionError: .* \(data_.*, line 3\)"),
        ("import sys\nsys.exit()", r"can't be imported: SystemExit \(data_.*, line 2\)"),
    ],
)
def test_what_a_file_lacks_is_named(write, text, message):
    with pytest.raises(UserError, match=rf"`dataset`.*{message}"):
        Script.of(write(text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"`dataset` must name a Python file\. Received: .*other\.py"):
        Script.of(f"python:{tmp_path}/other.py")


def test_arrays_are_those_of_the_file():
    found = opened()
    assert (found.name, found.num_train, found.num_test, found.is_streamed) == ("data.py", TRAIN, TEST, False)
    assert (found.input_shape, found.inputs) == ((6, 2), {"signal": (6, 2), "size": (2,)})
    inputs, labels = found.test_arrays()
    given, expected = data(TEST, 1)
    order = [int(np.flatnonzero((given["signal"] == one).all((1, 2)))[0]) for one in inputs["signal"]]
    assert sorted(order) == list(range(TEST))
    np.testing.assert_array_equal(inputs["size"], given["size"][order])
    np.testing.assert_array_equal(labels, expected[order])
    assert len(found.test_arrays(7)[1]) == 7
    some = found.train_images(10)
    assert (some["signal"].shape, some["size"].shape) == ((10, 6, 2), (10, 2))


def test_a_dataset_keeps_its_order():
    inputs, labels = data(TEST, 1)
    found = opened(test=tf.data.Dataset.from_tensor_slices((inputs, labels)))
    np.testing.assert_array_equal(found.test_arrays()[1], labels)
    some, numbers = found.test_arrays(5)
    rows = [int(np.flatnonzero((inputs["signal"] == one).all((1, 2)))[0]) for one in some["signal"]]
    assert rows == sorted(set(rows)) != list(range(5))  # drawn at random, in their order
    np.testing.assert_array_equal(numbers, labels[rows])
    np.testing.assert_array_equal(found.test_arrays(5)[1], numbers)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_size": 8}, "`image_size` is for data that is read from files"),
        ({"train_limit": 8}, "`train_limit` is for data that is read from files"),
        ({"label_columns": ("a",)}, "`label_columns` is for data that is read from files"),
        ({"preprocess": "standardise"}, "`preprocess` prepares pixels"),
        ({"resize": "pad"}, "`resize` prepares pixels"),
        ({"flip": True}, "`flip` changes images alone: it needs one image per example"),
    ],
)
def test_settings_of_other_data_are_refused(changed, message):
    with pytest.raises(UserError, match=message):
        opened(DataSettings(**changed))


def test_messages_speak_of_the_files_names():
    inputs, labels = data(TEST, 1)
    shorter = {**inputs, "signal": inputs["signal"][:, :5]}
    with pytest.raises(UserError, match=r"`test` must have images of 6x2 for `signal`.*Received: 5x2"):
        opened(test=(shorter, labels))


class Shuffled(keras.utils.PyDataset):
    """Batches of eight that aren't the same ones after an epoch."""

    def __len__(self):
        return TRAIN // 8

    def __getitem__(self, number):
        inputs, labels = data(TRAIN, 0)
        rows = slice(8 * number, 8 * number + 8)
        return {name: one[rows] for name, one in inputs.items()}, labels[rows]

    def on_epoch_end(self):
        pass


def examples(**options) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(data(TRAIN, 0)).shuffle(TRAIN, **options)


def moved(inputs, label):
    return {**inputs, "size": inputs["size"] + tf.random.normal([2])}, label


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (lambda: examples(seed=0), "comes in another order each time"),
        (lambda: examples(seed=0).map(moved), "gives other images each time"),
        (Shuffled, "may change in its `on_epoch_begin` or `on_epoch_end`"),
    ],
)
def test_data_that_do_not_come_again_are_warned_of(recwarn, train, message):
    opened(train=train())
    expected = rf"`dataset`: a run that is .*resumed won't end.* `train` of data\.py {message}"
    assert sum(re.search(expected, str(one.message)) is not None for one in recwarn) == 1


def test_data_that_come_again_give_no_warning(recwarn):
    opened()
    opened(train=examples(reshuffle_each_iteration=False).batch(8))
    assert not recwarn.list


def test_what_a_file_draws_is_the_same_in_each_process(write):
    """For a process, the file runs once: two files stand for two processes."""
    text = "import random, numpy, tensorflow\ntrain = random.random(), numpy.random.rand()\ndef test():\n"
    text += "    return numpy.random.rand(), float(tensorflow.random.uniform([]))\n"
    first, second = Script.of(write(text)), Script.of(write(text))
    assert (first.train, first.test) == (second.train, second.test)


class Broken(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, number):
        raise KeyError("signals")


def test_a_mistake_in_the_users_code_is_named():
    with pytest.raises(UserError, match=r"`dataset`: the data of data\.py fails: KeyError: 'signals'"):
        opened(train=Broken())


GONE = """
import numpy as np
import tensorflow as tf

inputs = {{"signal": np.zeros((8, 6, 2), "float32"), "size": np.zeros((8, 2), "float32")}}
is_gone = []

def examples():
    for number in range(8):
        if is_gone and number == 4:
            raise OSError("the disk is gone")
        yield {{name: value[number] for name, value in inputs.items()}}, number % 3

def read(inputs, label):
    return inputs, label + tf.cast(tf.strings.length(tf.io.read_file("{photo}")) - 1, tf.int64)

kinds = {{"signal": tf.TensorSpec((6, 2)), "size": tf.TensorSpec((2,))}}, tf.TensorSpec((), tf.int64)
train = tf.data.Dataset.from_generator(examples, output_signature=kinds).map(read)
test = inputs, np.arange(8) % 3
"""


@pytest.mark.parametrize(("what", "message"), [("code", "OSError: the disk is gone"), ("file", "photo.png; No such")])
def test_data_that_fails_in_the_middle_of_a_training_is_named(monkeypatch, write, tmp_path, what, message):
    """What TensorFlow says then is pages long, and doesn't name the setting."""
    photo = tmp_path / "photo.png"
    photo.write_bytes(b"x")
    script = Script.of(write(GONE.format(photo=photo)))
    monkeypatch.setattr(own_data, "_in_use", weakref.WeakSet())  # other tests' data may not be collected yet
    used = opened(train=script.train, test=script.test, file=script.file)
    dataset, _ = used.training(4)
    photo.unlink() if what == "file" else import_file(script.file, "dataset").is_gone.append(True)
    batches = iter(dataset(0))

    @tf.function
    def epoch() -> None:  # as trainings read them
        for _ in range(2):
            next(batches)

    with pytest.raises(tf.errors.OpError) as error:
        epoch()
    trouble = str(trouble_with_own_data(error.value))
    assert trouble.startswith(f"`dataset`: the data of {script.file} fails: ")
    assert message in trouble
    assert "\n" not in trouble
    assert (f"({script.file.name}, line 11)" in trouble) == (what == "code")


def test_other_errors_are_not_those_of_the_data():
    used = opened()
    assert trouble_with_own_data(tf.errors.InvalidArgumentError(None, None, "shapes differ")) is None
    assert trouble_with_own_data(ValueError(f'File "{used.file}", line 1')) is None
    memory = tf.errors.ResourceExhaustedError(None, None, f'File "{used.file}", line 1')
    assert trouble_with_own_data(memory) is None
