"""Shapes found without a search, and the rival students of a report."""
