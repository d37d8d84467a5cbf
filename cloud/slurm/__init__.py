"""Slurm: each pack is a task of a job array, trained on a node and stored on the shared folder."""
