"""Images and masks in folders side by side, matched by file name."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tas_tf.data.file_source import load_files
from tas_tf.data.folder_layout import Listing, find_splits, folders_in, images_in, split_named, unused_files
from tas_tf.data.image_files import SUFFIXES, Broken, look_at
from tas_tf.data.masks import Mask, MaskSource, look_at_masks, number_classes
from tas_tf.data.source import Source
from tas_tf.errors import UserError
from tas_tf.objectives.classification import Classification
from tas_tf.objectives.decisions import Binary
from tas_tf.objectives.objective import Objective

#: Names of folders, in any case.
_IMAGES, _MASKS = ("images",), ("masks", "labels", "annotations")


def has_masks(root: Path) -> bool:
    """Whether a folder has images and masks side by side, directly or in a folder for each split."""
    return any(_named(folder, _IMAGES) and _named(folder, _MASKS) for folder in (root, *folders_in(root)))


def load_masked_folder(name: str, root: Path, objective: Objective | None, **options: Any) -> Source:
    """Reads a folder with `images/` and `masks/` in `train/` and `test/` or `val/`, around them, or without splits.

    A mask has the name of its image, apart from the ending. Its pixel values are class numbers; of two classes, masks
    may have the values 0 and 255.

    Args:
        name: Name of the data set, as the user gave it.
        root: The folder.
        objective: What the network is for.
        **options: Arguments of `load_files`.

    Raises:
        UserError: The network isn't for one of several classes, or a single decision, per pixel; files can't be used;
            a mask has a value that is no class; or an argument is missing.
    """
    if objective is None or not objective.positions or objective.task not in (Classification.task, Binary.task):
        received = "a network that classifies images" if objective is None else str(objective)
        raise UserError(
            f"`dataset`={name} has a mask for each image: a class for each pixel. Expected a network for "
            f"classification or a single decision per pixel. Received: {received}."
        )
    listing, masks = list_masked_folder(root)
    classes = max(2, objective.num_outputs)
    class_of = number_classes(masks, classes)
    used = sorted({value for mask in masks.values() for value in mask.values})
    note = (
        f"`dataset`: labels of {name}: masks with the pixel values {', '.join(map(str, used))}"
        f"{', of which 255 is class 1' if class_of[-1] == 1 else ''}, {objective}."
    )
    files = Listing(
        tuple(map(str, range(classes))), listing.files, (note, *listing.notes), False, unusable=listing.unusable
    )
    return load_files(
        name, files, kind=partial(MaskSource, mask_size=objective.positions, class_of=class_of), **options
    )


def list_masked_folder(root: Path) -> tuple[Listing, dict[str, Mask]]:
    """Lists images with their masks, and what the masks hold, by path. The listing has no names of classes.

    Raises:
        UserError: A split has no images or no masks, there are two folders for either, or there are images for scores
            alone.
    """
    splits, notes = _find_parts(root)
    pairs: dict[str, list[tuple[str, str]]] = {}
    unusable: list[tuple[str, Broken]] = []
    for split, (images, masks) in splits.items():
        shown, marked = (_by_stem(part, unusable) for part in (images, masks))
        pairs[split] = [(path, marked[stem]) for stem, path in shown.items() if stem in marked]
        kinds = (shown, marked, f"mask in {masks.name}/"), (marked, shown, f"image in {images.name}/")
        for own, other, kind in kinds:
            unusable += [(path, Broken(f"it has no {kind}")) for stem, path in own.items() if stem not in other]
        notes += unused_files(images.parent, [path for part in (images, masks) for path in images_in(part)[1]])
    found = _check_masks([pair for of_split in pairs.values() for pair in of_split], unusable)
    files = {split: [pair for pair in of_split if pair[1] in found] for split, of_split in pairs.items()}
    return Listing((), files, tuple(notes), False, unusable=tuple(unusable)), found


def _find_parts(root: Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Finds the folders of images and masks of each split, and lines on what else lies beside them.

    Splits may be outside, `train/images/` and `train/masks/`, or inside, `images/train/` and `masks/train/`.

    Raises:
        UserError: See `list_masked_folder`.
    """
    outside = [
        one for one in folders_in(root) if split_named(one.name) and _named(one, _IMAGES) and _named(one, _MASKS)
    ]
    if not outside and _named(root, _IMAGES) and _named(root, _MASKS):
        images, masks = (_the_one(root, names) for names in (_IMAGES, _MASKS))
        if not any(split_named(inner.name) for inner in folders_in(images)):
            return {"train": (images, masks)}, []
        inside, notes = find_splits(images, hold_images=True)
        loose = [path for path in images.iterdir() if path.suffix.lower() in SUFFIXES]
        if loose:
            notes.append(f"`dataset`: {len(loose)} images in {images} lie beside its splits and are left out.")
        return {split: (folder, _the_one(masks, (folder.name.lower(),))) for split, folder in inside.items()}, notes
    splits, notes = find_splits(root)
    return {split: (_the_one(folder, _IMAGES), _the_one(folder, _MASKS)) for split, folder in splits.items()}, notes


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [inner for inner in folders_in(folder) if inner.name.lower() in names]


def _the_one(folder: Path, names: tuple[str, ...]) -> Path:
    """The folder of images or masks in a folder.

    Raises:
        UserError: There is none, or several.
    """
    found = _named(folder, names)
    if len(found) != 1:
        raise UserError(
            f"`dataset`: {folder} must have one folder called {' or '.join(names)}. Received: "
            f"{', '.join(path.name for path in found) or 'none'}."
        )
    return found[0]


def _by_stem(folder: Path, unusable: list[tuple[str, Broken]]) -> dict[str, str]:
    """Paths of the images in a folder, by their path in it without the ending; adds those of the same name to others.

    Args:
        folder: The folder.
        unusable: Gets the files that aren't the only ones of their name.
    """
    found: dict[str, list[str]] = {}
    for path in images_in(folder)[0]:
        found.setdefault(str(Path(path).relative_to(folder).with_suffix("")), []).append(path)
    for stem, paths in found.items():
        if len(paths) > 1:
            unusable += [(path, Broken(f"there are {len(paths)} files called {stem}")) for path in paths]
    return {stem: paths[0] for stem, paths in found.items() if len(paths) == 1}


def _check_masks(pairs: list[tuple[str, str]], unusable: list[tuple[str, Broken]]) -> dict[str, Mask]:
    """Reads all masks and returns what they hold, by path; adds those that can't be used to others.

    Args:
        pairs: Paths of images and masks.
        unusable: Gets the masks that can't be read or differ in size from their image.
    """
    good: dict[str, Mask] = {}
    images, masks = zip(*pairs, strict=True) if pairs else ((), ())
    for path, image, mask in zip(masks, look_at(images), look_at_masks(masks), strict=True):
        if isinstance(mask, Broken):
            unusable.append((path, mask))
        elif not isinstance(image, Broken) and (image.height, image.width) != (mask.height, mask.width):
            sizes = f"{mask.height}x{mask.width} pixels, its image {image.height}x{image.width}"
            unusable.append((path, Broken(f"it has {sizes}")))
        else:
            good[path] = mask
    return good
