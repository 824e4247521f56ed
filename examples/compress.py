# %% [markdown]
# # From `keras.applications` to a tested `.tflite` file
#
# A trained MobileNet is made half as expensive, exported to int8 and measured beside the original, on scikit-learn's
# handwritten digits: nothing is downloaded. It takes a few minutes on two cores. Install `pip install ".[report]"`, and
# Jupyter for the notebook. `examples/compress.py` is the same as a program.

# %% [markdown]
# ## 1. Settings
# For a real network, train the student longer: 50 epochs are the default. `BUDGET` may also be `"params:100k"`,
# `"bytes:200k"` or `"latency:0.5"`.

# %%
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import tas_tf

BUDGET = "macs:0.5"
TEACHER_EPOCHS, STUDENT_EPOCHS, PROPOSALS = 16, 16, 4
FOLDER = Path("compressed")
keras.utils.set_random_seed(0)

# %% [markdown]
# ## 2. Data
# Grey digits of 8x8, enlarged to colour images of 32x32 from -1 to 1, as MobileNet takes them. Your own data may be
# arrays, a `tf.data.Dataset` or a `PyDataset`, scaled as your model takes it.

# %%
digits = load_digits()
images = keras.ops.image.resize(digits.images[..., None].astype("float32") / 8 - 1, (32, 32))
images = np.repeat(keras.ops.convert_to_numpy(images), 3, axis=-1)
order = np.random.default_rng(0).permutation(len(images))
images, labels = images[order], digits.target[order]
train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])

figure, axes = plt.subplots(1, 10, figsize=(10, 1.3))
for image, label, place in zip(*train, axes, strict=False):
    place.imshow((image + 1) / 2)
    place.set_title(label)
    place.axis("off")
plt.show()

# %% [markdown]
# ## 3. The model
# Built and trained here, since weights would be a download. Yours is `keras.models.load_model("mine.keras")`.

# %%
model = keras.applications.MobileNet(input_shape=(32, 32, 3), alpha=0.25, dropout=0.0, weights=None, classes=10)
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.9  # with 0.99, the initial statistics would outlast the first epochs
rate = keras.optimizers.schedules.CosineDecay(5e-3, TEACHER_EPOCHS * len(train[0]) // 32)
model.compile(keras.optimizers.Adam(rate), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
history = model.fit(*train, validation_data=test, epochs=TEACHER_EPOCHS, batch_size=32, verbose=0).history

plt.figure(figsize=(5, 2.5))
for name, line in (("accuracy", "training"), ("val_accuracy", "test")):
    plt.plot(range(1, TEACHER_EPOCHS + 1), history[name], label=line)
plt.xlabel("epoch")
plt.ylabel("accuracy")
plt.legend()
plt.show()

# %% [markdown]
# ## 4. What can shrink
# Each row is a layer whose number of filters may change, with the numbers that are tried.

# %%
print(tas_tf.describe(model))

# %% [markdown]
# ## 5. The smaller model
# Candidate shapes within the budget race; the winner is trained by distillation from the model. The test images only
# give scores.

# %%
result = tas_tf.compress(
    model,
    train,
    test,
    budget=BUDGET,
    race={"proposals": PROPOSALS},
    training={"epochs": STUDENT_EPOCHS},
    verbose=0,
)
for name, metrics in (("model", result.teacher_metrics), ("student", result.student_metrics)):
    print(f"{name}: accuracy {metrics['accuracy']:.1%}, {metrics['macs']:,} MACs, {metrics['params']:,} parameters")

# %% [markdown]
# ## 6. What was kept

# %%
space = tas_tf.SearchSpace.from_model(model)
names = [unit.name for unit in space.units]
plt.figure(figsize=(8, 2.5))
plt.bar(names, [unit.width for unit in space.units], color="lightgrey", label="model")
plt.bar(names, [result.shape.widths[name] for name in names], label="student")
plt.xticks(rotation=60, ha="right")
plt.ylabel("filters")
plt.legend()
plt.show()

# %% [markdown]
# ## 7. The files
# Each file is compared with its Keras model before it is put in place. Int8 takes its ranges from training images.

# %%
FOLDER.mkdir(exist_ok=True)
result.student.save(FOLDER / "student.keras")
files = {}
for name, network in (("model", model), ("student", result.student)):
    for format in ("fp32", "int8"):
        files[f"{name}, {format}"] = tas_tf.export_tflite(
            network,
            FOLDER / f"{name}_{format}.tflite",
            format=format,
            calibration=train[0][:200],
            metadata=result.metadata,
        )
print(*(f"{path}: {path.stat().st_size / 1000:.0f} kB" for path in files.values()), sep="\n")

# %% [markdown]
# ## 8. Accuracy and latency
# Accuracy on the test images, and the median time of one image, for files on one thread, beside the Keras models. They
# take turns, so that a busy moment meets all of them.

# %%
runs, accuracy = {}, {}
for name, network in (("model, Keras", model), ("student, Keras", result.student)):
    runs[name] = lambda network=network: network.predict_on_batch(test[0][:1])
    accuracy[name] = np.mean(network.predict(test[0], verbose=0).argmax(1) == test[1])
for name, path in files.items():
    loaded = tas_tf.TFLiteModel(path)
    runs[name] = loaded.bind(test[0][:1])
    accuracy[name] = np.mean(loaded.predict(test[0]).argmax(1) == test[1])

times = {name: [] for name in runs}
for _ in range(60):
    for name, run in runs.items():
        began = time.perf_counter()
        run()
        times[name].append(1000 * (time.perf_counter() - began))
latency = {name: float(np.median(own[10:])) for name, own in times.items()}
for name in runs:
    print(f"{name:15} accuracy {accuracy[name]:6.1%}  latency {latency[name]:8.3f} ms")

# %% [markdown]
# ## 9. Side by side

# %%
figure, panels = plt.subplots(1, 3, figsize=(10, 2.5))
sizes = [path.stat().st_size / 1000 for path in files.values()]
rows = {
    "size, kB": sizes,
    "latency, ms": [latency[name] for name in files],
    "accuracy": [accuracy[name] for name in files],
}
for panel, (title, values) in zip(panels, rows.items(), strict=True):
    panel.barh([*files], values, color=["lightgrey", "grey", "tab:blue", "tab:orange"])
    panel.invert_yaxis()
    panel.set_title(title)
for panel in panels[1:]:
    panel.set_yticks([])
plt.show()

# %% [markdown]
# ## 10. On a device
# The files carry their labels and normalisation, and `examples/classify_tflite.py` runs them without this package. The
# array is for microcontrollers.

# %%
names_of_classes = tas_tf.read_metadata(files["student, int8"])["labels"]
predicted = tas_tf.TFLiteModel(files["student, int8"]).predict(test[0]).argmax(1)
for index in np.flatnonzero(predicted != test[1])[:5]:
    print(f"test image {index}, a {test[1][index]}, was read as {names_of_classes[predicted[index]]}")
print(tas_tf.export_c_array(files["student, int8"], FOLDER / "student.cc"))
