"""Injection of retrieved values into hidden vectors (overwrite, residual, gated), and its effect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from psa.interventions.memory.per_trial import per_trial
from psa.interventions.memory.targets import picked
from psa.nn.stacked import empty_rows
from psa.specs.memory import Gate, Memory


@dataclass(frozen=True)
class InjectionEffect:
    """The effect of an injection on B hidden vectors of T trials; all float32 [T, B].

    gate: the share of the change that was applied (1 except in mode gated; 0 where nothing was changed).
    magnitude: ||h' - h||. relative: that as a share of ||h||: 0 where nothing changed, NaN for another h of
    length 0, such as the output of dead ReLU units.
    """

    gate: Tensor
    magnitude: Tensor
    relative: Tensor


def gate_of(gate: Gate, alpha: Tensor, distance: Tensor) -> Tensor:
    """Return clip(a g + bias, 0, 1), [T, B], from a [T] (see Memory.alpha) and mean distances [T, B]."""
    share = alpha.unsqueeze(1).expand_as(distance)
    if gate.uncertainty:
        share = share * per_trial(lambda d: (torch.sigmoid(-d / gate.temperature),), distance)[0]
    return (share + gate.bias).clamp(0, 1)


def inject(
    spec: Memory, h: Tensor, r: Tensor, affected: Tensor, gate: Tensor, on: Tensor
) -> tuple[Tensor, InjectionEffect]:
    """Return h' [T, width, B] and the effect.

    r: [T, dv, B], retrieved for the dimensions `affected` (int64 [T, dv]). gate: [T, B], 1 unless mode gated.
    on: bool [T, B], where there is something to apply. Where it is off, or strength, gate or clip is 0, h'
    has the bits of h. The gradient flows through h and never through r or the gate. Each trial's h' starts
    on a 64-byte boundary, as the layer that reads it needs (see psa.nn.layers).
    """
    if spec.strength == 0 or spec.clip == 0:
        nothing = torch.zeros_like(gate)
        return h, InjectionEffect(nothing, nothing, nothing)
    applied = on & (gate > 0)
    before = picked(h, affected)
    r = r.detach()
    change = (r - before if spec.target.value == "absolute" else r) * spec.strength
    if spec.mode == "gated":
        change = change * gate.detach().unsqueeze(1)
    if spec.clip is not None:
        change = change.clamp(-spec.clip, spec.clip)
    # Not h + 0 where nothing is applied: that would turn -0 into 0, and a non-finite change x 0 is NaN.
    after = torch.where(applied.unsqueeze(1), before + change, before)
    changed = _Aligned.apply(h.scatter(1, affected.unsqueeze(2).expand_as(after), after))
    share = torch.where(applied, gate, 0.0)
    return changed, InjectionEffect(share, *_magnitudes(h.detach(), before.detach(), after.detach()))


class _Aligned(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor) -> Tensor:
        return empty_rows(*h.shape, device=h.device).copy_(h)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def _magnitudes(h: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    def work(h: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        moved = torch.linalg.vector_norm(after - before, dim=1)
        share = moved / torch.linalg.vector_norm(h, dim=1)
        return moved, share.where(moved > 0, 0).where(share.isfinite() | (moved == 0), math.nan)

    moved, share = per_trial(work, h, before, after)
    return moved, share
