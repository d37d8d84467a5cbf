"""What runs: one file per study; each names pieces and has no loops."""
