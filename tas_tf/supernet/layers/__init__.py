"""Keras layers of the supernet, one topic per file."""
