"""Frozen, validated values that define a trial and its identity; no torch, no files."""
