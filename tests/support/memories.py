"""What the tests of the memory share: specs in one line, made-up batches, and a training in small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from psa.interventions.memory.hidden_memory import HiddenMemory, Trace
from psa.specs.memory import Memory

CPU = torch.device("cpu")
WIDTH, CLASSES = 12, 3


def memory(**changes: Any) -> Memory:
    """A small memory that acts: capacity 24, 3 neighbours, 5 of 12 dimensions; changes are merged in."""
    base: dict[str, Any] = {
        "capacity": 24,
        "retrieval": {"k": 3},
        "affected": {"dims": 5},
        "gate": {"alpha": 0.4},
        "mode": "gated",
    }
    if changes.get("mode", "gated") != "gated":
        base.pop("gate")
    for name, value in changes.items():
        both = isinstance(value, Mapping) and isinstance(base.get(name), Mapping)
        base[name] = {**base[name], **value} if both else value
    return Memory.model_validate(base)


def batch(seed: int, step: int, size: int, width: int = WIDTH) -> dict[str, Tensor]:
    """What one trial meets in one step; a function of (seed, step) alone."""
    draws = np.random.default_rng([seed, step])
    label = draws.integers(CLASSES, size=size)
    h = np.maximum(draws.normal(size=(width, size)) + 0.7 * np.eye(width)[label].T, 0)
    made = {
        "h": h.astype(np.float32),
        "gradient": draws.normal(size=(width, size)).astype(np.float32),
        "losses": draws.exponential(size=size).astype(np.float32),
        "right": draws.random(size) < 0.7,
        "labels": label,
        "samples": draws.permutation(1000)[:size],
    }
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in made.items()}


def stacked(seeds: Sequence[int], step: int, size: int, width: int = WIDTH) -> dict[str, Tensor]:
    """The batches of several trials."""
    each = [batch(seed, step, size, width) for seed in seeds]
    return {name: torch.stack([one[name] for one in each]) for name in each[0]}


def step_of(hidden: HiddenMemory, step: int, size: int = 8, width: int = WIDTH) -> tuple[Tensor, Trace]:
    """One training step: what came out of the site, and its trace."""
    given = stacked(hidden.seeds, step, size, width)
    changed, trace = hidden.forward(given["h"], given["samples"], training=True)
    hidden.learn(trace, *(given[name] for name in ("gradient", "losses", "right", "labels", "samples")))
    return changed, trace


def trained(
    spec: Memory, seeds: Sequence[int], steps: int = 9, size: int = 8, width: int = WIDTH
) -> tuple[HiddenMemory, Tensor]:
    """Three steps an epoch; the memories afterwards, and all that came out of the site in one tensor."""
    hidden = HiddenMemory(spec, seeds, width, CLASSES, CPU)
    outputs = []
    for step in range(steps):
        hidden.begin([1 + step // 3] * len(seeds))
        outputs.append(step_of(hidden, step, size, width)[0])
    given = stacked(seeds, 10_000, size, width)
    outputs.append(hidden.forward(given["h"], given["samples"], training=False)[0])
    return hidden, torch.cat(outputs, dim=2)
