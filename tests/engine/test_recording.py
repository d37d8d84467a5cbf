"""A training step can be recorded once and played back: by CUDA graphs on a GPU, here by a tape.

No GPU can be had where these tests are run, so the tape stands in for the graph. Like one it knows tensors
and kernels only: what Python would decide or compute anew in the next step is frozen in it. The test at the
end needs a real GPU and is skipped, saying so, where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from psa.data.splits import Split, Splits
from psa.engine import batches as train_batches
from psa.engine import train_step
from psa.engine.batches import Batches, RowSettings, batch_order
from psa.engine.cuda_graph import CudaGraphStep
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import train_epoch
from psa.nn.dense import Dense
from psa.nn.dropout import Dropout
from psa.nn.relu import compiled
from psa.nn.stacked import StackedParams
from psa.specs.model import Family, PublishedModelSpec

ROWS = [
    RowSettings(seed=1, loop=1, dropout=0.0, lr=1e-3, weight_decay=0.0),
    RowSettings(seed=1, loop=1, dropout=0.5, lr=1e-3, weight_decay=0.0),
    RowSettings(seed=1, loop=1, dropout=0.0, lr=1e-3, weight_decay=0.1),
    RowSettings(seed=2, loop=3, dropout=0.1, lr=1e-2, weight_decay=0.0),
]
# They ask the GPU for a number, or bring one to it: neither can stand in a recording.
NOT_IN_A_GRAPH = ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select")


class Tape(TorchDispatchMode):
    """The operations of a piece of work with the tensors they read and wrote; replay() does them again."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, out))
        return out

    def replay(self) -> None:
        """Do the same operations on the same memory."""
        for func, args, kwargs, out in self.operations:
            for before, after in zip(tree_leaves(out), tree_leaves(func(*args, **kwargs)), strict=True):
                if isinstance(before, Tensor) and before.data_ptr() != after.data_ptr():
                    before.copy_(after)


class Taped(CudaGraphStep):
    """A Recorded that tapes its second call, as one on a GPU records it."""

    tapes: list[Tape]

    def __call__(self) -> None:
        """Run, tape, play back."""
        self.calls += 1
        if self.calls == 1:
            self.work()
        elif self.calls == 2:
            self.tape = Tape()
            with self.tape:
                self.work()
            Taped.tapes.append(self.tape)
        else:
            with torch.no_grad():
                self.tape.replay()


def trained(family: Family, arch: str, split: Split) -> tuple[Tensor, Tensor]:
    """Mean losses and all weights after one epoch of ROWS in batches of 64, where the samples lie."""
    net = Dense(PublishedModelSpec.model_validate({"family": family, "arch": arch}), 10)
    rows = [ROWS[at] for at in batch_order(ROWS)]
    active = StackedParams.stacked([net.initial(row.seed) for row in rows]).to(split.images.device)
    gradients = active.zeros_like()
    optimizer = optimizer_for("adamw", rows, active, gradients)
    losses = train_epoch(net, rows, active, gradients, optimizer, Batches(rows, split, 64))
    return losses, torch.cat(active.parts, dim=1)


@pytest.mark.parametrize("family", ["simplemlp", "resmlp"])
@pytest.mark.parametrize("arch", ["1*16", "3*5", "2*4,1*7"])
def test_a_step_that_is_played_back_trains_as_one_that_is_run(
    family: Family, arch: str, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the bit over a whole epoch: samples, step number and dropout are read from tensors each time."""
    plain = trained(family, arch, small.train)
    Taped.tapes = []
    monkeypatch.setattr(train_step, "CudaGraphStep", Taped)
    # a GPU draws the same masks by tensors (tests/nn/test_nets.py) and has no use for numba
    monkeypatch.setattr(Dropout, "_masks_by_numpy", Dropout._masks_by_torch)
    monkeypatch.setattr(compiled, "is_installed", lambda: False)
    monkeypatch.setattr(train_batches, "is_installed", lambda: False)
    taped = trained(family, arch, small.train)
    assert all(torch.equal(one, other) for one, other in zip(plain, taped, strict=True))
    names = {str(func) for tape in Taped.tapes for func, *_ in tape.operations}
    assert Taped.tapes
    assert not [name for name in names if any(word in name for word in NOT_IN_A_GRAPH)]


def test_a_tape_notices_what_python_computes_anew() -> None:
    """The stand-in can fail: a number that Python counts up is frozen in it, one in a tensor is not."""

    def replayed(work: Callable[[], None]) -> None:
        call = Taped(work, torch.device("cpu"))
        for _ in range(4):
            call()

    Taped.tapes = []
    count, total = [0], torch.zeros(())

    def by_python() -> None:
        count[0] += 1
        total.add_(count[0])

    replayed(by_python)
    assert float(total) == 1 + 2 + 2 + 2
    number, total = torch.zeros(()), torch.zeros(())

    def by_tensor() -> None:
        number.add_(1)
        total.add_(number)

    replayed(by_tensor)
    assert float(total) == 1 + 2 + 3 + 4


def test_without_a_gpu_every_call_runs() -> None:
    """Nothing is recorded on the CPU."""
    calls: list[int] = []
    work = CudaGraphStep(lambda: calls.append(1), torch.device("cpu"))
    for _ in range(3):
        work()
    assert len(calls) == 3
    assert work.graph is None


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU: CUDA graphs run nowhere else")
def test_a_cuda_graph_trains_as_the_cpu_does(small: Splits, caplog: pytest.LogCaptureFixture) -> None:
    """Close to the CPU's weights after an epoch, and recorded without a warning."""
    one = small.train
    there = one.to("cuda")
    losses, weights = trained("resmlp", "3*5", one)
    found, found_weights = trained("resmlp", "3*5", there)
    assert torch.allclose(found.cpu(), losses, rtol=1e-4)
    assert torch.allclose(found_weights.cpu(), weights, rtol=1e-3, atol=1e-4)
    assert not caplog.records
