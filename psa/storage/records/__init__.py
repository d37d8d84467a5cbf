"""Records of trials: their fields, their files, and bundles of many."""
