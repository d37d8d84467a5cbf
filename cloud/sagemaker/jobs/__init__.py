"""Managed jobs: their inputs, their states, and messages about them."""
