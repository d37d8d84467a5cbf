"""From pending trials to packs: what can be one tensor is grouped, and cut to the fastest size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from psa.execution.cost_model import CostModel
from psa.specs.training import MODES
from psa.specs.trial import Pack, Trial, pack_key


def groups_of(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Trials that could be one tensor, each group in the order that lets neighbours share batches."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(pack_key(trial), []).append(trial)
    for group in groups.values():
        group.sort(key=lambda trial: (trial.seed, MODES.index(trial.intervention.mode), trial.digest))
    return list(groups.values())


def enough(group: Sequence[Trial], count: int) -> tuple[Trial, ...]:
    """A group filled up to `count` trials with further seeds.

    What a machine is measured with does not depend on how much of a grid is asked for today.
    """
    seeds = {trial.seed for trial in group}
    unused = (seed for seed in itertools.count() if seed not in seeds)
    more = (
        trial.changed(seed=seed)
        for seed in itertools.islice(unused, count)
        for trial in group
        if trial.seed == min(seeds)
    )
    return tuple(itertools.islice(itertools.chain(group, more), count))


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
