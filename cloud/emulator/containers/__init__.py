"""Containers without Docker: an interpreter as the image has it, and processes."""
