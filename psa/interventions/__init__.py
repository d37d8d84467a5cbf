"""Changes to a network besides gradient steps: ablation, growth, and memory in the forward pass."""
