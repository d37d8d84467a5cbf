"""Backends on other machines: Ray clusters and SageMaker, with the same interface as the local backend."""
