"""Imports Python files of the user's own."""

from __future__ import annotations

import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType

from tas_tf.errors import UserError


def import_file(path: Path, argument: str) -> ModuleType:
    """Imports a Python file, once for all that name it.

    Args:
        path: Path of the file.
        argument: Name of the user's argument in messages.

    Raises:
        UserError: The file is missing or can't be imported.
    """
    path = path.expanduser().resolve()
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"`{argument}` must name a Python file. Received: {path}, which isn't one.")
    for module in list(sys.modules.values()):
        if getattr(module, "__file__", None) and Path(module.__file__).resolve() == path:
            return module
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # the file may import its neighbours, as a script does
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        del sys.modules[name]
        raise UserError(f"`{argument}`: {path} can't be imported: {reason_of(error, path)}") from error
    return module


def reason_of(error: BaseException, path: Path) -> str:
    """What an error of the user's code says, in a line, and where it was raised.

    Args:
        error: The error, perhaps as TensorFlow passes it on.
        path: The user's file.
    """
    text = re.sub(r"\{\{.*?\}\}\s*", "", str(error)).strip().partition("\n")[0]
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    place = f" ({path.name}, line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {text}{place}" if text else f"{type(error).__name__}{place}"


def _module_name(path: Path) -> str:
    """The name of the file, so that classes are saved under it; another if that name is taken."""
    name = re.sub(r"\W", "_", path.stem)
    try:
        taken = importlib.util.find_spec(name)
    except ValueError:  # a module without a spec, such as `__main__`
        return f"custom_{name}"
    return name if taken is None or taken.origin == str(path) else f"custom_{name}"
