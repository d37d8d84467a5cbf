"""Declared experiments: studies, grids, stages, searches, and the sweep that carries them out."""
