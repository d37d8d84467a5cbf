"""From pending trials to packs: what can be one tensor is grouped, and cut to the fastest size."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from psa.cost import CostModel
from psa.trial import MODES, Pack, Trial, pack_key


def groups_of(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Trials that could be one tensor, each group in the order that lets neighbours share batches."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(pack_key(trial), []).append(trial)
    for group in groups.values():
        group.sort(key=lambda trial: (trial.seed, MODES.index(trial.intervention.mode), trial.digest))
    return list(groups.values())


def packed(
    groups: Sequence[Sequence[Trial]], horizon: int, costs: CostModel, size: int | None = None
) -> list[Pack]:
    """Packs of the best size for this machine (or of `size`), the longest first."""
    packs = []
    for group in groups:
        each = size or costs.best_size(group[0], len(group))
        packs += [
            Pack.model_construct(trials=tuple(group[start : start + each]), horizon=horizon)
            for start in range(0, len(group), each)
        ]
    return sorted(packs, key=lambda pack: -costs.loop_seconds(pack.trials))
