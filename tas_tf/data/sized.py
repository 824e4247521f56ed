"""The size of images for networks that take any size."""

from __future__ import annotations

import keras

from tas_tf.data.form import Form
from tas_tf.data.stream import UserData, open_stream
from tas_tf.graph.image_size import takes_any_size, with_image_size
from tas_tf.graph.packing import names_of


def at_size_of(train: UserData, model: keras.Model) -> keras.Model:
    """Returns the model at the size of the training images if it takes any size, else the model itself.

    Raises:
        UserError: The data has a form that isn't known, or the model can't take its images.
    """
    if not takes_any_size(model):
        return model
    outputs = names_of(model, "outputs")
    stream = open_stream("train", train, Form(("images",), (tuple(model.inputs[0].shape[1:]),), outputs))
    return with_image_size(model, stream.shapes[0])
