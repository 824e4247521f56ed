"""Images that are read again in every epoch are decoded once before; those damaged later are named."""

import os
import weakref

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from PIL import Image

from tas_tf.data import decodable, sources, tfds_stream
from tas_tf.data.decodable import listing_of_rows, trouble_with_images, undecodable
from tas_tf.data.decoded import keep_decoded
from tas_tf.data.sources import load_source
from tas_tf.data.task import Task
from tas_tf.errors import UserError


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Keeps what other tests read, and what they remember, out of these."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(decodable, "_watched", weakref.WeakSet())


@pytest.fixture
def photos(tmp_path):
    """A class folder."""
    rng = np.random.default_rng(0)
    for name in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (12, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


def damage(path):
    """Overwrites compressed pixels; beginning, end, size and time stay."""
    whole, status = path.read_bytes(), os.stat(path)
    place = whole.index(b"IDAT") + 8
    path.write_bytes(whole[:place] + b"\0" * 20 + whole[place + 20 :])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def read_in_training(task):
    dataset, steps = task.training(2)
    for _ in dataset(0).take(steps):
        pass


@pytest.mark.parametrize("turned", [False, True])
def test_a_file_damaged_in_the_middle_is_found_before_training(photos, turned):
    path = photos / "train" / "b" / "2.png"
    if turned:  # TensorFlow doesn't turn images, so that Pillow reads it
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.open(path).save(path, exif=exif)
    damage(path)
    with pytest.raises(UserError, match=rf"1 file\(s\) of .*\n  {path}: ") as refused:
        load_source(f"folder:{photos}", image_size=8, streamed=True)
    assert "leave them out with `skip_broken`" in str(refused.value)
    source = load_source(f"folder:{photos}", image_size=8, streamed=True, skip_broken=True)
    assert source.labels("train").tolist() == [0] * 4 + [1] * 3
    ((left_out, reason),) = source.left_out
    assert left_out == str(path)
    assert reason
    assert load_source(f"folder:{photos}", image_size=8, streamed=True, checked=()).num_train == 8


def test_only_new_and_changed_files_are_decoded_again(photos, monkeypatch, capsys):
    decoded, decode = [], decodable._decoded

    def counted(source, split, rows):
        decoded.extend(source.split_paths[split][rows])
        return decode(source, split, rows)

    monkeypatch.setattr(decodable, "_decoded", counted)
    options = {"image_size": 8, "streamed": True}
    load_source(f"folder:{photos}", **options)
    assert len(decoded) == 16
    decoded.clear()
    load_source(f"folder:{photos}", **options)
    load_source(f"folder:{photos}", resize="pad", **options)
    assert decoded == []
    changed = photos / "test" / "a" / "1.png"
    Image.new("RGB", (9, 9)).save(changed)
    Image.new("RGB", (9, 9)).save(photos / "train" / "a" / "new.png")
    load_source(f"folder:{photos}", **options)
    assert sorted(decoded) == [str(changed), str(photos / "train" / "a" / "new.png")]
    for kept in (photos.parent / "cache/tas_tf/images").iterdir():
        kept.write_bytes(b"no array")
    decoded.clear()
    load_source(f"folder:{photos}", **options)
    assert len(decoded) == 17
    (photos.parent / "home").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(photos.parent / "home"))
    load_source(f"folder:{photos}", **options)
    assert "can't remember which images were decoded: Not a directory" in capsys.readouterr().out


def test_an_interrupted_check_is_continued(photos, monkeypatch):
    decode = decodable._decoded

    def interrupted(source, split, rows):
        yield from decode(source, split, rows)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decodable, "_decoded", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load_source(f"folder:{photos}", image_size=8, streamed=True)
    left = []
    monkeypatch.setattr(decodable, "_decoded", lambda source, split, rows: left.append((split, len(rows))) or [rows])
    load_source(f"folder:{photos}", image_size=8, streamed=True)
    assert left == [("train", 0), ("test", 8)]


@pytest.fixture
def decoded(monkeypatch):
    """Number of images that were decoded, by call."""
    counts, decode = [], decodable._decoded
    monkeypatch.setattr(decodable, "_decoded", lambda *each: counts.append(len(each[-1])) or decode(*each))
    return counts


def test_files_out_of_reach_are_not_forgotten(photos, decoded):
    source = load_source(f"folder:{photos}", image_size=8, streamed=True)
    for folder in ("train", "test"):
        (photos / folder).rename(photos / f"{folder} gone")
    assert len(undecodable(source)) == 16
    for folder in ("train", "test"):
        (photos / f"{folder} gone").rename(photos / folder)
    decoded.clear()
    assert undecodable(source) == []
    assert decoded == []


def test_a_pass_over_everything_forgets_only_what_is_damaged(photos, monkeypatch, decoded):
    source = load_source(f"folder:{photos}", image_size=8, streamed=True)

    def interrupted(source, split, rows):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decodable, "_decoded", interrupted)
        with pytest.raises(KeyboardInterrupt):
            undecodable(source, anew=True)
    decoded.clear()
    assert undecodable(source) == []
    assert decoded == []
    damage(photos / "train" / "a" / "3.png")  # which leaves its stamp
    assert undecodable(source) == []
    assert undecodable(source, anew=True) == [("train", 3)]
    decoded.clear()
    assert undecodable(source) == [("train", 3)]
    assert decoded == [1, 0]


def test_what_others_found_meanwhile_is_kept_and_channels_do_not_mix(photos, decoded):
    """A removed file is forgotten, and what is known of the others stays."""
    options = {"image_size": 8, "streamed": True}
    grey, colour, _ = (load_source(f"folder:{photos}", channels=one, **options) for one in (1, 3, 1))
    decoded.clear()
    assert undecodable(grey) == undecodable(colour) == []
    assert decoded == []
    decodable._save(grey, [np.array([7], np.uint64)])
    decodable._save(grey, [np.array([8], np.uint64)])
    assert np.isin([7, 8], decodable._load(grey)).all()
    Image.new("RGB", (9, 9)).save(photos / "train" / "a" / "3.png")
    assert undecodable(grey) == []
    assert len(decodable._load(grey)) == 16


def test_without_a_place_to_remember_that_is_said_once(photos, monkeypatch, capsys):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    decodable._say_once.cache_clear()
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(decodable.Path, "home", homeless)
    monkeypatch.setattr(decodable, "_KEPT", 1)
    for _ in range(2):
        load_source(f"folder:{photos}", image_size=8, streamed=True)
    assert capsys.readouterr().out == (
        "`dataset`: can't remember which images were decoded: Could not determine home directory (~/.cache).\n"
    )


def test_training_images_that_are_kept_decoded_are_decoded_for_that_alone(photos, tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 0)
    options = {"image_size": 8, "cache_dir": str(tmp_path / "kept")}
    Task.load(f"folder:{photos}", **options)
    assert decoded == [8]
    path = photos / "train" / "b" / "1.png"
    damage(path)
    with pytest.raises(tf.errors.OpError) as error:  # mean and deviation are those of training images
        Task.load(f"folder:{photos}", **options)
    assert f"1 image(s) of folder:{photos} can't be read" in str(trouble_with_images(error.value))
    assert Task.load(f"folder:{photos}", skip_broken=True, **options).num_train == 7


def test_images_in_memory_are_not_decoded_again_to_be_streamed(photos, decoded):
    damage(photos / "train" / "b" / "1.png")
    options = {"image_size": 8, "skip_broken": True}
    load_source(f"folder:{photos}", **options)
    assert decoded == []
    assert len(load_source(f"folder:{photos}", streamed=True, **options).left_out) == 1
    assert sum(decoded) == 1


def test_what_pillow_alone_reads_is_read_with_pillow(photos, monkeypatch):
    """TensorFlow's decoder and Pillow's differ in what they take."""
    decode = decodable._decoded

    def refusing(source, split, rows):
        for batch in decode(source, split, rows):
            yield batch[~source.split_readable[split][batch] | (batch != 5)] if split == "train" else batch

    monkeypatch.setattr(decodable, "_decoded", refusing)
    source = load_source(f"folder:{photos}", image_size=8, streamed=True)
    assert np.flatnonzero(~source.split_readable["train"]).tolist() == [5]
    assert source.split_readable["test"].all()
    assert source.left_out == ()


@pytest.mark.parametrize("what", ["damaged", "changed", "removed"])
def test_a_file_that_fails_in_training_is_named(photos, what):
    task = Task.load(f"folder:{photos}", image_size=8, streamed=True)
    path = photos / "train" / "a" / "3.png"
    if what == "removed":
        path.unlink()
    else:
        damage(path)
    if what == "changed":
        os.utime(path)
    with pytest.raises(tf.errors.OpError) as error:
        read_in_training(task)
    trouble = trouble_with_images(error.value)
    assert str(trouble).startswith(f"`dataset`: 1 image(s) of folder:{photos} can't be read. Put back or replace them")
    assert f"\n  {path}: " in str(trouble)
    if what == "removed":
        assert str(trouble).endswith("No such file or directory")


def test_other_errors_are_left_alone(photos):
    task = Task.load(f"folder:{photos}", image_size=8, streamed=True)
    (photos / "train" / "a" / "3.png").unlink()
    assert trouble_with_images(tf.errors.InvalidArgumentError(None, None, "shapes differ")) is None
    assert trouble_with_images(ValueError("IteratorGetNext")) is None
    text = "OOM when allocating tensor\n\t [[{{node conv}}]]\n\t [[IteratorGetNext/_2]] [[decode_image/DecodeImage]]"
    assert trouble_with_images(tf.errors.ResourceExhaustedError(None, None, text)) is None
    text = "shapes differ\n\t [[{{node conv}}]]\n\t [[IteratorGetNext/_2]]"
    assert trouble_with_images(tf.errors.InvalidArgumentError(None, None, text)) is None
    assert trouble_with_images(tf.errors.InvalidArgumentError(None, None, "{{node d/DecodeImage}}")) is not None
    del task


def test_a_file_that_fails_while_it_is_kept_decoded_is_named(photos, tmp_path):
    task = Task.load(f"folder:{photos}", image_size=8, streamed=True)
    (photos / "train" / "a" / "3.png").unlink()
    with pytest.raises(tf.errors.OpError) as error:
        keep_decoded(task.source, tmp_path / "kept")
    assert "train/a/3.png: No such file or directory" in str(trouble_with_images(error.value))


def damage_record(path, number, *, whole):
    """Damages the image of a record; `whole` says whether the record's checksum is made anew."""
    records = [bytes(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    start = records[number].index(b"IDAT")
    records[number] = records[number][: start + 4] + b"\0" * 8 + records[number][start + 12 :]
    if whole:
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
    else:
        content = path.read_bytes()
        place = sum(len(record) + 16 for record in records[:number]) + 12 + start
        path.write_bytes(content[: place + 4] + b"\0" * 8 + content[place + 12 :])


@pytest.fixture
def records(tmp_path):
    """Folder of a prepared data set, and its file of training records."""
    builder = tfds.builder("varying_images/withheld", data_dir=str(tmp_path / "tfds"))
    builder.download_and_prepare()
    (path,) = builder.info.splits["train"].filepaths
    return tmp_path / "tfds", path


@pytest.mark.parametrize("streamed", [False, True], ids=["in memory", "streamed"])
@pytest.mark.parametrize("whole", [True, False], ids=["the image", "the record"])
def test_damaged_records_are_named_before_training(records, streamed, whole):
    folder, path = records
    damage_record(path, 7, whole=whole)
    with pytest.raises(UserError) as refused:
        load_source("varying_images/withheld", data_dir=str(folder), image_size=6, streamed=streamed)
    first, *listed = str(refused.value).splitlines()
    assert "record(s) of varying_images/withheld can't be read. Prepare the data set again" in first
    assert listed[0].startswith(f"  {path}, record 7: ")


def test_a_record_that_fails_in_training_is_named(records):
    folder, path = records
    task = Task.load("varying_images/withheld", data_dir=str(folder), image_size=6, streamed=True)
    assert undecodable(task.source) == []
    damage_record(path, 7, whole=True)
    with pytest.raises(tf.errors.OpError) as error:
        read_in_training(task)
    assert f"\n  {path}, record 7: " in str(trouble_with_images(error.value))


def test_that_records_cannot_be_skipped_is_said():
    """The setting may come from an earlier command on other data."""
    assert load_source("digits", skip_broken=True).notes == (
        "`skip_broken` has no effect on digits: it is for image files, folder:PATH or csv:FILE.",
    )


def test_of_many_records_behind_damage_only_the_first_are_looked_at(records, monkeypatch):
    folder, path = records
    source = load_source("varying_images/withheld", data_dir=str(folder), image_size=6, streamed=True)
    looked, faults_in = [], tfds_stream._faults_in
    monkeypatch.setattr(tfds_stream, "_faults_in", lambda *each: looked.append(each[1]) or faults_in(*each))
    damage_record(path, 7, whole=False)
    listed = listing_of_rows(source, [("train", 7)] * 1_000).splitlines()
    assert looked == [7] * 10
    assert listed[0].startswith(f"  {path}, record 7: ")
    assert listed[10:] == ["  ... and 990 more"]
