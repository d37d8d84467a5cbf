"""Packing of pending trials: those that fit into one tensor are grouped, and cut to the fastest size."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from psa.execution.cost_model import CostModel
from psa.specs.training import mode_rank
from psa.specs.trial import Pack, Trial, pack_key, training_key

_PER_ROW: Final = 2  # most trials of a pack per row that it trains


def groups_of(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Return groups of trials that fit into one tensor, ordered so that neighbours share batches."""
    groups: dict[str, list[Trial]] = {}
    for trial in trials:
        groups.setdefault(pack_key(trial), []).append(trial)
    for group in groups.values():
        group.sort(key=lambda trial: (*training_key(trial), mode_rank(trial.intervention.mode), trial.digest))
    return list(groups.values())


def enough(group: Sequence[Trial], count: int) -> tuple[Trial, ...]:
    """Return a group filled up to `count` trials with further seeds.

    So the measurement of a machine does not depend on the part of a grid that is requested.
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
    """Return packs of the best size for this machine (or of `size`), the longest first."""
    packs = []
    for group in groups:
        parts = _exactly(group, size) if size else _together(group, costs.best_size(group[0], len(group)))
        packs += [Pack.model_construct(trials=part, horizon=horizon) for part in parts]
    return sorted(packs, key=lambda pack: -costs.loop_seconds(pack.trials))


def _exactly(group: Sequence[Trial], size: int) -> Iterator[tuple[Trial, ...]]:
    """Yield a group in parts of `size` trials."""
    for start in range(0, len(group), size):
        yield tuple(group[start : start + size])


def _together(group: Sequence[Trial], size: int) -> Iterator[tuple[Trial, ...]]:
    """Yield a group in parts that train `size` rows. Trials that are trained as one stay in one part, unless
    it had more than twice as many trials as rows: each of them takes memory.
    """
    part: list[Trial] = []
    rows = 0
    for _, equal in itertools.groupby(group, training_key):
        for chunk in _exactly(list(equal), _PER_ROW * size):
            if part and (rows == size or len(part) + len(chunk) > _PER_ROW * size):
                yield tuple(part)
                part, rows = [], 0
            part += chunk
            rows += 1
    yield tuple(part)


def label(pack: Pack) -> str:
    """Return a short name of a pack: `simplemlp 1*16 6 modes seeds 0-9`."""
    trial = pack.trials[0]
    seeds, modes = (sorted(set(each)) for each in zip(*map(_seed_and_mode, pack.trials), strict=True))
    of_seeds = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}-{seeds[-1]}"
    of_modes = modes[0] if len(modes) == 1 else f"{len(modes)} modes"
    return f"{trial.model.family} {trial.model.arch.label} {of_modes} {of_seeds}"


def _seed_and_mode(trial: Trial) -> tuple[int, str]:
    return trial.seed, trial.intervention.mode
