"""The report of memory and growth."""
