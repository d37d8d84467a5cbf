"""Managed jobs: their inputs, their course, and what is said of them."""
