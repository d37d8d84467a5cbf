"""Backends on other machines: Ray, Slurm and SageMaker, with the same interface as the local backend."""
