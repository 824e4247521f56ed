"""Finds the splits, the classes and the image files of a folder."""

from __future__ import annotations

import dataclasses
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tas_tf.data.image_files import SUFFIXES, Broken
from tas_tf.errors import UserError

#: Names of folders for each split, in any case.
_SPLITS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation"),
}

#: A class number, values, or the path of a mask.
Label = int | tuple[float, ...] | str


@dataclass(frozen=True)
class Listing:
    """Image files with their labels.

    Attributes:
        class_names: Names of the classes 0, 1, ..., or of the columns of values.
        files: Path and label of each image, by split: `train`, and `test` if the data has images for scores. A label
            is a class number, a tuple of values or the path of a mask.
        notes: Lines for the user on what is read and what is left out.
        has_classes: Whether labels are class numbers.
        unusable: Files that have been found to be unusable, with the reason. `files` doesn't hold them.
        output_classes: Names of the classes of each of several outputs that has classes.
        weights: Weight of each image in training, by path; empty if all weigh the same.
        inputs: What the network reads besides each image, by path; empty if there is nothing.
    """

    class_names: tuple[str, ...]
    files: dict[str, list[tuple[str, Label]]]
    notes: tuple[str, ...] = ()
    has_classes: bool = True
    unusable: tuple[tuple[str, Broken], ...] = ()
    output_classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)
    inputs: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def split_named(name: str) -> str | None:
    """The split that a name stands for: `train`, `test` or `validation`; `None` if it stands for none.

    >>> split_named("Training"), split_named("val"), split_named("cats")
    ('train', 'validation', None)
    """
    return next((split for split, names in _SPLITS.items() if name.lower() in names), None)


def list_folder(root: Path) -> Listing:
    """Lists the images of a folder that has class folders in it, or in `train/` and `test/` or `val/`.

    Images may lie at any depth in a class folder. Hidden files and folders, whose names begin with a dot, don't count.

    Raises:
        UserError: There are no two classes, the classes of the splits differ, or there are images for scores alone.
    """
    splits, notes = find_splits(root)
    classes = {split: _find_classes(folder) for split, folder in splits.items()}
    if "test" in classes and classes["train"].keys() != classes["test"].keys():
        differing = sorted(classes["train"].keys() ^ classes["test"].keys())
        raise UserError(
            f"The class folders in {splits['train']} and {splits['test']} differ. Expected the same names in both. "
            f"Received {len(differing)} in only one of them: {', '.join(differing[:5])}."
        )
    names = tuple(classes["train"])
    unused: list[Path] = []
    files: dict[str, list[tuple[str, int]]] = {}
    for split, folders in classes.items():
        files[split] = []
        for label, name in enumerate(names):
            images, others = images_in(folders[name])
            files[split] += [(path, label) for path in images]
            unused += others
    loose = [path for folder in {root, *splits.values()} for path in _loose(folder)]
    return Listing(names, files, (*notes, *unused_files(root, unused, loose)))


def find_splits(root: Path, *, hold_images: bool = False) -> tuple[dict[str, Path], list[str]]:
    """Finds the folders of training and test images.

    Args:
        root: The folder that they lie in.
        hold_images: Whether they hold images themselves, rather than folders of images.

    Returns:
        Folders by split, the whole folder for training if there are no splits; and lines on what else lies beside them.

    Raises:
        UserError: Several folders are for the same split, or there are images for scores alone.
    """
    found: dict[str, Path] = {}
    others, flat = [], []
    for folder in folders_in(root):
        split = split_named(folder.name)
        if split is None:
            others.append(folder)
        elif not hold_images and not folders_in(folder):
            flat.append(folder)
        elif split in found:
            raise UserError(
                f"`dataset`: {root} has two folders for the same images, {found[split].name} and {folder.name}. Keep "
                "one of them."
            )
        else:
            found[split] = folder
    notes = []
    if found:
        notes += [f"`dataset`: {folder} isn't one of train, val and test, so it is left out." for folder in others]
        notes += [f"`dataset`: {folder} has no class folders, so it is left out." for folder in flat]
    if "validation" in found:
        validation = found.pop("validation")
        if "test" in found:
            notes.append(f"`dataset`: {validation} isn't used, since scores are those of {found['test']}.")
        else:
            notes.append(f"`dataset`: {validation} holds the images for scores, since there is no test/.")
            found["test"] = validation
    if found and "train" not in found:
        raise UserError(
            f"`dataset`: {root} has the folder {next(iter(found.values())).name} but no train/. Put the training "
            "images into train/, or name a folder without splits."
        )
    return found or {"train": root}, notes


def folders_in(root: Path) -> list[Path]:
    """Folders in a folder, sorted, without hidden ones."""
    return sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def _find_classes(root: Path) -> dict[str, Path]:
    """Class folders by name, sorted. Names are normalised, as systems write accents in two ways.

    Raises:
        UserError: There are fewer than two, or two of the same name.
    """
    found = folders_in(root)
    folders = {unicodedata.normalize("NFC", folder.name): folder for folder in found}
    if len(folders) < len(found):
        raise UserError(f"`dataset`: {root} has class folders of the same name, written in two ways. Merge them.")
    if len(folders) < 2:
        inner = next(iter(folders.values()), None)
        hint = f" Did you mean folder:{inner}?" if inner is not None and len(folders_in(inner)) > 1 else ""
        raise UserError(
            f"{root} holds no classes. Expected at least two sub-folders, each with the images of one class. "
            f"Received: {', '.join(folders) or 'none'}.{hint}"
        )
    return dict(sorted(folders.items()))


def images_in(folder: Path) -> tuple[list[str], list[Path]]:
    """Paths of the images in a folder, at any depth, sorted, and of all other files."""
    images, others = [], []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in SUFFIXES:
                images.append(str(path))
            else:
                others.append(path)
    return sorted(images), others


def _loose(folder: Path) -> list[Path]:
    """Images that lie directly in a folder of class folders."""
    return [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]


def unused_files(root: Path, others: Sequence[Path], loose: Sequence[Path] = ()) -> list[str]:
    """Lines for the user on files that are no images, and on images outside of class folders."""
    notes = []
    if others:
        kinds = Counter(path.suffix.lower() or "without ending" for path in others)
        listing = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
        notes.append(f"`dataset`: {len(others)} files in {root} are left out, as they are no images: {listing}.")
    if loose:
        notes.append(f"`dataset`: {len(loose)} images in {root} lie in no class folder and are left out.")
    return notes


def without_empty_classes(listing: Listing, place: str) -> Listing:
    """Leaves out classes without training images, and says which classes have few images.

    Args:
        listing: Image files, of which all can be read.
        place: Names the data.

    Raises:
        UserError: Fewer than two classes are left.
    """
    counts = {split: Counter(label for _, label in files) for split, files in listing.files.items()}
    kept = [label for label in range(len(listing.class_names)) if counts["train"][label]]
    names = tuple(listing.class_names[label] for label in kept)
    gone = [name for name in listing.class_names if name not in names]
    if len(kept) < 2:
        raise UserError(
            f"`dataset`: {place} must have images of at least two classes for training. Received no images of "
            f"{_some(gone)}. Image files end in {', '.join(SUFFIXES)}."
        )
    number = {label: place for place, label in enumerate(kept)}
    files = {
        split: [(path, number[label]) for path, label in pairs if label in number]
        for split, pairs in listing.files.items()
    }
    notes = []
    if gone:
        notes.append(
            f"`dataset`: no training images of {_some(gone)}, so classes are left out; {len(kept)} classes remain."
        )
    single = [listing.class_names[label] for label in kept if counts["train"][label] == 1]
    if single:
        notes.append(f"`dataset`: only one training image of {_some(single)}.")
    if "test" in files:
        untested = [listing.class_names[label] for label in kept if not counts["test"][label]]
        if len(untested) == len(kept):
            raise UserError(f"`dataset`: {place} has no images for scores. Add some, or leave out that folder.")
        if untested:
            notes.append(f"`dataset`: no images of {_some(untested)} for scores.")
    return dataclasses.replace(listing, class_names=names, files=files, notes=(*listing.notes, *notes))


def _some(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
