"""The command line: options, terminal views, exit codes."""
