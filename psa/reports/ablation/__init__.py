"""The report of the ablation study."""
