"""Readers for the artifacts and logs of the original study's jobs."""
