"""Writes, checks and times SavedModel and TFLite files."""
