"""Packing of pending trials: those that fit into one tensor are grouped, and cut to the fastest size."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from psa.execution.cost_model import CostModel, rows_per_seed, trained_rows
from psa.specs.training import mode_rank
from psa.specs.trial import Pack, Trial, pack_key, training_key

_PER_ROW: Final = 2  # most trials of a pack per row that it trains
_WORTH_A_WORKER: Final = 0.8  # of the time of a pack: longer parts are not worth another worker
_ROUNDING: Final = 1e-6
PACK_SECONDS: Final = 4 * 3600.0  # of a pack: longer than jobs of a cluster or cloud should be


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
    groups: Sequence[Sequence[Trial]],
    horizon: int,
    costs: CostModel,
    size: int | None = None,
    workers: int | None = 1,
) -> list[Pack]:
    """Return packs of the best size for this machine (or of `size` trials), the longest first.

    workers: Packs of the best size are cut where some of so many workers would have nothing to train. None
        for another machine, whose workers are not known yet: longer packs are cut to about four hours.
    """
    packs = []
    for group in groups:
        parts = _exactly(group, size) if size else _together(group, costs.best_size(group))
        packs += [Pack.model_construct(trials=part, horizon=horizon) for part in parts]
    if not size:
        packs = list(_shared(packs, costs, workers))
    return sorted(packs, key=lambda pack: -costs.loop_seconds(pack.trials))


def _shared(packs: Sequence[Pack], costs: CostModel, workers: int | None) -> Iterator[Pack]:
    """Yield packs, in parts where one of them takes longer than each worker's share of the whole work; but as
    they are where they end before another worker has started, or a part would take about as long.
    """
    seconds = [costs.loop_seconds(pack.trials) for pack in packs]
    for whole, pack in zip(seconds, packs, strict=True):
        parts = [pack]
        share = sum(seconds) / workers if workers else PACK_SECONDS / pack.horizon
        count = math.ceil(whole / share - _ROUNDING)
        if count > 1 and whole * pack.horizon >= costs.startup_seconds:
            parts = [
                Pack.model_construct(trials=part, horizon=pack.horizon)
                for part in _together(pack.trials, _rows_of_part(pack.trials, count))
            ]
        if max(costs.loop_seconds(part.trials) for part in parts) > _WORTH_A_WORKER * whole:
            parts = [pack]
        yield from parts


def _rows_of_part(group: Sequence[Trial], count: int) -> int:
    """Return the rows of each of `count` parts of a group, of whole seeds if there are as many."""
    seeds = len({trial.seed for trial in group})
    return rows_per_seed(group) * -(-seeds // count) if count <= seeds else -(-trained_rows(group) // count)


def _exactly(group: Sequence[Trial], size: int) -> Iterator[tuple[Trial, ...]]:
    """Yield a group in parts of `size` trials."""
    for start in range(0, len(group), size):
        yield tuple(group[start : start + size])


def _together(group: Sequence[Trial], size: int) -> Iterator[tuple[Trial, ...]]:
    """Yield a group in about equal parts that train at most `size` rows, of whole seeds where these have no
    more. Trials that are trained as one stay in one part, unless it had more than twice as many trials as
    rows: each of them takes memory.
    """
    most, size = _PER_ROW * size, _evened(group, size)
    part: list[Trial] = []
    rows = 0
    for _, of_seed in itertools.groupby(group, lambda trial: trial.seed):
        runs = [list(equal) for _, equal in itertools.groupby(of_seed, training_key)]
        chunks = [chunk for run in runs for chunk in _exactly(run, most)]
        if part and rows + len(chunks) > size >= len(chunks):
            yield tuple(part)
            part, rows = [], 0
        for chunk in chunks:
            if part and (rows == size or len(part) + len(chunk) > most):
                yield tuple(part)
                part, rows = [], 0
            part += chunk
            rows += 1
    yield tuple(part)


def _evened(group: Sequence[Trial], size: int) -> int:
    """Return the rows of a part, at most `size`, with which the last part is about as large as the others."""
    of_seed = rows_per_seed(group)
    if size < of_seed:
        return size
    seeds = len({trial.seed for trial in group})
    parts = -(-seeds // (size // of_seed))
    return of_seed * -(-seeds // parts)


def label(pack: Pack) -> str:
    """Return a short name of a pack: `simplemlp 1*16 6 modes seeds 0-9`."""
    trial = pack.trials[0]
    seeds, modes = (sorted(set(each)) for each in zip(*map(_seed_and_mode, pack.trials), strict=True))
    of_seeds = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}-{seeds[-1]}"
    of_modes = modes[0] if len(modes) == 1 else f"{len(modes)} modes"
    return f"{trial.model.family} {trial.model.arch.label} {of_modes} {of_seeds}"


def _seed_and_mode(trial: Trial) -> tuple[int, str]:
    return trial.seed, trial.intervention.mode
