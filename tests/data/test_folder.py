import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tas_tf.data import sources
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.pipeline import epochs, evaluation
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.source import StreamedSource
from tas_tf.data.sources import load_source
from tas_tf.errors import UserError


def test_train_and_test_folders(image_folder):
    source = load_source(f"folder:{image_folder}", image_size=4)
    assert source.class_names == ("cat", "dog")
    assert source.image_shape == (4, 4, 3)
    assert source.labels("train").tolist() == [0] * 4 + [1] * 6
    assert source.labels("test").tolist() == [0] * 2 + [1] * 3
    assert source.images("train")[:, 0, 0].tolist() == [
        [10 * number, green, 7] for green, count in ((100, 4), (200, 6)) for number in range(count)
    ]


def test_share_held_back(image_folder):
    root = image_folder / "train"
    source = load_source(f"folder:{root}", image_size=4, test_share=0.5)
    assert np.bincount(source.labels("train")).tolist() == [2, 3]
    assert np.bincount(source.labels("test")).tolist() == [2, 3]
    seen = {tuple(image[0, 0]) for split in ("train", "test") for image in source.images(split)}
    assert len(seen) == 10


def test_grey_images_have_one_channel(tmp_path):
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("L", (6, 6), 30).save(tmp_path / split / name / "0.png")
    source = load_source(f"folder:{tmp_path}", image_size=6)
    assert source.image_shape == (6, 6, 1)
    assert np.all(source.images("test") == 30)


def test_streamed_equals_in_memory(image_folder, monkeypatch):
    in_memory = load_source(f"folder:{image_folder}", image_size=4)
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    streamed = load_source(f"folder:{image_folder}", image_size=4)
    assert isinstance(streamed, StreamedSource)
    kept, read = (
        list(evaluation(s, "train", [7, 2, 4], batch_size=2, preprocessing=Preprocessing()).as_numpy_iterator())
        for s in (in_memory, streamed)
    )
    for (images, labels), (expected_images, expected_labels) in zip(read, kept, strict=True):
        assert np.array_equal(images, expected_images)
        assert np.array_equal(labels, expected_labels)
    fitted = [Preprocessing.fit(s, "standardise") for s in (in_memory, streamed)]
    assert fitted[0] == fitted[1]


def test_streamed_epochs_are_resumable(image_folder, monkeypatch):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    source = load_source(f"folder:{image_folder}", image_size=4)
    make = {"batch_size": 5, "preprocessing": Preprocessing(), "seed": 4}
    whole = [images for images, _ in epochs(source, **make).take(6).as_numpy_iterator()]
    rest = [images for images, _ in epochs(source, **make, first_epoch=2).take(2).as_numpy_iterator()]
    assert np.array_equal(whole[4:], rest)
    for start in (0, 2, 4):
        assert len({tuple(image[0, 0]) for batch in whole[start : start + 2] for image in batch}) == 10
    assert not np.array_equal(whole[:2], whole[2:4])


@pytest.mark.parametrize("suffix", ["", "/nowhere"])
def test_missing_folder(tmp_path, suffix):
    path = f"{tmp_path}{suffix}" if suffix else ""
    with pytest.raises(UserError, match="missing folder"):
        load_source(f"folder:{path}", image_size=4)


def test_image_size_missing(image_folder):
    with pytest.raises(UserError, match="`image_size` is needed"):
        load_source(f"folder:{image_folder}")


def test_no_classes(tmp_path):
    with pytest.raises(UserError, match="holds no classes"):
        load_source(f"folder:{tmp_path}", image_size=4, test_share=0.5)


def test_test_share_missing_or_useless(image_folder):
    with pytest.raises(UserError, match="`test_share` is needed"):
        load_source(f"folder:{image_folder / 'train'}", image_size=4)
    with pytest.raises(UserError, match="`test_share` can't be used"):
        load_source(f"folder:{image_folder}", image_size=4, test_share=0.5)


def test_classes_differ(image_folder):
    shutil.move(image_folder / "test" / "cat", image_folder / "test" / "cow")
    with pytest.raises(UserError, match=r"differ\..*in only one of them: cat, cow"):
        load_source(f"folder:{image_folder}", image_size=4)


@pytest.mark.parametrize(
    "limit",
    [pytest.param(100, id="streamed"), pytest.param(1 << 30, id="in memory", marks=pytest.mark.slow)],
)
def test_colours_change_image_by_image(image_folder, monkeypatch, limit):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", limit)
    source = load_source(f"folder:{image_folder}", image_size=4)
    assert isinstance(source, StreamedSource) is (limit == 100)
    augment = Augmentation(random_resized_crop=True, color_jitter=(0.4, 0.4, 0.4, 0.2), lighting=0.1)
    options = {"batch_size": 10, "preprocessing": Preprocessing(), "seed": 2}
    (images, labels), (later, _) = epochs(source, **options, augment=augment).take(2).as_numpy_iterator()
    plain = {tuple(image[0, 0]) for image, _ in epochs(source, **options).take(1).unbatch().as_numpy_iterator()}
    # Each image has one colour, hence still has one, of whole numbers, and not its own.
    assert np.array_equal(images, np.broadcast_to(images[:, :1, :1], images.shape))
    assert np.array_equal(images, np.round(images))
    colours = {tuple(image[0, 0]) for image in images}
    assert len(colours - plain) > 7
    assert not np.array_equal(images, later)
    again, _ = next(epochs(source, **options, augment=augment, first_epoch=1).as_numpy_iterator())
    assert np.array_equal(again, later)
    assert sorted(labels) == [0] * 4 + [1] * 6


def test_the_centre_of_a_streamed_image_comes_from_the_original(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / split / name).mkdir(parents=True)
            pixels = rng.integers(0, 256, (20, 26, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    source = load_source(f"folder:{tmp_path}", image_size=8, resize="crop")
    dataset = evaluation(source, "test", [1], batch_size=1, preprocessing=Preprocessing(), test_resize=10)
    ((image, _),) = dataset.as_numpy_iterator()
    # The central square is 20 pixels wide: halved it has 10, of which one is cut off on each side.
    expected = tf.image.resize(pixels[:, 3:23], [10, 10], antialias=True)[1:9, 1:9]
    np.testing.assert_allclose(image[0], expected, atol=0.51)
