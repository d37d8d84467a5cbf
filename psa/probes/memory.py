"""Probes of a hidden-state memory: retrieval, gate, size, and losses with and without the memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from psa.data.splits import Split
from psa.engine.probing import ProbeInput
from psa.nn.dense import Dense
from psa.probes.base import SPLITS, LkgProbe
from psa.probes.metrics import STRONG, toggle
from psa.probes.predictions import Predictions, both_splits, finite_rows, predict
from psa.storage.trial_state import Observation

NEUTRAL: Final = 1e-6  # nats; differences up to it are rounding
# Edges of the histogram of loss changes, in nats; beyond the last there is one more bin on either side.
EDGES: Final = (
    -1.0, -0.5, -STRONG, -0.1, -0.03, -0.01, -0.001, -NEUTRAL,
    NEUTRAL, 0.001, 0.01, 0.03, 0.1, STRONG, 0.5, 1.0,
)  # fmt: skip
# A split with a loss that is not finite, as a diverged network has, gives no changes.
_UNKNOWN: Final[Mapping[str, float | None]] = dict.fromkeys(
    ("helped", "harmed", "neutral", "strong_help", "strong_harm", "mean", "std")
)
PARTS: Final = 10  # of the samples, by distance


class ToggleProbe(LkgProbe):
    """Losses of the LKG with its memory minus those without it, same weights, on validation and test.

    samples, helped, harmed, neutral (within 1e-6), strong_help and strong_harm (beyond 0.2): counts. mean,
    std: nats. with_correct, without_correct: counts. histogram.SPLIT: samples between EDGES.
    distance.SPLIT, change.SPLIT: mean retrieval distance and mean change of ten parts of equal size, from
    near to far. If a loss is not finite, only samples and the counts of correct answers exist.
    """

    name = "toggle"

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        found: Observation = {}
        for name, split in both_splits(probe_input):
            one, other = (predict(probe_input, split, row, with_memory=on) for on in (True, False))
            change = one.losses - other.losses
            known = bool(np.isfinite(change).all())
            counts = {
                "samples": len(split),
                "with_correct": one.correct.sum(),
                "without_correct": other.correct.sum(),
            }
            for fact, count in counts.items():
                found.setdefault(fact, []).append(int(count))
            for fact, value in (_compared(one, other) if known else _UNKNOWN).items():
                found.setdefault(fact, []).append(value)
            found |= _by_change(name, change) if known else {}
            found |= _by_distance(name, one.memory.get("distance", np.empty(0)), change) if known else {}
        return found


def _compared(one: Predictions, other: Predictions) -> dict[str, float]:
    facts = asdict(toggle(one.losses, other.losses, NEUTRAL))
    return {fact: facts[fact] for fact in _UNKNOWN}


def _by_change(split: str, change: NDArray[np.float64]) -> Observation:
    counts = np.bincount(np.searchsorted(EDGES, change), minlength=len(EDGES) + 1)
    return {f"histogram.{split}": counts.tolist()}


def _by_distance(split: str, distance: NDArray[np.float64], change: NDArray[np.float64]) -> Observation:
    """Return nothing if fewer samples than parts found an entry."""
    there = np.flatnonzero(np.isfinite(distance))
    if len(there) < PARTS:
        return {}
    parts = np.array_split(there[np.argsort(distance[there], kind="stable")], PARTS)
    return {
        f"distance.{split}": [float(distance[part].mean()) for part in parts],
        f"change.{split}": [float(change[part].mean()) for part in parts],
    }


class RetrievalProbe:
    """The retrieval and the effect of the memory in evaluation: on validation after each epoch, and for the
    LKG on validation and test.

    acted: share of samples that were changed. distance (mean over k), purity (share of entries with the
    sample's label), top1 (whether the nearest has it): means over those. gate, gate_std, magnitude
    (||h' - h||), relative (to ||h||, where that is not 0): over all samples. size, bytes, mean_age (steps),
    mean_retrieved, mean_usefulness, mean_freshness: of the entries, one number.
    """

    name = "retrieval"

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return the splits."""
        return {"": list(SPLITS)}

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe each network, as the class describes."""
        return [self._of(probe_input, row, [probe_input.splits.val]) for row in range(len(probe_input.loops))]

    def on_finish(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe the LKG of each trial, as the class describes."""
        splits = [split for _, split in both_splits(probe_input)]
        return [self._of(probe_input, row, splits) for row in range(len(probe_input.loops))]

    def _of(self, probe_input: ProbeInput, row: int, splits: Sequence[Split]) -> Observation:
        if probe_input.memory_site is None:
            return {}
        found: Observation = {}
        for split in splits:
            for fact, value in _facts(predict(probe_input, split, row)).items():
                found.setdefault(fact, []).extend(finite_rows([value]))
        bank = probe_input.memory_site.memory.bank.statistics(row)
        return found | {fact: finite_rows([value]) for fact, value in bank.items()}


def _facts(seen: Predictions) -> dict[str, float]:
    memory = seen.memory
    on = np.isfinite(memory["distance"])
    moved = memory["relative"][np.isfinite(memory["relative"])]
    means = {
        name: float(memory[name][on].mean()) if on.any() else float("nan")
        for name in ("distance", "purity", "top1")
    }
    return {
        "acted": float((memory["magnitude"] > 0).mean()),
        **means,
        **{name: float(memory[name].mean()) for name in ("gate", "magnitude")},
        "relative": float(moved.mean()) if len(moved) else float("nan"),
        "gate_std": float(memory["gate"].std()),
    }
