"""Thirteen networks of `keras.applications`, for the smallest images that they take, at least 32 x 32."""

from __future__ import annotations

from functools import partial

from benchmarks.networks.catalogue import Catalogue, Network
from tas_tf.zoo.loading import load_network

SIZES = {
    "ResNet50": 32,
    "ResNet50V2": 32,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Small": 32,
    "EfficientNetB0": 32,
    "EfficientNetV2B0": 32,
    "VGG16": 32,
    "DenseNet121": 32,
    "InceptionV3": 75,
    "Xception": 71,
    "NASNetMobile": 32,
    "ConvNeXtTiny": 32,
}
#: Those that draw random numbers in training.
_RANDOM = ("MobileNet", "MobileNetV3Small", "EfficientNetB0", "EfficientNetV2B0", "ConvNeXtTiny")

APPLICATIONS = Catalogue(
    {
        name: Network(
            name,
            "",
            partial(load_network, f"keras.applications.{name}", image_size=size),
            random_in_training=name in _RANDOM,
        )
        for name, size in SIZES.items()
    }
)
