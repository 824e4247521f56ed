"""Tables of paths and labels, as people write them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tas_tf.data.sources import load_source
from tas_tf.errors import UserError


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
        (["path,label", "a.png,1", "a.png,2"], r"1 image\(s\) of .* have several labels or splits.*a\.png"),
    ],
)
def test_tables_that_cannot_be_used(write, lines, message):
    with pytest.raises(UserError, match=message):
        load_source(write(*lines), image_size=6, test_share=0.5)


def test_missing_table(tmp_path):
    with pytest.raises(UserError, match=r"names a missing table. Expected csv:FILE"):
        load_source(f"csv:{tmp_path / Path('none.csv')}", image_size=6)
