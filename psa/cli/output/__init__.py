"""The output of commands: documents for --json, and displays of progress."""
