"""Packing of pending trials: those that fit into one tensor are grouped, and cut to the fastest size."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from psa.execution.cost_model import CostModel, trained_rows
from psa.specs.training import mode_rank
from psa.specs.trial import Pack, Trial, pack_key, training_key

_PER_ROW: Final = 2  # most trials of a pack per row that it trains
_WORTH_A_WORKER: Final = 0.8  # of the time of a pack: if a part takes longer, the pack stays whole
_ROUNDING: Final = 1e-6  # seconds: a pack that is a hair longer than a worker's share needs no cut
PACK_SECONDS: Final = 4 * 3600.0  # most of a pack for another machine: a job stopped at its limit loses less

_Timed = tuple[float, tuple[Trial, ...]]  # the seconds of a pack, and its trials


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

    So a small part of a grid is measured with packs of every size.
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

    workers: Packs of the best size that take longer than a worker's share of all work are cut, if all of it
        then ends sooner. None for another machine, whose workers are not known: packs are cut that would take
        more than about four hours.
    """
    parts: list[tuple[Trial, ...]] = []
    for group in groups:
        parts += _exactly(group, size) if size else _together(group, costs.best_size(group))
    timed = [(horizon * costs.loop_seconds(part), part) for part in parts]
    if not size:
        timed = _cut_to_limit(timed, costs) if workers is None else _cut_for(workers, timed, costs)
    timed.sort(key=lambda each: -each[0])
    return [Pack.model_construct(trials=part, horizon=horizon) for _, part in timed]


def _cut_for(workers: int, timed: list[_Timed], costs: CostModel) -> list[_Timed]:
    """Return trials of packs that so many workers can share: at most one part for each, of whole seeds if
    there are as many. Packs that end before another worker has started stay whole.
    """
    share = sum(seconds for seconds, _ in timed) / workers + _ROUNDING
    made: list[_Timed] = []
    for seconds, trials in timed:
        if seconds <= max(share, costs.startup_seconds):
            made.append((seconds, trials))
            continue
        count = math.ceil(seconds / share)
        of_seed, seeds, rows = _sizes(trials)
        size = of_seed * -(-seeds // count) if count <= seeds else -(-rows // count)
        made += _parts(seconds, trials, size, costs)
    return made if _makespan(made, workers) < _makespan(timed, workers) else timed


def _cut_to_limit(timed: list[_Timed], costs: CostModel) -> list[_Timed]:
    """Return trials of packs of at most PACK_SECONDS, in whole seeds as far as these take no longer."""
    made: list[_Timed] = []
    for seconds, trials in timed:
        if seconds <= PACK_SECONDS:
            made.append((seconds, trials))
            continue
        count = math.ceil(seconds / PACK_SECONDS)
        of_seed, seeds, rows = _sizes(trials)
        size = of_seed * (seeds // count) if count <= seeds else max(1, rows // count)
        made += _parts(seconds, trials, size, costs)
    return made


def _sizes(trials: Sequence[Trial]) -> tuple[int, int, int]:
    """Return the mean number of rows of a seed, rounded up, the number of seeds, and the number of rows."""
    rows, seeds = trained_rows(trials), len({each.seed for each in trials})
    return -(-rows // seeds), seeds, rows


def _parts(seconds: float, trials: tuple[Trial, ...], rows: int, costs: CostModel) -> list[_Timed]:
    """Return a pack in parts of so many rows, or as it is if a part would take about as long."""
    parts = list(_together(trials, rows, most=len(trials)))
    one_loop = costs.loop_seconds(trials)
    timed = [(seconds * costs.loop_seconds(part) / one_loop, part) for part in parts]
    return timed if max(each for each, _ in timed) <= _WORTH_A_WORKER * seconds else [(seconds, trials)]


def _makespan(timed: Sequence[_Timed], workers: int) -> float:
    """Return the seconds of all packs, if each idle worker takes the longest pack left."""
    ends = [0.0] * workers
    for seconds in sorted((seconds for seconds, _ in timed), reverse=True):
        heapq.heapreplace(ends, ends[0] + seconds)
    return max(ends)


def _exactly(group: Sequence[Trial], size: int) -> Iterator[tuple[Trial, ...]]:
    """Yield a group in parts of `size` trials."""
    for start in range(0, len(group), size):
        yield tuple(group[start : start + size])


def _together(group: Sequence[Trial], size: int, most: int | None = None) -> Iterator[tuple[Trial, ...]]:
    """Yield a group in parts that train at most `size` rows, of whole seeds where these have no more. Trials
    that are trained as one stay in one part, up to `most` trials: each of them takes memory.

    most: By default twice as many as rows.
    """
    most, size = most or _PER_ROW * size, _rows_of_even_parts(group, size)
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


def _rows_of_even_parts(group: Sequence[Trial], size: int) -> int:
    """Return the rows of a part, of whole seeds and at most `size`: the fewest with which no further part is
    needed.
    """
    of_seed, seeds, rows = _sizes(group)
    if size < of_seed or size >= rows:
        return size
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
