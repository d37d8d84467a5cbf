"""The content of a training container: the code, the packages that its image lacks, and the entry point."""
