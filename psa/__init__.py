"""psa: train very many small neural networks at once, as a scientific study."""

__version__ = "0.1.0"
