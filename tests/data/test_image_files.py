"""Image files of every kind arrive as Pillow shows them; broken ones are listed before anything starts."""

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from tas_tf.data import sources
from tas_tf.data.pipeline import evaluation
from tas_tf.data.preprocessing import Preprocessing
from tas_tf.data.source import StreamedSource
from tas_tf.data.sources import load_source
from tas_tf.errors import UserError

HEIGHT, WIDTH = 10, 14
#: Blocks of one colour, so that lossy formats keep them.
BLOCKS = np.random.default_rng(0).integers(0, 256, (5, 7, 4)).astype(np.uint8)
PIXELS = np.kron(BLOCKS, np.ones((2, 2, 1), np.uint8))
COLOUR, GREY = Image.fromarray(PIXELS[..., :3]), Image.fromarray(PIXELS[..., 0])
ALPHA = Image.fromarray(PIXELS)
DEEP = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 256 + 77)
TURNED = Image.Exif()
TURNED[0x0112] = 6  # to be turned clockwise

#: Name of the file, image, options for saving, and the pixels expected, where that isn't what Pillow makes of it.
KINDS = {
    "png": ("a.png", COLOUR, {}, None),
    "upper case": ("a.PNG", COLOUR, {}, None),
    "png 16 bit": ("a.png", DEEP, {}, np.repeat(PIXELS[..., :1], 3, -1)),
    "png grey with alpha": ("a.png", GREY.convert("LA"), {}, None),
    "png one bit": ("a.png", GREY.convert("1"), {}, None),
    "png palette": ("a.png", COLOUR.quantize(32), {}, None),
    "png transparent palette": ("a.png", COLOUR.quantize(32), {"transparency": bytes([0, 128, 255])}, None),
    "png with alpha": ("a.png", ALPHA, {}, PIXELS[..., :3]),
    "jpeg": ("a.jpg", COLOUR, {"quality": 95}, None),
    "jpeg grey": ("a.jpeg", GREY, {}, None),
    "jpeg cmyk": ("a.jpg", COLOUR.convert("CMYK"), {"quality": 95}, None),
    "jpeg turned": ("a.jpg", COLOUR, {"exif": TURNED, "quality": 100, "subsampling": 0}, np.rot90(PIXELS[..., :3], -1)),
    "jpeg in png's clothes": ("a.png", COLOUR, {"format": "JPEG"}, None),
    "webp": ("a.webp", COLOUR, {"lossless": True}, PIXELS[..., :3]),
    "tiff": ("a.tif", COLOUR, {}, PIXELS[..., :3]),
    "tiff 16 bit": ("a.tiff", DEEP, {}, np.repeat(PIXELS[..., :1], 3, -1)),
    "tiff turned": ("a.tiff", COLOUR, {"exif": TURNED}, np.rot90(PIXELS[..., :3], -1)),
    "bmp": ("a.bmp", COLOUR, {}, PIXELS[..., :3]),
    "bmp palette": ("a.bmp", COLOUR.quantize(32), {}, None),
    "bmp grey": ("a.bmp", GREY, {}, None),
    "gif": ("a.gif", COLOUR.quantize(32), {}, None),
    "gif of two": ("a.gif", COLOUR.quantize(32), {"save_all": True, "append_images": [GREY]}, None),
    "ppm": ("a.ppm", COLOUR, {}, PIXELS[..., :3]),
}


def one_each(root, *names: str):
    """A folder with an image of each kind in class `a`, and images in colour in class `b`."""
    for folder in ("a", "b"):
        (root / "train" / folder).mkdir(parents=True, exist_ok=True)
        (root / "test" / folder).mkdir(parents=True, exist_ok=True)
        COLOUR.save(root / "test" / folder / "0.png")
        COLOUR.save(root / "train" / folder / "0.png")
    for number, kind in enumerate(names, 1):
        file, image, options, _ = KINDS[kind]
        image.save(root / "train" / "a" / f"{number}{file}", **options)
    return f"folder:{root}"


def expected(kind: str) -> np.ndarray:
    file, image, options, pixels = KINDS[kind]
    if pixels is not None:
        return pixels
    buffer = io.BytesIO()
    Image.init()
    image.save(buffer, **{"format": Image.registered_extensions()[file[1:].lower()], **options})
    opened = Image.open(buffer)
    opened = opened.convert("RGBA") if "transparency" in opened.info else opened
    return np.asarray(opened.convert("RGB"))


@pytest.mark.parametrize("memory", [1 << 30, 0], ids=["in memory", "streamed"])
def test_every_kind_arrives(tmp_path, monkeypatch, memory):
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", memory)
    upright = [kind for kind in KINDS if "turned" not in kind]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = load_source(one_each(tmp_path, *upright), image_size=(HEIGHT, WIDTH))
    assert isinstance(source, StreamedSource) is (memory == 0)
    batches = evaluation(source, "train", batch_size=100, preprocessing=Preprocessing())
    (images, labels), *_ = batches.as_numpy_iterator()
    assert labels.tolist() == [0] * (1 + len(upright)) + [1]
    in_order = sorted(enumerate(upright, 1), key=lambda pair: f"{pair[0]}{KINDS[pair[1]][0]}")
    for image, (_, kind) in zip(images[1:], in_order, strict=False):
        tolerance = 16 if "jp" in kind else 0  # decoders of JPEG blend colours in other ways
        assert np.abs(image - expected(kind)).max() <= tolerance, kind
    assert f"`dataset`: 1 of {len(upright) + 4} files of folder:{tmp_path} hold several images" in "".join(source.notes)


@pytest.mark.parametrize("kind", ["jpeg turned", "tiff turned"])
def test_photos_are_turned_upright(tmp_path, kind):
    source = load_source(one_each(tmp_path, kind), image_size=(WIDTH, HEIGHT))
    assert np.abs(source.images("train")[1].astype(int) - expected(kind)).max() <= 12
    assert any("1 of 5 files of" in note and "turned upright, as its EXIF data says" in note for note in source.notes)


def test_channels(tmp_path):
    name = one_each(tmp_path, "png with alpha", "png grey with alpha")
    colour, grey, opacity = (load_source(name, image_size=(HEIGHT, WIDTH), channels=c) for c in (None, 1, 4))
    assert [source.image_shape[-1] for source in (colour, grey, opacity)] == [3, 1, 4]
    assert np.array_equal(opacity.images("train")[1], PIXELS)
    assert np.abs(grey.images("train")[2][..., 0].astype(int) - PIXELS[..., 0]).max() <= 1
    assert "2 of 6 files of" in next(note for note in colour.notes if "opacity is left out" in note)
    assert not any("opacity" in note for note in opacity.notes)
    assert any("5 of 6" in note and "read as grey" in note for note in grey.notes)
    with pytest.raises(UserError, match=r"`channels` must be 1, 3 or 4 for image files. Received: 2"):
        load_source(name, image_size=8, channels=2)


def break_files(root):
    """A text, a file cut at its end, one cut in the middle with its end put back, and an empty one."""
    name = one_each(root, "png", "png", "jpeg", "webp", "png")
    folder = root / "train" / "a"
    (folder / "1a.png").write_text("no image")
    whole = (folder / "2a.png").read_bytes()
    (folder / "2a.png").write_bytes(whole[: len(whole) // 2])
    (folder / "3a.jpg").write_bytes(b"")
    webp = (folder / "4a.webp").read_bytes()
    (folder / "4a.webp").write_bytes(webp[: len(webp) // 2])
    (folder / "5a.png").write_bytes(whole[:60] + b"\0" * 20 + whole[80:])
    return name, [folder / f"{number}a.{end}" for number, end in enumerate(("png", "png", "jpg", "webp", "png"), 1)]


def test_broken_files_are_listed_together(tmp_path):
    name, paths = break_files(tmp_path)
    with pytest.raises(UserError) as refused:
        load_source(name, image_size=8)
    first, *listed = str(refused.value).splitlines()
    # The one that is damaged in the middle is found only when it is read.
    assert first == (
        f"`dataset`: 4 file(s) of {name} can't be used. Replace or remove them, or leave them out with `skip_broken`:"
    )
    assert [line.split(": ")[0].strip() for line in listed] == [str(path) for path in paths[:4]]
    for path in paths[:4]:
        path.unlink()
    with pytest.raises(UserError, match=rf"1 file\(s\) of .*\n  {paths[4]}: "):
        load_source(name, image_size=8)


def test_broken_files_can_be_left_out(tmp_path, monkeypatch):
    name, paths = break_files(tmp_path)
    source = load_source(name, image_size=8, skip_broken=True)
    assert source.labels("train").tolist() == [0, 1]
    assert source.images("train").shape == (2, 8, 8, 3)
    first, second = (note.splitlines() for note in source.notes if "left out" in note)
    assert first[0] == f"`dataset`: left out 4 file(s) of {name} that can't be used:"
    assert [line.split(": ")[0].strip() for line in first[1:] + second[1:]] == [str(path) for path in paths]
    monkeypatch.setattr(sources, "MEMORY_LIMIT_BYTES", 0)
    streamed = load_source(name, image_size=8, skip_broken=True)
    assert streamed.labels("train").tolist() == [0, 1]
    (note,) = (note.splitlines() for note in streamed.notes if "left out" in note)
    assert note[0] == f"`dataset`: left out 5 file(s) of {name} that can't be used:"
    assert [path for path, _ in streamed.left_out] == [path for path, _ in source.left_out] == list(map(str, paths))


def test_images_of_32_bits_are_refused(tmp_path):
    name = one_each(tmp_path)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "train" / "a" / "float.tiff")
    with pytest.raises(UserError, match=r"float.tiff: its pixels have 32 bits"):
        load_source(name, image_size=8)


def test_long_lists_are_cut(tmp_path):
    name = one_each(tmp_path)
    for number in range(15):
        (tmp_path / "train" / "b" / f"x{number}.jpg").write_text("x")
    with pytest.raises(UserError, match=r"15 file\(s\)") as refused:
        load_source(name, image_size=8)
    assert str(refused.value).splitlines()[-1] == "  ... and 5 more"
