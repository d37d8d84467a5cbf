"""The tables, figures and page that compare further arms than the modes: each with mode none and its mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import differing_settings, with_known_settings
from psa.analysis.stats import ALPHA, LEAST_N, paired
from psa.core.errors import UserError
from psa.core.formatting import join_names, pluralize
from psa.reports.ablation.architectures import by_size
from psa.reports.ablation.cells import COMPARED_CELLS
from psa.reports.ablation.figures.aggregate import arms_figure
from psa.reports.ablation.numbers import unequal_arms_note
from psa.reports.rendering.html import Fact, Page, Picture, Section, pick
from psa.reports.rendering.paired import (
    arm_findings,
    paired_cells,
    paired_columns,
    paired_test_note,
    paired_trials,
    with_marks,
)
from psa.reports.rendering.tables import Column, Table
from psa.reports.rendering.trials import CellTrials
from psa.reports.wording import apart_text
from psa.specs.training import MODES
from psa.specs.training.settings import AblationSettings, RatchetSettings

_NONE: Final = "none"
_ONE_PAGE: Final = 40  # rows
# Settings in which arms may differ; the learning rate by a rule, of which an architecture has one.
_RATES: Final = ("lr", "weight_decay", "dropout")
_ONE_PER_ARM: Final = (*_RATES, *AblationSettings.model_fields, *RatchetSettings.model_fields)
COMPARED_ARMS: Final = (*COMPARED_CELLS, "plugins", *_ONE_PER_ARM)


def holds_arms(frame: pd.DataFrame) -> bool:
    """Return True for rows with other arms than those of the built-in modes."""
    return not frame["arm"].astype(str).isin(MODES).all()


_QUESTION: Final = (
    "Persistent Stochastic Ablation keeps the last known good state (LKG) of a network, and the bounty of a "
    "trial is the best validation accuracy that its LKG reached. Does any of these settings raise the "
    "bounty, and on which architectures?"
)


def arm_page(
    frame: pd.DataFrame,
    made: Mapping[str, Table],
    stored: Mapping[str, Path],
    sources: tuple[str, ...],
    warnings: tuple[str, ...],
) -> Page:
    """Return the page that compares the arms of a study, a section for each length of its trials."""
    rows = trials_of(frame)
    done = int((rows["status"] == "done").sum())
    counts = f"{rows['arm'].nunique()} arms of {pluralize(rows['arch'].nunique(), 'architecture')}"
    return Page(
        f"{rows['study'].iloc[0]}{apart_text(frame)}: {rows['family'].iloc[0]}, arms",
        _QUESTION,
        (Fact("Trials", f"{done:,} of {len(rows):,}", counts),),
        tuple(_arm_section(loops, made, stored) for loops in _lengths(rows)),
        sources,
        (*warnings, *_few_seeds(rows)),
        {table.label: _arm_trials(name, table, rows) for name, table in made.items()},
        _trial_names(frame, rows),
    )


def _arm_trials(name: str, table: Table, rows: pd.DataFrame) -> CellTrials:
    """Return the trials of the cells of a table of arms minus mode none, or minus their mode as published."""
    modes = dict(zip(rows["arm"].astype(str), rows["mode"].astype(str), strict=True))
    minus_none = name.startswith(("arms_minus_none_", "modes_by_architecture_"))
    found = paired_trials(
        table,
        {"Architecture": "arch", "Arm": "arm"},
        lambda row: {"arm": _NONE if minus_none else modes[row["Arm"]]},
    )
    return replace(found, needs=_after(int(name.rpartition("_")[2])))


def _after(loops: int) -> str:
    return f"After {pluralize(loops, 'loop')} (%)"


def _trial_names(frame: pd.DataFrame, rows: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return by id the arm of each trial and its bounty after each length of the page, None if shorter."""
    names: dict[str, dict[str, Any]] = {str(each.id): {"arm": str(each.arm)} for each in rows.itertuples()}
    for loops in _lengths(rows):
        scores = bounties_after(frame, loops)
        for each in rows.itertuples():
            score = scores.get((each.arm, each.arch, each.seed))
            names[str(each.id)][_after(loops)] = None if score is None else round(float(score), 4)
    return names


def _few_seeds(rows: pd.DataFrame) -> Iterator[str]:
    """Yield why single architectures have no interval, where that is so."""
    seeds = rows[rows["status"] == "done"].groupby(["arm", "arch"], observed=True).size()
    if len(seeds) and seeds.max() < LEAST_N:
        yield (
            f"No arm has more than {pluralize(int(seeds.max()), 'seed')} of an architecture: differences on "
            "single architectures have no interval and no test. Intervals and tests are over architectures."
        )


def _arm_section(loops: int, made: Mapping[str, Table], stored: Mapping[str, Path]) -> Section:
    """Return the section of the trials after so many loops."""
    caption = f"Bounty of each arm after {pluralize(loops, 'loop')} minus that of mode none."
    pictures = {name: Picture(path, caption) for name, path in stored.items()}
    names = [name for name in made if name.endswith(f"_{loops}")]
    text = arm_findings(made[f"arms_minus_none_{loops}"])
    return Section(
        f"After {pluralize(loops, 'loop')}", text, pick(pictures, f"arms_{loops}"), pick(made, *names)
    )


def arm_figures(frame: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Yield for every length of a finished trial the figure of all arms minus mode none, if it has pairs."""
    rows = trials_of(frame).dropna(subset=["parameters"])
    parameters = {str(arch): int(count) for arch, count in zip(rows["arch"], rows["parameters"], strict=True)}
    for loops in _lengths(trials_of(frame)):
        scores = bounties_after(frame, loops)
        arms = [str(arm) for arm in scores.index.unique("arm") if arm != _NONE]
        found = {arm: pairs for arm in arms if len(pairs := _pairs(scores, arm, _NONE))}
        if found:
            yield f"arms_{loops}", arms_figure(found, parameters, loops)


def _lengths(rows: pd.DataFrame) -> list[int]:
    """Return the numbers of loops of finished trials that did not stop early, in rising order."""
    done = rows[(rows["status"] == "done") & ~rows["stopped_early"].fillna(value=False).astype(bool)]
    return sorted(set(map(int, done["loops"])))


def arm_tables(frame: pd.DataFrame) -> dict[str, Table]:
    """Return tables that compare arms, of a frame of one family that holds more arms than the modes.

    For every length of a finished trial, since a staged grid trains some of its arms longer: each arm minus
    mode none, and minus the published arm of its own mode, over architectures and for each of them; a mode of
    a plugin minus mode none. Raises UserError where trials of one arm differ in anything but architecture and
    seed, or data differ.
    """
    rows = trials_of(frame)
    for column, names in differing_settings(rows, COMPARED_ARMS).items():
        raise UserError(
            f"the rows hold more than one {column}: {join_names(names)}", "Name one grid with --grid"
        )
    _check_arms(rows)
    found = {}
    for loops in _lengths(rows):
        scores = bounties_after(frame, loops)
        modes = dict(zip(rows["arm"].astype(str), rows["mode"].astype(str), strict=True))
        none = {arm: _NONE for arm in modes if arm != _NONE}
        own = {arm: mode for arm, mode in modes.items() if arm != mode}
        found[f"arms_minus_none_{loops}"] = _arm_table(scores, none, loops, "mode none")
        found[f"arms_minus_mode_{loops}"] = _arm_table(scores, own, loops, "its mode as published")
        found[f"arms_by_architecture_{loops}"] = _by_architecture(
            scores, own, loops, "its mode as published", "arms"
        )
        of_plugins = {arm: _NONE for arm, mode in modes.items() if arm == mode not in MODES}
        found[f"modes_by_architecture_{loops}"] = _by_architecture(
            scores, of_plugins, loops, "mode none", "modes"
        )
    return {name: table for name, table in found.items() if table.rows or "minus_none" in name}


def _check_arms(rows: pd.DataFrame) -> None:
    """Raise UserError for an arm whose trials of one architecture differ in more than their seeds."""
    arms = with_known_settings(rows).groupby(["arm", "arch"], observed=True)
    for column in _ONE_PER_ARM:  # a label rounds numbers, and leaves out settings of policy keep
        several = arms[column].nunique(dropna=False) > 1
        for arm, arch in several.index[several]:
            raise UserError(
                f"the rows hold arm {arm!r} of {arch} with more than one {column}",
                "Name one grid with --grid",
            )
    twice = rows[rows.duplicated(["arm", "arch", "seed"])]
    if len(twice):
        row = twice.iloc[0]
        raise UserError(
            f"the rows hold arm {row['arm']!r} of {row['arch']} seed {row['seed']} more than once",
            "Name one grid with --grid",
        )


def bounties_after(frame: pd.DataFrame, loops: int) -> pd.Series:
    """Return the bounty in percent after so many loops, by arm, architecture and seed. A trial that is
    shorter is left out, unless it stopped early.
    """
    stopped = frame["stopped_early"].fillna(value=False).astype(bool)
    there = frame["loop"].notna() & ((frame["loops"] >= loops) | stopped)
    kept = frame[there & (frame["loop"] <= loops) & frame["kept"].fillna(value=False).astype(bool)]
    return kept.groupby(["arm", "arch", "seed"], observed=True)["accuracy"].max()


def _arm_table(scores: pd.Series, base: Mapping[str, str], loops: int, beside: str) -> Table:
    """Return the table of arms minus their base, by the means of architectures over the seeds of both."""
    names, found, trials = [], [], list[pd.MultiIndex]()
    for arm, other in base.items():
        pairs = _pairs(scores, arm, other)
        if len(pairs):
            means = pairs.groupby("arch", observed=True).mean()
            names.append(arm)
            trials.append(pairs.index)
            found.append(paired(means["arm"], means["base"]))
    columns = (
        Column("Arm", breaks=7),
        *paired_columns("Difference (points)", pairs="Architectures"),
    )
    rows = [(name, *with_marks(cells)) for name, cells in zip(names, paired_cells(found), strict=True)]
    note = (
        f"Bold: p < {ALPHA:g} after Holm's correction over this table. Of each architecture the mean "
        "difference over the seeds that both arms have; interval and p over architectures. "
        f"{paired_test_note(found, 'architectures')} {unequal_arms_note(trials)}".rstrip()
    )
    kind = beside.split()[1] if beside.startswith("mode") else "own"
    return Table(
        f"Bounty of each arm after {pluralize(loops, 'loop')} minus that of {beside}",
        f"tab:arms_{kind}_{loops}", columns, tuple(rows), note, len(rows) > _ONE_PAGE,
    )  # fmt: skip


def _by_architecture(scores: pd.Series, base: Mapping[str, str], loops: int, beside: str, kind: str) -> Table:
    """Return the table of arms minus their base (`beside` names it), seed by seed for each architecture."""
    names, found = [], []
    for arm, other in base.items():
        parts = {
            str(arch): pairs for arch, pairs in _pairs(scores, arm, other).groupby("arch", observed=True)
        }
        for arch in by_size(parts):
            names.append((arch, arm))
            found.append(paired(parts[arch]["arm"], parts[arch]["base"]))
    columns = (Column("Architecture"), Column("Arm", breaks=6), *paired_columns("Difference (points)"))
    rows = [(*name, *cells) for name, cells in zip(names, paired_cells(found), strict=True)]
    return Table(
        f"Bounty of each arm after {pluralize(loops, 'loop')} minus {beside}, seed by seed",
        f"tab:{kind}_by_architecture_{loops}", columns, tuple(rows), paired_test_note(found),
        len(rows) > _ONE_PAGE,
    )  # fmt: skip


def _pairs(scores: pd.Series, arm: str, base: str) -> pd.DataFrame:
    """Return the scores of two arms side by side, of the architectures and seeds that both have."""
    arms = scores.index.get_level_values("arm")
    parts = {name: scores[arms == each].droplevel("arm") for name, each in (("arm", arm), ("base", base))}
    return pd.DataFrame(parts).dropna()
