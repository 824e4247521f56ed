"""Shapes found without a search, and the rivals of a report."""
