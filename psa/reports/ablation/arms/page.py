"""The page that compares further arms than the modes, and its figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_schema import trials_of
from psa.analysis.stats import LEAST_N
from psa.core.formatting import pluralize
from psa.reports.ablation.arms.figure import arms_figure
from psa.reports.ablation.arms.pairs import (
    accuracies_after,
    bounties_after,
    common_seeds,
    lengths_of,
    pairs_of,
)
from psa.reports.ablation.arms.tables import NONE, only_tested
from psa.reports.rendering.html import Fact, Page, Picture, Section, pick
from psa.reports.rendering.paired import arm_findings, paired_trials
from psa.reports.rendering.tables import Table
from psa.reports.rendering.trials import CellTrials
from psa.reports.wording import apart_text
from psa.specs.training import MODES


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
    shown = {
        name: only_tested(table) if "_by_architecture_" in name else table for name, table in made.items()
    }
    scores = {loops: _scores_of(frame, rows, loops) for loops in lengths_of(rows)}
    counts = f"{rows['arm'].nunique()} arms of {pluralize(rows['arch'].nunique(), 'architecture')}"
    return Page(
        f"{rows['study'].iloc[0]}{apart_text(frame)}: {rows['family'].iloc[0]}, arms",
        _QUESTION,
        (Fact("Trials", f"{done:,} of {len(rows):,}", counts),),
        tuple(_arm_section(loops, shown, stored) for loops in scores),
        sources,
        (*warnings, *_few_seeds(rows)),
        {table.label: _arm_trials(name, table, rows, scores) for name, table in shown.items()},
        _trial_names(rows, scores),
    )


def _arm_trials(
    name: str, table: Table, rows: pd.DataFrame, scores: Mapping[int, Mapping[str, pd.Series]]
) -> CellTrials:
    """Return the trials of the cells of a table of arms minus mode none, or minus their mode as published.

    scores: see _scores_of, by number of loops.
    """
    modes = dict(zip(rows["arm"].astype(str), rows["mode"].astype(str), strict=True))
    minus_none = name.startswith(("arms_minus_none_", "modes_by_architecture_"))
    found = paired_trials(
        table,
        {"Architecture": "arch", "Arm": "arm"},
        lambda row: {"arm": NONE if minus_none else modes[row["Arm"]]},
    )
    loops = int(name.rpartition("_")[2])
    needed = _test_after(loops) if "_test_" in name else _common_after(loops)
    pooled = name.startswith("arms_minus_") and needed in scores[loops]
    return replace(found, needs=needed if pooled else _after(loops))


def _after(loops: int) -> str:
    return f"After {pluralize(loops, 'loop')} (%)"


def _common_after(loops: int) -> str:
    return f"After {pluralize(loops, 'loop')}, common seeds (%)"


def _test_after(loops: int) -> str:
    return f"Test after {pluralize(loops, 'loop')} (%)"


def _scores_of(frame: pd.DataFrame, rows: pd.DataFrame, loops: int) -> dict[str, pd.Series]:
    """Return the scores after so many loops by heading: bounties, if some arms have further seeds those of
    the common ones, and, if there are any, test accuracies of the common ones.
    """
    scores = bounties_after(frame, loops)
    common, note = common_seeds(scores)
    tests, _ = common_seeds(accuracies_after(rows, loops))
    return (
        {_after(loops): scores}
        | ({_common_after(loops): common} if note else {})
        | ({_test_after(loops): tests} if len(tests) else {})
    )


def _trial_names(
    rows: pd.DataFrame, scores: Mapping[int, Mapping[str, pd.Series]]
) -> dict[str, dict[str, Any]]:
    """Return by id the arm of each trial and its scores (see _scores_of), None where it has no such score."""
    names: dict[str, dict[str, Any]] = {str(each.id): {"arm": str(each.arm)} for each in rows.itertuples()}
    for heading, found in (each for of in scores.values() for each in of.items()):
        for each in rows.itertuples():
            score = found.get((each.arm, each.arch, each.seed))
            names[str(each.id)][heading] = None if score is None else round(float(score), 4)
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
    if (tests := made.get(f"arms_minus_none_test_{loops}")) is not None:
        text += tuple(f"Test accuracy: {_lower(sentence)}" for sentence in arm_findings(tests))
    return Section(
        f"After {pluralize(loops, 'loop')}", text, pick(pictures, f"arms_{loops}"), pick(made, *names)
    )


def _lower(sentence: str) -> str:
    return f"{sentence[:1].lower()}{sentence[1:]}"


def arm_figures(frame: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """Yield for every length of a finished trial the figure of all arms minus mode none, if it has pairs."""
    rows = trials_of(frame).dropna(subset=["parameters"])
    parameters = {str(arch): int(count) for arch, count in zip(rows["arch"], rows["parameters"], strict=True)}
    for loops in lengths_of(trials_of(frame)):
        scores, note = common_seeds(bounties_after(frame, loops))
        arms = [str(arm) for arm in scores.index.unique("arm") if arm != NONE]
        found = {arm: pairs for arm in arms if len(pairs := pairs_of(scores, arm, NONE))}
        if found:
            yield f"arms_{loops}", arms_figure(found, parameters, loops, [note])
