"""Published data sets: where they come from, their checksums, and the splits as tensors."""
