"""Trials that differ in any setting are never averaged without a word: over all fields and all reports."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import some_record
from spec_fields import FIELDS

from psa.analysis.frame_columns import SPEC_FIELDS, spec_columns
from psa.analysis.frame_schema import build_frame, trials_of
from psa.analysis.pooling import budget_note, comparable_parts, equal_budgets
from psa.core.errors import UserError
from psa.experiments.studies.memory import Settings, from_settings
from psa.reports.ablation import report as ablation
from psa.reports.ablation.effects import paired_table
from psa.reports.ablation.published import regime_table
from psa.reports.ablation.tables import accuracy_table
from psa.reports.activations import report as activations
from psa.reports.contract import ReportContext
from psa.reports.glonet import report as glonet
from psa.reports.gradients import report as gradients
from psa.reports.memory.report import consolidated
from psa.reports.memory.runs import runs_from
from psa.reports.rendering.tables import Bold, MeanSd, Table
from psa.specs.base import canonical_json
from psa.specs.trial import Trial

CONTEXT = ReportContext(Path("unused"))
SEEDS = 3  # of each of the two settings
NO_SETTING = {
    "spec.seed": "trials of one arm differ in it",
    "spec.probes": "they change no number of a trial",
}
FRAMED = [
    field for field in FIELDS if field not in {*NO_SETTING, "spec.kind"}
]  # each kind has pages of its own
COLUMN_OF = {
    field: next(each.name for each in SPEC_FIELDS if f"{field}.".startswith(f"{each.path}."))
    for field in FRAMED
}
OTHERS = {
    "activation": "Tanh", "arch": "[2*8]", "digits": [0, 1], "simplex": "columns", "study": "other",
    "family": "glonet", "control": "random", "policy": "keep", "scaling": "unit", "name": "fashion-mnist",
}  # fmt: skip


def base_spec() -> dict[str, Any]:
    """The spec of a trial that has every part: a memory, growth, and an earlier leg."""
    spec = Trial().model_dump(mode="json")
    memory = from_settings(Settings.model_validate({"method": "hybrid", "arch": "1*8"}), 0)
    growth = from_settings(Settings.model_validate({"method": "nn", "arch": "1*8", "growing": True}), 0)
    leg = {"until": 1, **{name: spec[name] for name in ("model", "method", "intervention")}}
    return spec | {
        "memory": memory.model_dump(mode="json")["memory"],
        "growth": growth.model_dump(mode="json")["growth"],
        "legs": [copy.deepcopy(leg)],
        "model": spec["model"] | {"arch": "[1*8]", "family": "mlp"},
    }


def changed(spec: Mapping[str, Any], field: str, value: Any = None) -> dict[str, Any]:
    """The spec with another value of one field, at any depth, which need not be a valid one."""
    found = copy.deepcopy(dict(spec))
    place: Any = found
    *path, last = field.split(".")[1:]
    for name in path:
        place = place.setdefault(name, {})
        place = place[0] if isinstance(place, list) else place
    place[last] = other(last, place.get(last)) if value is None else value
    return found


def other(name: str, value: Any) -> Any:
    """Some other value of a field."""
    if name in OTHERS:
        return OTHERS[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return 3 if value is None else "other"


def both(field: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two specs that differ in a field alone."""
    one = base_spec() | {"kind": kind}
    if kind != "memory":  # parts that such trials do not have are left out, unless they are what differs
        one |= {name: None for name in ("memory", "growth") if not field.startswith(f"spec.{name}")}
        one["legs"] = one["legs"] if field.startswith("spec.legs") else []
    if field == "spec.model.temperature":  # acts with a simplex
        one = changed(one, "spec.model.simplex")
    return one, changed(one, field)


def row(spec: Mapping[str, Any], seed: int, loops: int = 4) -> dict[str, Any]:
    """A finished trial of a spec, as a row of a frame."""
    columns = spec_columns(spec) | {"seed": seed}
    correct = [5000 + 10 * seed + loop for loop in range(loops)]
    history = {"loop": list(range(1, loops + 1)), "mode": [columns["mode"]] * loops, "correct": correct}
    history |= {name: [None] * loops for name in ("layer", "unit")}
    history |= {"loss": [1.0] * loops, "train_loss": [1.0] * loops, "kept": [True] * loops}
    return columns | {
        "id": f"{canonical_json(spec)}/none/s{seed:02d}",
        "status": "done", "source": "psa", "parameters": 1000, "loops": loops, "stopped_early": False,
        "validation_size": 10_000, "test_size": 10_000, "bounty": correct[-1] / 100, "zero_r": 11.0,
        "bounty_correct": correct[-1], "bounty_loop": loops, "test": correct[-1] / 100, "test_loss": 1.0,
        "device": "cpu", "history": history,
    }  # fmt: skip


def frame_of(field: str, kind: str) -> pd.DataFrame:
    """Three seeds of each of two settings, all seeds different."""
    one, another = both(field, kind)
    rows = [row(one, seed) for seed in range(SEEDS)]
    return build_frame(rows + [row(another, seed) for seed in range(SEEDS, 2 * SEEDS)])


def counted(table: Table) -> Iterator[int]:
    """The numbers of trials that a table says its cells are of."""
    counts = [at for at, column in enumerate(table.columns) if column.name in ("n", "Seeds", "Pairs")]
    for cells in table.rows:
        for at, cell in enumerate(cells):
            value = cell.value if isinstance(cell, Bold) else cell
            if isinstance(value, MeanSd):
                yield value.n
            elif at in counts and value is not None:
                yield int(str(value).rpartition(" ")[2])


def of_ablation(rows: pd.DataFrame) -> list[Table]:
    """The tables of means of the ablation study."""
    return [accuracy_table(rows), paired_table(rows), regime_table(rows)]


PAGES = {
    "ablation": (ablation.parts, of_ablation),
    "glonet": (glonet.parts, lambda rows: list(glonet.tables(rows, CONTEXT).values())),
    "activations": (activations.parts, lambda rows: list(activations.tables(rows, CONTEXT).values())),
}


@pytest.mark.parametrize("field", FRAMED)
def test_every_field_is_a_difference_of_one_column(field: str) -> None:
    """So that the next test, which takes one field of each column, is of all fields."""
    one, another = (spec_columns(spec) for spec in both(field, "ablation"))
    assert [name for name in one if one[name] != another[name]] == [COLUMN_OF[field]]


@pytest.mark.parametrize("kind", list(PAGES))
@pytest.mark.parametrize("field", {COLUMN_OF[field]: field for field in FRAMED}.values())
def test_trials_that_differ_in_a_setting_are_never_averaged(field: str, kind: str) -> None:
    """They are on pages of their own, in rows of their own, or refused: no mean is of more than one arm."""
    frame = frame_of(field, kind)
    parts, tables = PAGES[kind]
    pages = list(parts(frame))
    assert pages
    for _, rows in pages:
        try:
            made = tables(rows)
        except (UserError, ValueError) as error:  # a network that the study does not know
            assert "--grid" in str(error) or "several widths" in str(error)  # noqa: PT017
            continue
        counts = [count for table in made for count in counted(table)]
        assert counts
        assert max(counts) <= SEEDS


@pytest.mark.parametrize("field", {COLUMN_OF[field]: field for field in FRAMED}.values())
def test_networks_of_a_page_of_gradients_say_in_what_they_differ(field: str) -> None:
    """That report averages nothing, and its rows name the seed alone."""
    pages = list(gradients.parts(frame_of(field, "gradients")))
    for _, rows in pages:
        warnings = gradients.page(rows, CONTEXT, gradients.tables(rows, CONTEXT), {}).warnings
        assert len(pages) > 1 or any(f"differ in {COLUMN_OF[field]} (" in text for text in warnings)


@pytest.mark.parametrize("field", FRAMED)
def test_arms_of_memories_have_one_setting(field: str) -> None:
    """Trials that differ in a field are other arms, or another stage where it is the number of images."""
    records = []
    for spec, seeds in zip(both(field, "memory"), (range(SEEDS), range(SEEDS, 2 * SEEDS)), strict=True):
        for seed in seeds:
            made = some_record(3) | {"spec": spec | {"seed": seed}, "id": f"memory/{field}/s{seed}"}
            made["samples"] |= {"train": spec["data"].get("train_size") or 50_000}
            records.append((made, {}))
    if field == "spec.study":  # a page for each
        return
    counts = list(counted(consolidated(runs_from(records))))
    assert counts
    assert max(counts) <= SEEDS


def test_a_plain_repetition_is_averaged() -> None:
    """Or the tests above would say nothing: trials that differ in seed and probes alone are one arm."""
    one = base_spec() | {"memory": None, "growth": None, "legs": []}
    rows = [row(one, 0), row(one | {"probes": ["train_accuracy"]}, 1), row(one, 2)]
    for parts, tables in PAGES.values():
        [(_, page)] = list(parts(build_frame(rows)))
        assert max(count for table in tables(page) for count in counted(table)) == 3


@pytest.mark.parametrize("kind", list(PAGES))
def test_trials_of_unequal_budgets_are_never_compared_as_if_equal(kind: str) -> None:
    """One arm extended to 12 loops and the other at 2: those of the rarer length take no part."""
    one, another = both("spec.method.lr", kind)
    if kind == "ablation":
        another = changed(one, "spec.intervention.mode", "full")
    if kind == "glonet":
        another = changed(one, "spec.model.family", "glonet")
    rows = [row(one, seed, 2) for seed in range(3)] + [row(another, seed, 12) for seed in range(4)]
    parts, tables = PAGES[kind]
    pages = list(parts(build_frame(rows)))
    assert [set(page["loops"]) for _, page in pages] == [{2}, {12}]
    for (_, page), n, others in zip(pages, (3, 4), ("50.41", "50.11"), strict=True):
        made = tables(page)
        assert {count for table in made for count in counted(table)} <= {0, n}
        for text in (text for table in made for text in (table.markdown(), table.latex(), table.csv())):
            assert others not in text  # the best seed, or the mean, of the arm of the other length
    forced = [table for table in tables(build_frame(rows)) if table.rows]
    assert {count for table in forced for count in counted(table)} <= {0, 4}
    assert "3 trials of 2" in str(budget_note(trials_of(equal_budgets(build_frame(rows)))))


def test_lengths_are_equal_after_the_rule_and_early_stops_are_kept() -> None:
    """A trial that stopped early within the budget counts; one that ran beyond it does not."""
    one = base_spec()
    rows = [row(one, seed, loops) for seed, loops in enumerate((4, 4, 2, 6, 3, 5))]
    for early in rows[4:]:
        early["stopped_early"] = True
    found = trials_of(equal_budgets(build_frame(rows))).set_index("seed")
    assert list(found["status"]) == ["done", "done", "shorter", "longer", "done", "longer"]
    assert list(found["loops"]) == [4, 4, 2, 6, 3, 5]
    assert list(found["bounty"].notna()) == [True, True, False, False, True, False]
    again = equal_budgets(equal_budgets(build_frame(rows)))
    pd.testing.assert_frame_equal(again, equal_budgets(build_frame(rows)))


def test_a_page_of_one_setting_has_a_plain_name() -> None:
    """Settings are named only where they differ, with values as text; a long one by a digest."""
    one, another = both("spec.data.train_size", "ablation")
    rows = [row(one, 0), row(another, 1)]
    assert [name for name, _ in ablation.parts(build_frame(rows[:1]))] == ["ablation_mlp"]
    named = [name for name, _ in ablation.parts(build_frame(rows))]
    assert named == ["ablation_mlp_train_size-3", "ablation_mlp_train_size-all"]
    one, another = both("spec.memory.memory_size", "ablation")
    memories = build_frame([row(one, 0), row(another, 1)])
    assert all(len(name) < 40 for name, _ in ablation.parts(memories))
    assert [list(apart) for apart, _ in comparable_parts(memories, ())] == [["memory"], ["memory"]]
