"""Images in folders: one sub-folder for each class, or images and masks side by side."""

import pathlib
from typing import Any

from tas_tf.data.file_source import load_files
from tas_tf.data.folder_layout import list_folder
from tas_tf.data.mask_folder import has_masks, load_masked_folder
from tas_tf.data.source import Source
from tas_tf.data.suitable import check_takes_classes
from tas_tf.errors import UserError
from tas_tf.objectives.objective import Objective


def load_folder(path: str, objective: Objective | None = None, **options: Any) -> Source:
    """Reads a folder with class sub-folders, or `images/` and `masks/`, in `train/` and `test/` or `val/`, or directly.

    Args:
        path: Path of the folder.
        objective: What the network is for; by default classes.
        **options: Arguments of `load_files`.

    Raises:
        UserError: The folder is missing or has neither classes nor masks, they don't suit the objective, the classes in
            `train/` and `test/` differ, files can't be used, or an argument is missing.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(f"`dataset` names a missing folder. Expected folder:PATH. Received: folder:{path}.")
    if has_masks(root):
        return load_masked_folder(f"folder:{path}", root, objective, **options)
    check_takes_classes(f"folder:{path}", objective)
    return load_files(f"folder:{path}", list_folder(root), **options)
