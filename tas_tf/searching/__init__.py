"""Differentiable search: single steps, whole runs and their reports."""
