"""Errors, files, locks, random streams, parsing and formatting, independent of networks and trials."""
