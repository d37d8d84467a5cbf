"""Tests of the plugin as an installed package: `pip install --no-deps --editable .` comes first."""

import numpy as np
import psa_plugin_example
import pytest

from psa import Experiment


def test_a_bottleneck_halves_every_width() -> None:
    """Each hidden layer is followed by one of half its width."""
    shape = psa_plugin_example.bottleneck((8, 1), 10, (28, 28))
    assert [(layer.inputs, layer.outputs) for layer in shape.linears] == [
        (784, 8),
        (8, 4),
        (4, 1),
        (1, 1),
        (1, 10),
    ]


def test_a_neuron_of_the_first_layer_is_chosen() -> None:
    """Any of them, and no other."""
    shape, draws = psa_plugin_example.bottleneck((8,), 10, (28, 28)), np.random.default_rng(1)
    units = [psa_plugin_example.choose_input(shape, draws) for _ in range(200)]
    assert {unit.layer for unit in units} == {0}
    assert {unit.number for unit in units} == set(range(8))


def test_psa_finds_the_plugin() -> None:
    """Its names are known in grids, and trials say what they use."""
    grid = Experiment("example", base={"arch": "1*4"}, axes={"mode": ["none", "input"]}).grid
    assert [[use.name for use in trial.plugins] for trial in grid.trials] == [
        ["bottleneck", "norms"],
        ["bottleneck", "input", "norms"],
    ]


def test_an_unknown_mode_is_refused() -> None:
    """With the names that are known."""
    with pytest.raises(Exception, match="Did you mean 'input'"):
        Experiment("example", base={"arch": "1*4", "mode": "inptu"})
