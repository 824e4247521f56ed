"""The run folder: where results lie, and which steps are done."""
