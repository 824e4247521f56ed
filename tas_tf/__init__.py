"""tas_tf makes a Keras CNN smaller, within a compute budget.

    import keras
    import tas_tf

    model = keras.models.load_model("mine.keras")
    print(tas_tf.describe(model))
    result = tas_tf.compress(model, train, validation, budget="macs:0.5")

Names load on first use: `import tas_tf` by itself loads neither TensorFlow nor Keras.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from tas_tf.errors import UserError
from tas_tf.version import __version__

if TYPE_CHECKING:
    from tas_tf.compression.compress import Compressed, compress
    from tas_tf.compression.distill import distill
    from tas_tf.compression.latency import latency_cost
    from tas_tf.compression.rank import rank_channels
    from tas_tf.compression.search import search
    from tas_tf.cost.budget import Budget
    from tas_tf.cost.cost_model import CostModel
    from tas_tf.data.augmentation import Augmentation
    from tas_tf.data.preprocessing import Preprocessing
    from tas_tf.deploy.lite_model import TFLiteModel
    from tas_tf.deploy.metadata import Metadata, read_metadata
    from tas_tf.deploy.micro.export import export_c_array
    from tas_tf.deploy.micro.report import MicroReport
    from tas_tf.deploy.saved_model import export_saved_model
    from tas_tf.deploy.tflite import export_tflite
    from tas_tf.description import Description, describe
    from tas_tf.graph.custom import register_layer
    from tas_tf.latency.settings import LatencySettings
    from tas_tf.race.race import RaceResult
    from tas_tf.race.settings import RaceSettings
    from tas_tf.searching.monitor import SearchResult
    from tas_tf.searching.settings import SearchSettings
    from tas_tf.space.shape import Shape
    from tas_tf.space.space import SearchSpace
    from tas_tf.student.build import build_student, inherit_weights
    from tas_tf.training.network import TrainResult
    from tas_tf.training.settings import TrainSettings
    from tas_tf.zoo.loading import load_network
else:  # a type checker takes a module that has this function for one that has every name

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


#: The module that defines each public name.
_HOMES = {
    "compress": "compression.compress",
    "Compressed": "compression.compress",
    "describe": "description",
    "Description": "description",
    "SearchSpace": "space.space",
    "Shape": "space.shape",
    "Budget": "cost.budget",
    "CostModel": "cost.cost_model",
    "latency_cost": "compression.latency",
    "rank_channels": "compression.rank",
    "search": "compression.search",
    "SearchResult": "searching.monitor",
    "SearchSettings": "searching.settings",
    "LatencySettings": "latency.settings",
    "RaceResult": "race.race",
    "RaceSettings": "race.settings",
    "build_student": "student.build",
    "inherit_weights": "student.build",
    "distill": "compression.distill",
    "TrainResult": "training.network",
    "TrainSettings": "training.settings",
    "Augmentation": "data.augmentation",
    "Preprocessing": "data.preprocessing",
    "load_network": "zoo.loading",
    "register_layer": "graph.custom",
    "export_saved_model": "deploy.saved_model",
    "export_tflite": "deploy.tflite",
    "export_c_array": "deploy.micro.export",
    "MicroReport": "deploy.micro.report",
    "TFLiteModel": "deploy.lite_model",
    "Metadata": "deploy.metadata",
    "read_metadata": "deploy.metadata",
}

__all__ = [
    "compress",
    "Compressed",
    "describe",
    "Description",
    "SearchSpace",
    "Shape",
    "Budget",
    "CostModel",
    "latency_cost",
    "rank_channels",
    "search",
    "SearchResult",
    "SearchSettings",
    "LatencySettings",
    "RaceResult",
    "RaceSettings",
    "build_student",
    "inherit_weights",
    "distill",
    "TrainResult",
    "TrainSettings",
    "Augmentation",
    "Preprocessing",
    "load_network",
    "register_layer",
    "export_saved_model",
    "export_tflite",
    "export_c_array",
    "MicroReport",
    "TFLiteModel",
    "Metadata",
    "read_metadata",
    "UserError",
    "__version__",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
