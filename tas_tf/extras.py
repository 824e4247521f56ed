"""Packages that only some features need: the extra that installs them, and the error if it is missing."""

from __future__ import annotations

import importlib.util

from tas_tf.errors import UserError

#: The modules of each extra; `pyproject.toml` names the packages that they come in.
EXTRAS = {
    "datasets": ("tensorflow_datasets", "requests"),
    "keras2": ("tf_keras",),
    "qat": ("tensorflow_model_optimization", "tf_keras"),
    "report": ("matplotlib", "jinja2"),
    "micro": ("tflite_micro",),
}
#: What needs each extra, as the beginning of a sentence.
PURPOSES = {
    "datasets": "A data set of TensorFlow Datasets",
    "keras2": "A file of Keras 2",
    "qat": "Quantisation-aware training (qat_int8)",
    "report": "The page report.html",
    "micro": "Measuring a network for microcontrollers",
}


def missing_modules(extra: str) -> tuple[str, ...]:
    """Returns the modules of an extra that can't be found; imports none of them.

    >>> missing_modules("report")
    ()
    """
    return tuple(name for name in EXTRAS[extra] if importlib.util.find_spec(name) is None)


def explain_missing(extra: str, *, purpose: str | None = None) -> str | None:
    """Returns a sentence that names a missing extra and how to install it; `None` if the extra is installed.

    Args:
        extra: A key of `EXTRAS`.
        purpose: What needs it, as the beginning of a sentence; by default what `PURPOSES` says.
    """
    missing = missing_modules(extra)
    if not missing:
        return None
    return (
        f"{purpose or PURPOSES[extra]} needs the extra `{extra}`: "
        f'pip install "tas-tf[{extra}]" (missing: {", ".join(missing)}).'
    )


def require_extra(extra: str, *, purpose: str | None = None) -> None:
    """Makes sure that an extra is installed.

    Args:
        extra: See `explain_missing`.
        purpose: See `explain_missing`.

    Raises:
        UserError: A module of the extra is missing; the message names the extra and how to install it.
    """
    if explanation := explain_missing(extra, purpose=purpose):
        raise UserError(explanation)
