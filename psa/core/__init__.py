"""Errors, files, locks, random streams, parsing and formatting: nothing here knows of networks or trials."""
