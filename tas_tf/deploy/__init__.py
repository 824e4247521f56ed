"""SavedModel and TFLite files: written, checked, timed."""
