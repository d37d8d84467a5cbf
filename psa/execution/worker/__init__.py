"""The worker process, and the only code that starts training."""
