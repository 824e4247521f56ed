"""Masks as people store them: what their pixels mean, and how they are resized beside their images."""

import itertools
import weakref

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tas_tf.data import decodable, sources
from tas_tf.data.decodable import trouble_with_images
from tas_tf.data.image_files import Broken
from tas_tf.data.masks import Mask, number_classes, read_mask
from tas_tf.data.source import StreamedSource
from tas_tf.data.sources import load_source
from tas_tf.data.task import Task
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary, Multilabel
from tests.parts import slow_except

VALUES = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3


def grey(values, dtype=np.uint8):
    return Image.fromarray(values.astype(dtype))


def palette(values):
    picture = Image.fromarray(values, mode="P")
    picture.putpalette([9, 8, 7] * 256)
    return picture


@pytest.mark.parametrize(
    "picture",
    [
        *(grey(VALUES), grey(VALUES, np.uint16), palette(VALUES)),
        *(grey(VALUES).convert("LA"), grey(VALUES).convert("RGB"), grey(VALUES).convert("RGBA")),
    ],
    ids=["grey", "16 bits", "palette", "grey with opacity", "RGB", "RGBA"],
)
def test_pixel_values_are_read_as_they_are(tmp_path, picture):
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read_mask(str(tmp_path / "a.png")), VALUES)


def test_one_bit_and_other_formats(tmp_path):
    Image.fromarray(VALUES > 0).save(tmp_path / "a.png")
    assert np.array_equal(read_mask(str(tmp_path / "a.png")), VALUES > 0)
    grey(VALUES).save(tmp_path / "a.tif")
    assert np.array_equal(read_mask(str(tmp_path / "a.tif")), VALUES)


@pytest.mark.parametrize(
    ("name", "picture", "message"),
    [
        ("a.jpg", grey(VALUES), "JPEG changes pixel values"),
        ("a.png", Image.new("RGB", (4, 3), (1, 2, 3)), "it is in colours"),
        ("a.png", grey(np.full((3, 4), 300), np.uint16), "it has the pixel value 300"),
    ],
)
def test_masks_that_cannot_be_read(tmp_path, name, picture, message):
    picture.save(tmp_path / name)
    with pytest.raises(Broken, match=message):
        read_mask(str(tmp_path / name))


def test_values_are_class_numbers_or_white():
    def masks(*values):
        return {f"{number}.png": Mask(3, 4, one) for number, one in enumerate(values)}

    assert number_classes(masks((0, 2), (1,)), 3)[:3].tolist() == [0, 1, 2]
    assert number_classes(masks((0,), (0, 255)), 2)[[0, 255]].tolist() == [0, 1]
    assert number_classes(masks((0, 1)), 2)[[0, 1]].tolist() == [0, 1]
    with pytest.raises(UserError, match=r"from 0 to 2 as .* Received: 7 in 1\.png \(1 of 2 masks"):
        number_classes(masks((0, 1), (0, 7)), 3)
    with pytest.raises(UserError, match=r"from 0 to 1, or only 0 and 255, .* Received: 255 in 0\.png"):
        number_classes(masks((0, 1, 255)), 2)


@pytest.fixture
def folder(tmp_path):
    """Eight images of 12x16 for training and four for scores, whose red is 80 times the mask; blocks of 6x8 pixels."""
    rng = np.random.default_rng(0)
    for split, count in (("Train", 8), ("val", 4)):
        for name in ("images", "Masks"):
            (tmp_path / split / name / "inner").mkdir(parents=True)
        for number in range(count):
            values = np.kron(rng.integers(0, 3, (2, 2)), np.ones((6, 8))).astype(np.uint8)
            inner = "inner/" if number % 2 else ""
            Image.fromarray(np.repeat(80 * values[..., None], 3, 2)).save(
                tmp_path / f"{split}/images/{inner}{number}.bmp"
            )
            palette(values).save(tmp_path / f"{split}/Masks/{inner}{number}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("streamed", "way"),
    slow_except(
        itertools.product([True, False], ["squash", "crop", "pad"]),
        [(False, "squash"), (True, "crop"), (False, "pad")],
    ),
)
def test_masks_are_resized_like_their_images(folder, monkeypatch, streamed, way):
    """Each image is its mask in red, so the two must still agree where neighbours don't blend."""
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100 if streamed else 1 << 30)
    size = (6, 8) if way == "squash" else (8, 8)
    options = {"image_size": size, "resize": way, "preprocess": "none"}
    task = Task.load(f"folder:{folder}", objective=Classification(3, size), **options)
    assert isinstance(task.source, StreamedSource) is streamed
    assert (task.num_train, task.class_names) == (8, ("0", "1", "2"))
    images, masks = task.test_arrays()
    assert (images.shape, masks.shape, masks.dtype) == ((4, *size, 3), (4, *size), np.int64)
    exact = np.abs(images[..., 0] - 80 * masks) <= 1
    if way == "squash":
        original = np.stack([read_mask(path) for path in sorted(map(str, (folder / "val/Masks").rglob("*.png")))])
        assert np.array_equal(masks, original[:, ::2, ::2])
    elif way == "pad":  # bars above and below, black and of class 0
        assert not masks[:, [0, -1]].any()
        assert not images[:, [0, -1]].any()
    assert exact.mean() > 0.45
    shares = np.stack([np.bincount(mask.reshape(-1), minlength=3) for mask in masks]).sum(0) / masks.size
    assert task.chance == pytest.approx(shares.max() / 3)
    first, second = task.halves()
    assert sorted([*first, *second]) == list(range(8))
    dataset, _ = task.training(4)
    for images, labels in dataset(0).take(2).as_numpy_iterator():
        assert labels.shape == (4, *size)
        assert np.median(np.abs(images[..., 0] - 80 * labels)) <= 40


def test_streamed_masks_are_those_in_memory(folder):
    options = {"objective": Classification(3, (5, 7)), "image_size": (5, 7)}
    arrays, streamed = (Task.load(f"folder:{folder}", **options, streamed=one) for one in (False, True))
    for (images, masks), (others, again) in zip(arrays.test(), streamed.test(), strict=True):
        assert np.array_equal(images, others)
        assert np.array_equal(masks, again)
    images, masks = next(streamed.training(8)[0](3).as_numpy_iterator())
    assert (images.shape, masks.shape) == ((8, 5, 7, 3), (8, 5, 7))


@pytest.mark.parametrize("part", ["images/2.bmp", "Masks/2.png"])
def test_a_file_that_fails_in_training_is_named(folder, monkeypatch, part):
    monkeypatch.setattr(decodable, "_watched", weakref.WeakSet())
    task = Task.load(f"folder:{folder}", objective=Classification(3, (5, 7)), image_size=(5, 7), streamed=True)
    path = folder / "Train" / part
    path.unlink()
    with pytest.raises(tf.errors.OpError) as error:
        list(task.training(8)[0](0).take(1))
    (_, listed) = str(trouble_with_images(error.value)).splitlines()
    mask = f"its mask {path}: " if "Masks" in part else ""
    assert listed == f"  {folder}/Train/images/2.bmp: {mask}No such file or directory"


def test_a_single_decision_takes_black_and_white(tmp_path):
    for name in ("images", "labels"):
        (tmp_path / name).mkdir()
    for number in range(6):
        values = (number % 3 < VALUES).astype(np.uint8)
        grey(9 * values).save(tmp_path / f"images/{number}.png")
        grey(255 * values).save(tmp_path / f"labels/{number}.png")
    objective = Binary(1, (3, 4))
    task = Task.load(f"folder:{tmp_path}", objective=objective, image_size=(3, 4), test_share=0.5, preprocess="none")
    assert task.source.notes == (
        f"`dataset`: labels of folder:{tmp_path}: masks with the pixel values 0, 255, of which 255 is class 1, binary "
        "per pixel.",
    )
    images, masks = task.test_arrays()
    assert (masks.shape, masks.dtype) == ((3, 3, 4, 1), np.float32)
    assert np.array_equal(masks, images > 0)
    with pytest.raises(UserError, match="`test_share` is needed"):
        Task.load(f"folder:{tmp_path}", objective=objective, image_size=(3, 4))


def test_files_that_cannot_be_used_are_listed_together(folder):
    (folder / "Train/Masks/0.png").unlink()
    (folder / "Train/images/2.bmp").unlink()
    (folder / "Train/images/4.bmp").write_text("x")
    Image.new("L", (16, 11)).save(folder / "Train/Masks/6.png")
    (folder / "val/Masks/0.png").write_text("x")
    Image.new("RGB", (16, 12)).save(folder / "val/images/2.png")
    options = {"objective": Classification(3, (6, 8)), "image_size": (6, 8)}
    with pytest.raises(UserError) as refused:
        load_source(f"folder:{folder}", **options)
    first, *listed = str(refused.value).splitlines()
    assert first.startswith(f"`dataset`: 8 file(s) of folder:{folder} can't be used.")
    for line in (
        f"{folder}/Train/images/0.bmp: it has no mask in Masks/",
        f"{folder}/Train/Masks/2.png: it has no image in images/",
        f"{folder}/Train/images/4.bmp: it is no image that can be read",
        f"{folder}/Train/Masks/6.png: it has 11x16 pixels, its image 12x16",
        f"{folder}/val/Masks/0.png: it is no image that can be read",
        f"{folder}/val/images/2.bmp: there are 2 files called 2",
    ):
        assert f"  {line}" in listed
    source = load_source(f"folder:{folder}", **options, skip_broken=True)
    assert (source.num_train, len(source.labels("test"))) == (4, 2)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (None, "Received: a network that classifies images"),
        (Classification(3), "Received: classification."),
        (Multilabel(3, (6, 8)), "Received: multilabel per pixel"),
        (Classification(2, (6, 8)), r"from 0 to 1, or only 0 and 255, as .* Received: 2 in "),
    ],
)
def test_networks_that_do_not_suit_masks(folder, objective, message):
    with pytest.raises(UserError, match=message):
        load_source(f"folder:{folder}", objective, image_size=(6, 8))


def test_splits_may_be_inside_the_folders_of_images_and_masks(folder, tmp_path_factory):
    options = {"image_size": (6, 8)}
    outside = load_source(f"folder:{folder}", Classification(3, (6, 8)), **options)
    inside = tmp_path_factory.mktemp("inside")
    for name in ("images", "Masks"):
        (inside / name).mkdir()
        for split in ("Train", "val"):
            (folder / split / name).rename(inside / name / split)
    found = load_source(f"folder:{inside}", Classification(3, (6, 8)), **options)
    for split in ("train", "test"):
        np.testing.assert_array_equal(found.images(split), outside.images(split))
        np.testing.assert_array_equal(found.labels(split), outside.labels(split))
    assert f"`dataset`: {inside}/images/val holds the images for scores, since there is no test/." in found.notes
    (inside / "Masks/val").rename(inside / "Masks/valid")
    with pytest.raises(UserError, match=r"Masks must have one folder called val\. Received: none"):
        load_source(f"folder:{inside}", Classification(3, (6, 8)), **options)


def test_folders_that_lack_a_part(folder):
    objective = Classification(3, (6, 8))
    (folder / "val/Masks").rename(folder / "val/other")
    with pytest.raises(
        UserError, match=r"val must have one folder called masks or labels or annotations\. Received: none"
    ):
        load_source(f"folder:{folder}", objective, image_size=(6, 8))
    with pytest.raises(UserError, match="changes images alone: it needs labels of whole images"):
        Task.load(f"folder:{folder}", objective=objective, image_size=(6, 8), pad_crop=2)
    with pytest.raises(UserError, match="`test_resize` changes images alone"):
        Task.load(f"folder:{folder}", objective=objective, image_size=(6, 8), test_resize=9)
