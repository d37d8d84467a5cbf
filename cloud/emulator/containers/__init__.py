"""Containers without Docker: an interpreter with the image's packages, and processes in namespaces."""
