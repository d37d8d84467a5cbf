"""The figures of the ablation study: numbers and axes in, axes out."""
