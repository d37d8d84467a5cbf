"""Promotion of candidates from stage to stage of a grid, by the validation accuracy in records alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from psa.core.errors import CorruptFileError
from psa.experiments.grid import Grid, GridPoint, Stage
from psa.experiments.grid_file import Promotion
from psa.specs.trial import Trial
from psa.storage.records.record import bounty_after, reaches
from psa.storage.retention import KeepWeights, delete_checkpoints
from psa.storage.store import Store


@dataclass(frozen=True)
class Candidate:
    """A candidate of a stage beside its rivals for the next.

    points: its trials in the stage that it was ranked in. group: the number of its group from 1, None for
    one that is always promoted, or that no group names. score: its mean bounty, 0 to 1. score,
    rank (in its group, from 1) and promoted are None until that stage is complete.
    """

    points: tuple[GridPoint, ...]
    group: int | None
    score: Fraction | None = None
    rank: int | None = None
    promoted: bool | None = None


@dataclass(frozen=True)
class StageStatus:
    """A stage and its points that are to be trained; None until the stage before it is complete. candidates:
    those of the stage before it, in the order of the file; none of a first stage, nor of one whose
    candidates are not yet known. left_out: while points are None, the number of unfinished trials that it
    needs of an earlier stage and that --only leaves out.
    """

    grid: Grid
    number: int
    points: tuple[GridPoint, ...] | None
    candidates: tuple[Candidate, ...] = ()
    left_out: int = 0

    @property
    def stage(self) -> Stage:
        """The stage as declared."""
        return self.grid.stages[self.number]

    @property
    def meta_loops(self) -> int:
        """The meta-loops of its trials."""
        return self.stage.meta_loops

    @property
    def last(self) -> bool:
        """True for the last stage of the grid."""
        return self.number == len(self.grid.stages) - 1

    @property
    def title(self) -> str:
        """The prefix of lines about the stage: `stage short: `, empty in a grid without stages."""
        return f"stage {self.stage.name}: " if self.stage.name else ""

    @property
    def seats(self) -> int:
        """The maximum number of its trials, known before any candidate is promoted."""
        candidates = {point.candidate for point in self.stage.points}
        if self.number == 0 or not candidates:
            return len(self.stage.points)
        chosen = max_promoted(self.stage.promotion or Promotion(), self.grid.stages[self.number - 1].everyone)
        return min(chosen, len(candidates)) * (len(self.stage.points) // len(candidates))

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials to be trained, as far as they are known."""
        return tuple(point.trial for point in self.points or ())


def stage_statuses(grid: Grid, store: Store) -> Iterator[StageStatus]:
    """Yield each stage with its promoted points. Lazy: trials trained meanwhile count for the next stage.

    A stage is closed when all its trials are done. A failed trial keeps it open, since a ranking without it
    could change once it is done. Promotion does not depend on --only.
    """
    before: tuple[GridPoint, ...] | None = None
    left_out = 0
    for number, stage in enumerate(grid.stages):
        candidates: tuple[Candidate, ...] = ()
        if number == 0:
            before = stage.everyone
        elif before is not None:
            scores = _scores(before, grid.stages[number - 1].meta_loops, store)
            left_out = _left_out(before, grid.stages[number - 1], store) if scores is None else 0
            candidates = tuple(_ranked(stage.promotion or Promotion(), before, scores))
            before = None if scores is None else _admitted(stage, candidates)
        selected = {point.trial.id for point in stage.points}
        shown = None if before is None else tuple(each for each in before if each.trial.id in selected)
        yield StageStatus(grid, number, shown, candidates, left_out)


def _left_out(points: Sequence[GridPoint], stage: Stage, store: Store) -> int:
    """Return how many trials of a stage are not done and not selected by --only."""
    selected = {point.trial.id for point in stage.points}
    others = [point.trial for point in points if point.trial.id not in selected]
    return len(others) - len(store.progress(others, stage.meta_loops).done)


def _ranked(
    promotion: Promotion, points: Sequence[GridPoint], scores: Mapping[int, Fraction] | None
) -> Iterator[Candidate]:
    """Yield every candidate of a stage with its group; of a complete stage also its rank, and whether it is
    promoted.
    """
    mine: dict[int, list[GridPoint]] = {}
    for point in points:
        mine.setdefault(point.candidate, []).append(point)
    groups = _groups(promotion, points)
    chosen = set() if scores is None else promoted(promotion, points, scores)
    places: dict[int, tuple[int, int]] = {}  # group and rank, of the first group that a candidate is in
    for number, group in enumerate(groups, start=1):
        for rank, candidate in enumerate(group if scores is None else _order(group, scores), start=1):
            places.setdefault(candidate, (number, rank))
    for candidate, its in mine.items():
        place = places.get(candidate)
        in_group = None if place is None else place[0]
        if scores is None:
            yield Candidate(tuple(its), in_group)
            continue
        rank_there = None if place is None else place[1]
        yield Candidate(tuple(its), in_group, scores[candidate], rank_there, candidate in chosen)


def _admitted(stage: Stage, candidates: Sequence[Candidate]) -> tuple[GridPoint, ...]:
    """Return the points of a stage whose candidates were promoted to it."""
    chosen = {each.points[0].candidate for each in candidates if each.promoted}
    return tuple(point for point in stage.everyone if point.candidate in chosen)


def _scores(points: Sequence[GridPoint], meta_loops: int, store: Store) -> dict[int, Fraction] | None:
    """Return the mean bounty over the seeds of each candidate after `meta_loops` (`bounty_after`); None while
    a record is missing or damaged. Later loops of a trial, from a longer stage, do not count.
    """
    found: dict[int, list[Fraction]] = {}
    for point in points:
        try:
            record = store.read(point.trial)
        except CorruptFileError:  # counts as missing; the stage itself reports it
            return None
        if record is None or not reaches(record, meta_loops):
            return None
        found.setdefault(point.candidate, []).append(bounty_after(record, meta_loops))
    return {candidate: sum(each, Fraction()) / len(each) for candidate, each in found.items()}


def promoted(promotion: Promotion, points: Sequence[GridPoint], scores: Mapping[int, Fraction]) -> set[int]:
    """Return the promoted candidates. Among equal scores the first in the file is taken."""
    chosen = {point.candidate for point in points if point.variant in promotion.always}
    for group in _groups(promotion, points):
        chosen |= set(_order(group, scores)[: promotion.best])
    return chosen


def _order(group: set[int], scores: Mapping[int, Fraction]) -> list[int]:
    """Return the candidates of a group, best first."""
    return sorted(group, key=lambda candidate: (-scores[candidate], candidate))


def max_promoted(promotion: Promotion, points: Sequence[GridPoint]) -> int:
    """Return the maximum number of promoted candidates, known before any score is."""
    always = {point.candidate for point in points if point.variant in promotion.always}
    return len(always) + sum(min(promotion.best, len(group)) for group in _groups(promotion, points))


def _groups(promotion: Promotion, points: Sequence[GridPoint]) -> list[set[int]]:
    """Return groups of candidates that compete; those that are always promoted are in none."""
    open_to = [point for point in points if point.variant not in promotion.always]
    if promotion.groups:
        found = [
            {point.candidate for point in open_to if point.variant in group} for group in promotion.groups
        ]
        return [group for group in found if group]
    groups: dict[tuple[object, ...], set[int]] = {}
    for point in open_to:
        groups.setdefault(tuple(point.value(key) for key in promotion.within), set()).add(point.candidate)
    return list(groups.values())


def delete_weights(stages: Sequence[StageStatus], store: Store, keep: KeepWeights) -> None:
    """Delete the weights that are not to be kept: those of trials that are done in every stage they have
    reached, and none while a promotion is undecided.
    """
    if keep == "all" or any(stage.points is None for stage in stages):
        return
    surveys = [store.progress(stage.trials, stage.meta_loops) for stage in stages]
    open_still = {trial.id for survey in surveys for trial in survey.pending}
    done = {trial.id: trial for survey in surveys for trial in survey.done if trial.id not in open_still}
    delete_checkpoints(store, list(done.values()), keep)
