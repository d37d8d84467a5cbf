"""The report of memory and growth: one page of tables, figures and answers, all from the records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.csv_text import csv_bytes
from psa.analysis.frame_schema import trials_of
from psa.analysis.records_frame import stored_records
from psa.analysis.stats import LEAST_N, share_summary
from psa.core.formatting import pluralize
from psa.probes.metrics import by_class
from psa.reports import wording
from psa.reports.contract import ReportContext
from psa.reports.memory.answer_tables import comparison_table, hypothesis_table
from psa.reports.memory.arm_tables import consolidated, of_memories, of_networks
from psa.reports.memory.comparisons import MemoryComparison, compared_arms, comparisons_of, verdict
from psa.reports.memory.figures import figures_of
from psa.reports.memory.hypotheses import NOTICED, hypotheses
from psa.reports.memory.listings import comparison_tests, epoch_logs
from psa.reports.memory.run_folders import memory_run_folders
from psa.reports.memory.runs import build_runs, final_stage
from psa.reports.rendering.html import Fact, Page, Picture, Section, pick
from psa.reports.rendering.paired import paired_trials
from psa.reports.rendering.tables import Cell, Column, Table
from psa.reports.rendering.trials import CellTrials

_SUBJECTS: Final = ("a memory of hidden vectors", "growing a network while it trains")
_CAPTIONS: Final = {
    "test_accuracy": "Test accuracy of every arm of the final stage.",
    "first_stage_validation": "Validation accuracy in the first stage, by which arms went on.",
    "helped_and_harmed": "Test samples whose loss is lower or higher with the memory than without it.",
    "cost_of_the_memory": "Bytes held and samples trained a second, beside test accuracy.",
    "size_of_the_effect": "By how much the memory moves hidden vectors, as a share of their length.",
    "loss_changes": "Changes of loss by the memory, and how they depend on the distance of what it found.",
}


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a page for each study of this kind."""
    for study, rows in frame.groupby("study", observed=True, sort=False):
        yield f"{study}", rows


def _question(runs: pd.DataFrame) -> str:
    """Return the question of a page, about what any of its trials has: a memory, or growth."""
    there = (runs["footprint"].notna().any(), runs["growths"].gt(0).any())
    asked = [subject for subject, has in zip(_SUBJECTS, there, strict=True) if has]
    subject = " or ".join(asked or _SUBJECTS)
    return f"Does {subject} make a network more accurate than what the same effort buys otherwise?"


def tables(frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
    """Return all tables by name. Raises UserError without records."""
    runs = build_runs(frame, context)
    if runs.empty:
        return {}
    found = {"consolidated": consolidated(runs), "comparisons": comparison_table(comparisons_of(runs))}
    answers = hypotheses(runs, compared_arms(runs), _by_key(comparisons_of(runs)))
    found["hypotheses"] = hypothesis_table(answers)
    classes = _class_table(final_stage(runs), context)
    return found | ({} if classes is None else {"classes": classes})


def _by_key(comparisons: list[MemoryComparison]) -> dict[str, MemoryComparison]:
    return {each.key: each for each in comparisons}


def _class_table(last: pd.DataFrame, context: ReportContext) -> Table | None:
    """Return per-class precision, recall and F1 of the judged memory and its plain network, seeds summed."""
    seen, arms = context.observed, compared_arms(last)
    chosen = [arm for arm in (arms.memory, arms.rivals.get("nn")) if arm is not None]
    if seen is None or not chosen:
        return None
    counts = seen[(seen["probe"] == "confusion") & seen["loop"].isna()]
    rows: list[tuple[Cell, ...]] = []
    numbered = True
    for arm in chosen:
        runs = last[last["arm"] == arm]
        total = counts[counts["id"].isin(runs["id"])].groupby("index")["value"].sum().to_numpy()
        if not len(total):
            continue
        names = json.loads(runs["classes"].iloc[0])  # in a filtered data set not 0, 1, ...
        if whole := all(name.isascii() and name.isdigit() for name in names):
            names = list(map(int, names))
        numbered = numbered and whole
        found = by_class(total.astype(np.int64).reshape(len(names), len(names)))
        each = zip(names, found.precision, found.recall, found.f1, found.support, strict=True)
        rows += [(arm, name, *map(float, facts), int(count)) for name, *facts, count in each]
    columns = (
        Column("Arm", breaks=5), Column("Class", "count" if numbered else "text"),
        Column("Precision", "number", 4),
        Column("Recall", "number", 4), Column("F1", "number", 4), Column("Test samples", "count"),
    )  # fmt: skip
    text = "Answers on the test split, those of all seeds of an arm added up."
    return Table("By class", "tab:memory_classes", columns, tuple(rows), text, long=True) if rows else None


def figures(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield all figures by name."""
    runs = build_runs(frame, context)
    if len(runs):
        yield from figures_of(runs, final_stage(runs), context.observed, compared_arms(runs).memory)


def listings(frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
    """Return every run as CSV and JSON, every epoch and every test as CSV, and the report in Markdown."""
    runs = build_runs(frame, context)
    if runs.empty or context.store is None:
        return {}
    records = [record for record, _ in stored_records(context.store, runs["id"])]
    made = tables(frame, context)
    text = "\n\n".join(
        [f"# {_question(runs)}", *_verdict_text(runs), *(table.markdown() for table in made.values())]
    )
    return {
        "runs.csv": runs.to_csv(index=False).encode(),
        "runs.json": json_of(runs),
        "epoch_logs.csv": csv_bytes(epoch_logs(records, runs)),
        "comparison_tests.csv": csv_bytes(comparison_tests(runs, comparisons_of(runs))),
        "scientific_report.md": f"{text}\n".encode(),
    }


def runs(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the name and the files of a folder for each run (see psa.reports.memory.run_folders)."""
    if context.store is not None:
        yield from memory_run_folders(build_runs(frame, context), context.store)


def json_of(runs: pd.DataFrame) -> bytes:
    """Return the runs as JSON, a missing number as null."""
    rows = runs.astype(object).where(runs.notna(), None).to_dict("records")
    return (json.dumps(rows, indent=1, sort_keys=True, default=float) + "\n").encode()


def _verdict_text(runs: pd.DataFrame) -> list[str]:
    """Return the verdict on the memory and the reason; empty without a memory to judge."""
    arms = compared_arms(runs)
    if arms.memory is None:
        return []
    answer, reason = verdict(_by_key(comparisons_of(runs)))
    return [f"The memory ({arms.memory}) is {answer}: {reason}."]


def page(
    frame: pd.DataFrame, context: ReportContext, made: Mapping[str, Table], stored: Mapping[str, Path]
) -> Page:
    """Return the report of one study, from its tables and the stored PNG of each of its figures."""
    runs, rows = build_runs(frame, context), trials_of(frame)
    study = str(frame["study"].iloc[0])
    pictures = {name: Picture(path, _CAPTIONS[name]) for name, path in stored.items()}
    sections = tuple(_sections(runs, made, pictures))
    return Page(
        f"{study}: {pluralize(runs['arm'].nunique(), 'arm')}",
        _question(runs),
        tuple(_facts(runs, rows)),
        sections,
        (
            f"All numbers come from {pluralize(len(runs), 'record')} of study {study}, one per trial; "
            "runs.csv in the folder of the same name as this page holds them trial by trial.",
            *_staging(runs),
        ),
        tuple(_warnings(rows, runs)),
        {
            table.label: _trials_of_cells(table, str(final_stage(runs)["stage"].iloc[0]))
            for each in sections
            for table in each.tables
        },
        {str(run.id): {"Stage": str(run.stage), "Arm": str(run.arm)} for run in runs.itertuples(index=False)},
    )


def _trials_of_cells(table: Table, final: str) -> CellTrials:
    """Return the trials of a table's cells: those of the final stage, if the table has arms but no stages."""
    names = [column.name for column in table.columns]
    rows = {"Stage": "Stage", "Arm": "Arm"}
    found = CellTrials(rows)
    if "Minus" in names:
        found = paired_trials(
            table, rows, lambda row: {"Arm": row["Minus"]}, of_one=("Arm %",), of_other=("Minus", "Minus %")
        )
    of_final = names if "Arm" in names and "Stage" not in names else []
    return replace(found, columns={name: {"Stage": final} for name in of_final})


def _staging(runs: pd.DataFrame) -> Iterator[str]:
    if runs["stage"].nunique() > 1:
        yield (
            "Arms that went on from the first stage were chosen by validation accuracy alone, except those "
            "that the table of stages marks with always: the comparisons need them."
        )


def _facts(runs: pd.DataFrame, rows: pd.DataFrame) -> Iterator[Fact]:
    yield Fact("Trials", f"{len(runs):,} of {len(rows):,}", "done")
    if runs.empty:
        return
    last = final_stage(runs)
    yield Fact("Final stage", str(last["stage"].iloc[0]), pluralize(last["seed"].nunique(), "seed"))
    trials = last.groupby("arm")["test"].count()
    judged = trials[trials >= LEAST_N].index
    if len(judged):
        best = str(last[last["arm"].isin(judged)].groupby("arm")["validation"].mean().idxmax())
        found = share_summary(last.loc[last["arm"] == best, "test"])
        of = wording.judged_text(len(judged), len(trials), "arm")
        detail = f"{best}, best by validation; {wording.interval_text(found)}{of}"
        yield Fact("Test accuracy of the best arm", f"{found.mean:.2f} %", detail)
    if compared_arms(runs).memory is not None:
        yield Fact("Verdict on the memory", *verdict(_by_key(comparisons_of(runs))))


def _sections(
    runs: pd.DataFrame, made: Mapping[str, Table], pictures: Mapping[str, Picture]
) -> Iterator[Section]:
    if runs.empty:
        return
    shown, of = partial(pick, pictures), partial(pick, made)
    rule = (
        "Better: the 95 % interval of the difference is above 0, and p, adjusted for all questions of the "
        "page, is below 0.05. Promising: better than random entries, an idle memory, the largest plain "
        "network and a vote of embeddings. Currently unsupported: not better than random entries or than an "
        "idle memory. Unresolved: better than those two, but not than both others."
    )
    told = (*_verdict_text(runs), rule) if compared_arms(runs).memory is not None else ()
    yield Section("What the runs say", told, (), of("hypotheses", "comparisons"))
    arms = of("consolidated")
    accuracy = shown("test_accuracy", "first_stage_validation")
    yield Section("Accuracy", (), accuracy, tuple(map(of_networks, arms)))
    yield Section(
        "What the memory does",
        tuple(_effect_text(runs)),
        shown("size_of_the_effect", "helped_and_harmed", "loss_changes", "cost_of_the_memory"),
        (*(table for each in arms for table in of_memories(each)), *of("classes")),
    )


def _effect_text(runs: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence on memories that hardly change what their network computes, if there are any."""
    moved = final_stage(runs).groupby("arm")["relative"].mean().dropna()
    idle = moved[(moved > 0) & (moved < NOTICED)]
    still = int((moved == 0).sum())
    if len(idle):
        yield (
            f"{pluralize(len(idle), 'memory arm')} of {len(moved)} move hidden vectors by less than "
            f"{100 * NOTICED:g} % of their length: which samples these help or harm may be rounding."
            + (f" {still} more {'does' if still == 1 else 'do'} not move them at all." if still else "")
        )


def _warnings(rows: pd.DataFrame, runs: pd.DataFrame) -> Iterator[str]:
    if absent := wording.absence(rows):
        yield f"{absent}."
    seeds = runs.groupby(["stage", "arm"])["seed"].nunique()
    if few := wording.few_trials(int(seeds.max()) if len(seeds) else 0):
        yield few
