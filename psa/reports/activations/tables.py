"""Tables of arms: results, differences from a baseline seed by seed, learned thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import pandas as pd

from psa.analysis.frame_columns import LABELS
from psa.analysis.stats import (
    ALPHA,
    LEAST_N,
    Interval,
    Paired,
    holm,
    paired,
    present,
    summary,
    t_interval,
    t_test,
)
from psa.core.formatting import pluralize
from psa.reports.activations.arms import Arm, layers_of
from psa.reports.rendering.paired import (
    difference_interval,
    paired_columns,
    paired_notes,
    paired_row,
)
from psa.reports.rendering.tables import Bold, Cell, Column, Table, rounded
from psa.reports.wording import format_setting

_ONE_PAGE: Final = 40  # rows
_WORDS: Final = ("activation", "arch")  # columns whose texts may be long
_BASELINES: Final = ("ReLU", "Identity")
_NAMED: Final = 6
ArmVerdict = Literal["higher", "lower", "not significantly different"]


def results_table(
    arms: Sequence[Arm],
    keys: Sequence[str],
    *,
    caption: str = "Results",
    label: str = "tab:results",
    variant_of: Callable[[Sequence[str]], str] = lambda trials: "",
) -> Table:
    """Return a row for each arm: number of parameters (if architectures differ) and of trials, mean test
    accuracy (percent) with its 95 % t interval and sample sd, mean training and validation accuracy of the
    tested weights, their epoch, epochs trained, and the learned thresholds of the hidden layers, first to
    last. The greatest mean is bold, if every arm has
    LEAST_N trials and that one learned something. variant_of: returns the name that the grid gives to some
    trials, which is the first column if there is any.
    """
    best = _best_arm(arms)
    learned = any(_thresholds(arm) for arm in arms)
    sizes = "arch" in keys and len({arm.settings["arch"] for arm in arms}) > 1
    rows = [tuple(_result(arm, keys, arm is best, learned, sizes)) for arm in arms]
    variants = [variant_of(arm.ids) or None for arm in arms]
    if any(variants):
        rows = [(name, *row) for name, row in zip(variants, rows, strict=True)]
    columns = [Column("Variant")] if any(variants) else []
    columns += [Column(LABELS.get(key, key), breaks=3.2 if key in _WORDS else 0) for key in keys]
    columns += [Column("Parameters", "count")] if sizes else []
    columns += [
        Column("n", "count"),
        Column("Test (%)", "interval"),
        Column("sd", "number"),
        Column("Train (%)", "number"),
        Column("Validation (%)", "number"),
        Column("Best epoch", "number", 1),
        Column("Epochs", "number", 1),
    ]
    columns += [Column("Final thresholds")] if learned else []
    note = _note(arms, keys) + (
        " Bold: the arm with the greatest mean validation accuracy, whether or not it differs significantly."
        if best
        else ""
    )
    return Table(caption, label, tuple(columns), tuple(rows), note, len(rows) > _ONE_PAGE, True)


def _best_arm(arms: Sequence[Arm]) -> Arm | None:
    """Return the arm with the greatest mean validation accuracy, by which nothing on the test split is
    selected. None for fewer than two arms or without a winner, and where arms were trained for different
    numbers of epochs.
    """
    there = [arm for arm in arms if arm.n]
    if len(there) < 2 or any(arm.n < LEAST_N for arm in there) or _lengths(there) > 1:
        return None
    best = max(there, key=lambda arm: arm.summary("bounty").mean)
    return None if best.dead() == best.n else best


def _lengths(arms: Sequence[Arm]) -> int:
    """Count the numbers of epochs that distinguish arms; 1 where none does."""
    return len({arm.settings.get("epochs") for arm in arms})


def _result(arm: Arm, keys: Sequence[str], best: bool, learned: bool, sizes: bool) -> Iterator[Cell]:
    yield from (format_setting(arm.settings[key]) for key in keys)
    test = arm.summary("test")
    interval = Interval(test.mean, test.low, test.high)
    if sizes:
        counts = arm.rows["parameters"].dropna()
        yield int(counts.iloc[0]) if len(counts) else None
    yield arm.n
    yield Bold(interval) if best else interval
    yield test.sd
    for column in ("train", "bounty", "bounty_loop", "loops"):
        yield arm.summary(column).mean
    if learned:
        yield _thresholds(arm) or None


def _thresholds(arm: Arm) -> str:
    """Format the threshold of each layer, mean over seeds."""
    found = [each for each in arm.rows.get("thresholds", ()) if isinstance(each, tuple)]
    return ", ".join(rounded(summary(each).mean, 3) for each in zip(*found, strict=True)) if found else ""


def _note(arms: Sequence[Arm], keys: Sequence[str]) -> str:
    few = [f"{arm.label(keys)} {arm.n} of {arm.expected}" for arm in arms if arm.n < arm.expected]
    counts = {arm.expected for arm in arms} or {0}
    up_to = "up to " if len(counts) > 1 else ""
    note = f"n = {up_to}{pluralize(max(counts), 'seed')} per row" + (
        "." if not few else f", but {'; '.join(few[:_NAMED])}{'; ...' * (len(few) > _NAMED)}."
    )
    if _lengths(arms) > 1:
        note += " Compare only rows with equal numbers of epochs."
    return (
        f"{note} Test: mean over seeds with its 95 % t interval, restricted to 0 to 100 (none below "
        f"{LEAST_N} "
        "seeds); sd: of the sample. Train, validation and test are of the same weights, those of the best "
        "epoch; train without dropout, after the epoch."
    )


@dataclass(frozen=True)
class ArmComparison:
    """An arm minus its baseline, seed by seed: as psa.analysis.stats.paired returns it, but with p of the
    paired t test; p corrected by Holm's method over all comparisons, and the t interval of the mean at
    1 - ALPHA / (number of comparisons).
    """

    arm: Arm
    base: Arm
    found: Paired
    p_holm: float
    low: float
    high: float

    @property
    def verdict(self) -> ArmVerdict | None:
        """The verdict by the corrected p and the corrected interval, which must agree: both are Student's,
        since few seeds decide nothing in a permutation test. None below LEAST_N pairs.
        """
        if self.found.n < LEAST_N:
            return None
        if self.p_holm < ALPHA and (self.low > 0 or self.high < 0):
            return "higher" if self.low > 0 else "lower"
        return "not significantly different"


def baseline_of(arm: Arm, arms: Sequence[Arm]) -> Arm | None:
    """Return the arm to compare with: the same settings with ReLU, or with Identity if no arm has ReLU. If
    all have one activation, the first arm. None for a baseline itself, and if there is none.
    """
    kinds = {other.settings.get("activation") for other in arms}
    if len(kinds) < 2:
        return None if arm is arms[0] else arms[0]
    name = next((name for name in _BASELINES if name in kinds), None)
    wanted = {**arm.settings, "activation": name}
    return next((other for other in arms if other.settings == wanted and other is not arm), None)


def comparisons(arms: Sequence[Arm], column: str = "test") -> list[ArmComparison]:
    """Return the comparison of every arm that has a baseline and shares a seed with it."""
    pairs = [(arm, base) for arm in arms if (base := baseline_of(arm, arms)) is not None]
    pairs = [(arm, base) for arm, base in pairs if len(present(arm.values(column) - base.values(column)))]
    values = [(arm.values(column), base.values(column)) for arm, base in pairs]
    found = [replace(paired(*both), p=t_test(*both)) for both in values]
    corrected = holm([each.p for each in found])
    level = 1 - ALPHA / max(1, sum(each.n >= LEAST_N for each in found))
    return [
        ArmComparison(arm, base, each, float(p), *t_interval(arm.values(column) - base.values(column), level))
        for (arm, base), each, p in zip(pairs, found, corrected, strict=True)
    ]


def paired_table(made: Sequence[ArmComparison], keys: Sequence[str], *, label: str = "tab:paired") -> Table:
    """Return each arm minus its baseline in test accuracy: pairs, difference with its 95 % interval, p of the
    paired t test, p corrected over the table, Hedges' g, and the verdict.
    """
    rows = []
    for each in made:
        *cells, effect = paired_row(each.found, each.p_holm)
        interval = difference_interval(each.found.difference, each.low, each.high)
        verdict = Bold(each.verdict) if each.verdict in ("higher", "lower") else each.verdict
        rows.append((each.arm.label(keys), each.base.label(keys), *cells, interval, effect, verdict))
    *shared, effect_column = paired_columns(corrected=("p (Holm)",))
    columns = (
        Column("Arm", breaks=4),
        Column("Baseline", breaks=3),
        *shared,
        Column("Corrected interval", "interval", signed=True),
        effect_column,
        Column("Test accuracy is"),
    )
    caption = "Test accuracy minus that of the baseline, seed by seed (percentage points)"
    return Table(caption, label, columns, tuple(rows), paired_note(made), len(rows) > _ONE_PAGE, True)


def paired_note(made: Sequence[ArmComparison]) -> str:
    """Return a note on the tests, or why there are none."""
    if not made:
        return "There is nothing to compare: no arm shares a seed with a baseline."
    tests = sum(each.found.n >= LEAST_N for each in made)
    if tests == 0:
        return (
            f"With fewer than {LEAST_N} seeds in common there is a difference, but no interval and no test."
        )
    return (
        "p: two-sided paired t test, corrected by Holm's method over this table; it assumes differences that "
        f"scatter normally. Corrected interval: Student's, at 1 - {ALPHA:g} / {tests} (Bonferroni). The last "
        f"column says higher or lower where that interval excludes 0 and the corrected p is below {ALPHA:g}."
        + paired_notes([each.found for each in made], [(each.low, each.high) for each in made])
    )


def thresholds_table(arms: Sequence[Arm], keys: Sequence[str], observed: pd.DataFrame | None) -> Table | None:
    """Return a row for each arm and layer: the threshold before training, that of the tested weights (mean
    over seeds with its interval), and the change. None if no arm learns one.
    """
    rows: list[tuple[Cell, ...]] = []
    for arm in arms:
        seen = layers_of(observed, arm.ids)
        for (_, place), part in seen.groupby(["index", "place"], observed=True):
            first = part[part["loop"] == 0].set_index("id")["value"]
            last = part[part["loop"].isna()].set_index("id")["value"]
            final, change = summary(last), summary((last - first).dropna())
            rows.append(
                (
                    arm.label(keys),
                    str(place),
                    final.n,
                    summary(first).mean,
                    Interval(final.mean, final.low, final.high),
                    Interval(change.mean, change.low, change.high),
                )
            )
    columns = (
        Column("Arm", breaks=4),
        Column("Layer"),
        Column("n", "count"),
        Column("Initial", "number", 3),
        Column("Final", "interval", 3),
        Column("Change", "interval", 3, signed=True),
    )
    note = (
        "Final: of the weights that were tested, those of the best epoch; mean over seeds, 95 % t interval."
    )
    caption = "Learned thresholds"
    table = Table(caption, "tab:thresholds", columns, tuple(rows), note, len(rows) > _ONE_PAGE)
    return table if rows else None
