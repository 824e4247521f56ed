"""Writes, checks and measures what gets deployed."""
