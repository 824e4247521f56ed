"""Variables of Keras and of TensorFlow."""

import keras
import tensorflow as tf


def tensorflow_variable(variable: keras.Variable | tf.Variable) -> tf.Variable:
    """The variable of TensorFlow that one of Keras holds, or the variable itself."""
    # Those of TensorFlow have a method of the name `value`.
    return variable.value if isinstance(variable, keras.Variable) else variable
