"""Folders as people have them: what is taken for what, and what is said about the rest."""

import unicodedata
from pathlib import Path

import pytest
from PIL import Image

from tas_tf.data.sources import load_source
from tas_tf.errors import UserError


def fill(root: Path, *folders: str, count: int = 2) -> str:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            Image.new("RGB", (6, 6), (number, 0, 0)).save(root / folder / f"{number}.png")
    return f"folder:{root}"


def load(name: str, **options):
    return load_source(name, image_size=6, **options)


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING", "training"])
@pytest.mark.parametrize("test", ["test", "Test", "testing", "val", "Valid", "validation"])
def test_splits_are_known_by_their_names(tmp_path, train, test):
    fill(tmp_path, f"{train}/cat", f"{train}/dog", count=3)
    source = load(fill(tmp_path, f"{test}/cat", f"{test}/dog"))
    assert source.class_names == ("cat", "dog")
    assert (source.num_train, len(source.labels("test"))) == (6, 4)
    said = [f"`dataset`: {tmp_path / test} holds the images for scores, since there is no test/."]
    assert list(source.notes) == (said if test.lower().startswith("val") else [])


def test_validation_beside_test_isnt_used_and_that_is_said(tmp_path):
    source = load(fill(tmp_path, *(f"{split}/{name}" for split in ("train", "val", "test") for name in "ab")))
    assert len(source.labels("test")) == 4
    assert source.notes == (f"`dataset`: {tmp_path}/val isn't used, since scores are those of {tmp_path}/test.",)


def test_validation_alone_and_doubles_are_refused(tmp_path):
    with pytest.raises(UserError, match="has the folder val but no train/"):
        load(fill(tmp_path / "one", "val/a", "val/b"))
    with pytest.raises(UserError, match="two folders for the same images, val and valid"):
        load(fill(tmp_path / "two", "train/a", "train/b", "val/a", "val/b", "valid/a", "valid/b"))
    with pytest.raises(UserError, match="`test_share` can't be used"):
        load(fill(tmp_path / "three", "train/a", "train/b", "val/a", "val/b"), test_share=0.5)


def test_classes_may_be_called_train_and_test(tmp_path):
    source = load(fill(tmp_path, "bus", "train", "test"), test_share=0.5)
    assert source.class_names == ("bus", "test", "train")
    assert source.notes == ()


def test_a_test_folder_without_classes_is_left_out(tmp_path):
    source = load(fill(tmp_path, "train/a", "train/b", "test"), test_share=0.5)
    assert source.num_train == 2
    assert source.notes == (f"`dataset`: {tmp_path}/test has no class folders, so it is left out.",)


def test_what_else_lies_there_is_said(tmp_path):
    name = fill(tmp_path, "train/a", "train/b", "test/a", "test/b", "masks")
    for place in ("loose.png", "train/loose.jpg"):
        Image.new("RGB", (6, 6)).save(tmp_path / place)
    for place in ("train/a/notes.txt", "train/a/more.txt", "test/b/film.mp4", "train/a/.hidden.png"):
        (tmp_path / place).write_text("x")
    source = load(name)
    assert source.num_train == 4
    assert source.notes == (
        f"`dataset`: {tmp_path}/masks isn't one of train, val and test, so it is left out.",
        f"`dataset`: 3 files in {tmp_path} are left out, as they are no images: 2 .txt, 1 .mp4.",
        f"`dataset`: 2 images in {tmp_path} lie in no class folder and are left out.",
    )


def test_spaces_accents_and_nested_folders(tmp_path):
    composed, decomposed = unicodedata.normalize("NFC", "café noir"), unicodedata.normalize("NFD", "café noir")
    fill(tmp_path, f"train/{composed}", "train/thé vert/2024/août", "train/thé vert/2025")
    source = load(fill(tmp_path, f"test/{decomposed}", "test/thé vert"))
    assert source.class_names == (composed, "thé vert")
    assert source.labels("train").tolist() == [0, 0, 1, 1, 1, 1]


def test_a_name_written_in_two_ways_is_refused(tmp_path):
    name = fill(tmp_path, *(unicodedata.normalize(form, "café") for form in ("NFC", "NFD")), "thé")
    with pytest.raises(UserError, match="class folders of the same name, written in two ways"):
        load(name, test_share=0.5)


def test_a_folder_within_a_folder_is_suggested(tmp_path):
    fill(tmp_path, "photos/a", "photos/b")
    with pytest.raises(UserError, match=f"Did you mean folder:{tmp_path}/photos"):
        load(f"folder:{tmp_path}", test_share=0.5)


def test_empty_and_small_classes_are_said(tmp_path):
    fill(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in "abd"))
    fill(tmp_path, "train/e", count=1)
    for folder in ("train/c", "test/c", "test/e"):
        (tmp_path / folder).mkdir()
    source = load(f"folder:{tmp_path}")
    assert source.class_names == ("a", "b", "d", "e")
    assert source.labels("train").tolist() == [0, 0, 1, 1, 2, 2, 3]
    assert source.labels("test").tolist() == [0, 0, 1, 1, 2, 2]
    assert source.notes == (
        "`dataset`: no training images of c, so classes are left out; 4 classes remain.",
        "`dataset`: only one training image of e.",
        "`dataset`: no images of e for scores.",
    )


def test_the_only_image_of_a_class_is_for_training(tmp_path):
    fill(tmp_path, "a", "b", count=5)
    for seed in range(3):
        source = load(fill(tmp_path, f"c{seed}", count=1), test_share=0.5)
        assert set(source.labels("train")) == set(range(len(source.class_names)))
        assert not set(source.labels("test")) & set(range(2, 5))


def test_two_classes_must_have_images(tmp_path):
    name = fill(tmp_path, "a")
    (tmp_path / "b").mkdir()
    with pytest.raises(UserError, match=r"images of at least two classes for training. Received no images of b"):
        load(name, test_share=0.5)
