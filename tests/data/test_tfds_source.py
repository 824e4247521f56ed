import itertools
import pathlib
import re

import numpy as np
import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

from tas_tf.data import reachable, sources, tfds_builder, tfds_stream
from tas_tf.data.augmentation import Augmentation
from tas_tf.data.fashion_mnist import FashionMnistIdx
from tas_tf.data.pipeline import epochs, evaluation
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.source import StreamedSource
from tas_tf.data.sources import load_source
from tas_tf.errors import UserError
from tests.parts import slow_except


def _write_metadata(name, data_dir, num_examples):
    """Leaves what a prepared data set has beside its records: features and splits."""
    builder = tfds.builder(name, data_dir=data_dir)
    template = tfds.core.ShardedFileTemplate(data_dir=builder.data_dir, dataset_name=name, filetype_suffix="tfrecord")
    infos = [
        tfds.core.SplitInfo(name=split, shard_lengths=[num_examples], num_bytes=1, filename_template=template)
        for split in ("train", "test")
    ]
    builder.info.set_splits(tfds.core.splits.SplitDict(infos))
    pathlib.Path(builder.data_dir).mkdir(parents=True)
    builder.info.write_to_directory(builder.data_dir)


@pytest.mark.parametrize(("name", "num_classes"), [("cifar10", 10), ("cifar100", 100)])
def test_mocked_cifar(tmp_path, name, num_classes):
    data_dir = str(tmp_path)
    _write_metadata(name, data_dir, 20)
    with tfds.testing.mock_data(num_examples=20, data_dir=data_dir, policy=tfds.testing.MockPolicy.USE_FILES):
        source = load_source(name, data_dir=data_dir)
        # The mock draws one feature after another: asked for others, it gives other values.
        only = tfds.decode.PartialDecoding({"image": True, "label": True})
        expected = list(tfds.load(name, split="train", data_dir=data_dir, decoders=only).as_numpy_iterator())
    assert (source.num_classes, source.num_train, len(source.labels("test"))) == (num_classes, 20, 20)
    assert source.image_shape == (32, 32, 3)
    assert source.flip_ok
    assert np.array_equal(source.images("train"), [example["image"] for example in expected])
    assert source.labels("train").tolist() == [example["label"] for example in expected]  # not `coarse_label`


@pytest.fixture
def varying_dir(tmp_path):
    data_dir = str(tmp_path / "tfds")
    for config in ("withheld", "plain"):
        tfds.builder(f"varying_images/{config}", data_dir=data_dir).download_and_prepare()
    return data_dir


def test_images_of_various_sizes_and_withheld_test_labels(varying_dir):
    source = load_source("varying_images/withheld", data_dir=varying_dir, image_size=6)
    assert (source.num_train, len(source.labels("test"))) == (40, 8)  # `validation`, as `test` has no labels
    assert source.image_shape == (6, 6, 3)
    numbers = source.images("train")[:, 0, 0, 0]
    assert np.array_equal(np.sort(numbers), np.arange(40))
    assert np.array_equal(numbers % 2, source.labels("train"))


def test_image_size_is_needed_for_various_sizes(varying_dir):
    with pytest.raises(UserError, match="`image_size` is needed"):
        load_source("varying_images/withheld", data_dir=varying_dir)


@pytest.mark.parametrize("memory_limit", [1 << 30, 100])
def test_share_held_back_where_there_is_no_test_split(varying_dir, monkeypatch, memory_limit):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", memory_limit)
    with pytest.raises(UserError, match="`test_share` is needed"):
        load_source("varying_images/plain", data_dir=varying_dir, image_size=6)
    source = load_source("varying_images/plain", data_dir=varying_dir, image_size=6, test_share=0.25)
    assert isinstance(source, StreamedSource) == (memory_limit == 100)
    numbers = {}
    for split in ("train", "test"):
        batches = evaluation(source, split, batch_size=7, preprocessing=Preprocessing())
        images, labels = (np.concatenate(parts) for parts in zip(*batches.as_numpy_iterator(), strict=True))
        numbers[split] = images[:, 0, 0, 0].astype(int)
        assert np.array_equal(numbers[split] % 2, labels)
        assert np.array_equal(labels, source.labels(split))
    assert len(numbers["test"]) == 10
    assert set(numbers["train"]) | set(numbers["test"]) == set(range(40))
    with pytest.raises(UserError, match="`test_share` can't be used"):
        load_source("varying_images/withheld", data_dir=varying_dir, image_size=6, test_share=0.25)


@pytest.fixture
def streamed_and_kept(fake_idx, tmp_path, monkeypatch):
    """One data set in three record files, streamed and in memory."""
    data_dir = str(tmp_path / "tfds")
    config = tfds.download.DownloadConfig(num_shards=3)
    FashionMnistIdx(data_dir=data_dir).download_and_prepare(download_config=config)
    kept = load_source("fashion_mnist", data_dir=data_dir)
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 100)
    return load_source("fashion_mnist", data_dir=data_dir), kept


def _batches(dataset, count=-1):
    return [(images.numpy(), labels.numpy()) for images, labels in dataset.take(count)]


@pytest.mark.parametrize("test_resize", [None, 32])
def test_streamed_evaluation_equals_in_memory(streamed_and_kept, test_resize):
    streamed, kept = streamed_and_kept
    assert isinstance(streamed, StreamedSource)
    indices = np.arange(3, 60, 2)
    options = {"batch_size": 8, "preprocessing": Preprocessing("scale_0_1"), "test_resize": test_resize}
    read, expected = (_batches(evaluation(source, "train", indices, **options)) for source in (streamed, kept))
    assert [images.shape[0] for images, _ in read] == [8, 8, 8, 5]
    for (images, labels), (expected_images, expected_labels) in zip(read, expected, strict=True):
        assert np.array_equal(images, expected_images)
        assert np.array_equal(labels, expected_labels)


def test_streamed_epochs_cover_all_and_are_resumable(streamed_and_kept):
    streamed, kept = streamed_and_kept
    make = {"batch_size": 10, "preprocessing": Preprocessing(), "seed": 7}
    whole = _batches(epochs(streamed, **make), 18)
    rest = _batches(epochs(streamed, **make, first_epoch=1), 12)
    for (images, labels), (expected_images, expected_labels) in zip(rest, whole[6:], strict=True):
        assert np.array_equal(images, expected_images)
        assert np.array_equal(labels, expected_labels)
    everything = sorted(image.tobytes() for image in kept.images("train").astype(np.float32))
    for epoch in range(3):
        images = np.concatenate([images for images, _ in whole[6 * epoch : 6 * epoch + 6]])
        assert sorted(image.tobytes() for image in images) == everything
    assert not np.array_equal(whole[0][0], whole[6][0])


def test_streamed_order_depends_on_its_own_seed_alone(streamed_and_kept):
    streamed, _ = streamed_and_kept
    orders = []
    for global_seed in (0, 5):  # `Dataset.shuffle` would fail on the first
        tf.random.set_seed(global_seed)
        orders.append(_batches(epochs(streamed, batch_size=10, preprocessing=Preprocessing(), seed=7), 6))
    for (images, labels), (expected_images, expected_labels) in zip(*orders, strict=True):
        assert np.array_equal(images, expected_images)
        assert np.array_equal(labels, expected_labels)


def test_streamed_random_resized_crop(streamed_and_kept):
    streamed, _ = streamed_and_kept
    make = {"batch_size": 10, "preprocessing": Preprocessing(), "augment": Augmentation(random_resized_crop=True)}
    dataset = epochs(streamed, **make)
    assert dataset.element_spec[0].shape == (10, 28, 28, 1)
    whole = _batches(dataset, 8)
    assert np.array_equal(whole[7][0], _batches(epochs(streamed, **make, first_epoch=1), 2)[1][0])
    assert np.all(whole[0][0] == np.round(whole[0][0]))


def test_labels_are_kept_beside_the_records(streamed_and_kept, monkeypatch):
    streamed, _ = streamed_and_kept
    kept = pathlib.Path(streamed.builder.data_dir) / "label-train.npy"
    assert np.array_equal(np.load(kept), streamed.labels("train"))
    assert not list(kept.parent.glob("label-*.*.npy"))


@pytest.mark.parametrize("image_size", [None, 32])
def test_multi_label_data_is_refused_before_any_download(tmp_path, image_size):
    with pytest.raises(UserError, match="isn't a classification of images"):
        load_source("voc", data_dir=str(tmp_path), image_size=image_size)


def test_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="isn't a classification of images"):
        load_source("glue", data_dir=str(tmp_path))


def test_unknown_name_suggests_close_ones(tmp_path):
    with pytest.raises(UserError, match=r"unknown.*close: cifar10.*Received: 'cifr10'"):
        load_source("cifr10", data_dir=str(tmp_path))


@pytest.mark.parametrize("name", ["cifar10:9.9.9", "cifar10/nothing", "Digits!", ""])
def test_malformed_names(tmp_path, name):
    with pytest.raises(UserError, match="can't be used"):
        load_source(name, data_dir=str(tmp_path))


def test_offline_it_fails_before_anything_is_written(tmp_path, monkeypatch):
    asked = []

    def refuse(url, **options):
        asked.append(url)
        raise requests.ConnectionError("Refused.")

    monkeypatch.setattr(reachable.requests, "head", refuse)
    with pytest.raises(UserError, match=f"cifar10 isn't prepared in {tmp_path}.*Connect to the network"):
        load_source("cifar10", data_dir=str(tmp_path))
    assert asked
    assert not list(tmp_path.iterdir())


def test_offline_fashion_mnist_names_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("tas_tf.data.fashion_mnist.IDX_DIR", tmp_path / "nowhere")
    monkeypatch.setattr(tfds_builder, "any_host_answers", lambda urls: False)
    with pytest.raises(UserError, match="install Debian's package dataset-fashion-mnist"):
        load_source("fashion_mnist", data_dir=str(tmp_path))


def test_files_to_be_fetched_by_hand(tmp_path):
    with pytest.raises(UserError, match=r"imagenet2012 can't be prepared.*ILSVRC2012_img_train.tar"):
        load_source("imagenet2012", data_dir=str(tmp_path), image_size=32)


def test_other_record_formats_are_refused(tmp_path, fake_idx):
    FashionMnistIdx(data_dir=str(tmp_path), file_format="array_record").download_and_prepare()
    with pytest.raises(UserError, match=r"Expected tfrecord. Received: array_record"):
        load_source("fashion_mnist", data_dir=str(tmp_path))


def test_large_records_are_shuffled_in_small_chunks(streamed_and_kept, monkeypatch):
    streamed, _ = streamed_and_kept
    num_bytes = streamed.builder.info.splits["train"].num_bytes
    assert streamed._chunk("train") == 2048
    monkeypatch.setattr(tfds_stream, "_CHUNK_BYTES", num_bytes // 6)
    assert streamed._chunk("train") in (9, 10)
    images = [
        images for images, _ in _batches(epochs(streamed, batch_size=10, preprocessing=Preprocessing(), seed=7), 6)
    ]
    assert len({image.tobytes() for batch in images for image in batch}) == 60


def test_splits_that_are_not_used_are_said(varying_dir):
    source = load_source("varying_images/withheld", data_dir=varying_dir, image_size=6)
    assert source.notes == ("`dataset`: splits of varying_images/withheld that aren't used: test.",)


@pytest.mark.parametrize(
    ("streamed", "way"),
    slow_except(
        itertools.product([False, True], ["squash", "crop", "pad"]), [(False, "squash"), (True, "crop"), (False, "pad")]
    ),
)
def test_ways_of_resizing_and_channels(varying_dir, way, streamed):
    """Images of 9 to 11 x 12 pixels, all of one value: black comes from padding alone."""
    options = {"data_dir": varying_dir, "image_size": (6, 12), "resize": way, "channels": 1, "streamed": streamed}
    source = load_source("varying_images/withheld", **options)
    assert source.reshaped
    assert source.image_shape == (6, 12, 1)
    (images, labels), *_ = evaluation(source, "train", batch_size=40, preprocessing=Preprocessing()).as_numpy_iterator()
    images, numbers = images[..., 0], images[:, 3, 6, 0]
    assert np.array_equal(numbers % 2, labels)
    black = (images == 0).mean(axis=(1, 2))[numbers > 0]
    assert np.all(black > 0.2) if way == "pad" else not np.any(black)


def test_features_can_be_named(varying_dir):
    options = {"data_dir": varying_dir, "image_size": 6}
    source = load_source("varying_images/withheld", features="image,other", **options)
    assert source.num_classes == 7
    assert set(source.labels("train")) == {3}
    for named in ("image,nothing", "label,image", "image", "image,label,other"):
        with pytest.raises(UserError, match=rf"`features` must be .*\(image\) .*\(label, other\).*Received: {named}\."):
            load_source("varying_images/withheld", features=named, **options)
    with pytest.raises(UserError, match="`features` is for data sets of TensorFlow Datasets"):
        load_source("digits", features="image,label")


@pytest.mark.parametrize(("name", "meant"), [("photos", "folder"), ("table.csv", "csv"), ("data.py", "python")])
def test_a_path_is_taken_for_a_forgotten_prefix(tmp_path, name, meant):
    (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"Did you mean {meant}:{re.escape(str(tmp_path / name))}"):
        load_source(str(tmp_path / name))
