"""The pruned network of a shape, and the weights that it inherits."""
