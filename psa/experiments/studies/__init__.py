"""The studies, one module each: settings and the trials made of them, without any training loop."""
