"""What a training container holds and runs: the code, the packages its image lacks, and the entry."""
