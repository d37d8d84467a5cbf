"""Training on devices without float64, which Apple GPUs are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from helpers import kept_trial, run, trial
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from psa.data.splits import Splits
from psa.execution.machine import Machine
from psa.nn import precision
from psa.specs.trial import Trial


class WithoutFloat64(TorchDispatchMode):
    """Raise a TypeError where a tensor of float64 is made, as Apple GPUs do."""

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run an operation of torch."""
        found = func(*args, **(kwargs or {}))
        for each in found if isinstance(found, tuple | list) else (found,):
            if isinstance(each, Tensor) and each.dtype == torch.float64:
                raise TypeError(f"{func} makes a tensor of float64")
        return found


@pytest.mark.parametrize(
    "one",
    [
        trial("1*4", "full"),
        trial("1*4", "dropout"),
        kept_trial("1*4", optimizer="sgd", momentum=0.9),
        trial("1*4", "hidden", optimizer_state="persistent", patience=2),
    ],
    ids=["full", "dropout", "sgd", "persistent"],
)
def test_nothing_of_training_needs_float64(
    one: Trial, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs, evaluations and tests; without the patch the first loss is refused."""
    expected, tests = run([one], small, 2)
    with WithoutFloat64(), pytest.raises(TypeError, match="float64"):
        run([one], small, 2)
    monkeypatch.setattr(precision, "_WITHOUT_FLOAT64", {"cpu"})
    with WithoutFloat64():
        found, tested = run([one], small, 2)
    assert [each.correct for each in tested] == [each.correct for each in tests]
    for state, other in zip(found, expected, strict=True):
        for name, values in other.history.items():
            assert state.history[name] == (pytest.approx(values, rel=1e-5) if "loss" in name else values)


def test_an_apple_gpu_is_taken_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks are not known to be faster there."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: True)
    assert Machine().prepare().type == "cpu"
    assert Machine(device="mps").prepare().type == "mps"
