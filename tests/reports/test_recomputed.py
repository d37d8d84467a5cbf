"""The headline numbers of every study, computed again from the records by a few lines of NumPy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import some_record
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from psa.analysis.gradients.label_agreement import ari, cluster_purity, contingency, nmi
from psa.analysis.published import read_reference
from psa.analysis.records_frame import load_records_frame
from psa.experiments.grid import load_grid
from psa.reports.ablation import report as ablation
from psa.reports.ablation.published import published_comparison
from psa.reports.activations import report as activations
from psa.reports.contract import ReportContext
from psa.reports.glonet import report as glonet
from psa.reports.glonet.layer_use import Use
from psa.reports.glonet.networks import Network
from psa.reports.memory.arm_tables import consolidated, of_networks
from psa.reports.memory.comparisons import comparisons_of
from psa.reports.memory.runs import runs_from
from psa.reports.rendering.html import Page
from psa.reports.rendering.tables import Bold, Table
from psa.specs.training import MODES
from psa.specs.trial import Trial
from psa.storage.store import Store

Values = NDArray[np.float64]
SEEDS = 5
LOOPS = 6
CONTEXT = ReportContext(Path("unused"))
ABLATION = {
    "study": "ablation", "meta_loops": LOOPS, "seeds": f"0..{SEEDS - 1}", "base": {"family": "simplemlp"},
    "axes": {"arch": ["1*8", "4*1"], "mode": list(MODES)},
}  # fmt: skip
ACTIVATIONS = {
    "study": "activations", "meta_loops": LOOPS, "seeds": f"0..{SEEDS - 1}", "base": {"arch": "1*8"},
    "axes": {"activation": ["ReLU", "Tanh", "SiLU"]},
}  # fmt: skip
GLONET = {
    "study": "glonet", "meta_loops": LOOPS, "seeds": f"0..{SEEDS - 1}", "base": {"features": 8},
    "axes": {"model": ["GloNet", "MLP"], "num_layers": [3, 6]},
}  # fmt: skip
MEMORY = {
    "study": "memory", "meta_loops": LOOPS, "seeds": f"0..{SEEDS - 1}", "base": {"arch": "1*8"},
    "axes": {"method": ["nn", "hybrid", "random_memory", "hybrid_inactive"]},
}  # fmt: skip


def record(trial: Trial, draws: np.random.Generator) -> dict[str, Any]:
    """A record with random counts: the bounty is the best of the loops, the test count is near it."""
    made = some_record(LOOPS, trial)
    correct = [int(each) for each in draws.integers(2_000, 9_900, LOOPS)]
    best = max(correct)
    made["built"] |= {"arch": str(trial.model.arch), "parameters": 1_000 + sum(trial.model.arch.widths)}
    made["history"] |= {
        "correct": correct,
        "kept": [count > max([-1, *correct[:at]]) for at, count in enumerate(correct)],
        "mode": [trial.intervention.mode] * LOOPS,
    }
    made["finals"]["bounty"] = {"correct": best, "loop": correct.index(best) + 1}
    made["finals"]["test"] = {"correct": best - int(draws.integers(0, 100)), "loss": 0.5}
    return made


def stored(folder: Path, declared: Mapping[str, Any]) -> tuple[Store, list[dict[str, Any]]]:
    """A store with a record of each trial of a grid, and these records."""
    store, draws = Store(folder / "models", folder / "results"), np.random.default_rng(7)
    records = []
    for trial in load_grid(dict(declared)).trials:
        records.append(record(trial, draws))
        store.write(trial, records[-1], {})
    return store, records


def counts(records: list[dict[str, Any]], final: str, **wanted: Any) -> Values:
    """Accuracies in percent, by seed, of the records whose spec has these values anywhere."""
    found = {
        each["spec"]["seed"]: each["finals"][final]["correct"] / 100
        for each in records
        if all(
            value in leaves([each["spec"]["model"], each["spec"]["intervention"]])
            for value in wanted.values()
        )
    }
    return np.array([found[seed] for seed in range(SEEDS)])


def leaves(spec: Any) -> list[Any]:
    """Every value in parts of a spec."""
    parts = spec.values() if isinstance(spec, dict) else spec if isinstance(spec, list) else None
    return [spec] if parts is None else [leaf for each in parts for leaf in leaves(each)]


def rows_of(table: Table) -> Iterator[dict[str, Any]]:
    """The rows of a table, without highlights."""
    for row in table.rows:
        plain = [cell.value if isinstance(cell, Bold) else cell for cell in row]
        yield dict(zip([column.name for column in table.columns], plain, strict=True))


def interval(values: Values) -> tuple[float, float]:
    """Student's 95 % interval of the mean, within 0 and 100."""
    half = scipy_stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return max(0.0, values.mean() - half), min(100.0, values.mean() + half)


def flips(differences: Values) -> float:
    """p of the sign-flip test: the share of all choices of signs whose sum is at least as far from 0."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    return float((abs(signs @ differences) >= abs(differences.sum()) - 1e-9).mean())


def test_the_numbers_of_the_ablation_study(tmp_path: Path) -> None:
    """Means, spreads, paired differences, interquartile means, improvements, published differences."""
    store, records = stored(tmp_path, ABLATION)
    frame = load_records_frame(store)
    [(_, rows)] = list(ablation.parts(frame))
    made = ablation.tables(rows, CONTEXT)
    bounty = {
        (arch, mode): counts(records, "bounty", arch=f"[{arch}]", mode=mode)
        for arch in ("1*8", "4*1")
        for mode in MODES
    }
    for row in rows_of(made["accuracies"]):
        for mode in MODES:
            cell, values = row[mode.capitalize()], bounty[row["Architecture"], mode]
            assert (cell.mean, cell.sd, cell.n) == pytest.approx((values.mean(), values.std(), SEEDS))
        means = {mode: bounty[row["Architecture"], mode].mean() for mode in MODES}
        assert row["Winner"] == max(means, key=lambda mode: means[mode])
    for row in rows_of(made["test_accuracies"]):
        for mode in MODES:
            cell = row[mode.capitalize()]
            values = counts(records, "test", arch=f"[{row['Architecture']}]", mode=mode)
            assert (cell.mean, cell.sd, cell.n) == pytest.approx((values.mean(), values.std(), SEEDS))
    for row in rows_of(made["paired"]):
        difference = bounty[row["Architecture"], row["Mode"]] - bounty[row["Architecture"], "none"]
        low, high = scipy_stats.ttest_1samp(difference, 0).confidence_interval()
        cell = row["Difference"]
        assert (cell.value, cell.low, cell.high) == pytest.approx((difference.mean(), low, high))
        assert row["p"] == pytest.approx(flips(difference))
        effect = difference.mean() / difference.std(ddof=1) * (1 - 3 / (4 * (SEEDS - 1) - 1))
        assert row["Hedges g"] == pytest.approx(effect)
    for row in rows_of(made["aggregate"]):
        mode = row["Mode"]
        ordered = np.sort([value for (_, each), values in bounty.items() if each == mode for value in values])
        cut = len(ordered) // 4
        assert row["Interquartile mean (%)"].value == pytest.approx(ordered[cut:-cut].mean())
        wins = [
            (bounty[arch, mode][:, None] > bounty[arch, "none"]).mean()
            + (bounty[arch, mode][:, None] == bounty[arch, "none"]).mean() / 2
            for arch in ("1*8", "4*1")
        ]
        better = row["P(better than none)"]
        assert (better is None) if mode == "none" else better.value == pytest.approx(np.mean(wins))
    facts = {fact.name: fact for fact in ablation.page(rows, CONTEXT, made, {}).facts}
    assert facts["Trials"].value == f"{len(records)} of {len(records)}"
    assert facts["Best mean bounty"].value == f"{max(each.mean() for each in bounty.values()):.2f} %"
    assert facts["ZeroR"].value == "11.02 %"


def test_differences_from_the_published_study(tmp_path: Path) -> None:
    """Welch's test of two samples, of which one is known by its mean and deviation."""
    store, records = stored(tmp_path, ABLATION)
    table = tmp_path / "published.tsv"
    lines = [f"1*8\toptimally-sized\t{mode}\t90.0\t1.5\t85\t95\t10" for mode in MODES]
    widest = counts(records, "bounty", arch="[1*8]", mode="output").mean() - 90
    lines[-1] = f"1*8\toptimally-sized\toutput\t90.0\t{0.6 * abs(widest)}\t85\t95\t10"
    table.write_text("\n".join(["arch\tregime\tmode\tmean\tstd_pop\tmin\tmax\tn", *lines]) + "\n")
    found = published_comparison(load_records_frame(store), read_reference(table))
    p_values, usual = [], 0
    for row in rows_of(found):
        ours = counts(records, "bounty", arch="[1*8]", mode=row["Mode"])
        sd = (1.5 if row["Mode"] != "output" else 0.6 * abs(widest)) * (10 / 9) ** 0.5
        usual += abs(ours.mean() - 90) <= 2 * sd
        test = scipy_stats.ttest_ind_from_stats(ours.mean(), ours.std(ddof=1), SEEDS, 90, sd, 10, False)
        p_values.append(test.pvalue)
        assert row["Difference"].value == pytest.approx(ours.mean() - 90)
        assert (row["Here"].low, row["Here"].high) == pytest.approx(interval(ours))
    ordered = sorted(p_values)
    least = min(1.0, 6 * ordered[0])  # Holm's correction of the smallest of six
    assert min(row["p (Holm)"] for row in rows_of(found)) == pytest.approx(least)
    assert 0 < usual < len(MODES)
    assert f", {usual} within two standard deviations of the published trials;" in found.note


def test_the_numbers_of_activations(tmp_path: Path) -> None:
    """Means with intervals within 0 and 100, paired t tests, and which arm is called best."""
    store, records = stored(tmp_path, ACTIVATIONS)
    [(_, rows)] = list(activations.parts(load_records_frame(store)))
    made = activations.tables(rows, CONTEXT)
    names = ("ReLU", "Tanh", "SiLU")
    test = {name: counts(records, "test", activation=name) for name in names}
    for row in rows_of(made["results"]):
        values, cell = test[row["Activation"]], row["Test (%)"]
        assert (cell.value, cell.low, cell.high) == pytest.approx((values.mean(), *interval(values)))
        assert row["sd"] == pytest.approx(values.std(ddof=1))
        bounty = counts(records, "bounty", activation=row["Activation"])
        assert row["Validation (%)"] == pytest.approx(bounty.mean())
    best = max(names, key=lambda name: test[name].mean())
    bold = [row[0] for row in made["results"].rows if any(isinstance(cell, Bold) for cell in row)]
    assert bold == [best]
    for row in rows_of(made["paired"]):
        found = scipy_stats.ttest_rel(test[row["Arm"]], test["ReLU"])
        assert row["p"] == pytest.approx(found.pvalue)
        low, high = found.confidence_interval(1 - 0.05 / 2)  # Bonferroni over two comparisons
        told = "higher" if low > 0 else "lower" if high < 0 else "not significantly different"
        assert row["Test accuracy is"] == told
    best = max(names, key=lambda name: counts(records, "bounty", activation=name).mean())
    facts = {fact.name: fact.value for fact in activations.page(rows, CONTEXT, made, {}).facts}
    assert facts["Test accuracy of the best arm"] == f"{test[best].mean():.2f} %"
    assert facts["Arms that learn"] == "3 of 3"


def page_of_activations(folder: Path, axes: dict[str, Any]) -> Page:
    """The page of a grid of activations with these axes."""
    base = {} if "arch" in axes else ACTIVATIONS["base"]
    store, _ = stored(folder, ACTIVATIONS | {"axes": axes, "base": base})
    [(_, rows)] = list(activations.parts(load_records_frame(store)))
    return activations.page(rows, CONTEXT, activations.tables(rows, CONTEXT), {})


def test_the_question_of_a_page_is_about_the_settings_that_vary(tmp_path: Path) -> None:
    """A page on widths and depths with ReLU asked for the accuracy of activations and stochastic layers."""
    both = page_of_activations(tmp_path / "both", {"activation": ["ReLU", "Tanh"], "dropout": [0.0, 0.1]})
    assert "activations that normalise" in both.question
    sizes = page_of_activations(tmp_path / "sizes", {"arch": ["1*8", "1*16"], "dropout": [0.0, 0.1]})
    assert "activations" not in sizes.question
    assert sizes.question.endswith("depend on architecture and dropout?")


def test_the_numbers_of_depth(tmp_path: Path) -> None:
    """Means with intervals, differences of models, epochs to a target, and the deepest network."""
    store, records = stored(tmp_path, GLONET)
    [(_, rows)] = list(glonet.parts(load_records_frame(store)))
    made = glonet.tables(rows, CONTEXT)
    families = {"GloNet": "glonet", "MLP": "mlp"}
    test = {
        (model, layers): counts(records, "test", family=family, arch=f"[{layers - 1}*8]")
        for model, family in families.items()
        for layers in (3, 6)
    }
    for row in rows_of(made["accuracy"]):
        values, cell = test[row["Model"], row["Layers"]], row["Test, mean and interval"]
        assert (cell.value, cell.low, cell.high) == pytest.approx((values.mean(), *interval(values)))
        assert row["Test (%)"].sd == pytest.approx(values.std(ddof=1))
    for row in rows_of(made["paired"]):
        difference = test["GloNet", row["Layers"]] - test["MLP", row["Layers"]]
        assert row["Difference (points)"].value == pytest.approx(difference.mean())
        assert row["p"] == pytest.approx(flips(difference))
    for row in rows_of(made["convergence"]):
        family = families[row["Model"]]
        own = [
            each
            for each in records
            if {family, f"[{row['Layers'] - 1}*8]"} <= {*map(str, leaves(each["spec"]["model"]))}
        ]
        first = [
            next((at for at, n in enumerate(each["history"]["correct"], 1) if n >= 9000), None)
            for each in own
        ]
        reached = [each for each in first if each is not None]
        assert row["Reached 90 %"] == f"{len(reached)} of {SEEDS}"
        assert not reached or row["Epochs to 90 %"].mean == pytest.approx(np.mean(reached))
    facts = {fact.name: fact.value for fact in glonet.page(rows, CONTEXT, made, {}).facts}
    assert facts["Deepest GloNet"] == f"{test['GloNet', 6].mean():.2f} %"
    assert facts["Deepest MLP"] == f"{test['MLP', 6].mean():.2f} %"


def test_the_use_of_layers() -> None:
    """Shares of the mean output, the layers that hold 90 %, and the first exit that stays good."""
    draws = np.random.default_rng(3)
    end, exits = draws.random((3, 20)), np.sort(100 * draws.random((3, 20)))
    nothing = np.empty((3, 0))
    use = Use(Network(8, 21, "GloNet"), (), end, end, nothing, np.empty((3, 1, 0)), exits)
    shares = np.mean([row / row.sum() for row in end], axis=0)
    assert use.shares == pytest.approx(shares)
    assert use.first(8) == pytest.approx(shares[:8].sum())
    assert use.holding == 1 + int((np.cumsum(np.sort(shares)[::-1]) < 0.9).sum())
    for row, found in zip(exits, use.exit, strict=True):
        assert found == next(k for k in range(1, 21) if (row[k - 1 :] >= row[-1] - 1).all())


def test_the_numbers_of_memories(tmp_path: Path) -> None:
    """Means over seeds, paired t tests and their correction by Benjamini and Hochberg."""
    _, records = stored(tmp_path, MEMORY)
    runs = runs_from([(each, {}) for each in records])
    test = {
        method: counts([each for each in records if method_of(each) == method], "test")
        for method in ("nn", "hybrid", "random_memory", "hybrid_inactive")
    }
    for row in rows_of(consolidated(runs)):
        values = test[row["Arm"].split()[0]]
        assert (row["Test %"].mean, row["Test %"].sd) == pytest.approx((values.mean(), values.std(ddof=1)))
    # no note on a column that is not there: none of these networks grew
    grown = consolidated(runs.assign(growth_delta=0.5))
    assert ["Growth and next epoch" in each.note for each in (consolidated(runs), grown)] == [False, True]
    assert ["Growth and next epoch" in of_networks(each).note for each in (consolidated(runs), grown)] == [
        False,
        True,
    ]
    found = {each.key: each for each in comparisons_of(runs)}
    assert set(found) == {"nn", "random_memory", "hybrid_inactive"}
    p_values = {}
    for key, each in found.items():
        difference = test["hybrid"] - test[key]
        low, high = scipy_stats.ttest_1samp(difference, 0).confidence_interval()
        numbers = (each.found.difference, each.found.low, each.found.high)
        assert numbers == pytest.approx((difference.mean(), low, high))
        p_values[key] = scipy_stats.ttest_1samp(difference, 0).pvalue
    largest = max(p_values, key=lambda key: p_values[key])
    assert found[largest].adjusted == pytest.approx(p_values[largest])  # that of the largest is itself
    least = min(p_values, key=lambda key: p_values[key])
    ordered = sorted(p_values.values())
    assert found[least].adjusted == pytest.approx(min(3 * p / rank for rank, p in enumerate(ordered, 1)))


def method_of(record: Mapping[str, Any]) -> str:
    """The method of a record of the memory study."""
    memory = record["spec"].get("memory")
    return {None: "nn", "none": "hybrid", "random": "random_memory", "inactive": "hybrid_inactive"}[
        memory and memory["control"]
    ]


def test_the_agreement_of_clusters() -> None:
    """Purity, mutual information and the Rand index, from their definitions."""
    draws = np.random.default_rng(5)
    clusters, labels = draws.integers(0, 4, 200), draws.integers(0, 3, 200)
    labels[clusters == 0] = 0
    table = contingency(clusters, labels)[None]
    largest = sum(np.bincount(labels[clusters == each]).max() for each in range(4))
    assert cluster_purity(table)[0] == pytest.approx(largest / 200)
    joint = np.array([[np.mean((clusters == a) & (labels == b)) for b in range(3)] for a in range(4)])
    rows, columns = joint.sum(axis=1, keepdims=True), joint.sum(axis=0, keepdims=True)
    there = joint > 0
    shared = (joint[there] * np.log(joint[there] / (rows * columns)[there])).sum()
    entropies = [-(p[p > 0] * np.log(p[p > 0])).sum() for p in (rows, columns)]
    assert nmi(table)[0] == pytest.approx(shared / np.mean(entropies))
    same_cluster, same_label = clusters[:, None] == clusters, labels[:, None] == labels
    pairs = np.triu(np.ones((200, 200), dtype=bool), 1)
    a, b, both = (each[pairs].sum() for each in (same_cluster, same_label, same_cluster & same_label))
    expected = a * b / pairs.sum()
    assert ari(table)[0] == pytest.approx((both - expected) / ((a + b) / 2 - expected))
