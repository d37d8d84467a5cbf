"""The report of memory and growth, on runs that no training made: arms, verdicts, answers, pages."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import some_record
from paths import ROOT

from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.records_frame import load_records_frame, stored_records
from psa.analysis.stats import (
    LEAST_N,
    Paired,
    benjamini_hochberg,
    blocked_f_test,
    share_summary,
    t_test,
)
from psa.experiments.grid import load_grid
from psa.experiments.studies.memory import Settings, from_settings
from psa.interventions.growth import growth_event_json
from psa.reports.activations.run_figures import run_thresholds
from psa.reports.contract import ReportContext
from psa.reports.memory import report
from psa.reports.memory.answer_tables import comparison_table
from psa.reports.memory.arm_tables import consolidated, of_memories, of_networks
from psa.reports.memory.comparisons import (
    CALLED,
    NEEDED,
    MemoryComparison,
    compared_arms,
    comparisons_of,
    verdict,
)
from psa.reports.memory.figures import arm_name, figures_of
from psa.reports.memory.hypotheses import hypotheses
from psa.reports.memory.report import _effect_text, _trials_of_cells
from psa.reports.memory.runs import NUMBERS, build_runs, final_stage, runs_from, with_variants
from psa.reports.plotting.style import notes_in
from psa.reports.rendering.tables import Column, Table
from psa.reports.wording import interval_text
from psa.specs.growth import EpochResult, growth_events
from psa.specs.shapes import shape_of
from psa.specs.trial import Trial
from psa.storage.records.record import decode_record, encode_record
from psa.storage.store import Store

SEEDS = (11, 22, 33)
NETWORK = "1*256, 1*128"


def built(trial: Trial) -> dict[str, Any]:
    """What a network says of itself."""
    model = trial.model
    return {"family": model.family, "arch": str(model.arch), "parameters": shape_of(model).parameters}


def runs(accuracy: Mapping[str, Sequence[float]], **columns: Any) -> pd.DataFrame:
    """Runs of one stage: test percentages per seed of methods, the usual memory and its rivals."""
    rows = []
    for method, values in accuracy.items():
        large = method == "nn_large"
        plain = "nn" if large else method
        network = "1*512, 1*256" if large else NETWORK
        for seed, value in zip(SEEDS, values, strict=False):
            row: dict[str, Any] = dict.fromkeys(NUMBERS, np.nan)
            row |= {
                "id": f"memory/{method}/s{seed}", "arm": f"{plain} {network}", "method": plain,
                "network": network, "changed": "", "same": "one", "stage": "12,000 samples, 5 epochs",
                "images": 12_000, "loops": 5, "seed": seed, "test": value, "validation": value,
                "parameters": 535_818 if large else 235_146,
            }  # fmt: skip
            if "hybrid" in method or method == "random_memory":
                row |= {"relative": 0.02, "neutral": 10.0, "helped": 50.0, "harmed": 40.0, "delta": -0.001}
            rows.append(row | columns)
    return pd.DataFrame(rows)


BASE = {
    "nn": (93.0, 93.1, 92.9),
    "hybrid": (94.0, 94.12, 93.91),
    "random_memory": (93.1, 93.2, 93.05),
    "hybrid_inactive": (93.0, 93.1, 92.9),
    "nn_large": (93.5, 93.6, 93.45),
    "embedding_knn": (93.4, 93.55, 93.3),
}


@pytest.mark.parametrize(
    ("changes", "said", "against"),
    [
        ({}, "promising", ""),
        ({"random_memory": (94.0, 94.1, 93.95)}, "currently unsupported", "random entries"),
        ({"hybrid_inactive": (94.3, 94.1, 93.8)}, "currently unsupported", "an idle memory"),
        (
            {"random_memory": (93.0, 93.75, 93.5)},
            "currently unsupported",
            "random entries",
        ),  # p 0.046 to 0.05
        ({"nn_large": (95.0, 95.1, 95.0)}, "unresolved", "the largest plain network"),
        ({"embedding_knn": (96.0, 96.1, 96.0)}, "unresolved", "a vote of embeddings"),
        ({"nn_large": (95.0, 95.0, 95.0), "random_memory": (95.0, 95.0, 95.0)}, "currently unsupported", ""),
    ],
)
def test_the_verdict_follows_its_rule(changes: dict[str, Any], said: str, against: str) -> None:
    """All three outcomes; a tie is not better, nor is a difference whose interval reaches 0, or whose
    corrected p is not small. The reason calls
    rivals what the rule of the page calls them.
    """
    found = {each.key: each for each in comparisons_of(runs(BASE | changes))}
    name, why = verdict(found)
    assert name == said
    assert against in why


def test_without_the_controls_or_with_one_seed_nothing_is_decided() -> None:
    """Missing is missing: no verdict is made of fewer than four comparisons over seeds."""
    for name in NEEDED:
        found = {e.key: e for e in comparisons_of(runs({k: v for k, v in BASE.items() if k != name}))}
        assert verdict(found)[0] == "undecided"
        assert verdict(found)[1].endswith(f"with {CALLED[name]}")
    once = runs({name: values[:1] for name, values in BASE.items()})
    assert verdict({each.key: each for each in comparisons_of(once)})[0] == "undecided"
    assert all(answer.answer != "yes" for answer in answered(once) if "points" in answer.evidence)


def answered(table: pd.DataFrame) -> list[Any]:
    """The hypotheses on some runs."""
    return hypotheses(table, compared_arms(table), {each.key: each for each in comparisons_of(table)})


def test_questions_are_paired_tests_with_a_correction() -> None:
    """The difference seed by seed, its t interval, the t test's p, and Benjamini and Hochberg over all."""
    found = comparisons_of(runs(BASE))
    assert [each.key for each in found] == [
        "nn",
        "random_memory",
        "hybrid_inactive",
        "nn_large",
        "embedding_knn",
    ]
    first = found[0]
    differences = np.array(BASE["hybrid"]) - np.array(BASE["nn"])
    assert first.found.difference == pytest.approx(differences.mean())
    assert first.found.n == 3
    assert first.found.p == t_test(BASE["hybrid"], BASE["nn"])
    assert all(each.adjusted >= each.found.p for each in found)


def test_the_same_test_counts_once_however_many_questions_it_answers() -> None:
    """The idle memory is the plain network by design, so that two questions are one test: p is adjusted for
    the others alone, and the table names the arms and the number of tests.
    """
    found = {each.key: each for each in comparisons_of(runs(BASE))}
    assert BASE["nn"] == BASE["hybrid_inactive"]
    distinct = ["nn", "random_memory", "nn_large", "embedding_knn"]
    expected = benjamini_hochberg([found[key].found.p for key in distinct])
    assert [found[key].adjusted for key in distinct] == pytest.approx(list(expected))
    assert found["hybrid_inactive"].adjusted == found["nn"].adjusted
    note = comparison_table(list(found.values())).note
    assert f"with every seed: nn {NETWORK} = hybrid_inactive {NETWORK}." in note
    assert "these 5 questions are 4 tests." in note
    other = comparisons_of(runs(BASE | {"hybrid_inactive": (93.0, 93.1, 92.8)}))
    assert "with every seed:" not in comparison_table(other).note
    expected = benjamini_hochberg([each.found.p for each in other])
    assert [each.adjusted for each in other] == pytest.approx(list(expected))


def test_a_comparison_of_networks_of_two_sizes_states_both() -> None:
    """In the question of the table and in the evidence; networks of one size need no such remark."""
    table = comparison_table(comparisons_of(runs(BASE)))
    sizes = " (235,146 and 535,818 parameters)"
    assert [row[0].endswith(sizes) for row in table.rows] == [False, False, False, True, False]
    claims = {each.claim: each.evidence for each in answered(runs(BASE))}
    for claim, evidence in claims.items():
        assert (sizes in evidence) == (claim == "A memory is worth more than parameters")


def test_the_paired_t_test_is_scipys_and_knows_its_limits() -> None:
    """Two pairs say nothing; equal arms differ in nothing; one difference of all pairs has no scatter."""
    from scipy.stats import ttest_rel

    one, other = [93.1, 94.0, 93.3, 93.7], [93.0, 93.2, 93.5, 93.1]
    assert t_test(one, other) == pytest.approx(float(ttest_rel(one, other).pvalue))
    assert np.isnan(t_test([1.0, 2.0], [2.0, 2.0]))
    assert t_test(one, one) == 1.0
    assert t_test([2.0, 3.0, 4.0], [1.0, 2.0, 3.0]) == 0.25  # that of the sign-flip test


def test_a_no_is_said_as_plainly_as_a_yes() -> None:
    """Answers follow the numbers: shown, not shown, the opposite; and hardly any effect is said first."""
    yes = {each.claim: each.answer for each in answered(runs(BASE))}
    assert yes["A memory makes a network more accurate"] == "yes"
    assert yes["The memory changes what the network computes"] == "yes"
    opposite = {each.claim: each for each in answered(runs(BASE | {"nn": (95.0, 95.1, 95.05)}))}
    assert opposite["A memory makes a network more accurate"].answer == "no, the opposite"
    none = {each.claim: each for each in answered(runs(BASE | {"nn": (94.3, 94.1, 93.8)}, relative=1e-6))}
    assert none["A memory makes a network more accurate"].answer == "no, not shown"
    assert none["The memory changes what the network computes"].answer == "no, hardly"
    assert "0.0001 % of their length" in none["The memory changes what the network computes"].evidence


def test_the_range_over_a_setting_names_what_is_compared() -> None:
    """From 93.2 % to 93.4 % could be any percentage of the page."""
    made = runs(BASE)
    other = runs({"hybrid": (94.2, 94.3, 94.1)}, arm="hybrid middle", changed="site")
    (found,) = (each for each in answered(pd.concat([made, other])) if each.claim.startswith("Where the"))
    assert found.evidence.startswith("mean test accuracy of 2 arms in the stage of 12,000 samples")


@pytest.mark.parametrize(
    ("other", "answer"),
    [((94.2, 94.35, 94.1), "yes"), ((94.2, 94.0, 94.1), "no, not shown"), ((94.2, 94.35), "cannot be told")],
)
def test_a_setting_matters_if_its_arms_differ_seed_by_seed(other: tuple[float, ...], answer: str) -> None:
    """A test with the seeds as blocks, corrected for the settings asked about; below three seeds nothing."""
    base = {name: values[: len(other)] for name, values in BASE.items()}
    site = runs({"hybrid": other}, arm="hybrid middle", changed="site")
    policy = runs({"hybrid": base["hybrid"]}, arm="hybrid least used", changed="forgetting.policy")
    found = {each.claim: each for each in answered(pd.concat([runs(base), site, policy]))}
    where, how = found["Where the memory acts matters"], found["How a full memory forgets matters"]
    assert (where.answer, how.answer == "yes") == (answer, False)
    if len(other) >= LEAST_N:
        p = blocked_f_test(list(zip(base["hybrid"], other, strict=True)))
        assert where.evidence.endswith(f"adjusted p {min(1, 2 * p):.3f}, n = 3")


def test_a_number_of_the_final_stage_opens_its_trials_alone() -> None:
    """A difference of three seeds opened four trials, one of them of the first stage."""
    arms, stages = Column("Arm"), Column("Stage")
    found = [
        _trials_of_cells(Table("Some", "tab:some", columns, (), ""), "late").columns
        for columns in ((arms, Column("Test %")), (stages, arms), (Column("Claim"),))
    ]
    assert found == [{"Arm": {"Stage": "late"}, "Test %": {"Stage": "late"}}, {}, {}]


def test_a_comparison_opens_the_trials_of_both_arms() -> None:
    """In the final stage; the columns of one arm open that arm."""
    made = runs(BASE)
    table = comparison_table(comparisons_of(made))
    found = _trials_of_cells(table, "late")
    names = [column.name for column in table.columns]
    assert [each["Arm"] for each in found.others] == [row[names.index("Minus")] for row in table.rows]
    assert {name for name in names if name not in found.sides} == {"Arm", "Arm %"}
    assert {name for name, side in found.sides.items() if side == "other"} == {"Minus", "Minus %"}
    assert found.columns["Difference"] == {"Stage": "late"}


@pytest.mark.parametrize(("still", "more"), [(0, ""), (1, " 1 more does not move them at all.")])
def test_memories_that_move_nothing_are_counted_apart(still: int, more: str) -> None:
    """They are in the figure next to those that move hidden vectors by less than can matter."""
    made = runs({method: BASE[method] for method in ("nn", "hybrid", "random_memory")}, relative=1e-5)
    made.loc[made["method"] == "nn", "relative"] = np.nan
    idle = runs({"hybrid_inactive": BASE["hybrid_inactive"]}, relative=0.0)
    (text,) = _effect_text(pd.concat([made, idle]) if still else made)
    assert text.startswith(f"2 memory arms of {2 + still} move hidden vectors by less than 0.1 %")
    assert text.endswith(f"may be rounding.{more}")


def records_of(folder: Path, grid: str, stage: int, only: Sequence[str]) -> tuple[Store, list[Trial]]:
    """Records of a grid's variants in one stage, as training would leave them but with made-up numbers."""
    store = Store(folder / "models", folder / "results")
    chosen = [
        point
        for point in load_grid(ROOT / "reproduction" / grid).stages[stage].points
        if point.variant in only
    ]
    for point in chosen:
        trial = point.trial
        record = some_record(3, trial)
        record["built"] = built(trial)
        at = only.index(point.variant)
        record["samples"] = {"train": 12_000, "validation": 3_000, "test": 10_000, "zero_r_validation": 340}
        record["history"] |= {"correct": [2500, 2600, 2700 + at], "kept": [True] * 3}
        record["finals"]["bounty"] = {"correct": 2700 + at, "loop": 3}
        record["finals"]["test"] = {"correct": 9000 + 10 * at + trial.seed, "loss": 0.3}
        if trial.growth is not None:
            history = [EpochResult(loop, 94 * loop, 0.8) for loop in (1, 2, 3)]
            grown = growth_events(trial.growth, trial.model.arch.widths, history)
            record["events"] = [growth_event_json(event) for event in grown]
            record["built"]["arch"] = "4*80"
            record["built"]["parameters"] = grown[-1].param_count_after
        record["probes"] = _probes(trial)
        store.write(trial, record, {"train_samples_per_second": 1000.0 + at})
    return store, [point.trial for point in chosen]


def _probes(trial: Trial) -> dict[str, Any]:
    empty: list[dict[str, Any]] = [{} for _ in range(4)]
    counts = [90 if at % 11 == 0 else 1 for at in range(100)]
    last: dict[str, dict[str, list[Any]]] = {
        "calibration": {"ece": [0.02, 0.03], "confidence": [0.9, 0.9], "accuracy": [0.9, 0.9]},
        "confusion": {"counts": counts},
        "embedding_knn": {"correct": [2800, 9400], "total": [3000, 10_000]},
        "toggle": {
            "samples": [3000, 10_000], "helped": [1000, 4000], "harmed": [900, 3000],
            "neutral": [1100, 3000], "strong_help": [0, 1], "strong_harm": [0, 0], "mean": [-1e-4, -2e-4],
            "std": [0.1, 0.1], "with_correct": [2700, 9100], "without_correct": [2699, 9099],
            "histogram.test": [*([10] * 17)], "distance.test": list(np.linspace(0.1, 0.9, 10)),
            "change.test": list(np.linspace(-1e-4, 1e-4, 10)),
        },
        "retrieval": {
            "acted": [1.0, 1.0], "distance": [0.3, 0.3], "purity": [0.9, 0.91], "top1": [0.9, 0.92],
            "gate": [0.4, 0.4], "gate_std": [0.0, 0.0], "magnitude": [0.1, 0.1], "relative": [5e-5, 6e-5],
            "size": [20_000.0], "bytes": [12_741_000.0],
        },
    }  # fmt: skip
    places = [""]
    return {name: {"places": {"": places}, "loops": empty, "last": last[name]} for name in trial.probes}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "only"),
    [
        ("memory.toml", ["a0", "a1", "a3", "a4", "a5", "a10", "a17", "a18", "a19", "a21"]),
        ("growth.toml", ["g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9", "matched"]),
        ("memory.toml", ["a0"]),
    ],
)
def test_a_page_is_made_of_records(tmp_path: Path, grid: str, only: list[str]) -> None:
    """Tables in three forms, figures, listings and the page, with and without a memory to judge."""
    store, trials = records_of(tmp_path, grid, 1, only)
    frame = load_records_frame(store, [], trials)
    ((name, rows),) = list(report.parts(frame))
    assert name == grid.removesuffix(".toml")
    context = ReportContext(tmp_path / "page", observed=load_probe_frame(store), store=store)
    made = report.tables(rows, context)
    assert {"consolidated", "comparisons", "hypotheses"} <= made.keys()
    for table in made.values():
        assert all((table.markdown(), table.latex(), table.csv()))
    pictures = dict(report.figures(rows, context))
    assert "test_accuracy" in pictures
    assert ("loss_changes" in pictures) == (len(only) > 1)
    text = report.listings(rows, context)["scientific_report.md"].decode()
    assert ("currently unsupported" in text) == (len(only) > 1)
    page = report.page(rows, context, made, {name: tmp_path / f"{name}.png" for name in pictures})
    assert page.sections
    details = {fact.name: fact.detail for fact in page.facts}
    assert details.keys() >= {"Trials", "Final stage"}
    assert re.search(r"; 95 % interval [\d.]+ to [\d.]+, n = 3$", details["Test accuracy of the best arm"])


def test_arms_are_named_by_what_sets_them_apart(tmp_path: Path) -> None:
    """The usual memory is the one that the others are variants of; controls are named by their method."""
    store, _ = records_of(tmp_path, "memory.toml", 1, ["a0", "a1", "a5", "a9", "a17", "a21"])
    table = runs_from((record, {}) for record in store.records.all())
    assert set(table["arm"]) == {
        f"nn {NETWORK}", f"hybrid {NETWORK}", f"hybrid {NETWORK}, site=early",
        f"hybrid {NETWORK}, capacity=60000, policy=none", f"random_memory {NETWORK}",
        f"embedding_knn {NETWORK}",
    }  # fmt: skip
    knn = table[table["method"] == "embedding_knn"].iloc[0]
    assert knn["test"] == 94.0
    assert np.isnan(knn["test_loss"])
    hybrid = table[table["arm"] == f"hybrid {NETWORK}"].iloc[0]
    assert hybrid["helped"] + hybrid["harmed"] + hybrid["neutral"] == pytest.approx(100)
    assert hybrid["footprint"] == pytest.approx(12.741)
    drawn = table[table["method"] == "random_memory"].iloc[0]  # nothing was compared with its entries
    assert (hybrid["distance"], hybrid["top1"], drawn["purity"]) == (0.3, 0.92, 0.91)
    assert drawn[["distance", "top1"]].isna().all()


def test_growth_is_compared_with_the_best_fixed_network_and_its_equal(tmp_path: Path) -> None:
    """By validation alone; parameters, growths and what came after them are those of the events."""
    only = ["g2", "g3", "g4", "g5", "g6", "g7", "g8", "g9", "matched"]
    store, _ = records_of(tmp_path, "growth.toml", 1, only)
    table = runs_from((record, {}) for record in store.records.all())
    arms = compared_arms(table)
    assert arms.memory == "hybrid growing 2*48"
    assert arms.rivals["nn"] == arms.growing == "nn growing 2*48"
    assert arms.rivals["best_fixed_hybrid"] == "hybrid 4*96"
    assert arms.rivals["nn_large"] == "nn 1*512, 1*256"
    assert arms.matched == "nn 4*80"
    grown = table[table["arm"] == arms.memory].iloc[0]
    assert (grown["growths"], grown["parameters"], grown["depth"]) == (2, 83_050, 4)
    assert grown["growth_delta"] == pytest.approx(100 * (100 + 103) / 2 / 3_000, abs=0.1)
    assert {each.key for each in comparisons_of(table)} >= {"growing", "matched", "best_fixed_hybrid"}


def test_the_final_stage_is_the_one_with_the_most_seeds() -> None:
    """And of several the one with the most images."""
    short = runs({"nn": (99.0,)}, stage="8,000 samples, 3 epochs", images=8_000, loops=3)
    both = pd.concat([short, runs(BASE)])
    assert set(final_stage(both)["stage"]) == {"12,000 samples, 5 epochs"}


def made(folder: Path, *settings: Mapping[str, Any]) -> Store:
    """Records of single trials of the study, of some settings each, with made-up numbers."""
    store = Store(folder / "models", folder / "results")
    for each in settings:
        rest = {key: value for key, value in each.items() if key != "seed"}
        trial = from_settings(Settings.model_validate({"arch": "2*16", **rest}), each.get("seed", 0))
        record = some_record(3, trial)
        record["built"] = built(trial)
        record["history"] |= {"correct": [2500, 2600, 2700], "kept": [True] * 3}
        record["probes"] = _probes(trial)
        store.write(trial, record, {})
    return store


def test_arms_that_are_trained_otherwise_are_not_one(tmp_path: Path) -> None:
    """A mean over learning rates, ways of growing or data sets would be of none of them."""
    growing = {"method": "nn", "growing": True}
    store = made(
        tmp_path, {"method": "nn"}, {"method": "nn", "seed": 1}, {"method": "nn", "lr": 0.01},
        {"method": "nn", "dataset": "fashion-mnist"}, growing, growing | {"seed": 1},
        growing | {"grow_width": 3}, {"method": "hybrid"}, {"method": "hybrid", "lr": 0.01, "site": "early"},
        {"method": "hybrid", "seed": 1},
    )  # fmt: skip
    table = runs_from((record, {}) for record in store.records.all())
    assert table.groupby("arm")["seed"].nunique().to_dict() == {
        "nn 2*16": 2, "nn 2*16, lr=0.01": 1, "nn 2*16, dataset=fashion-mnist": 1, "nn growing 2*16": 2,
        "nn growing 2*16, grow_width=3": 1, "hybrid 2*16": 2, "hybrid 2*16, lr=0.01, site=early": 1,
    }  # fmt: skip
    assert not table.duplicated(["stage", "arm", "seed"]).any()
    assert compared_arms(table[table["arm"].str.contains("lr=0.01")]).rivals["nn"] == "nn 2*16, lr=0.01"


def test_settings_of_one_name_are_told_apart(tmp_path: Path) -> None:
    """Dimensions that are compared are none that are changed, nor is the gate's temperature the softmax's."""
    few = {"method": "hybrid", "query": "projection", "uncertainty": True, "gate_temperature": 0.5}
    variants = (
        {"projection_dims": 8},
        {"affected_dims": 8},
        {"gate_temperature": 0.25},
        {"temperature": 0.25},
    )
    store = made(tmp_path, *(few | {"arch": "2*128"} | each for each in ({}, *variants)))
    assert set(runs_from((record, {}) for record in store.records.all())["arm"]) == {
        "hybrid 2*128", "hybrid 2*128, projection_dims=8", "hybrid 2*128, affected_dims=8",
        "hybrid 2*128, gate_temperature=0.25", "hybrid 2*128, temperature=0.25",
    }  # fmt: skip


def test_only_a_larger_network_says_what_parameters_are_worth() -> None:
    """A smaller one is no rival of that name, and seeds in common are needed to be compared at all."""
    small = runs(BASE)
    small.loc[small["arm"].str.contains("512"), "parameters"] = 99
    assert "nn_large" not in compared_arms(small).rivals
    other = runs(BASE)
    other.loc[other["method"] == "nn", "seed"] += 100
    said = {each.claim: each for each in answered(other)}["A memory makes a network more accurate"]
    assert (said.answer, "nan" in said.evidence) == ("cannot be told", False)
    assert said.evidence.endswith("have no seed in common")


def test_figures_and_tables_say_how_many_seeds_they_are_of(tmp_path: Path) -> None:
    """One number where all arms have as many; counts of classes are of all seeds together."""
    store, trials = records_of(tmp_path, "growth.toml", 1, ["g4", "g5"])
    rows = load_records_frame(store, [], trials)
    context = ReportContext(tmp_path, observed=load_probe_frame(store), store=store)
    notes = notes_in(dict(report.figures(rows, context))["test_accuracy"])
    assert any("(3 per arm)" in text for text in notes)
    assert "all seeds of an arm added up" in report.tables(rows, context)["classes"].note
    assert not any("first stage" in text for text in report.page(rows, context, {}, {}).sources)


def test_a_figure_of_one_network_speaks_of_no_seeds() -> None:
    """What a figure of thresholds remarks is what it is given."""
    figure = run_thresholds({"thresholds": {"hidden.0": {"by_epoch": [0.0, 0.1]}}}, "one")
    said = list(notes_in(figure))
    assert "Epoch 0 is before training." in said
    assert not any("every seed" in text for text in said)


def test_classes_are_called_by_their_digits(tmp_path: Path) -> None:
    """Of a filtered data set class 0 is its first digit."""
    store = made(tmp_path, {"method": "hybrid", "digits": [3, 8]})
    (path,) = [each for each in store.results.rglob("*.json") if ".machine." not in each.name]
    record = decode_record(path.read_bytes(), "x")
    record["probes"]["confusion"]["last"]["counts"] = [9, 1, 2, 8]
    path.write_bytes(encode_record(record))
    context = ReportContext(tmp_path, observed=load_probe_frame(store), store=store)
    table = report.tables(load_records_frame(store, ["memory"]), context)["classes"]
    assert [(row[1], row[-1]) for row in table.rows] == [(3, 10), (8, 10)]
    assert table.rows[1][2:4] == (8 / 9, 8 / 10)


def test_a_vote_of_embeddings_does_not_hide_its_network(tmp_path: Path) -> None:
    """They are two arms of the same weights; more probes of the same arm are no further trial."""
    store = made(
        tmp_path, {"method": "nn"}, {"method": "nn", "probes": ["calibration"]}, {"method": "embedding_knn"}
    )
    frame = load_records_frame(store, ["memory"])
    ((_, rows),) = list(report.parts(frame))
    found = build_runs(rows, ReportContext(tmp_path, observed=None, store=store))
    assert sorted(found["arm"]) == ["embedding_knn 2*16", "nn 2*16"]


def test_the_numbers_of_a_vote_are_told_from_those_of_its_network() -> None:
    """The list of trials has other numbers for the same arm; without a vote the note says nothing."""
    for rest in (runs(BASE), runs({name: BASE[name] for name in ("nn", "hybrid")})):
        table = consolidated(rest)
        for note in (table.note, of_networks(table).note):
            assert ("Rows of embedding_knn show the vote" in note) == (len(rest) == 18)


def test_every_column_of_what_a_memory_does_is_explained() -> None:
    """By its heading without the sign of percent."""
    found = runs(BASE).assign(**dict.fromkeys(NUMBERS, 1.0))
    (table,) = of_memories(consolidated(found))
    for column in table.columns[3:]:
        word = column.name.removesuffix(" %").partition(",")[0].split()[0].lower()
        assert word in table.note.lower()


def test_a_growing_network_is_compared_with_the_really_best_fixed_one() -> None:
    """The best by validation, also where it is the largest network, which the memory is compared with."""
    table = runs(BASE | {"nn_large": (96.0, 96.1, 95.9)})
    growing = runs({"nn": (95.0, 95.15, 94.85)}).assign(arm="nn growing 1*64", network="growing 1*64")
    both = pd.concat([table, growing], ignore_index=True)
    arms = compared_arms(both)
    assert (arms.growing, arms.fixed) == ("nn growing 1*64", "nn 1*512, 1*256")
    found = {each.key: each for each in comparisons_of(both)}["growing"]
    assert found.found.difference == pytest.approx(-1.0)
    assert found.answer == "no, the opposite"


def test_every_memory_is_compared_with_its_own_controls() -> None:
    """Not the judged one alone: a second memory, without controls, still has its plain network."""
    second = runs({"hybrid": (92.0, 92.3, 91.8)}).assign(arm="hybrid site=early", same="two", changed="site")
    found = comparisons_of(pd.concat([runs(BASE), second], ignore_index=True))
    keys = [each.key for each in found]
    assert keys[:5] == ["nn", "random_memory", "hybrid_inactive", "nn_large", "embedding_knn"]
    assert keys[5:] == ["nn of hybrid site=early"]
    other = found[-1]
    assert (other.one, other.other) == ("hybrid site=early", f"nn {NETWORK}")
    assert other.found.difference == pytest.approx(np.mean([92.0 - 93.0, 92.3 - 93.1, 91.8 - 92.9]))


NAN = float("nan")


@pytest.mark.parametrize(
    ("n", "low", "high", "adjusted", "said"),
    [
        (2, NAN, NAN, NAN, "cannot be told"),
        (2, 1.0, 2.0, 0.01, "cannot be told"),
        (3, 0.01, 2.0, 0.049, "yes"),
        (3, 0.01, 2.0, 0.05, "no, not shown"),
        (3, 0.0, 2.0, 0.049, "no, not shown"),
        (3, -2.0, -0.01, 0.049, "no, the opposite"),
        (3, -2.0, -0.01, 0.169, "no, not shown"),
        (3, -2.0, 0.0, 0.049, "no, not shown"),
    ],
)
def test_an_answer_needs_its_interval_and_its_corrected_p(
    n: int, low: float, high: float, adjusted: float, said: str
) -> None:
    """At the edge of each condition: "the opposite" at an adjusted p of .169 was said once."""
    middle = (low + high) / 2
    pair = Paired(n, middle, low, high, adjusted, 0.0)
    assert MemoryComparison("nn", "", "a", "b", 0.0, 0.0, pair, adjusted).answer == said


def test_arms_keep_the_names_of_their_variants(tmp_path: Path) -> None:
    """A grid calls them early or fifo; an arm that no grid names is called by its settings alone."""
    table = runs(BASE)
    names = {f"memory/nn_large/s{seed}": "wide" for seed in SEEDS}
    named = with_variants(table, ReportContext(tmp_path, variants=names))
    assert set(named["arm"]) - set(table["arm"]) == {"wide: nn 1*512, 1*256"}
    assert list(with_variants(table, ReportContext(tmp_path))["arm"]) == list(table["arm"])
    found = {each.key: each for each in comparisons_of(named)}
    assert found["nn_large"].other == "wide: nn 1*512, 1*256"


def test_arms_keep_their_names_from_stage_to_stage(tmp_path: Path) -> None:
    """Other numbers of images are another stage and no other arm, so that those that went on stand out."""
    records = []
    for stage, names in enumerate((("a0", "a1", "a2", "a3"), ("a0", "a1"))):
        store, trials = records_of(tmp_path / str(stage), "memory.toml", stage, names)
        for record, machine in stored_records(store, [trial.id for trial in trials]):
            data = record["spec"]["data"]
            sizes = {"train": data["train_size"], "validation": data["val_size"]}
            records.append((record | {"samples": record["samples"] | sizes}, machine))
    made = runs_from(records)
    first, last = (set(made["arm"][made["images"] == images]) for images in (8_000, 12_000))
    assert (len(first), len(last)) == (3, 2)  # a2 is a3 by another name
    assert last < first
    assert not any("size" in arm for arm in first)
    figure = dict(figures_of(made, final_stage(made), None, None))["first_stage_validation"]
    bold = {
        label.get_text() for label in figure.axes[0].get_yticklabels() if label.get_fontweight() == "bold"
    }
    assert bold == set(map(arm_name, last))


@pytest.mark.parametrize("quantity", ["distance.test", "histogram.test"])
def test_the_curve_over_distances_says_what_a_point_is(quantity: str) -> None:
    """If the curve is drawn, the caption says that a point is a part of the samples, not one of them."""
    told = runs(BASE).assign(**dict.fromkeys(("helped", "harmed", "strong_help", "strong_harm"), 0.0))
    arm = str(told.loc[told["method"] == "hybrid", "arm"].iloc[0])
    ids = told.loc[told["arm"] == arm, "id"]
    rows = [
        {"id": name, "probe": "toggle", "quantity": each, "index": at, "value": 0.1 * at}
        for name in ids for each in (quantity, "change.test") for at in range(10)
    ]  # fmt: skip
    figure = dict(figures_of(told, told, pd.DataFrame(rows), arm))["loss_changes"]
    noted = any("the mean of one of 10 equal parts of the test samples" in text for text in notes_in(figure))
    assert noted == (quantity == "distance.test")


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ([], "A mark per trial. "),
        (["nn"], "A mark per trial, on the left of arms with a memory alone. "),
        (["nn", "embedding_knn"], "alone; the embeddings among which embedding_knn votes are not measured. "),
    ],
)
def test_the_costs_say_which_arms_have_no_mark_on_the_left(without: list[str], said: str) -> None:
    """They are in the legend, for their speed."""
    told = runs(BASE, footprint=1.0, throughput=100.0)
    told["method"] = [without[at % len(without)] if without else "hybrid" for at in range(len(told))]
    told.loc[told["method"].isin(without), "footprint"] = np.nan
    told.loc[told.index[0], ["method", "footprint"]] = ("hybrid", 1.0)
    columns = dict.fromkeys(("helped", "harmed", "strong_help", "strong_harm"), 0.0)
    figure = dict(figures_of(told, told.assign(**columns), None, None))["cost_of_the_memory"]
    assert said in " ".join(" ".join(notes_in(figure)).split())


def test_the_best_arm_is_one_with_three_seeds() -> None:
    """As any verdict is; the page says how many arms take part."""
    told = runs(BASE)
    first, second = told["arm"].unique()[:2]
    told["test"] = told["validation"] = np.where(told["arm"] == first, 99.0, 90.0)
    third = (told["arm"] == first) & (told["seed"] == SEEDS[2])
    few = told[told["arm"].isin([first, second]) & ~third]
    facts = {fact.name: fact for fact in report._facts(few, few)}
    assert facts["Test accuracy of the best arm"].value == "90.00 %"
    assert facts["Test accuracy of the best arm"].detail.endswith("n = 3; of 1 arm with 3 or more trials")
    lone = few[few["seed"] != SEEDS[2]]
    assert "Test accuracy of the best arm" not in {fact.name for fact in report._facts(lone, lone)}


def test_the_best_arm_is_chosen_by_validation() -> None:
    """Its test accuracy would be too high if it were chosen by that."""
    told = runs(BASE)
    first, second = told["arm"].unique()[:2]
    some = told[told["arm"].isin([first, second])]
    some = some.assign(test=np.where(some["arm"] == first, 99.0, 90.0))
    some = some.assign(validation=100 - some["test"])
    (fact,) = (fact for fact in report._facts(some, some) if fact.name == "Test accuracy of the best arm")
    assert fact.value == "90.00 %"
    assert fact.detail.startswith(f"{second}, best by validation; ")


@pytest.mark.parametrize(
    ("footprint", "growths", "subject"),
    [
        (1.0, 0, "a memory of hidden vectors make"),
        (np.nan, 1, "growing a network while it trains make"),
        (1.0, 1, "a memory of hidden vectors or growing a network while it trains make"),
        (np.nan, 0, "a memory of hidden vectors or growing a network while it trains make"),
    ],
)
def test_a_page_asks_about_what_its_trials_have(footprint: float, growths: int, subject: str) -> None:
    """A memory, growth, or both."""
    told = pd.DataFrame({"footprint": [np.nan, footprint], "growths": [0, growths]})
    assert report._question(told).startswith(f"Does {subject} a network more accurate")


def test_all_marks_of_the_costs_are_in_sight() -> None:
    """The panels share one range of accuracies, also where one of them has marks that the other lacks."""
    told = runs(BASE, footprint=1.0, throughput=100.0)
    told.loc[told["method"] == "nn", ["footprint", "test"]] = (np.nan, 99.5)
    columns = dict.fromkeys(("helped", "harmed", "strong_help", "strong_harm"), 0.0)
    costs = dict(figures_of(told, told.assign(**columns), None, None))["cost_of_the_memory"]
    left, right = costs.axes
    assert left.get_ylim() == right.get_ylim()
    low, high = right.get_ylim()
    marks = [float(y) for line in right.lines for y in np.ravel(line.get_ydata())]
    assert 99.5 in marks
    assert all(low < y < high for y in marks)


def test_the_page_shows_networks_and_memories_apart() -> None:
    """In one table of twenty columns those on the right were cut on paper. No column is lost or doubled."""
    table = Table(
        "Every arm", "tab:memory_arms",
        (
            Column("Stage"), Column("Arm"), Column("Seeds", "count"), Column("Parameters", "count"),
            Column("Test %", "number"), Column("Helped %", "number"), Column("MB", "number"),
        ),
        (("late", "plain", 3, 10, 90.0, None, None), ("late", "hybrid", 3, 12, 91.0, 5.0, 8.0)),
    )  # fmt: skip
    networks, (memories,) = of_networks(table), of_memories(table)
    assert [column.name for column in networks.columns] == [
        "Arm",
        "Stage",
        "Seeds",
        "Parameters",
        "Test %",
        "MB",
    ]
    assert networks.rows[0] == ("plain", "late", 3, 10, 90.0, None)
    assert [column.name for column in memories.columns] == ["Arm", "Stage", "Seeds", "Helped %"]
    assert memories.rows == (("hybrid", "late", 3, 5.0),)
    assert list(of_memories(replace(table, rows=table.rows[:1]))) == []


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_best_accuracy_has_an_interval_from_three_seeds_on(seeds: int) -> None:
    """Below that its detail is the number of trials alone."""
    text = interval_text(share_summary(pd.Series([90.0, 91.0, 92.0][:seeds])))
    assert text.endswith(f"n = {seeds}")
    assert ("interval" in text) == (seeds == 3)
