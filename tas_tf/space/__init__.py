"""What the search may change: candidates, units, stages and shapes."""
