"""What may change: candidates, units, stages, and shapes."""
