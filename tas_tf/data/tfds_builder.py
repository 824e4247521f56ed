"""Finds a TFDS data set by name and prepares it if necessary."""

import difflib
from pathlib import Path

import tensorflow_datasets as tfds

from tas_tf import workers
from tas_tf.data.fashion_mnist import FashionMnistIdx, idx_files_installed
from tas_tf.data.reachable import any_host_answers
from tas_tf.errors import UserError

# Tried if a builder doesn't name the source of its downloads.
_USUAL_URL = "https://storage.googleapis.com"


def find_builder(name: str, *, data_dir: str | None = None) -> tfds.core.DatasetBuilder:
    """Returns the builder of a data set, which need not be prepared yet.

    Args:
        name: Name in TFDS, optionally with config and version: `cifar10`, `imagenette/160px-v2`.
        data_dir: TFDS's data folder; by default, TFDS chooses it (`TFDS_DATA_DIR` or `~/tensorflow_datasets`).

    Raises:
        UserError: If the data set is unknown or can't be used.
    """
    if name == "fashion_mnist":
        from_idx = FashionMnistIdx(data_dir=data_dir)
        if from_idx.is_prepared() or idx_files_installed():
            return from_idx
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        raise UserError(_unknown_name(name)) from error
    except (ValueError, AssertionError, ImportError, RuntimeError) as error:
        # Malformed name, unknown config or version, or missing package that the data set's code needs.
        if name and Path(name).exists():
            kind = {".py": "python", ".csv": "csv"}.get(Path(name).suffix, "folder")
            raise UserError(f"`dataset`: {name!r} is no name of a data set. Did you mean {kind}:{name}?") from error
        raise UserError(f"`dataset` {name!r} can't be used: {_first_line(error)}") from error


def prepare(builder: tfds.core.DatasetBuilder) -> None:
    """Downloads and prepares a data set unless it is already prepared.

    Raises:
        UserError: If the download fails (immediately if you are offline), or files are wrong or missing.
    """
    workers.once(lambda: _prepare(builder))
    _prepare(builder)  # in a folder of this worker's own


def _prepare(builder: tfds.core.DatasetBuilder) -> None:
    if builder.is_prepared():
        return
    if not isinstance(builder, FashionMnistIdx) and not builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
        _check_network(builder)
    try:
        builder.download_and_prepare()
    except UserError:
        raise
    except (AssertionError, OSError, RuntimeError, ValueError, tfds.download.DownloadError) as error:
        if builder.is_prepared():  # another process that prepared it at the same time finished first
            builder.info.read_from_directory(builder.data_path)
            return
        # TFDS raises AssertionError if files that must be downloaded by hand are missing.
        raise UserError(
            f"Dataset {builder.name} can't be prepared in {builder.data_dir}: {' '.join(str(error).split())}"
        ) from error


def _unknown_name(name: str) -> str:
    known = ["digits", *tfds.list_builders(with_community_datasets=False)]
    close = difflib.get_close_matches(name.split("/")[0].split(":")[0], known, n=3)
    return (
        "`dataset` is unknown. Expected digits, folder:PATH, csv:FILE or a name in TensorFlow Datasets"
        f"{' (close: ' + ', '.join(close) + ')' if close else ''}. Received: {name!r}."
    )


def _check_network(builder: tfds.core.DatasetBuilder) -> None:
    # If offline, TFDS tries for minutes before it gives up.
    urls = list(builder.url_infos or ()) or [_USUAL_URL]
    if any_host_answers(urls):
        return
    hint = " or install Debian's package dataset-fashion-mnist," if builder.name == "fashion_mnist" else ""
    raise UserError(
        f"Dataset {builder.name} isn't prepared in {builder.data_dir}, and its download can't be reached "
        f"({urls[0]}). Connect to the network,{hint} or prepare it elsewhere (`tfds build {builder.name}`) "
        "and pass its folder as `data_dir`. `digits` needs no download."
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
