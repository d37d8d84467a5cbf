"""The networks: layers stacked over the trials of a pack, and the families built from them."""
