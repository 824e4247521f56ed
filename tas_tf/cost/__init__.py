"""What a shape costs, exactly and in expectation."""
