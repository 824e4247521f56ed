"""Networks by name: the paper's, `keras.applications`, and files."""
