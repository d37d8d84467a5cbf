"""Promotion of candidates from stage to stage of a grid, by the validation accuracy in records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from psa.core.errors import CorruptFileError
from psa.experiments.grid import Grid, GridPoint, Stage
from psa.experiments.grid_file import Promotion
from psa.specs.trial import Trial
from psa.storage.records.record import bounty_after, reaches
from psa.storage.store import Store


@dataclass(frozen=True)
class StageStatus:
    """A stage and its points that are to be trained; None until the stage before it is complete."""

    grid: Grid
    number: int
    points: tuple[GridPoint, ...] | None

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
    for number, stage in enumerate(grid.stages):
        if number == 0:
            before = stage.everyone
        elif before is not None:
            scores = _scores(before, grid.stages[number - 1].meta_loops, store)
            chosen = None if scores is None else promoted(stage.promotion or Promotion(), before, scores)
            before = (
                None
                if chosen is None
                else tuple(point for point in stage.everyone if point.candidate in chosen)
            )
        selected = {point.trial.id for point in stage.points}
        shown = None if before is None else tuple(each for each in before if each.trial.id in selected)
        yield StageStatus(grid, number, shown)


def _scores(points: Sequence[GridPoint], meta_loops: int, store: Store) -> dict[int, Fraction] | None:
    """Return the mean validation accuracy over the seeds of each candidate after `meta_loops`; None while a
    record is missing or damaged. Later loops of a trial, from a longer stage, do not count.
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


def promoted(promotion: Promotion, points: Sequence[GridPoint], scores: dict[int, Fraction]) -> set[int]:
    """Return the promoted candidates. Among equal scores the first in the file is taken."""
    chosen = {point.candidate for point in points if point.variant in promotion.always}
    for group in _groups(promotion, points):
        ranked = sorted(group, key=lambda candidate: (-scores[candidate], candidate))
        chosen |= set(ranked[: promotion.best])
    return chosen


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
