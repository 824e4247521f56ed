"""Command-line entry points: one module a command."""

from tas_tf.quiet import import_tensorflow

# Before any command imports the library, and TensorFlow with it.
import_tensorflow()
