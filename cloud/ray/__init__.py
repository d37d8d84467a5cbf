"""The Ray backend: packs as trials of Ray Tune, and searches."""
