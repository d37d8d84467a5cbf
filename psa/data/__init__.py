"""Data sets, published and your own: their sources and checksums, and the splits as tensors."""
