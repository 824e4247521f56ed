"""What a program has to know to run a `.tflite` file: shapes, types, quantisation and the content of its metadata."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from tas_tf.deploy.metadata import read_metadata
from tas_tf.errors import UserError


def describe_file(path: str | Path) -> dict[str, Any]:
    """Describes a file for the programs that run it.

    Args:
        path: A `.tflite` file.

    Returns:
        `inputs` and `outputs`, each a list of `name`, `shape` (of one image, with 1 in front), `dtype`, `scale` and
        `zero_point` (`None` if it isn't quantised); and of files with metadata `task`, `output` (`logits`,
        `probabilities`, `values` or `several`), `num_labels`, and `channel_order`, `pixel_scale` and `pixel_offset`:
        how pixels from 0 to 255 become the input.

    Raises:
        UserError: If the file is missing or isn't a TFLite model.
    """
    try:
        interpreter = Interpreter(model_path=str(path))
    except ValueError as error:
        raise UserError(f"`path` must be a TFLite model. Received: {str(path)!r} ({error}).") from error
    found: dict[str, Any] = {
        "inputs": [_tensor(detail) for detail in interpreter.get_input_details()],
        "outputs": [_tensor(detail) for detail in interpreter.get_output_details()],
    }
    metadata: Mapping[str, Any] = {}
    with contextlib.suppress(UserError):  # a file without metadata
        metadata = read_metadata(path)
    if metadata:
        given = metadata["input"]
        found |= {
            "task": metadata["task"],
            "output": metadata["output"],
            "num_labels": len(metadata["labels"]),
            "channel_order": given["channel_order"],
            "pixel_scale": given["scale"],
            "pixel_offset": given["offset"],
        }
    return found


def _tensor(detail: Mapping[str, Any]) -> dict[str, Any]:
    scale, zero_point = detail["quantization"]
    return {
        "name": detail["name"],
        "shape": [1, *detail["shape"].tolist()[1:]],
        "dtype": np.dtype(detail["dtype"]).name,
        "scale": float(scale) or None,
        "zero_point": int(zero_point) if scale else None,
    }
