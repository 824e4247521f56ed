"""Small classifiers, exported with their metadata."""

import dataclasses
import functools
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from tas_tf.data.resizing import resize_image
from tas_tf.deploy.saved_model import export_saved_model
from tas_tf.deploy.tflite import export_tflite

COLOURS = ("ant", "bee", "café table", "dog", "eel", "fox", "gnu")
GREYS = ("left", "right", "up", "down")


@dataclasses.dataclass(frozen=True)
class Network:
    """A small classifier of 12x12 pixels, and its preprocessing."""

    labels: Sequence[str]
    scale: Sequence[float]
    offset: Sequence[float]
    channels: int = 3
    order: str = "rgb"
    activation: str | None = None
    inside: bool = False
    resize: str | None = "squash"
    task: str | None = None

    @functools.cached_property
    def model(self) -> keras.Model:
        """Random convolutions, then flattened, so that the position of each pixel matters."""
        layers = keras.layers
        images = keras.Input((12, 12, self.channels))
        x = layers.Conv2D(8, 3, strides=2, activation="relu")(images)
        x = layers.Conv2D(8, 3, activation="relu")(x) if self.channels == 3 else x
        outputs = 1 if self.task == "binary" else len(self.labels)
        model = keras.Model(images, layers.Dense(outputs, self.activation)(layers.Flatten()(x)))
        rng = np.random.default_rng(self.channels)
        model.set_weights([rng.normal(0, 1.5 / np.prod(w.shape[:-1]) ** 0.5, w.shape) for w in model.weights])
        return model

    @property
    def preprocessing(self) -> list[keras.layers.Layer]:
        return [keras.layers.Rescaling(list(self.scale), list(self.offset))] if self.inside else []

    def normalise(self, pixels: np.ndarray) -> np.ndarray:
        step = -1 if self.order == "bgr" else 1
        return pixels[..., ::step] * np.float32(self.scale) + np.float32(self.offset)

    def extras(self) -> dict[str, str]:
        """Metadata of the model."""
        fed = {"height": 12, "width": 12, "channels": self.channels, "channel_order": self.order, "inside": self.inside}
        fed |= {"resize": self.resize} if self.resize else {}
        fed |= {"scale": [1.0], "offset": [0.0]} if self.inside else {"scale": self.scale, "offset": self.offset}
        made = "values" if self.task == "regression" else "probabilities" if self.activation else "logits"
        metadata = {"input": fed, "output": made, **({"task": self.task} if self.task else {})}
        return {"labels.txt": "\n".join(self.labels) + "\n", "metadata.json": json.dumps(metadata)}

    def chances(self, path: Path) -> dict[str, float]:
        """Computes an image's probabilities with the Keras model, by label."""
        image = np.asarray(Image.open(path).convert("L" if self.channels == 1 else "RGB"))
        image = resize_image(
            tf.constant(image.reshape(*image.shape[:2], self.channels)), (12, 12), self.resize or "crop"
        )
        image = image.numpy()
        output = self.model(self.normalise(np.float32(image))[None])[0].numpy()
        if self.activation is None and self.task != "regression":
            output = 1 / (1 + np.exp(-output)) if self.task else np.exp(output) / np.exp(output).sum()
        if self.task == "binary":
            output = np.append(1 - output, output)
        return dict(zip(self.labels, output.tolist(), strict=True))

    def write_tflite(self, path: Path) -> Path:
        return self.pack(export_tflite(self.write_saved_model(path.with_suffix("")), path))

    def write_integers(self, path: Path, photos: Sequence[Path], dtype: tf.DType) -> Path:
        """Converts to int8, including input and output, calibrated on photos."""

        def calibration():
            for photo in photos:
                pixels = np.float32(Image.open(photo).convert("RGB").resize((12, 12)))[None]
                for batch in (pixels, 255 - pixels):
                    yield [batch if self.inside else self.normalise(batch)]

        deployed = keras.Sequential([keras.Input((12, 12, 3)), *self.preprocessing, self.model])
        converter = tf.lite.TFLiteConverter.from_keras_model(deployed)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = calibration
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = dtype
        path.write_bytes(converter.convert())
        return self.pack(path)

    def pack(self, path: Path) -> Path:
        with zipfile.ZipFile(path, "a") as archive:
            for name, text in self.extras().items():
                archive.writestr(name, text)
        return path

    def write_saved_model(self, path: Path) -> Path:
        export_saved_model(self.model, path, preprocessing_layers=self.preprocessing)
        (path / "assets.extra").mkdir()
        for name, text in self.extras().items():
            (path / "assets.extra" / name).write_text(text, encoding="utf-8")
        return path


COLOUR = Network(COLOURS, (0.011, 0.013, 0.009), (-1.2, -1.6, -0.9))
GREY = Network(GREYS, (0.0139,), (-0.81,), channels=1, activation="softmax")
#: Files of before carry no way of resizing; it was `crop`.
OLD = dataclasses.replace(COLOUR, resize=None)
PADDED = dataclasses.replace(COLOUR, resize="pad")
BLUE_FIRST = Network(COLOURS, (0.01,), (-1.0, -1.2, -1.3), order="bgr")
RAW = dataclasses.replace(COLOUR, inside=True)
