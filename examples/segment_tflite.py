"""Finds the class of each pixel with a TFLite file: `python segment_tflite.py MODEL.tflite IMAGE...`.

Writes `IMAGE_mask.png`, a picture of the size of the image whose colours are classes, and prints the share of each
class. Needs numpy, pillow and ai-edge-litert. Labels and normalisation are in a ZIP archive at the end of the model
file.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


def palette(count):
    """Colours of the classes: black for the first, then colours that differ clearly."""
    return [255 * (number >> bit & 1) // (1 + number // 8) for number in range(count) for bit in range(3)]


sys.excepthook = lambda kind, error, trace: print(f"error: {path}: {error}", file=sys.stderr)  # one line is enough
path, *images = sys.argv[1:] or sys.exit(__doc__)
archive = zipfile.ZipFile(path)
labels, metadata = archive.read("labels.txt").decode().splitlines(), json.loads(archive.read("metadata.json"))
model = Interpreter(path)
model.allocate_tensors()
(source,), (target,) = model.get_input_details(), model.get_output_details()
_, height, width, channels = source["shape"]
for path in images:
    picture = Image.open(path).convert("L" if channels == 1 else "RGB")
    pixels = np.asarray(picture.resize((width, height), Image.BILINEAR), float).reshape(height, width, channels)
    pixels = pixels[..., ::-1] if metadata["input"]["channel_order"] == "bgr" else pixels
    values = pixels * metadata["input"]["scale"] + metadata["input"]["offset"]
    (scale, zero_point), dtype = source["quantization"], source["dtype"]
    if scale:  # integers that represent real numbers
        values = np.round(values / scale + zero_point).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    model.set_tensor(source["index"], values[np.newaxis].astype(dtype))
    model.invoke()
    scale, zero_point = target["quantization"]
    output = (model.get_tensor(target["index"])[0].astype(float) - zero_point) * (scale or 1)
    if output.shape[-1] == 1:  # yes or no for each pixel
        classes = output[..., 0] > (0 if metadata["output"] == "logits" else 0.5)
    else:
        classes = output.argmax(-1)
    mask = Image.fromarray(classes.astype(np.uint8)).resize(picture.size, Image.NEAREST)
    mask.putpalette(palette(max(2, len(labels))))
    mask.save(Path(path).with_name(f"{Path(path).stem}_mask.png"))
    names = labels if len(labels) > 1 else ["no", "yes"]
    print(path, *(f"{np.mean(classes == number):9.2%}  {name}" for number, name in enumerate(names)), sep="\n")
