"""Classifies images with a SavedModel: `python classify_saved_model.py FOLDER IMAGE...`.

Needs only tensorflow, which ignores EXIF data: turn photos upright before. Labels and normalisation are in files in the
folder's `assets.extra`.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf


def read_image(path, height, width, channels, resize):
    """Reads an image, grey or RGB from 0 to 255, and resizes it as in training, with antialiasing.

    `resize` says how an image of other proportions gets this size: `squash`, `crop` its borders, or `pad` with black.
    """
    image = tf.io.decode_image(Path(path).read_bytes(), channels=channels, expand_animations=False)
    if resize == "pad":
        return tf.round(tf.image.resize_with_pad(image, height, width, antialias=True))
    if resize == "crop":
        scale = min(image.shape[0] / height, image.shape[1] / width)
        rows, columns = round(height * scale), round(width * scale)
        top, left = (image.shape[0] - rows) // 2, (image.shape[1] - columns) // 2
        image = image[top : top + rows, left : left + columns]
    return tf.round(tf.image.resize(image, (height, width), antialias=True))


sys.excepthook = lambda kind, error, trace: print(f"error: {path}: {error}", file=sys.stderr)  # one line is enough
path, *images = sys.argv[1:] or sys.exit(__doc__)
labels = Path(path, "assets.extra", "labels.txt").read_text(encoding="utf-8").splitlines()
metadata = json.loads(Path(path, "assets.extra", "metadata.json").read_text(encoding="utf-8"))
wanted, task = metadata["input"], metadata.get("task", "classification")
model = tf.saved_model.load(path)
classify = model.signatures["serving_default"]
dtype = classify.structured_input_signature[1]["images"].dtype
for path in images:
    pixels = read_image(path, wanted["height"], wanted["width"], wanted["channels"], wanted.get("resize", "crop"))
    pixels = pixels[..., ::-1] if wanted["channel_order"] == "bgr" else pixels
    values = pixels * wanted["scale"] + wanted["offset"]
    (outputs,) = classify(images=tf.cast(values[tf.newaxis], dtype)).values()
    output = outputs[0]
    if metadata["output"] == "values":
        print(path, *(f"{value:9.4g}  {label}" for value, label in zip(output, labels, strict=True)), sep="\n")
        continue
    if metadata["output"] == "logits":
        output = tf.nn.softmax(output) if task == "classification" else tf.sigmoid(output)
    output = tf.concat([1 - output, output], 0) if task == "binary" else output
    print(path, *(f"{output[index]:9.2%}  {labels[index]}" for index in tf.argsort(-output)[:5]), sep="\n")
