"""What users call with a model and data: the whole way to a smaller network, and its parts."""
