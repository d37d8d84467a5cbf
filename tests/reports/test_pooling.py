"""Trials that differ in any setting are never averaged without a word: over all fields and all reports."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pandas as pd
import pytest
from made_up import some_record
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from spec_fields import FIELDS, specs_in

from psa.analysis.frame_columns import SPEC_FIELDS, spec_columns
from psa.analysis.frame_schema import build_frame, trials_of
from psa.analysis.pooling import budget_note, comparable_parts, equal_budgets
from psa.core.errors import UserError
from psa.experiments.studies.memory import Settings, from_settings
from psa.reports.ablation import report as ablation
from psa.reports.ablation.arms.page import holds_arms
from psa.reports.ablation.arms.pairs import bounties_after
from psa.reports.ablation.arms.tables import arm_tables
from psa.reports.ablation.effects import paired_table
from psa.reports.ablation.published import regime_table
from psa.reports.ablation.tables import accuracy_table
from psa.reports.activations import report as activations
from psa.reports.contract import ReportContext
from psa.reports.glonet import report as glonet
from psa.reports.gradients import report as gradients
from psa.reports.memory.arm_tables import consolidated
from psa.reports.memory.runs import runs_from
from psa.reports.rendering.tables import Bold, MeanSd, Table
from psa.specs.base import canonical_json
from psa.specs.training.settings import AblationSettings, RatchetSettings
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
OF_EACH_COLUMN = list({COLUMN_OF[field]: field for field in FRAMED}.values())
NUMBERS = [
    field for field in FRAMED for column in SPEC_FIELDS if column.path == field and column.dtype == "float64"
]
# The column `arm` names the mode and each of these settings that is on.
IN_ARMS = {"mode", *AblationSettings.model_fields, *RatchetSettings.model_fields}
FIELDS_OF_ARMS = [field for field in OF_EACH_COLUMN if COLUMN_OF[field] in IN_ARMS - {"mode"}]
# Parts that a trial has as a whole or not at all.
CONTENT = {
    "name": "blobs", "sha256": "0" * 64, "shape": [4], "classes": ["left", "right"],
    "train": 100, "validation": 0, "test": 0,
}  # fmt: skip
PLUGIN = {"kind": "probe", "name": "sharpness", "plugin": "probes", "version": "1.0"}
OTHERS = {
    "activation": "Tanh", "arch": "[2*8]", "digits": [0, 1], "data.name": "fashion-mnist", "mode": "full",
    "sha256": "1" * 64, "shape": [2, 2], "classes": ["left", "middle"], "switch": ["3:full"],
    "lr_rule": "width:8", "family": "glonet",
}  # fmt: skip
VALUES = (3, 0.25, 0.5, True, False, "other")


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
    """The spec with another value of one field, at any depth, that this field accepts."""
    found = copy.deepcopy(dict(spec))
    place: Any = found
    *path, last = field.split(".")[1:]
    for name in path:
        place = place[name]
        place = place[0] if isinstance(place, list) else place
    place[last] = other(field, place.get(last)) if value is None else value
    return found


def other(field: str, value: Any) -> Any:
    """Another value of a field, the first of OTHERS, its choices and VALUES that it accepts. value: None for
    its default.
    """
    there = fields_at(field)
    types = [Annotated[each.annotation, *each.metadata, field] for each in there]
    taken = [each.get_default() for each in there] if value is None else [value]
    choices = [choice for each in types for choice in choices_of(each)]
    named = [found for name, found in OTHERS.items() if field.endswith(f".{name}")]
    return next(
        found
        for found in (*named, *choices, *VALUES)
        if found not in taken and any(accepts(each, found) for each in types)
    )


def fields_at(field: str) -> list[FieldInfo]:
    """The fields of this name: one of each spec that may stand in its place."""
    specs: list[type[BaseModel]] = [Trial]
    *path, last = field.split(".")[1:]
    for name in path:
        there = [each.model_fields[name] for each in specs if name in each.model_fields]
        specs = [spec for each in there for spec in specs_in(each.annotation)]
    return [each.model_fields[last] for each in specs if last in each.model_fields]


def choices_of(annotation: Any) -> Iterator[Any]:
    """The values that a type lists, at any depth."""
    for each in get_args(annotation):
        if get_origin(annotation) is Literal:
            yield each
        else:
            yield from choices_of(each)


def accepts(annotation: Any, value: Any) -> bool:
    """True if a stored value is one of a type."""
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True


def both(field: str, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two specs that differ in a field alone, those of memories also in what has to agree with it."""
    one = base_spec() | {"kind": kind}
    if field.startswith("spec.data.content."):
        one["data"] |= {"name": CONTENT["name"], "content": dict(CONTENT)}
    if field.startswith("spec.plugins."):
        one["plugins"] = [dict(PLUGIN)]
    if kind != "memory":  # parts that such trials do not have are left out, unless they are what differs
        one |= {name: None for name in ("memory", "growth") if not field.startswith(f"spec.{name}")}
        one["legs"] = one["legs"] if field.startswith("spec.legs") else []
    if field == "spec.model.temperature":  # acts with a simplex
        one = changed(one, "spec.model.simplex")
    another = changed(one, field)
    if kind == "memory" and (content := another["data"].get("content")):  # that report reads the data's spec
        sizes = {"val_size": content["validation"]} if content["validation"] else {}
        another["data"] |= {"name": content["name"], **sizes}
    return one, another


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


def frame_of(one: Mapping[str, Any], another: Mapping[str, Any]) -> pd.DataFrame:
    """Three seeds of each of two specs, all seeds different."""
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
def test_every_field_is_a_difference_of_one_setting(field: str) -> None:
    """So that the other tests, which take one field of each column, are of all. `arm` follows from some."""
    one, another = (spec_columns(spec) for spec in both(field, "ablation"))
    differing = [name for name in one if one[name] != another[name]]
    assert differing == [COLUMN_OF[field], *(["arm"] if COLUMN_OF[field] in IN_ARMS else [])]


def trials_per_mean(rows: pd.DataFrame, kind: str) -> list[int]:
    """The numbers of trials that the means of a page are of. A page of arms compares pairs of seeds, of which
    there are none here: its tables are of the bounties of each arm and architecture.
    """
    if kind == "ablation" and holds_arms(rows):
        assert arm_tables(rows)
        return list(bounties_after(rows, 4).groupby(["arm", "arch"], observed=True).size())
    return [count for table in PAGES[kind][1](rows) for count in counted(table)]


def check_means(frame: pd.DataFrame, kind: str) -> None:
    """Fail where a mean of a page, or of a page that is not refused, is of trials of both settings."""
    pages = list(PAGES[kind][0](frame))
    assert pages
    for _, rows in pages:
        try:
            counts = trials_per_mean(rows, kind)
        except (UserError, ValueError) as error:  # a network that the study does not know
            assert "--grid" in str(error) or "several widths" in str(error)  # noqa: PT017
            continue
        assert counts
        assert max(counts) <= SEEDS


@pytest.mark.parametrize("kind", list(PAGES))
@pytest.mark.parametrize("field", OF_EACH_COLUMN)
def test_trials_that_differ_in_a_setting_are_never_averaged(field: str, kind: str) -> None:
    """They are on pages of their own, in rows of their own, or refused: no mean is of more than one arm."""
    check_means(frame_of(*both(field, kind)), kind)


@pytest.mark.parametrize("kind", list(PAGES))
@pytest.mark.parametrize("field", NUMBERS)
def test_trials_that_differ_in_a_late_digit_are_never_averaged(field: str, kind: str) -> None:
    """Tables show six significant digits of most numbers; settings are compared by all."""
    one = both(field, kind)[1]
    check_means(frame_of(changed(one, field, 0.25), changed(one, field, 0.250000001)), kind)


@pytest.mark.parametrize("field", FIELDS_OF_ARMS)
def test_trials_of_an_arm_have_one_value_of_each_setting_of_arms(field: str) -> None:
    """The label of an arm has six digits of a number, and no setting that its policy does not have."""
    frame = frame_of(*both(field, "ablation")).assign(arm="none, units 2")
    with pytest.raises(UserError, match=f"arm 'none, units 2' of .* with more than one {COLUMN_OF[field]}"):
        arm_tables(frame)


@pytest.mark.parametrize("field", FIELDS_OF_ARMS)
def test_tables_of_arms_are_of_one_arm_each(field: str) -> None:
    """The arm that differs in a setting is 10 points above mode none in all tables, not between the two."""
    one, another = both(field, "ablation")
    frame = build_frame([row(one, seed) for seed in range(SEEDS)] + better_by_ten(another))
    page = dict(ablation.parts(frame))["ablation_mlp_arms"]
    for table in arm_tables(page).values():
        (cells,) = table.rows
        at = [column.name for column in table.columns].index("Difference (points)")
        pairs, difference = cells[at - 1 : at + 1]
        assert pairs <= SEEDS
        assert difference.value == pytest.approx(10)


def better_by_ten(spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The trials of a setting, 10 points of validation and test accuracy above those of `row`."""
    rows = [row(spec, seed) for seed in range(SEEDS)]
    for each in rows:
        each["test"] += 10
        each["history"]["correct"] = [count + 1000 for count in each["history"]["correct"]]
    return rows


@pytest.mark.parametrize("field", OF_EACH_COLUMN)
def test_networks_of_a_page_of_gradients_say_in_what_they_differ(field: str) -> None:
    """That report averages nothing, and its rows name the seed alone."""
    pages = list(gradients.parts(frame_of(*both(field, "gradients"))))
    for _, rows in pages:
        warnings = gradients.page(rows, CONTEXT, gradients.tables(rows, CONTEXT), {}).warnings
        assert len(pages) > 1 or any(f"differ in {COLUMN_OF[field]} (" in text for text in warnings)


@pytest.mark.parametrize("field", FRAMED)
def test_arms_of_memories_have_one_setting(field: str) -> None:
    """Trials that differ in a field are other arms, or another stage where it is a number of images."""
    records = []
    for spec, seeds in zip(both(field, "memory"), (range(SEEDS), range(SEEDS, 2 * SEEDS)), strict=True):
        for seed in seeds:
            made = some_record(3) | {"spec": spec | {"seed": seed}, "id": f"memory/{field}/s{seed}"}
            sizes = {"train": "train_size", "validation": "val_size", "test": "test_size"}
            made["samples"] |= {
                name: spec["data"].get(size) or made["samples"][name] for name, size in sizes.items()
            }
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
    one, another = both("spec.memory.capacity", "ablation")
    memories = build_frame([row(one, 0), row(another, 1)])
    assert all(len(name) < 40 for name, _ in ablation.parts(memories))
    assert [list(apart) for apart, _ in comparable_parts(memories, ())] == [["memory"], ["memory"]]
