"""Tables of paths and labels, as people write them."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tas_tf.data.form import Form
from tas_tf.data.sources import load_source
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tas_tf.objectives.regression import Regression
from tas_tf.objectives.several import Part, Several

KIND_AND_SIZE = Several.of([Part("kind", Classification(3)), Part("size", Regression(1))])


@pytest.fixture
def write(tmp_path):
    """Writes ten images, whose red is their number, and a table of the lines given; returns the name of the data."""
    (tmp_path / "my photos").mkdir()
    for number in range(10):
        Image.new("RGB", (6, 6), (number, 0, 0)).save(tmp_path / "my photos" / f"{number}.png")

    def make(*lines: str, encoding: str = "utf-8") -> str:
        table = tmp_path / "labels.csv"
        table.write_text("\n".join(lines) + "\n", encoding=encoding)
        return f"csv:{table}"

    return make


def rows(labels, separator=",", **columns) -> list[str]:
    return [
        separator.join([f"my photos/{number}.png", str(label), *(str(column[number]) for column in columns.values())])
        for number, label in enumerate(labels)
    ]


def numbers(source, split: str) -> list[int]:
    return source.images(split)[:, 0, 0, 0].tolist()


SPLITS = ["train", "Train", "training", "train", "train", "train", "test", "TEST", "test", "test"]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_paths_labels_and_splits(write, separator, encoding):
    head = separator.join(["Filename", "Class", "split"])
    name = write(head, *rows(["öl", "b"] * 5, separator, split=SPLITS), encoding=encoding)
    source = load_source(name, image_size=6)
    assert source.class_names == ("b", "öl")
    assert numbers(source, "train") == list(range(6))
    assert numbers(source, "test") == list(range(6, 10))
    assert source.labels("train").tolist() == [1, 0] * 3
    (note,) = source.notes
    assert note.endswith("labels.csv: 1 column (Class), 2 classes.")


def test_a_share_is_held_back_where_there_are_no_splits(write):
    name = write("path,label", *rows([0, 1] * 5))
    with pytest.raises(UserError, match="`test_share` is needed"):
        load_source(name, image_size=6)
    source = load_source(name, image_size=6, test_share=0.4)
    assert np.bincount(source.labels("test")).tolist() == [2, 2]
    assert sorted(numbers(source, "train") + numbers(source, "test")) == list(range(10))


def test_numbers_are_sorted_as_numbers(write):
    source = load_source(write("path,label", *rows([2, 10] * 5)), image_size=6, test_share=0.4)
    assert source.class_names == ("2", "10")


def test_absolute_paths_and_fields_in_quotes(write, tmp_path):
    lines = [f'"{tmp_path}/my photos/{number}.png","a, or b{number % 2}"' for number in range(10)]
    source = load_source(write('"path","label"', *lines), image_size=6, test_share=0.4)
    assert source.class_names == ("a, or b0", "a, or b1")


def test_what_isnt_used_is_said(write, tmp_path):
    splits = ["train"] * 4 + ["val"] * 3 + ["test"] * 3
    lines = rows(["a", "b"] * 5, split=splits, author=["me"] * 10)
    lines[0] = lines[0].replace(",a,", ",,")
    source = load_source(write("path,label,split,author", *lines, lines[1]), image_size=6)
    assert numbers(source, "train") == [1, 2, 3]
    table = tmp_path / "labels.csv"
    assert source.notes == (
        f"`dataset`: labels of {table}: 1 column (label), 2 classes.",
        f"`dataset`: columns of {table} that aren't used: author.",
        f"`dataset`: 1 row(s) of {table} without a label are left out.",
        f"`dataset`: 1 row(s) of {table} that repeat others are left out.",
        f"`dataset`: the validation images of {table} aren't used, since scores are those of its test images.",
        "`dataset`: only one training image of a.",
    )


def test_validation_serves_for_scores_where_there_is_no_test(write):
    splits = ["train"] * 6 + ["valid"] * 4
    source = load_source(write("path,label,split", *rows(["a", "b"] * 5, split=splits)), image_size=6)
    assert numbers(source, "test") == [6, 7, 8, 9]
    assert "since it has no test images" in source.notes[1]


def test_missing_files_are_listed_and_can_be_left_out(write, tmp_path):
    lines = rows(["a", "b"] * 5)
    for number in (3, 5):
        (tmp_path / "my photos" / f"{number}.png").unlink()
    name = write("path,label", *lines)
    with pytest.raises(UserError, match=r"2 file\(s\) of csv:.*(?s:.*)my photos/3.png: .*No such file"):
        load_source(name, image_size=6, test_share=0.4)
    source = load_source(name, image_size=6, test_share=0.4, skip_broken=True)
    assert sorted(numbers(source, "train") + numbers(source, "test")) == [0, 1, 2, 4, 6, 7, 8, 9]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["photo,label", "a.png,1"],
            r"a column for the path of each image, called path, file, .* Received: photo, label",
        ),
        (["path,split", "a.png,train"], r"a column for the label of each image, called label, class, "),
        ([""], "Received: nothing"),
        (["path,label,split", "a.png,1,nowhere"], "must have the splits train, val and test. Received: 'nowhere'"),
        (
            ["path,label", "a.png,1", "a.png,2"],
            r"1 image\(s\) of .* have several labels, splits, weights or i.*a\.png",
        ),
    ],
)
def test_tables_that_cannot_be_used(write, lines, message):
    with pytest.raises(UserError, match=message):
        load_source(write(*lines), image_size=6, test_share=0.5)


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match=r"names a missing table. Expected csv:FILE"):
        load_source(f"csv:{tmp_path / Path('none.csv')}", image_size=6)


def test_columns_of_values(write, tmp_path):
    lines = [
        f"my photos/{number}.png;{number / 2};{-number};{'test' if number > 6 else 'train'}" for number in range(10)
    ]
    lines[2] = "my photos/2.png;;-2;train"
    task = Task.load(write("image;size;depth;split", *lines), objective=Regression(2), image_size=6)
    assert task.class_names == ("size", "depth")
    assert task.source.notes == (
        f"`dataset`: labels of {tmp_path}/labels.csv: 2 columns (size, depth), regression.",
        f"`dataset`: 1 row(s) of {tmp_path}/labels.csv without a label are left out.",
    )
    found = task.test_arrays()[1]
    assert found.dtype == np.float32
    assert found.tolist() == [[3.5, -7], [4, -8], [4.5, -9]]
    assert task.chance == pytest.approx((1 / 3 + 2 / 3) / 2)  # medians 4 and -8
    learned = np.array([[number / 2, -number] for number in (0, 1, 3, 4, 5, 6)])
    assert task.objective.loss_scale == pytest.approx(1 / learned.var(axis=0).mean())
    (_, labels), *_ = task.training(3)[0](0).take(1)
    assert labels.shape == (3, 2)


def test_columns_of_labels(write):
    lines = [f"my photos/{number}.png,{number % 2},{int(number < 2)},{int(number == 0)}.0" for number in range(10)]
    name = write("path,odd,small,first", *lines)
    task = Task.load(name, objective=Multilabel(3), image_size=6, test_share=0.3, seed=1)
    assert (task.num_train, task.class_names) == (7, ("odd", "small", "first"))
    images, labels = task.test_arrays(raw=True)
    assert labels.tolist() == [[image[0, 0, 0] % 2, image[0, 0, 0] < 2, image[0, 0, 0] == 0] for image in images]
    chosen = Task.load(
        name, objective=Multilabel(2), image_size=6, test_share=0.3, label_columns=("first", "odd"), train_limit=4
    )
    assert (chosen.class_names, chosen.num_train) == (("first", "odd"), 4)
    assert chosen.source.notes[1].endswith("that aren't used: small.")
    yes = Task.load(name, objective=Binary(1), image_size=6, test_share=0.3, label_columns=("odd",))
    assert (yes.class_names, yes.test_arrays()[1].shape) == (("0", "1"), (3, 1))


@pytest.mark.parametrize(
    ("objective", "lines", "message"),
    [
        (
            Regression(1),
            ["path,age", "a.png,old"],
            r"must have numbers in the column age for .* Received: 'old' for .*a\.p",
        ),
        (Regression(1), ["path,age", "a.png,inf"], "must have numbers in the column age"),
        (Multilabel(2), ["path,b,c", "a.png,1,2"], "must have 0 or 1 in the column c for multilabel. Received: '2'"),
        (Regression(1), ["path,b,c", "a.png,1,2"], r"must have 1 column of labels .* Received: 2 \(b, c\)"),
        (Regression(2), ["path,label,c", "a.png,1,2"], r"must have 2 columns of labels .* Received: 1 \(label\)"),
        (None, ["path,b,c", "a.png,1,2"], r"must have 1 column of labels for classes. Received: 2 \(b, c\)"),
        (
            Regression(1),
            ["path,age,weight", "a.png,1,-2"],
            "weights of at least 0 in the column weight.*'-2' for .*a.p",
        ),
        (
            Regression(1),
            ["path,age,weight", "a.png,1,"],
            "weights of at least 0 in the column weight.* Received: '' for",
        ),
        (None, ["path,age,weight", *rows([0, 1] * 5, weight=[0] * 10)], "not all of them 0. Received: only 0"),
        (
            KIND_AND_SIZE,
            ["path,label", "a.png,1"],
            r"must have 2 columns of labels for kind \(3 classes\), size \(one v",
        ),
        (
            KIND_AND_SIZE,
            ["path,kind,size", *rows([0, 1, 2] * 3, size="x" * 9)],
            "must have numbers in the column size for regression",
        ),
        (KIND_AND_SIZE, ["path,kind,size", "a.png,1,2"], "`model` has 3 classes, but the column kind of .* has 1"),
        (Classification(2, (6, 6)), ["path,age", "a.png,1"], "don't suit classification per pixel. Expected a folder"),
        (Classification(3), ["path,age", *rows([0, 1] * 5)], "`model` has 3 classes, but `csv:.*` has 2"),
        (Binary(1), ["path,age", *rows([0, 1, 2, 3, 4] * 2)], "must have 2 classes. Received: 5"),
        (Regression(1), ["path,age"], "must have images with labels"),
    ],
)
def test_labels_that_do_not_suit(write, objective, lines, message):
    with pytest.raises(UserError, match=message):
        load_source(write(*lines), objective, image_size=6, test_share=0.5)


def test_columns_of_several_outputs(write):
    """They are found by the names of the outputs, whatever their order and the columns beside them."""
    lines = [f"my photos/{number}.png,{number / 2},x,{'cab'[number % 3]},{number + 1}" for number in range(10)]
    name = write("path,Size,label,kind,weight", *lines)
    task = Task.load(name, objective=KIND_AND_SIZE, image_size=6, test_share=0.3)
    assert task.source.notes[0].endswith("labels.csv: kind (a, b, c) for kind; Size for size.")
    assert task.source.notes[-1].endswith("labels.csv weighs training images.")
    shown = task.test_arrays(raw=True)[0][:, 0, 0, 0].astype(int)
    expected = [[[2, 0, 1][number % 3], number + 1, number / 2, number + 1] for number in shown]
    assert task.test_arrays()[1].tolist() == expected
    kind, size = task.objective.labels_of(task.test_arrays()[1])
    assert kind[0].objective.split(kind[1])[0].numpy().tolist() == [row[0] for row in expected]
    assert size[0].objective.split(size[1])[1].numpy().tolist() == [row[3] for row in expected]
    with pytest.raises(UserError, match=r"`model` has 3 classes, but the column Size of .* has 10"):
        load_source(name, KIND_AND_SIZE, image_size=6, test_share=0.3, label_columns=("Size", "kind"))
    with pytest.raises(UserError, match=r"columns for some outputs of the network but none called size. Received"):
        load_source(write("path,kind,height", *lines), KIND_AND_SIZE, image_size=6, test_share=0.3)
    with pytest.raises(UserError, match=r"must have each column once.* Received: kind twice"):
        load_source(write("path,kind,kind", *lines), KIND_AND_SIZE, image_size=6, test_share=0.3)


@pytest.mark.parametrize("streamed", [False, True])
def test_columns_of_further_inputs(write, streamed):
    """They reach the network beside the images, in the order of its inputs, and labels and weights stay apart."""
    columns = {"place_2": [number / 4 for number in range(10)], "weight": [1, 3] * 5, "age": list(range(10))}
    columns["place_1"] = [-number for number in range(10)]
    name = write("path,label,place_2,weight,age,place_1", *rows(["dog", "cat"] * 5, **columns))
    form = Form(("age", "photo", "place"), ((1,), (6, 6, 3), (2,)))
    task = Task.load(name, image_size=6, test_share=0.4, streamed=streamed, form=form, preprocess="none")
    assert task.source.notes[-1].endswith("that the network reads: age, place_1, place_2.")
    assert task.image_shape == (1 + 6 * 6 * 3 + 2,)
    (packed, labels), *_ = task.training(6)[0](0).take(1)
    found = form.unpack(packed.numpy())
    shown = found["photo"][:, 0, 0, 0].astype(int)
    assert sorted(shown) == sorted(set(range(10)) - {int(one) for one in task.test_arrays()[0]["age"][:, 0]})
    np.testing.assert_array_equal(found["age"][:, 0], shown)
    np.testing.assert_array_equal(found["place"], np.stack([-shown, shown / 4], axis=1))
    np.testing.assert_array_equal(labels, np.stack([1 - shown % 2, 1 + 2 * (shown % 2)], axis=1))
    with pytest.raises(UserError, match=r"columns for the inputs of the network, size. Received: path, label, place_2"):
        load_source(name, form=Form(("photo", "size"), ((6, 6, 3), (1,))), image_size=6, test_share=0.4)
    with pytest.raises(UserError, match=r"must be csv:FILE with columns for the inputs .* age, place_1, place_2"):
        load_source("digits", form=form)
    with pytest.raises(UserError, match=r"numbers in the column label, which the network reads. Received: 'dog' for"):
        load_source(
            name,
            form=Form(("photo", "label"), ((6, 6, 3), (1,))),
            image_size=6,
            test_share=0.4,
            label_columns=("age",),
        )


@pytest.mark.parametrize("streamed", [False, True])
def test_weights_of_images(write, streamed):
    name = write("path,label,weight", *rows(["dog", "cat"] * 5, weight=[number / 4 for number in range(10)]))
    task = Task.load(name, image_size=6, test_share=0.4, streamed=streamed)
    images, labels = task.test_arrays(raw=True)
    shown = images[:, 0, 0, 0].astype(int)
    assert labels.tolist() == [[1 - number % 2, number / 4] for number in shown]
    assert (task.objective, task.chance) == (Classification(2, weighs=True), 0.5)
    assert sorted(task.source.strata("train")) == [0, 0, 0, 1, 1, 1]
    (_, labels), *_ = task.training(6)[0](0).take(1)
    logits = tf.constant([[2.0, 0.0]] * 6)
    each = np.where(labels[:, 0] == 0, np.log1p(np.exp(-2.0)), np.log1p(np.exp(2.0)))
    np.testing.assert_allclose(task.objective.training_losses(labels, logits), each * labels[:, 1], rtol=1e-5)


def test_columns_that_are_not_used_may_have_one_name(write):
    """Such as the empty ones that spreadsheets leave behind."""
    source = load_source(
        write("path,label,,", *rows([0, 1] * 5, a=[""] * 10, b=[""] * 10)), image_size=6, test_share=0.5
    )
    assert source.class_names == ("0", "1")
    age = write("path,age,age", *rows([1, 2] * 5, age=[1, 2] * 5))
    with pytest.raises(UserError, match="Received: age twice, of path, age, age"):
        load_source(age, Regression(1), image_size=6, test_share=0.5, label_columns=("age",))


def test_columns_are_chosen_by_name(write):
    name = write("path,age,weight", *rows([1.5, 2.5] * 5, weight=[1, 2] * 5))
    both = load_source(name, Regression(2), image_size=6, test_share=0.5, label_columns=("weight", "age"))
    assert both.class_names == ("weight", "age")
    with pytest.raises(UserError, match=r"`label_columns` must name columns of .* path, age, weight. Received: size"):
        load_source(name, Regression(1), image_size=6, test_share=0.5, label_columns=("size",))
    with pytest.raises(UserError, match=r"`label_columns` is for csv:FILE. Received: age for digits"):
        load_source("digits", label_columns=("age",))
