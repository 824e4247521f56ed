"""Small data sets that the tests of this folder share."""

import gzip
import hashlib

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tas_tf.data import fashion_mnist
from tas_tf.data.source import make_array_source


@pytest.fixture
def small_source():
    """50 training and 11 test images, 6 x 5 x 3, four classes; pixel [0, 0, 0] is the example's number."""
    generator = np.random.default_rng(0)

    def make(count):
        images = generator.integers(0, 256, (count, 6, 5, 3)).astype(np.uint8)
        images[:, 0, 0, 0] = np.arange(count)
        return images, np.arange(count) % 4

    return make_array_source("small", "abcd", train=make(50), test=make(11), flip_ok=True)


@pytest.fixture
def fake_idx(tmp_path, monkeypatch):
    """IDX files of 60 training and 20 test images where the Debian package would have its own; returns the arrays."""
    generator = np.random.default_rng(1)
    folder = tmp_path / "idx"
    folder.mkdir()
    arrays, digests = {}, {}
    for prefix, count in (("train", 60), ("t10k", 20)):
        images = generator.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for stem, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
            (folder / f"{stem}.gz").write_bytes(gzip.compress(content))
            arrays[stem], digests[stem] = array, hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(fashion_mnist, "IDX_DIR", folder)
    monkeypatch.setattr(fashion_mnist, "IDX_SHA256", digests)
    return arrays


@pytest.fixture
def image_folder(tmp_path):
    """PNGs 10 x 8 of one grey value each: 4 cats and 6 dogs to train, 2 and 3 to test; returns the folder."""
    root = tmp_path / "images"
    for split, counts in (("train", {"cat": 4, "dog": 6}), ("test", {"cat": 2, "dog": 3})):
        for name, count in counts.items():
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                colour = (10 * number, 100 if name == "cat" else 200, 7)
                Image.new("RGB", (10, 8), colour).save(root / split / name / f"{number}.png")
    return root


class VaryingImages(tfds.core.GeneratorBasedBuilder):
    """Images of various sizes whose test labels were withheld, as ImageNet's are; `plain` has only a train split."""

    name = "varying_images"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012
        tfds.core.BuilderConfig(name="withheld"),
        tfds.core.BuilderConfig(name="plain"),
    ]

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3)),
                    "label": tfds.features.ClassLabel(names=["a", "b"]),
                    "other": tfds.features.ClassLabel(num_classes=7),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def _split_generators(self, dl_manager):
        splits = {"train": self._generate_examples(40)}
        if self.builder_config.name == "withheld":
            splits["test"] = self._generate_examples(5, label=-1)
            splits["validation"] = self._generate_examples(8)
        return splits

    def _generate_examples(self, count, label=None):
        for number in range(count):
            image = np.full((9 + number % 3, 12, 3), number, np.uint8)
            yield number, {"image": image, "label": number % 2 if label is None else label, "other": 3}
