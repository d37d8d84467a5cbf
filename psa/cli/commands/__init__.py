"""One file per command: its options, and the few lines between them and the library."""
