"""The stages of a grid in its report: scores, ranks and promotions, each counted again from the records."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up import some_record
from pictures import undrawn

from psa.cli.app import PSA, run
from psa.experiments.grid import Grid, load_grid
from psa.experiments.promotion import stage_statuses
from psa.reports.ablation.cells import Trials
from psa.reports.rendering.stages import stage_files, stage_policy_json, stage_tables
from psa.storage.store import Store

GRID = """
study = "memory"
name = "staged"
[base]
arch = "2*16"
[variants]
plain = { method = "nn" }
wide = { method = "nn", arch = "2*32" }
held = { method = "hybrid" }
idle = { method = "hybrid_inactive" }
vote = { method = "embedding_knn" }
[[stages]]
name = "a"
meta_loops = 2
seeds = [0, 1]
settings = { train_size = 1_000 }
[[stages]]
name = "b"
meta_loops = 3
seeds = [0, 1, 2]
settings = { train_size = 2_000 }
[stages.promote]
best = 1
always = ["vote"]
groups = [["plain", "wide"], ["held", "idle"]]
"""
# correct answers of 10,000 after the two loops of the first stage, by variant and seed
CORRECT = {
    "plain": ([5000, 5100], [5200, 5300]),
    "wide": ([5000, 5150], [5200, 5240]),
    "held": ([4000, 4100], [6000, 6400]),
    "idle": ([4900, 5000], [5400, 5500]),
    "vote": ([1000, 1100], [1000, 1200]),
}


def trained(folder: Path, stages: int) -> tuple[Grid, Store]:
    """A grid and the records of its first stages; those of the second all have the same counts."""
    (folder / "staged.toml").write_text(GRID)
    grid, store = load_grid(folder / "staged.toml"), Store(folder / "models", folder / "results")
    for number in range(stages):
        status = [*stage_statuses(grid, store)][number]
        for point in status.points or ():
            record = some_record(status.meta_loops, point.trial)
            counts = CORRECT[point.variant][point.trial.seed] if number == 0 else [5000, 5500, 6000]
            record["history"] |= {"correct": counts, "kept": [True] * len(counts)}
            record["samples"] = {"train": 1_000, "validation": 10_000, "test": 10_000, "zero_r_validation": 1}
            record["finals"]["bounty"] = {"correct": counts[-1], "loop": len(counts)}
            if "embedding_knn" in point.trial.probes:
                last = {"correct": [5_000, 5_000], "total": [10_000, 10_000]}
                seen: dict[str, Any] = {"places": {}, "loops": [{}] * (len(counts) + 1), "last": last}
                record["probes"] = {"embedding_knn": seen}
            store.write(point.trial, record, {})
    return grid, store


def means() -> dict[str, float]:
    """The mean validation accuracy of each variant after the first stage, 0 to 1."""
    return {name: sum(seed[-1] for seed in seeds) / len(seeds) / 10_000 for name, seeds in CORRECT.items()}


def test_the_policy_names_every_candidate_its_score_and_its_fate(tmp_path: Path) -> None:
    """The best mean of each group and the one that always goes on; both of them are said why."""
    grid, store = trained(tmp_path, 1)
    found = json.loads(stage_policy_json([*stage_statuses(grid, store)]))
    assert [
        (each["name"], each["meta_loops"], each["seeds"], each["trials"]) for each in found["stages"]
    ] == [
        ("a", 2, [0, 1], 10),
        ("b", 3, [0, 1, 2], 9),
    ]
    stage = found["stages"][1]
    assert (stage["promoted_from"], stage["complete"]) == ("a", True)
    assert stage["rule"] == {
        "best": 1, "within": [], "groups": [["plain", "wide"], ["held", "idle"]], "always": ["vote"],
    }  # fmt: skip
    assert stage["promoted"] == ["plain", "held", "vote"]
    by_name = {each["candidate"]: each for each in stage["candidates"]}
    assert {name: each["validation_accuracy"] for name, each in by_name.items()} == pytest.approx(means())
    assert {name: (each["group"], each["rank"], each["reason"]) for name, each in by_name.items()} == {
        "plain": (1, 1, "best 1 of group 1"),
        "wide": (1, 2, "below the best 1 of group 1"),
        "held": (2, 1, "best 1 of group 2"),
        "idle": (2, 2, "below the best 1 of group 2"),
        "vote": (None, None, "always"),
    }
    assert all(len(each["trials"]) == 2 for each in by_name.values())


def test_nothing_is_decided_while_a_record_is_missing(tmp_path: Path) -> None:
    """No score is shown that could still change; a grid of one stage has no policy at all."""
    grid, store = trained(tmp_path, 0)
    found = json.loads(stage_policy_json([*stage_statuses(grid, store)]))["stages"][1]
    assert (found["complete"], found["promoted"], found["trials"]) == (False, None, None)
    assert {
        (each["validation_accuracy"], each["promoted"], each["reason"]) for each in found["candidates"]
    } == {(None, None, "not decided")}
    (table,) = stage_tables([*stage_statuses(grid, store)]).values()
    assert {row[6] for row in table.rows} == {"not decided"}
    assert stage_files([*stage_statuses(grid, store)][:1]) == stage_tables([]) == {}


def test_candidates_of_axes_are_named_by_their_settings(tmp_path: Path) -> None:
    """Only by those in which they differ."""
    text = '[axes]\nlr = [1e-3, 2e-3]\n[base]\narch = "1*1"\n'
    text += '[[stages]]\nname = "a"\nmeta_loops = 1\nseeds = [0]\n'
    text += '[[stages]]\nname = "b"\nmeta_loops = 2\nseeds = [0, 1]\npromote = { best = 1 }\n'
    (tmp_path / "axes.toml").write_text(text)
    grid = load_grid(tmp_path / "axes.toml")
    statuses = [*stage_statuses(grid, Store(tmp_path / "models", tmp_path / "results"))]
    names = [each["candidate"] for each in json.loads(stage_policy_json(statuses))["stages"][1]["candidates"]]
    assert names == ["lr=0.001", "lr=0.002"]


def test_the_table_of_stages_has_the_arms_of_other_tables(tmp_path: Path) -> None:
    """Beside the names of variants, where settings of the ablation make arms of their own; modes alone, and
    studies without arms, have no such column.
    """
    text = '[base]\narch = "1*1"\n[variants]\nplain = { mode = "none" }\n'
    text += 'tenth = { mode = "hidden", share = 0.1 }\n'
    text += '[[stages]]\nname = "a"\nmeta_loops = 1\nseeds = [0]\n'
    text += '[[stages]]\nname = "b"\nmeta_loops = 2\nseeds = [0, 1]\npromote = { best = 1 }\n'
    store = Store(tmp_path / "models", tmp_path / "results")
    found = {}
    for name, grid in {"arms": text, "modes": text.replace(", share = 0.1", ""), "memory": GRID}.items():
        (tmp_path / f"{name}.toml").write_text(grid)
        (found[name],) = stage_tables([*stage_statuses(load_grid(tmp_path / f"{name}.toml"), store)]).values()
    assert [column.name for column in found["arms"].columns][1:4] == ["Candidate", "Arm", "Trials"]
    assert [row[1:3] for row in found["arms"].rows] == [("plain", "none"), ("tenth", "hidden, share 0.1")]
    assert "Arm: the name that other tables have for these settings." in found["arms"].note
    for name in ("modes", "memory"):
        assert "Arm" not in [column.name for column in found[name].columns]
        assert "Arm:" not in found[name].note


def test_the_table_of_stages_says_what_a_group_holds(tmp_path: Path) -> None:
    """A number alone says nothing: lists of variants, settings of one value, or all candidates."""
    store = Store(tmp_path / "models", tmp_path / "results")
    lists = 'groups = [["plain", "wide"], ["held", "idle"]]'
    for rule, kind in {
        lists: "the variants that the grid lists together",
        'within = ["arch"]': "the candidates of equal arch",
        "": "all candidates",
    }.items():
        (tmp_path / "grouped.toml").write_text(GRID.replace(lists, rule))
        (table,) = stage_tables([*stage_statuses(load_grid(tmp_path / "grouped.toml"), store)]).values()
        assert f"A group holds {kind}. A candidate without a group" in table.note


def test_a_report_of_a_staged_grid_has_its_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a file, as a table in three forms, and as a section of the page; without the grid nothing. Ordinary
    training has epochs; loops are of the ablation study. A heading in percent has no percent signs below it.
    """
    trained(tmp_path, 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    assert run(PSA, ["report", "staged", "--grid", "staged.toml"]) == 0
    folder = tmp_path / "results/reports/staged"
    policy = json.loads((folder / "stage_policy.json").read_text())
    rows = [*csv.DictReader((folder / "stages.csv").read_text().splitlines())]
    assert {row["Candidate"] for row in rows if row["Promoted"] == "yes"} == set(
        policy["stages"][1]["promoted"]
    )
    assert {row["Candidate"]: float(row["Validation (%)"]) for row in rows} == pytest.approx(
        {name: 100 * mean for name, mean in means().items()}
    )
    page = (tmp_path / "results/reports/staged.html").read_text()
    assert "Trials and candidates are counted over the whole grid" in page
    assert "Stage b: 9 trials, up to epoch 3; 3 of 5 candidates promoted." in page
    assert "decided with seeds 0, 1, so the mean of a promoted candidate tends to be too high" in page
    assert "if it contains these seeds." in page
    assert "after the last epoch of the stage before" in policy["criterion"]
    assert r"{Validation (\%)} &" in (folder / "stages.tex").read_text()
    assert "%" not in "".join((folder / "stages.md").read_text().splitlines()[4:])
    assert run(PSA, ["report", "staged", "--output-dir", "other"]) == 0
    assert not (tmp_path / "other/staged/stage_policy.json").exists()
    assert "Stages" not in (tmp_path / "other/staged.html").read_text()
    capfd.readouterr()


@pytest.mark.parametrize("pair", [(9694, 9695), (9412, 9429), (8749, 8722)])
def test_a_score_between_two_hundredths_is_shown_as_it_is(
    pair: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It decides ranks, and is the mean that other tables round, whichever way they round it."""
    monkeypatch.setitem(CORRECT, "vote", tuple([1000, count] for count in pair))
    grid, store = trained(tmp_path, 1)
    shown = stage_tables([*stage_statuses(grid, store)])["stages"].markdown()
    assert f" {sum(pair) // 200}.{sum(pair) % 200 * 5:03d} " in shown
    mean = Trials(np.array(pair, dtype=float), 10_000, Counter()).mean
    assert f" {mean:.3f} " in shown
