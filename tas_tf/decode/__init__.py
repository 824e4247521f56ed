"""From probabilities to a shape within a budget."""
