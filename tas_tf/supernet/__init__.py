"""The supernet: the full-size network that computes any shape of a space by masking."""
