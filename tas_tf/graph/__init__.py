"""A Keras model read into nodes."""
