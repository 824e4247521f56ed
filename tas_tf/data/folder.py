"""Images in folders, one sub-folder for each class."""

import pathlib
from typing import Any

from tas_tf.data.file_source import load_files
from tas_tf.data.folder_layout import list_folder
from tas_tf.data.source import Source
from tas_tf.errors import UserError


def load_folder(path: str, **options: Any) -> Source:
    """Reads a folder with class sub-folders in `train/` and `test/` or `val/`, or directly in the folder.

    Args:
        path: Path of the folder.
        **options: Arguments of `load_files`.

    Raises:
        UserError: The folder is missing or has no classes, the classes in `train/` and `test/` differ, images can't be
            read, or an argument is missing.
    """
    root = pathlib.Path(path).expanduser()
    if not path or not root.is_dir():
        raise UserError(f"`dataset` names a missing folder. Expected folder:PATH. Received: folder:{path}.")
    return load_files(f"folder:{path}", list_folder(root), **options)
