"""Shapes within a budget that are worth training, from several sources."""
