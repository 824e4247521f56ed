"""Looks at image files before they are used, and reads those that TensorFlow can't."""

from __future__ import annotations

import io
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps

from tas_tf.errors import UserError

#: Endings of image files.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".avif")
#: What TensorFlow reads as well as Pillow does, and faster.
_TENSORFLOW = {"JPEG": ("L", "RGB"), "MPO": ("RGB",), "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")}
#: How a whole file ends, apart from things that some programs put behind it.
_ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL = 4096
_GREY = ("1", "L", "LA", "La", "I;16", "I;16L", "I;16B", "I;16N")
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
#: Errors of Pillow for damaged files.
DAMAGE = (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, Image.DecompressionBombError)
#: Files that are read at once.
THREADS = 8
#: Files that a message names; of others, it gives the number.
LISTED = 10
#: Name of the file in a run folder that lists all files that are left out.
LEFT_OUT = "left_out.txt"


@dataclass(frozen=True)
class ImageFile:
    """What the beginning of an image file says.

    Attributes:
        height: Height of the upright image, in pixels.
        width: Width of the upright image, in pixels.
        grey: Whether the image has no colours.
        opaque: Whether all pixels are opaque.
        turned: Whether the image is stored turned or mirrored.
        frames: Whether there is more than one image in the file, of which the first counts.
        tensorflow: Whether TensorFlow reads the file, as grey or in three colours.
    """

    height: int
    width: int
    grey: bool
    opaque: bool
    turned: bool
    frames: bool
    tensorflow: bool


class Broken(Exception):
    """An image file can't be read; the text says why."""


def look_at(paths: Sequence[str]) -> list[ImageFile | Broken]:
    """Looks at files, several at a time, in the order of `paths`.

    Of JPEG and PNG files, the beginning and the end are read; others, which are less common, are read whole. What is
    damaged in between is found by decoding, see `tas_tf.data.decodable`.
    """
    with ThreadPoolExecutor(THREADS) as threads, warnings.catch_warnings():
        # Very large images and faulty EXIF data.
        warnings.simplefilter("ignore")
        return list(threads.map(_look_at_one, paths))


def _look_at_one(path: str) -> ImageFile | Broken:
    try:
        with Image.open(path) as image:
            whole = image.format in _ENDS and _ends_well(path, _ENDS[image.format])
            found = _description(image, whole)
            if not whole:
                image.load()
            return found
    except Broken as broken:
        return broken
    except DAMAGE as error:
        return Broken(reason_of(path, error))


def _description(image: Image.Image, whole: bool) -> ImageFile:
    """Describes an image that has been opened but not read; `whole` says whether it ends as TensorFlow expects.

    Raises:
        Broken: The image has pixels that aren't 8 or 16 bits.
    """
    if image.mode in ("I", "F"):
        raise Broken("its pixels have 32 bits")
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1) if _has_exif(image) else 1
    across = orientation in (5, 6, 7, 8)
    turned = orientation in (2, 3, 4, 5, 6, 7, 8)
    width, height = image.size
    return ImageFile(
        height=width if across else height,
        width=height if across else width,
        grey=image.mode in _GREY,
        opaque=image.mode not in ("RGBA", "LA", "La", "PA", "RGBa") and "transparency" not in image.info,
        turned=turned,
        frames=image.format != "MPO" and getattr(image, "n_frames", 1) > 1,
        tensorflow=whole and not turned and image.mode in _TENSORFLOW.get(image.format, ()),
    )


def _has_exif(image: Image.Image) -> bool:
    # Pillow reads the whole of a PNG file to look for EXIF data at its end.
    return image.format != "PNG" or "exif" in image.info


def _ends_well(path: str, end: bytes) -> bool:
    with open(path, "rb") as file:
        file.seek(0, io.SEEK_END)
        file.seek(max(0, file.tell() - _TAIL))
        return end in file.read()


def reason_of(path: str, error: Exception) -> str:
    """Why a file can't be read, from Pillow's error, without the path."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no image that can be read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).replace(f"'{path}'", "").strip() or type(error).__name__


def reason_of_tensorflow(error: Exception) -> str:
    """What an error of TensorFlow says, without the operation that it comes from.

    >>> reason_of_tensorflow(ValueError("{{function_node f}} Unknown image file format. [Op:DecodeImage] name: "))
    'Unknown image file format.'
    """
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return re.sub(r"\{\{.*?\}\}|\[Op:.*", "", text).strip()


def file_stamp(path: str) -> str:
    """A text that is another one if a file is changed; empty if there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{os.path.abspath(path)} {status.st_size} {status.st_mtime_ns}"


def read_image(path: str, channels: int) -> np.ndarray:
    """Reads the first image of a file with Pillow, upright.

    Args:
        path: Path of the file.
        channels: 1 for grey, 3 for red, green and blue, 4 for opacity too.

    Returns:
        uint8 `[height, width, channels]`.

    Raises:
        Broken: The file can't be read.
    """
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file) if _has_exif(file) else file
            if image.mode in ("I", "F"):
                raise Broken("its pixels have 32 bits")
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            if channels != 4 and "transparency" in image.info:
                image = image.convert("RGBA")
            pixels = np.asarray(image.convert(_MODES[channels]))
    except DAMAGE as error:
        raise Broken(reason_of(path, error)) from error
    return pixels.reshape(*pixels.shape[:2], channels)


def as_png(path: bytes, channels: int) -> bytes:
    """Reads an image file with Pillow and encodes it as a PNG file, hardly compressed, which TensorFlow reads.

    Args:
        path: Path of the file, as bytes.
        channels: As for `read_image`.

    Raises:
        Broken: The file can't be read.
    """
    pixels = read_image(path.decode(), channels)
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def check_readable(name: str, broken: Sequence[tuple[str, Broken]], *, skip: bool) -> list[str]:
    """Lists files that can't be used.

    Args:
        name: Name of the data set.
        broken: Paths, and why each can't be used.
        skip: Whether the files are left out.

    Returns:
        Lines for the user; empty if there are none.

    Raises:
        UserError: There are such files, and they aren't left out.
    """
    if not broken:
        return []
    if skip:
        return [f"`dataset`: left out {len(broken)} file(s) of {name} that can't be used:\n{listing_of(broken)}"]
    raise UserError(
        f"`dataset`: {len(broken)} file(s) of {name} can't be used. Replace or remove them, or leave them out with "
        f"`skip_broken`:\n{listing_of(broken)}"
    )


def listing_of(broken: Sequence[tuple[str, Broken]], *, count: int | None = None) -> str:
    """Lines with the first files that can't be used, and the number of others.

    Args:
        broken: Paths, and why each can't be used.
        count: Number of all files that can't be used, if `broken` holds only the first.
    """
    lines = [f"  {path}: {reason}" for path, reason in broken[:LISTED]]
    count = len(broken) if count is None else count
    if count > LISTED:
        lines.append(f"  ... and {count - LISTED} more")
    return "\n".join(lines)


def remarks(name: str, files: Sequence[ImageFile], channels: int) -> Iterator[str]:
    """Lines for the user on what of the files isn't used, or not as it lies there.

    Args:
        name: Name of the data set.
        files: All files in use.
        channels: Channels that images are read with.
    """
    facts: Counter[str] = Counter()
    for file in files:
        facts["several"] += file.frames
        facts["turned"] += file.turned
        facts["opacity"] += not file.opaque and channels != 4
        facts["grey"] += file.grey and channels == 3
        facts["colour"] += not file.grey and channels == 1
    texts = {
        "several": "hold several images, of which the first is read",
        "turned": "hold an image that is turned upright, as its EXIF data says",
        "opacity": "hold an image with transparent parts; opacity is left out, unless `channels`=4",
        "grey": "hold a grey image, which is read as one in colour",
        "colour": "hold an image in colour, which is read as grey",
    }
    for fact, text in texts.items():
        if facts[fact]:
            yield f"`dataset`: {facts[fact]} of {len(files)} files of {name} {text}."
