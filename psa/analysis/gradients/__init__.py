"""Read, cluster, embed and export stored per-sample gradients."""
