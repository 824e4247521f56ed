"""Command-line entry points, one module for each command."""

from tas_tf.quiet import import_tensorflow

# This must happen before a command imports the library, which imports TensorFlow.
import_tensorflow()
