"""Fits the race and the training of the student into a given time."""
