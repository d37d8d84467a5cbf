"""Trials that may be averaged and compared: those with equal settings and an equal number of loops.

Every report decides this here, from the settings in psa.analysis.frame_columns, so that a new setting cannot
be averaged away.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

import pandas as pd

from psa.analysis.frame_columns import LABELS, LOOP_COLUMNS, SPEC_FIELDS
from psa.analysis.frame_schema import trials_of
from psa.core.formatting import format_number, join_names, pluralize

# All settings that affect a number of a trial, but for the seed: trials of one arm share them.
POOLED_SETTINGS: Final = tuple(
    field.name for field in SPEC_FIELDS if not field.observes and field.name != "seed"
)
_UNSET: Final = ("nan", "None", "<NA>", "")
_LONG: Final = 40  # characters of a value from which on a digest names it
# What is left of a trial of another length: its settings and its number of loops.
_RESULTS: Final = (
    "stopped_early", "bounty", "bounty_correct", "bounty_loop", "test", "test_loss",
)  # fmt: skip
_NAMED: Final = 4


def with_known_settings(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose settings are known: a trial that is only known to be missing has none."""
    return rows[rows[["dataset", "policy", "lr"]].notna().any(axis=1)]


def differing_settings(rows: pd.DataFrame, besides: Collection[str]) -> dict[str, list[str]]:
    """Return the settings in which trials differ, except `besides` and observations, each with its values as
    text. rows: one per trial.
    """
    known = with_known_settings(rows)
    # a column of one value cannot differ, and most are: without its texts this takes a fifth of the time
    varied = [
        name for name in POOLED_SETTINGS if name not in besides and known[name].nunique(dropna=False) > 1
    ]
    texts = {name: setting_texts(known, name) for name in varied}
    return {name: sorted(values.unique()) for name, values in texts.items() if values.nunique() > 1}


def setting_texts(rows: pd.DataFrame, name: str) -> pd.Series[Any]:
    """Return the values of a setting as text, "none" for an unset one ("all" digits or images)."""
    unset, values = unset_text(name), rows[name].astype(object)
    texts = {value: _text(value, unset) for value in values.dropna().unique()}
    return pd.Series([texts.get(value, unset) for value in values], index=rows.index, dtype=object)


def unset_text(name: str) -> str:
    """Return the text for a setting that is not set: all digits or images, otherwise none."""
    return "all" if name in ("digits", "train_size", "subset_test_size") else "none"


def _text(value: Any, unset: str) -> str:
    text = format_number(value) if isinstance(value, float) else str(value)
    return unset if text in _UNSET else text


def label_settings(settings: Mapping[str, Any]) -> str:
    """Format settings by name as text: `lr 0.001, digits 0,1`."""
    return ", ".join(f"{LABELS[name].lower()} {value}" for name, value in settings.items())


def comparable_parts(
    frame: pd.DataFrame, besides: Collection[str], *, by_length: bool = True
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Divide the rows of a study so that the trials of a part differ in `besides` and the seed alone, and
    with `by_length` have one length.

    Yields the settings and the length that set a part apart, as text (none if there is one part), and its
    rows; of several lengths, the attribute `lengths` of the rows says how many trials have each. Where there
    are several settings, a trial without known ones is in no part; one without results is
    in the part with most trials of its settings.
    """
    varied = list(differing_settings(trials_of(frame), besides))  # not each loop of each of them
    parts: Iterable[tuple[dict[str, str], pd.DataFrame]] = [({}, frame)]
    if varied:
        known = with_known_settings(frame)
        grouped = known.groupby([setting_texts(known, name) for name in varied], sort=True)
        parts = ((dict(zip(varied, map(str, values), strict=True)), part) for values, part in grouped)
    for apart, part in parts:
        yield from _of_one_length(apart, part) if by_length else [(apart, part)]


def split_arms(frame: pd.DataFrame, usual: Mapping[str, float]) -> pd.DataFrame:
    """Return the rows with an arm of its own for each value of a setting of which one arm has several.

    usual: The settings, each with the value that keeps the name of the arm.
    """
    arms = frame["arm"].astype(str)
    for name, value in usual.items():
        several = frame[name].groupby(arms).nunique() > 1
        other = arms.isin(several.index[several]) & frame[name].notna() & (frame[name] != value)
        arms = arms.where(~other, arms + f", {LABELS[name].lower()} " + frame[name].map(format_number))
    return frame.assign(arm=arms.astype("category"))


def _of_one_length(
    apart: dict[str, str], part: pd.DataFrame
) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield the rows of a part for each number of loops of its finished trials, ascending."""
    trials = trials_of(part)
    counts = finished_lengths(trials)
    if len(counts) < 2:
        yield apart, part
        return
    place = length_groups(trials)
    of = part["id"].astype(str).map(dict(zip(trials["id"].astype(str), place, strict=True)))
    for loops in counts:
        page = part[of == loops].reset_index(drop=True)
        page.attrs["lengths"] = counts
        yield {**apart, "loops": f"{loops}"}, page


def length_groups(trials: pd.DataFrame) -> pd.Series[Any]:
    """Return the number of loops by which each trial is grouped: its own if it is finished, the greatest one
    if it stopped early, and that of most trials if it has no results.
    """
    counts = finished_lengths(trials)
    if not counts:
        return trials["loops"]
    most = max(counts, key=lambda loops: (counts[loops], loops))
    done, stopped = trials["status"] == "done", _stopped_early(trials)
    return trials["loops"].where(done & ~stopped, most).where(~stopped, max(counts))


def _stopped_early(trials: pd.DataFrame) -> pd.Series[Any]:
    return trials["stopped_early"].fillna(value=False).astype(bool)


def file_name_part(settings: Mapping[str, str]) -> str:
    """Return settings as part of a file name: `lr-0.001_digits-0-1`; a long value is named by a digest."""
    return "_".join(f"{name}-{_short(value)}" for name, value in settings.items())


def _short(value: str) -> str:
    if len(value) > _LONG:
        return hashlib.sha256(value.encode()).hexdigest()[:8]
    return "".join(each if each.isalnum() or each in ".-" else "-" for each in value)


def finished_lengths(trials: pd.DataFrame) -> dict[int, int]:
    """Return how many finished trials, that did not stop early, have each number of loops, ascending."""
    done = trials["loops"][(trials["status"] == "done") & ~_stopped_early(trials)].dropna()
    return dict(sorted(Counter(map(int, done)).items()))


def equal_budgets(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame in which all finished trials have one length, or stopped early before it.

    The length is that of most finished trials, of several the greatest. The others get the status `shorter`
    or `longer` and keep their settings and their number of loops alone: a mean over both would be of neither.
    """
    trials = trials_of(frame)
    counts, stopped = finished_lengths(trials), _stopped_early(trials)
    if not counts:
        return frame
    budget = max(counts, key=lambda loops: (counts[loops], loops))
    done = trials[(trials["status"] == "done") & trials["loops"].notna()]
    other = {
        str(name): "longer" if loops > budget else "shorter"
        for name, loops, early in zip(done["id"], done["loops"], stopped[done.index], strict=True)
        if loops > budget or (loops < budget and not early)
    }
    return _without_results_of(frame, other) if other else frame


def _without_results_of(frame: pd.DataFrame, statuses: Mapping[str, str]) -> pd.DataFrame:
    """Return the frame with one row, without results, for each trial in `statuses` (by id)."""
    ids = frame["id"].astype(str)
    named = ids.isin(list(statuses))
    kept = frame[~named | ~ids.duplicated()].copy()
    named = named[kept.index]
    blank = [name for name in (*_RESULTS, *LOOP_COLUMNS) if name in kept]
    status = kept["status"].astype("str")
    status[named] = ids[kept.index][named].map(statuses)
    kept["status"] = status.astype("category")
    for name in blank:
        kept[name] = kept[name].mask(named)
    return kept.reset_index(drop=True)


def budget_note(trials: pd.DataFrame, unit: str = "meta-loops") -> str | None:
    """Return a sentence on the trials that are left out for their length; None without any."""
    others = trials[trials["status"].isin(["shorter", "longer"])]
    lengths = list(finished_lengths(trials))
    if others.empty or not lengths:
        return None
    theirs = sorted({int(loops) for loops in others["loops"]})
    return (
        f"{pluralize(len(others), 'trial')} of {join_names(list(map(str, theirs)), _NAMED)} {unit} "
        f"{'takes' if len(others) == 1 else 'take'} part in no mean and no comparison: the others were "
        f"trained for {lengths[-1]:,} {unit}."
    )


def identical_arms(frame: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return for each mode but none: the number of pairs whose loops all equal those of mode none, and the
    number of pairs. An arm whose pairs are all equal duplicates mode none.
    """
    loops = frame[frame["loop"].notna()]
    keys = ["arch", "seed", "loop"]
    columns = ["accuracy", "loss", "train_loss"]
    base = loops[loops["mode"] == "none"].set_index(keys)[columns]
    found = {}
    for mode in loops["mode"].cat.remove_unused_categories().cat.categories:
        other = loops[loops["mode"] == mode].set_index(keys)[columns]
        both = other.merge(base, left_index=True, right_index=True, suffixes=("", " of none"))
        if mode == "none" or both.empty:
            continue
        same = pd.concat([_same(both[name], both[f"{name} of none"]) for name in columns], axis=1).all(axis=1)
        pairs = same.groupby(["arch", "seed"], observed=True).all()
        found[str(mode)] = (int(pairs.sum()), len(pairs))
    return found


def _same(one: pd.Series, other: pd.Series) -> pd.Series:
    """Return where two columns are equal; two losses that are not numbers are, too."""
    return one.eq(other) | (one.isna() & other.isna())
