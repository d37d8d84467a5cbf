"""The trials of one family as cells: architecture x mode, each with the bounties of its seeds."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from psa.analysis.frame_columns import classes_and_shape
from psa.analysis.frame_schema import once_per_frame, trials_of
from psa.analysis.pooling import differing_settings, equal_budgets
from psa.analysis.regimes import PUBLISHED_ZERO_R, RegimeCell
from psa.analysis.stats import LEAST_N, Summary, Values, present, share_summary
from psa.core.errors import UserError
from psa.core.formatting import join_names
from psa.core.parsing import parse_values
from psa.reports.rendering.tables import MeanSd
from psa.specs.arch import Arch
from psa.specs.training import MODES

_HINTS: Final = {"study": "Name one with --study", "family": "Name one with --family"}
_ONE_PER_MODE: Final = ("weight_decay", "dropout")  # settings with one value per mode
COMPARED_CELLS: Final = ("arch", "mode", *_ONE_PER_MODE)  # all other settings must be equal on a page
ABSENT: Final = ("failed", "damaged", "unfinished", "diverged", "shorter", "longer")  # without a result
_GRID: Final = "Name one grid with --grid"
_ROUNDING: Final = 1e-9
_NAMED: Final = 8  # most arms that an error lists
_SAMPLES: Final = 10_000  # of the published validation split
_PUBLISHED_TRIALS: Final = 10  # of a published cell


@dataclass(frozen=True)
class Trials:
    """The trials of one cell. correct: validation samples that the bounty stands for, one per seed in the
    order of Cells.seeds, NaN where there is none; samples: number of validation samples; statuses: number of
    trials by status (done, failed, damaged, missing); published: True for trials of the published study.

    Counts are stored because equal differences of percentages are not always equal in floating point.
    """

    correct: Values
    samples: int
    statuses: Counter[str]
    published: bool = False

    @property
    def found(self) -> list[int]:
        """The counts of the trials that have one."""
        return [int(count) for count in present(self.correct)]

    @property
    def bounties(self) -> Values:
        """The bounties in percent, NaN where there is none."""
        return 100 * self.correct / self.samples

    @property
    def mean(self) -> float:
        """The mean in percent, NaN for an empty cell: that of the counts, which is exact, so that equal means
        are shown as equal numbers. For ten published trials, if the two round differently, NumPy's mean of
        the percentages, which is what the published tables round.
        """
        exact = 100 * statistics.fmean(self.found or [np.nan]) / self.samples
        if not self.published or len(self.found) != _PUBLISHED_TRIALS:
            return exact
        published = float(np.mean(present(self.bounties)))
        return exact if f"{exact:.2f}" == f"{published:.2f}" else published

    @property
    def summary(self) -> Summary:
        """The summary in percent. The interval stays within 0 and 100."""
        of = asdict(share_summary(self.correct, self.samples))
        in_percent = {name: 100 * count / self.samples for name, count in of.items() if name != "n"}
        return Summary(of["n"], **(in_percent | {"mean": self.mean}))

    @property
    def numbers(self) -> RegimeCell:
        """The mean, population standard deviation, least and greatest bounty in percent. Raises
        StatisticsError for an empty cell.
        """
        found = self.found
        spread = (statistics.pstdev(found), min(found), max(found))
        return RegimeCell(self.mean, *(100 * count / self.samples for count in spread))

    @property
    def token(self) -> str:
        """A one-word reason why the cell is empty."""
        return next((word.upper() for word in ABSENT if self.statuses.get(word)), "MISSING")


@dataclass(frozen=True, eq=False)
class Cells:
    """All cells of a frame. expected: number of trials of a complete cell; zero_r: score in percent of always
    answering the majority class; paired: True if equal seeds share their initial state, as in psa's trials
    but not in published ones; loops: every length of a finished trial; classes: number of classes;
    sample: the shape of a sample.
    """

    study: str
    family: str
    archs: tuple[str, ...]
    seeds: tuple[int, ...]
    expected: int
    samples: int
    zero_r: float
    paired: bool
    loops: tuple[int, ...]
    classes: int
    sample: tuple[int, ...]
    parameters: Mapping[str, int]
    trials: Mapping[tuple[str, str], Trials]

    @property
    def modes(self) -> tuple[str, ...]:
        """The modes with at least one requested trial."""
        asked = {mode for _, mode in self.trials}
        return tuple(mode for mode in MODES if mode in asked)

    @property
    def any_finished(self) -> bool:
        """True if any trial has finished: only these know the ZeroR of their validation split."""
        return any(cell.found for cell in self.trials.values())

    def cell(self, arch: str, mode: str) -> Trials:
        """Return the trials of a cell, empty if the frame does not have the cell."""
        nothing = Trials(np.full(len(self.seeds), np.nan), self.samples, Counter())
        return self.trials.get((arch, mode), nothing)

    def mean_sd(self, arch: str, mode: str) -> MeanSd | None:
        """Return the mean and population standard deviation of a cell in percent, None if it is empty."""
        cell = self.cell(arch, mode)
        n = len(cell.found)
        if not n:
            return None
        return MeanSd(cell.numbers.mean, cell.numbers.sd if n > 1 else float("nan"), n, self.expected)

    def numbers(self, arch: str) -> dict[str, RegimeCell]:
        """Return the numbers that decide the regime of an architecture, by mode; empty modes are left out."""
        cells = {mode: self.cell(arch, mode) for mode in MODES}
        return {mode: cell.numbers for mode, cell in cells.items() if cell.found}

    def above_zero_r(self, arch: str) -> bool:
        """Return whether any trial of any mode scored above ZeroR."""
        return any(cell.high > self.zero_r + _ROUNDING for cell in self.numbers(arch).values())

    def judged(self, arch: str) -> dict[str, RegimeCell]:
        """Return the numbers of the modes of an architecture that have LEAST_N trials or more."""
        return {
            mode: each
            for mode, each in self.numbers(arch).items()
            if len(self.cell(arch, mode).found) >= LEAST_N
        }

    def few(self, arch: str) -> bool:
        """Return whether a mode of an architecture has trials, but fewer than LEAST_N: nothing is concluded
        from so few.
        """
        return any(0 < len(self.cell(arch, mode).found) < LEAST_N for mode in MODES)

    def decay_is_none(self, arch: str) -> bool:
        """Return whether the trials of modes decay and none have the same bounties, seed by seed."""
        none, decay = (self.cell(arch, mode) for mode in ("none", "decay"))
        same = np.array_equal(none.correct, decay.correct, equal_nan=True)
        return self.paired and bool(none.found) and same

    def complete(self) -> tuple[str, ...]:
        """Return the architectures without missing trials."""
        return tuple(arch for arch in self.archs if not any(self.missing(arch, mode) for mode in self.modes))

    def missing(self, arch: str, mode: str) -> int:
        """Return how many of the expected trials of a cell have not finished."""
        return self.expected - len(self.cell(arch, mode).found)


@once_per_frame
def cells_of(frame: pd.DataFrame) -> Cells:
    """Return the cells of a frame of one family. Raises UserError if it holds several experiments."""
    rows = trials_of(equal_budgets(frame))
    _check(rows)
    seeds = tuple(sorted(int(seed) for seed in rows["seed"].unique()))
    classes, sample = classes_and_shape(rows.iloc[0].to_dict())  # the same in all trials
    samples, zero_r = _only(rows["validation_size"], _SAMPLES), _only(rows["zero_r"], PUBLISHED_ZERO_R)
    trials = _trials(rows, seeds, samples)
    return Cells(
        study=str(rows["study"].iloc[0]),
        family=str(rows["family"].iloc[0]),
        archs=tuple(dict.fromkeys(str(arch) for arch in rows["arch"])),
        seeds=seeds,
        expected=max(sum(cell.statuses.values()) for cell in trials.values()),
        samples=samples,
        zero_r=zero_r,
        paired=set(rows["source"]) == {"psa"},
        loops=tuple(sorted(map(int, rows["loops"][rows["status"] == "done"].dropna().unique()))),
        classes=classes,
        sample=sample,
        parameters={
            str(arch): int(count) for arch, count in zip(rows["arch"], rows["parameters"], strict=True)
        },
        trials=trials,
    )


def _trials(rows: pd.DataFrame, seeds: Sequence[int], samples: int) -> dict[tuple[str, str], Trials]:
    """Return the trials of each cell, by architecture and mode. One pass: with a group of pandas
    for each cell this took a seventh of the report of the published grid.
    """
    place = {seed: at for at, seed in enumerate(seeds)}
    columns = [rows[name].astype(str) for name in ("arch", "mode", "status")]
    published = "psa" not in set(rows["source"])
    correct = rows["bounty_correct"].astype("float64")
    found: dict[tuple[str, str], Trials] = {}
    for arch, mode, status, seed, count in zip(*columns, rows["seed"].astype(int), correct, strict=True):
        cell = found.get((arch, mode))
        if cell is None:
            cell = found[arch, mode] = Trials(np.full(len(seeds), np.nan), samples, Counter(), published)
        cell.statuses[status] += 1
        cell.correct[place[seed]] = count
    return found


def _only(values: pd.Series[Any], otherwise: Any) -> Any:
    """Return the only value of a column, or `otherwise` if it is empty. Raises UserError for several."""
    found = sorted(values.dropna().unique())
    if len(found) > 1:
        raise UserError(
            f"the trials must share their data, got {values.name} {found[0]:g} and {found[1]:g}", _GRID
        )
    return type(otherwise)(found[0]) if found else otherwise


def _check(rows: pd.DataFrame) -> None:
    """Raise UserError without trials, or if a cell would mix trials that must not be averaged."""
    if not len(rows):
        raise UserError("the rows hold no trial", "Run `psa sweep GRID` first")
    further = sorted(set(rows["arm"].astype(str)) - set(rows["mode"].astype(str)))
    if further:
        raise UserError(
            f"the rows must hold arms of modes alone, got {join_names(further[:_NAMED])}",
            "The page STUDY_FAMILY_arms of `psa report` compares them",
        )
    one = {name: sorted(rows[name].astype(str).unique()) for name in ("study", "family", "source")}
    several = {name: values for name, values in one.items() if len(values) > 1}
    for column, names in (several | differing_settings(rows, COMPARED_CELLS)).items():
        hint = "Published trials are shown on their own" if column == "source" else _HINTS.get(column, _GRID)
        raise UserError(f"the rows hold more than one {column}: {join_names(names)}", hint)
    for column in _ONE_PER_MODE:
        several = rows.groupby("mode", observed=True)[column].nunique() > 1
        for mode in several.index[several]:
            raise UserError(f"the rows hold mode {mode} with more than one {column}", _GRID)
    twice = rows[rows.duplicated(["arch", "mode", "seed"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"the rows hold {row['arch']} {row['mode']} seed {row['seed']} in more than one setting",
            "Name the grid with --grid, so that only its trials are taken",
        )


def one_family(frame: pd.DataFrame, family: str) -> pd.DataFrame:
    """Return the rows of one family. Raises UserError if there are none."""
    found = frame[frame["family"] == family]
    if not len(found):
        others = ", ".join(sorted(frame["family"].astype(str).unique()))
        raise UserError(f"--family must have trials, got {family}", f"There are trials of {others}")
    return found


def mode_order(archs: Iterable[str], order: Sequence[str]) -> tuple[str, ...]:
    """Sort architectures in the order of a list; those not in it follow in their original order."""
    position = {arch: at for at, arch in enumerate(order)}
    return tuple(sorted(archs, key=lambda arch: position.get(arch, len(position))))


def archs_in(path: Path, option: str = "") -> tuple[str, ...]:
    """Read the architectures listed in a file, one per line, with comments after `#`. Raises UserError, which
    names the option that the file was given with.
    """
    if not path.is_file():
        asked = f"{option}: " if option else ""
        raise UserError(
            f"{asked}the list of architectures {path} does not exist",
            "Name a file like reproduction/configurations.txt",
        )
    try:
        return tuple(
            Arch.coerce(line).label
            for line in parse_values(f"@{path.resolve().name}", path.resolve().parent, "it")
        )
    except UserError as error:
        raise UserError(f"{path}: {error.message}", error.hint) from None
