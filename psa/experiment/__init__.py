"""Experiments from Python: the content of a grid file as arguments, and `psa sweep` as a method.

results = Experiment("activations", name="mine", axes={"activation": ["ReLU", "Tanh"]}, epochs=5).run()
print(results)
"""

from psa.experiment.definition import Experiment
from psa.experiment.results import Results

__all__ = ["Experiment", "Results"]
