"""The report of the gradient study."""
