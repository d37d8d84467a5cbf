"""Errors, files, locks, streams, parsing, formatting and plugins, independent of networks and trials."""
