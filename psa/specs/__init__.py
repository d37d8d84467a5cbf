"""Frozen, validated values that say what a trial is, and its identity; no torch, no files."""
