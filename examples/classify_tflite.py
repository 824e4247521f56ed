"""Classifies images with a TFLite file: `python classify_tflite.py MODEL.tflite IMAGE...`.

Needs numpy and ai-edge-litert, and pillow for images other than binary PPM and PGM. Labels and normalisation are in a
ZIP archive at the end of the model file.
"""

import json
import re
import sys
import zipfile

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def read_image(path, height, width, channels, resize):
    """Reads an image, grey or RGB from 0 to 255, and resizes it as in training, with antialiasing.

    `resize` says how an image of other proportions gets this size: `squash`, `crop` its borders, or `pad` with black.
    """
    data = np.fromfile(path, np.uint8)
    if header := re.match(rb"P[56](?:\s|#.*\n)+(\d+)\s+(\d+)\s+255\s", data):
        image = data[header.end() :].reshape(int(header[2]), int(header[1]), -1)
    else:
        from PIL import Image, ImageOps

        image = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    image = np.round(image @ [[0.299], [0.587], [0.114]]) if channels < image.shape[2] else image
    scales = image.shape[0] / height, image.shape[1] / width
    for size in (height, width):  # each round resizes the first axis, then swaps the two
        length, made = len(image), size
        if resize == "crop":
            length = round(size * min(scales))
        if resize == "pad":
            made = min(length / max(scales) + 1e-9, size)
        before, made = int((size - made) / 2), max(1, int(made))
        scale, start = length / made, (len(image) - length) // 2
        centres = scale * (np.arange(made)[:, np.newaxis] + 0.5) - 0.5
        weights = np.maximum(1 - abs(np.arange(length) - centres) / max(scale, 1), 0)
        weights /= weights.sum(axis=1, keepdims=True)
        image = np.tensordot(weights, image[start:][:length], axes=1)
        image = np.pad(image, ((before, size - made - before), (0, 0), (0, 0))).swapaxes(0, 1)
    return np.broadcast_to(np.round(image), (height, width, channels))


sys.excepthook = lambda kind, error, trace: print(f"error: {path}: {error}", file=sys.stderr)  # one line is enough
path, *images = sys.argv[1:] or sys.exit(__doc__)
archive = zipfile.ZipFile(path)
labels, metadata = archive.read("labels.txt").decode().splitlines(), json.loads(archive.read("metadata.json"))
task = metadata.get("task", "classification")
model = Interpreter(path)
model.allocate_tensors()
(source,), (target,) = model.get_input_details(), model.get_output_details()
for path in images:
    pixels = read_image(path, *source["shape"][1:], metadata["input"].get("resize", "crop"))
    pixels = pixels[..., ::-1] if metadata["input"]["channel_order"] == "bgr" else pixels
    values = pixels * metadata["input"]["scale"] + metadata["input"]["offset"]
    (scale, zero_point), dtype = source["quantization"], source["dtype"]
    if scale:  # integers that represent real numbers
        values = np.round(values / scale + zero_point).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    model.set_tensor(source["index"], values[np.newaxis].astype(dtype))
    model.invoke()
    scale, zero_point = target["quantization"]
    output = (model.get_tensor(target["index"])[0].astype(float) - zero_point) * (scale or 1)
    if metadata["output"] == "values":
        print(path, *(f"{value:9.4g}  {label}" for value, label in zip(output, labels, strict=True)), sep="\n")
        continue
    if metadata["output"] == "logits":
        whole = np.logaddexp.reduce(output) if task == "classification" else np.logaddexp(0, output)
        output = np.exp(output - whole)
    output = np.append(1 - output, output) if task == "binary" else output
    print(path, *(f"{output[index]:9.2%}  {labels[index]}" for index in np.argsort(-output)[:5]), sep="\n")
