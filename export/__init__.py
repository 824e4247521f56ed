"""The command that writes, checks and measures what gets deployed."""

from tas_tf.quiet import import_tensorflow

# Before the command imports the library, and TensorFlow with it.
import_tensorflow()
