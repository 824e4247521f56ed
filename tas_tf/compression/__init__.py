"""The functions that users call with a model and data: `compress`, and its parts `search` and `distill`."""
