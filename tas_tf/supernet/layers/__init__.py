"""Keras layers that the supernet is made of, one topic a file."""
