"""The network in which every shape of a space is one way of masking."""
