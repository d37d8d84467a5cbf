"""The commands about jobs on SageMaker that users know by name; they look, and start nothing."""
