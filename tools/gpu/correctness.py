"""Correctness on a device: a check returns what it found, and raises CheckFailure if that must not be.

On the CPU results must be the same to the bit. On a GPU kernels round differently, and a result is close if
the weights after one loop differ by less than CLOSE of the way that they moved. On CPUs the rounding of
float32 alone makes 4e-7 to 8e-6 of it (both families, MNIST and made-up samples, 2026-11).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from gpu.checks import Figures, require
from gpu.setting import CPU, FAMILIES, Setting, arms, beginning, slow_twin, train
from psa.data.splits import Splits
from psa.engine.batches import RowSettings
from psa.engine.train_step import DropoutPlan
from psa.nn.dense import Dense
from psa.specs.arch import Arch
from psa.specs.memory import Memory
from psa.specs.model import NetworkSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import TrialState, decode_state, encode_state

CLOSE: Final = 3e-4
POINTS: Final = 1.0  # of accuracy, between a loop of the device and that of the CPU from the same weights
LOOPS: Final = 3
ARCHS: Final = ("2*16", "3*5, 1*40")
WHOLE_LOOPS: Final = (20_000, 5_000, 500)  # samples of the loops that are compared with the CPU's


def dropout_masks(setting: Setting) -> tuple[str, Figures]:
    """Compare the dropout masks of the device with the integers of the slow twin, to the bit."""
    twin, masks, wrong = slow_twin(), 0, 0
    trials = [trial for trial in arms("simplemlp", "2*16", range(3)) if trial.model.dropout]
    rows = [RowSettings(trial.seed, 7, trial.model.dropout, 1e-3, 0.0) for trial in trials]
    plan = DropoutPlan(rows, setting.device, {0: 16, 1: 16})
    for step in (0, 195):
        drawn = plan.at(torch.tensor(step, dtype=torch.int32, device=setting.device))
        for layer, width, batch in ((0, 16, 64), (1, 16, 64), (0, 5, 33)):
            mask = drawn.mask(layer, width, batch).cpu() if drawn is not None else torch.empty(0)
            for row, trial in enumerate(trials):
                expected = twin.Dropout(trial, 7)(torch.ones(width, batch), step, layer)
                masks, wrong = masks + 1, wrong + (not torch.equal(mask[row], expected))
    figures: Figures = {"masks": masks, "different": wrong}
    require(
        wrong == 0, f"dropout masks must equal the reference to the bit; {wrong} of {masks} differ", figures
    )
    return f"{masks} masks equal the reference to the bit", figures


def engine_beside_twin(setting: Setting) -> tuple[str, Figures]:
    """Compare the engine with the slow twin: all modes of both families, for three loops."""
    distances, trials = [], 0
    for family in FAMILIES:
        for arch in ARCHS:
            pack = arms(family, arch, [3])
            trials += len(pack)
            if setting.is_cpu:
                _same_bits(pack, setting)
            distances.append(_close_to_exact(pack, setting))
    figures: Figures = {"trials": trials, "distance": max(distances), "tolerance": CLOSE}
    bits = " to the bit, and" * setting.is_cpu
    return f"{trials} trials agree with the reference{bits} within {max(distances):.1e} in float64", figures


def _same_bits(pack: list[Trial], setting: Setting) -> None:
    """Require that weights, history and test count are the twin's on the CPU."""
    twin = slow_twin()
    states, tests = train(pack, setting.corner, LOOPS, setting)
    for trial, state, test in zip(pack, states, tests, strict=True):
        outcome = twin.train(trial, setting.corner, LOOPS)
        weights = [np.array_equal(a, b.numpy()) for a, b in zip(state.lkg.values(), outcome.lkg, strict=True)]
        same = all(weights) and _rows(state) == outcome.rows and test.correct == outcome.test
        require(
            same, f"{trial.id} must equal the reference to the bit", {"distance": _moved(state, outcome.lkg)}
        )


def _rows(state: TrialState) -> list[tuple[int, int, bool, tuple[int, int] | None]]:
    """Return the history as the twin has it."""
    columns = (state.history[name] for name in ("loop", "correct", "kept", "layer", "unit"))
    return [
        (loop, correct, kept, None if layer is None else (layer, unit))
        for loop, correct, kept, layer, unit in zip(*columns, strict=True)
    ]


def _close_to_exact(pack: list[Trial], setting: Setting) -> float:
    """Require that the weights after a loop are close to those that the twin trains in float64, and that the
    same units are ablated in later loops. Return the largest distance.
    """
    twin, distances = slow_twin(), []
    exact = _in_float64(setting.corner)
    states, _ = train(pack, setting.corner, 1, setting)
    later, _ = train(pack, setting.corner, LOOPS, setting)
    for trial, state, more in zip(pack, states, later, strict=True):
        distance = _moved(state, twin.train(trial, exact, 1).lkg)
        distances.append(distance)
        message = (
            f"{trial.id}: weights must be within {CLOSE:.0e} of the reference, and are {distance:.1e} away"
        )
        require(distance <= CLOSE, message, {"distance": distance})
        units = [unit for *_, unit in twin.train(trial, setting.corner, LOOPS).rows]
        found = [unit for *_, unit in _rows(more)]
        require(found == units, f"{trial.id}: the units that are ablated must be the reference's", {})
    return max(distances)


def _in_float64(splits: Splits) -> Splits:
    train, val, test = (
        dataclasses.replace(part, images=part.images.double())
        for part in (splits.train, splits.val, splits.test)
    )
    return dataclasses.replace(splits, train=train, val=val, test=test)


def _moved(state: TrialState, expected: Sequence[Tensor]) -> float:
    """Return the distance of the LKG from other weights, as a share of the way that those moved."""
    net = Dense(state.trial.model, state.trial.data.classes)
    began = _flat([torch.as_tensor(each) for each in net.unstack(net.initial(state.trial.seed)).values()])
    mine, theirs = _flat([torch.from_numpy(each) for each in state.lkg.values()]), _flat(expected)
    return float((mine - theirs).norm() / (theirs - began).norm())


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().to(torch.float64).reshape(-1) for tensor in tensors])


def resume(setting: Setting) -> tuple[str, Figures]:
    """Interrupt a run in its second loop, store its states, continue them: the same bits as undisturbed."""
    same = total = 0
    for family in FAMILIES:
        pack = arms(family, "2*16", [5])
        whole, _ = train(pack, setting.corner, LOOPS, setting)
        again, _ = train(pack, setting.corner, LOOPS, setting)
        require(_bytes(again) == _bytes(whole), "two runs of one pack must give the same bits", {})
        half, _ = train(pack, setting.corner, LOOPS, setting, killed_after=13)  # ten steps are a loop
        loops = {state.loops for state in half}
        require(loops == {1}, f"the interrupted run must have stored 1 loop, not {sorted(loops)}", {})
        stored = [decode_state(encode_state(state), state.trial.id) for state in half]
        ended, _ = train(pack, setting.corner, LOOPS, setting, states=stored)
        same += sum(a == b for a, b in zip(_bytes(ended), _bytes(whole), strict=True))
        total += len(pack)
    figures: Figures = {"trials": total, "same": same}
    require(
        same == total, f"resumed trials must have the same bits; {total - same} of {total} differ", figures
    )
    return f"{total} trials resume to the same bits", figures


def _bytes(states: Sequence[TrialState]) -> list[bytes]:
    return [encode_state(state) for state in states]


def packs(setting: Setting) -> tuple[str, Figures]:
    """Train twelve trials as one pack and as packs of 5 and 7."""
    same, total, distances = 0, 0, [0.0]
    for family in FAMILIES:
        pack = arms(family, "2*16", [1, 2])
        whole, _ = train(pack, setting.corner, 1, setting)
        parts = [
            state for part in (pack[:5], pack[5:]) for state in train(part, setting.corner, 1, setting)[0]
        ]
        for one, other in zip(parts, whole, strict=True):
            same += encode_state(one) == encode_state(other)
            distances.append(_moved(one, [torch.from_numpy(each) for each in other.lkg.values()]))
        total += len(pack)
    figures: Figures = {"trials": total, "same": same, "distance": max(distances)}
    if setting.is_cpu:
        require(same == total, f"trials must have the same bits in any pack; {total - same} differ", figures)
    message = f"trials must be within {CLOSE:.0e} in any pack, and are {max(distances):.1e} apart"
    require(max(distances) <= CLOSE, message, figures)
    return (
        f"{same} of {total} trials have the same bits in both packs, all within {max(distances):.1e}",
        figures,
    )


def closeness(setting: Setting) -> tuple[str, Figures]:
    """Compare the accuracy after each loop with the CPU's, both from the weights that the CPU stored."""
    splits = setting.corner if setting.is_cpu else beginning(setting.splits, WHOLE_LOOPS)
    points = []
    for family in FAMILIES:
        pack = arms(family, "2*32", [0])
        states: list[TrialState] | None = None
        for number in range(1, LOOPS + 1):
            # both continue what the CPU has stored, so that differences do not add up over the loops
            mine = (
                None
                if states is None
                else [decode_state(encode_state(each), "the CPU's state") for each in states]
            )
            there, _ = train(pack, splits, number, setting, states=mine)
            states, _ = train(pack, splits, number, setting, device=CPU, states=states)
            points += [
                100 * (a.history["correct"][-1] - b.history["correct"][-1]) / len(splits.val)
                for a, b in zip(there, states, strict=True)
            ]
    most, mean = float(np.abs(points).max()), float(np.mean(points))
    figures: Figures = {"loops": len(points), "points": most, "mean_points": mean, "tolerance": POINTS}
    message = f"a loop's accuracy must be within {POINTS} points of the CPU's, and differs by {most:.2f}"
    require(most <= POINTS, message, figures)
    return f"{len(points)} loops within {most:.2f} points of the CPU's (mean {mean:+.3f})", figures


def hidden_memory(setting: Setting) -> tuple[str, Figures]:
    """Train networks with a hidden-state memory on the device and on the CPU."""
    pack = [
        Trial(
            model=NetworkSpec(family="mlp", arch=Arch.coerce("2*16")),
            method=StandardTraining(lr=1e-3, batch_size=64),
            memory=Memory(capacity=500),
            seed=seed,
        )
        for seed in range(3)
    ]
    there, _ = train(pack, setting.corner, 2, setting)
    here, _ = train(pack, setting.corner, 2, setting, device=CPU)
    points = [
        100 * abs(a - b) / len(setting.corner.val)
        for one, other in zip(there, here, strict=True)
        for a, b in zip(one.history["correct"], other.history["correct"], strict=True)
    ]
    figures: Figures = {"loops": len(points), "points": max(points), "tolerance": POINTS}
    message = (
        f"accuracy with a memory must be within {POINTS} points of the CPU's; it is {max(points):.2f} away"
    )
    require(max(points) <= POINTS, message, figures)
    return f"{len(points)} loops with a memory within {max(points):.2f} points of the CPU's", figures
