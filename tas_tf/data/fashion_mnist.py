"""Fashion-MNIST from the IDX files that Debian's package dataset-fashion-mnist installs."""

import gzip
import hashlib
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from tas_tf.errors import UserError

IDX_DIR = pathlib.Path("/usr/share/datasets/fashion-mnist")

# sha256 of the *decompressed* files, because Debian recompressed the archives.
IDX_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

_CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_UNSIGNED_BYTE = 8  # the type code of IDX files


class FashionMnistIdx(tfds.core.GeneratorBasedBuilder):
    """Fashion-MNIST prepared from local IDX files, under another name than TFDS's `fashion_mnist`."""

    name = "fashion_mnist_idx"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Zalando's 28 x 28 grey images of ten kinds of clothing.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(28, 28, 1)),
                    "label": tfds.features.ClassLabel(names=_CLASS_NAMES),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        return {"train": self._generate_examples("train"), "test": self._generate_examples("t10k")}

    def _generate_examples(self, prefix: str) -> Iterator[tuple[int, dict[str, Any]]]:
        images = read_idx(f"{prefix}-images-idx3-ubyte")[..., np.newaxis]
        labels = read_idx(f"{prefix}-labels-idx1-ubyte")
        for key, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield key, {"image": image, "label": int(label)}


def idx_files_installed() -> bool:
    """Whether all four IDX files are in the package's standard folder."""
    return all((IDX_DIR / f"{stem}.gz").is_file() for stem in IDX_SHA256)


def read_idx(stem: str) -> np.ndarray:
    """Reads one of the four files, uint8 `[n]` or `[n, rows, columns]`, and checks its content.

    Args:
        stem: File name without `.gz`, a key of `IDX_SHA256`.

    Raises:
        UserError: If the file can't be read or isn't the published one.
    """
    path = IDX_DIR / f"{stem}.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} can't be read ({error}). Reinstall dataset-fashion-mnist.") from error
    digest = hashlib.sha256(content).hexdigest()
    if digest != IDX_SHA256[stem]:
        raise UserError(
            f"{path} isn't the published Fashion-MNIST file. Expected sha256 {IDX_SHA256[stem]} after "
            f"decompression. Received: {digest}. Reinstall dataset-fashion-mnist."
        )
    return parse_idx(content)


def parse_idx(content: bytes) -> np.ndarray:
    """Parses IDX data of unsigned bytes: two zeros, type, number of dimensions, sizes (big-endian), values.

    >>> parse_idx(bytes([0, 0, 8, 1, 0, 0, 0, 3, 7, 8, 9]))
    array([7, 8, 9], dtype=uint8)

    Raises:
        ValueError: If the content is something else.
    """
    if len(content) < 4 or content[:3] != bytes([0, 0, _UNSIGNED_BYTE]):
        raise ValueError(f"Expected IDX data of unsigned bytes. Received a file that begins with {content[:4].hex()}.")
    num_dimensions = content[3]
    shape = np.frombuffer(content, ">u4", count=num_dimensions, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * num_dimensions).reshape(shape)
