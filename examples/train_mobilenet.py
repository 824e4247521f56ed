"""Trains MobileNetV2 on Fashion-MNIST with plain Keras and saves it, as an example of a user's existing model.

    python examples/train_mobilenet.py mobilenet.keras [epochs]

The script doesn't use tas_tf. It resizes images from 28x28 to 32x32 and scales pixels to [-1, 1] for MobileNetV2.
"""

import sys

import keras

path, epochs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 6
keras.utils.set_random_seed(0)


def prepare(images):
    """Turns pixels from 0 to 255, `[n, 28, 28]`, into images from -1 to 1, `[n, 32, 32, 1]`."""
    images = images[..., None].astype("float32")
    return keras.ops.convert_to_numpy(keras.ops.image.resize(images, (32, 32)) / 127.5 - 1.0)


(train_images, train_labels), (test_images, test_labels) = keras.datasets.fashion_mnist.load_data()
model = keras.applications.MobileNetV2(alpha=0.5, input_shape=(32, 32, 1), weights=None, classes=10)
for layer in model.layers:
    if isinstance(layer, keras.layers.BatchNormalization):
        layer.momentum = 0.9  # with 0.999, the initial statistics would outlast these few epochs
steps = epochs * len(train_images) // 128
model.compile(
    keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
    loss="sparse_categorical_crossentropy",
    metrics=["accuracy"],
)
test = prepare(test_images), test_labels
model.fit(prepare(train_images), train_labels, batch_size=128, epochs=epochs, validation_data=test, verbose=2)
model.save(path)
