"""Gradients of samples of networks that are more than a plain one: convolutions, memories, growth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import net_trial, run
from memories import memory

from psa.analysis.gradients.export import planned
from psa.analysis.gradients.file import GradientFile
from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.execution.worker.record import probes_for
from psa.specs.arch import Arch
from psa.specs.growth import Growth
from psa.specs.model import NetworkSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial
from psa.storage.array_file import ArrayFile, Arrays
from psa.storage.trial_state import TrialState

ONLINE = "gradients_online"


def arm(family: str = "mlp", arch: str = "2*9", probes: tuple[str, ...] = (ONLINE,), **parts: Any) -> Trial:
    """A trial of ordinary training, with or without interventions."""
    method = StandardTraining(optimizer="adam", lr=1e-3, batch_size=64)
    model = NetworkSpec(family=family, arch=Arch.coerce(arch))
    return Trial(model=model, method=method, probes=probes, **parts)


def kept_of(trial: Trial, splits: Splits, loops: int) -> dict[str, Arrays]:
    """What is kept while it is trained, by the name of the file."""
    found: dict[str, Arrays] = {}

    def keep(_state: TrialState, name: str, arrays: Arrays) -> dict[str, Any]:
        found[name] = {key: array.copy() for key, array in arrays.items()}
        return {"sha256": name, "bytes": 1}

    run([trial], splits, loops, keep=keep)
    return found


@pytest.mark.parametrize("probe", [ONLINE, "gradients"])
def test_convolutions_are_refused_and_the_layers_behind_them_are_not(small: Splits, probe: str) -> None:
    """delta has a number for every place of every image: its outer product with one input is no gradient."""
    with pytest.raises(UserError, match=r"layer conv.0 must be linear, got a convolution"):
        kept_of(arm("cnn", "1*2, 1*5", (probe,)), small, 1)
    found = kept_of(arm("cnn", "1*2, 1*5", (f"{probe}(layers=hidden.0+output)",)), small, 1)
    (arrays,) = found.values()
    assert arrays["hidden.0.delta"].shape == (600, 5)
    assert arrays["hidden.0.activation"].shape == (600, 2 * 14**2)


def test_a_network_with_a_memory_is_followed_too(small: Splits) -> None:
    """Every sample once; delta of the output is softmax minus one-hot, also behind the memory; and an idle
    memory leaves the numbers of the network without one. Looking changes nothing.
    """
    acting, idle = (arm(memory=memory(control=control)) for control in ("none", "inactive"))
    found = kept_of(acting, small, 2)[f"{ONLINE}-2"]
    assert sorted(found["index"]) == sorted(small.train.index.tolist())
    np.testing.assert_allclose(found["output.delta"].sum(axis=1), 0, atol=1e-5)
    np.testing.assert_array_equal(found["output.delta"].argmin(axis=1), found["label"])
    plain = kept_of(arm(), small, 2)[f"{ONLINE}-2"]
    assert any((found[name] != plain[name]).any() for name in plain)
    for name, array in kept_of(idle, small, 2)[f"{ONLINE}-2"].items():
        np.testing.assert_array_equal(array, plain[name], err_msg=name)
    (seen,), _ = run([acting], small, 2, keep=lambda *_: {"sha256": "0", "bytes": 1})
    (blind,), _ = run([arm(probes=(), memory=memory(control="none"))], small, 2)
    for name, tensor in blind.lkg.items():
        assert np.array_equal(tensor, seen.lkg[name]), name


def test_a_checkpoint_with_a_memory_is_refused() -> None:
    """Its gradients would be those of another function: the network alone."""
    trial = arm(probes=("gradients(layers=output)",), memory=memory())
    with pytest.raises(UserError, match=r"sees a network without its memory.*probe gradients_online"):
        probes_for(trial)
    assert probes_for(arm(memory=memory()))
    assert probes_for(net_trial("1*4", probes=("gradients",)))


@pytest.mark.parametrize(("schedule", "interval"), [("epoch", 1), ("fixed_step", 4)])
def test_a_network_that_grows(small: Splits, schedule: Any, interval: int) -> None:
    """Each file has the layers and widths of the network of its epoch, read back and exported."""
    trial = arm(growth=Growth(schedule=schedule, width=3, depth=1, max_depth=4, interval=interval))
    found = kept_of(trial, small, 3)
    for epoch, (depth, width) in enumerate(((2, 9), (3, 12), (4, 15)), 1):
        name = f"{ONLINE}-{epoch}"
        kept = GradientFile(ArrayFile(Path(name), {"name": name}, found[name]), trial, Path())
        assert kept.layers == [*(f"hidden.{number}" for number in range(depth)), "output"]
        assert kept.parameters["hidden.0.weight"] == (width, 784)
        assert kept.parameters["output.weight"] == (10, width)
        assert kept.parameters[f"hidden.{depth - 1}.bias"] == (width,)
        shapes = {each.parameter: each.shape for each in planned(kept)}
        assert shapes == kept.parameters
        for layer in kept.layers[1:]:
            assert kept.layer(layer, slice(3)).dense(slice(None)).shape[1:] == shapes[f"{layer}.weight"]
