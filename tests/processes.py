"""What tests share that start processes of their own."""

from __future__ import annotations

import os


def quiet_environment() -> dict[str, str]:
    """The environment of a user, who hasn't asked TensorFlow for its log messages as the tests may have."""
    return {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
