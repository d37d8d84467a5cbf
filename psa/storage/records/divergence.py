"""Divergence: recognise the loops and the trials whose numbers are not finite.

A loop has diverged if its training loss, its trained weights, a logit on the validation split or the loss
there is NaN or infinite. The engine books such a loss as missing and never keeps such a loop, so a history
tells which loops diverged. A trial has diverged if the loop that it selects did (the last loop in ordinary
training without patience, the last one kept otherwise), if no loop was ever kept, or if its test loss is not
finite.

Records of earlier versions, which did keep such loops, are recognised by the same missing losses.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psa.specs.training import RatchetTraining, StandardTraining

Histories = Mapping[str, list[Any]]


def diverged_loops(history: Histories) -> list[int]:
    """Return the loops, counted from 1, that diverged."""
    return [loop for loop in history["loop"] if _loop_diverged(history, loop)]


def diverged(record: Mapping[str, Any]) -> bool:
    """Return True if a finished trial has diverged: its results are those of no trained network."""
    finals, method = record["finals"], record["spec"]["method"]
    if finals["test"]["loss"] is None:
        return True
    selected = (
        record["loops"]
        if _selects_last(method["policy"], method.get("patience"))
        else finals["bounty"]["loop"]
    )
    return _loop_diverged(record["history"], selected)


def diverged_after(record: Mapping[str, Any], loops: int) -> bool:
    """Return True if the trial would have diverged, had it ended after `loops` loops."""
    history, method = record["history"], record["spec"]["method"]
    done = min(loops, record["loops"])
    if _selects_last(method["policy"], method.get("patience")):
        return _loop_diverged(history, done)
    kept = [loop for loop, keep in zip(history["loop"], history["kept"], strict=True) if keep]
    return _loop_diverged(history, max((loop for loop in kept if loop <= done), default=0))


def training_diverged(method: RatchetTraining | StandardTraining, history: Histories, lkg_loop: int) -> bool:
    """Return True if a trial in training has diverged by now; False before its first loop."""
    loops = len(history["loop"])
    selected = loops if _selects_last(method.policy, getattr(method, "patience", None)) else lkg_loop
    return loops > 0 and _loop_diverged(history, selected)


def _selects_last(policy: str, patience: int | None) -> bool:
    """Return True for ordinary training without patience, whose result is the network of its last epoch."""
    return policy == "keep" and patience is None


def _loop_diverged(history: Histories, loop: int) -> bool:
    """Return True for a loop with a missing loss, and for loop 0: the initial weights, never trained."""
    return loop == 0 or history["loss"][loop - 1] is None or history["train_loss"][loop - 1] is None
