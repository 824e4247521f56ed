"""Turns probabilities into a shape within a budget."""
