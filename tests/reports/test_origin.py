"""The trials of a page and its origin: what the records say, and commands that name one trial each."""

from __future__ import annotations

import base64
import json
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_up_frames import row
from paths import ROOT

from psa.analysis.frame_schema import build_frame
from psa.experiments.grid import load_grid
from psa.reports.rendering import provenance as origin
from psa.reports.rendering.provenance import code_commit, provenance
from psa.reports.rendering.trials import (
    StoredTrial,
    TrialIndex,
    flat_spec,
    index_trials,
    selections,
    stored_trial,
)
from psa.reports.wording import missing_trials
from psa.reports.wording import origin as sources_of
from psa.storage.records.record_store import StoredRecord

GRIDS = sorted(path for path in (ROOT / "reproduction").glob("*.toml") if "[search]" not in path.read_text())


def decoded(index: TrialIndex) -> dict[str, Any]:
    """The content, as a page decodes it."""
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(index.encoded())))
    return found


@pytest.mark.parametrize("path", GRIDS, ids=lambda path: str(path.stem))
def test_the_command_of_a_trial_selects_that_trial_alone(path: Path) -> None:
    """For the first, the last and some others of every grid of the study."""
    grid = load_grid(path)
    found = selections(grid)
    ids = [trial.id for trial in grid.trials]
    assert set(found) <= set(ids)
    assert len(found) > 0.9 * len(ids)
    for name in [name for name in (ids[0], ids[len(ids) // 2], ids[-1]) if name in found]:
        assert [trial.id for trial in load_grid(path, only=found[name]).trials] == [name]


def test_the_command_of_a_trial_holds_for_a_part_of_a_grid() -> None:
    """A page may show one trial of a grid: its command has to tell it from all the others."""
    path = ROOT / "reproduction/digits.toml"
    (trial,) = load_grid(path, only="family=simplemlp arch=1*8 mode=none seed=3").trials
    found = selections(load_grid(path, only="family=simplemlp arch=1*8 mode=none seed=3"))
    assert list(found) == [trial.id]
    assert load_grid(path, only=found[trial.id]).trials == (trial,)


def test_curves_are_those_of_the_loops() -> None:
    """LKG and accuracy in hundredths of a percent, losses with four digits; a missing trial has none."""
    made = [row("1*16", "none", 0, [9000, 8000, 9311]), row("1*16", "none", 1)]
    made[0]["history"]["loss"] = [1.23456, float("nan"), 0.5]
    found = decoded(index_trials(build_frame(made), {}))
    assert found["curves"] == {
        "lkg": [[9000, 9000, 9311], None],
        "accuracy": [[9000, 8000, 9311], None],
        "loss": [[1.235, None, 0.5], None],
    }
    assert found["rows"]["status"] == ["done", "missing"]
    assert found["rows"]["record"] == [None, None]


def test_settings_that_all_trials_share_are_stored_once() -> None:
    """Every field of the specs is there, by its dotted name."""
    made = [row("1*16", "none", seed, [9000]) for seed in (0, 1)]
    names = [each["id"] for each in made]
    specs = [{"seed": seed, "method": {"lr": 0.1, "legs": []}, "memory": None} for seed in (0, 1)]
    stored = {name: StoredTrial(f"{name}.json", spec, {}) for name, spec in zip(names, specs, strict=True)}
    found = decoded(index_trials(build_frame(made), stored, {names[0]: {"Arm": "a"}}, {names[1]: "psa x"}))
    assert found["spec"]["common"] == {"method.lr": 0.1, "method.legs": [], "memory": None}
    assert found["spec"]["varied"] == {"seed": [0, 1]}
    assert flat_spec(specs[0]).keys() == {"seed", "method.lr", "method.legs", "memory"}
    assert found["rows"]["Arm"] == ["a", None]
    assert found["commands"] == [None, "psa x"]
    assert found["rows"]["record"] == [f"{name}.json" for name in names]


def test_the_sources_of_a_page_are_true_of_loose_records_and_of_bundles() -> None:
    """A record is a file or a row of a bundle. The rows lie in the folder of the page, not beside it, and
    only where the command wrote it: a published page comes without them. Without a finished trial there are
    no numbers, and no device is known.
    """
    made = build_frame([row("1*16", "none", seed, [9000]) for seed in (0, 1)] + [row("1*16", "none", 2)])
    text = sources_of(made, "every loop of every trial")
    assert text.startswith("All numbers come from 2 records of study ")
    assert ", one per trial, trained on: " in text
    assert (
        "The command below writes rows.parquet and rows.csv, which hold every loop of every trial, into"
        in text
    )
    nothing = build_frame([row("1*16", "none", seed) for seed in (0, 1)])
    text = sources_of(nothing, "every loop of every trial")
    assert text.startswith("No trial of study ablation finished, so this page has no accuracies. The command")


@pytest.mark.parametrize(
    ("statuses", "text"),
    [
        ({"done": 3}, ""),
        ({"done": 3, "missing": 1_496}, "Missing: 1,496 trials."),
        ({"missing": 2, "failed": 1, "damaged": 1}, "Missing: 4 trials (1 damaged, 1 failed)."),
        ({"failed": 1}, "Missing: 1 trial (1 failed)."),
    ],
)
def test_missing_trials_are_counted_and_those_with_a_reason_named(
    statuses: dict[str, int], text: str
) -> None:
    """A trial without a record needs no reason."""
    assert missing_trials(statuses) == text


def test_a_page_does_not_depend_on_where_its_records_are(tmp_path: Path) -> None:
    """Their places begin below the results folder, also where a bundle is named in place of it."""
    bundle = tmp_path / "some.parquet"
    bundle.touch()
    record = {"spec": {"seed": 0}}
    loose = StoredRecord(f"{tmp_path}/a/s00.json", b"", record, None)
    bundled = StoredRecord(f"{bundle}, record a/s00", b"", record, None)
    assert stored_trial(loose, tmp_path).place == "a/s00.json"
    for results in (tmp_path, bundle):
        assert stored_trial(bundled, results).place == "some.parquet, record a/s00"


def test_a_name_that_repeats_another_one_is_not_listed() -> None:
    """Arms that differ in their architecture alone are named by it: one column says so."""
    made = [row("1*16", "none", seed, [9000]) for seed in (0, 1)]
    names = [each["id"] for each in made]
    labels = {name: {"Architecture": "1*16", "Arm": "1*16", "Kind": str(at)} for at, name in enumerate(names)}
    found = decoded(index_trials(build_frame(made), {}, labels))
    assert found["listed"][:2] == ["Architecture", "Kind"]
    assert found["rows"]["Arm"] == ["1*16", "1*16"]  # cells still find their trials by it


@pytest.mark.parametrize(
    ("policy", "loops", "best", "loop", "kept"),
    [
        ("keep", "Epochs", "Validation (%)", "Epoch", "Kept weights"),
        ("ratchet", "Meta-loops", "Bounty (%)", "Meta-loop", "LKG"),
    ],
)
def test_the_terms_of_ablation_are_of_ablation_alone(
    policy: str, loops: str, best: str, loop: str, kept: str
) -> None:
    """Ordinary training has epochs and validation accuracy. A name of the report that is a column is called
    as that column.
    """
    made = [row("1*16", "none", seed, [9000], policy=policy) for seed in (0, 1)]
    found = decoded(index_trials(build_frame(made), {}, {each["id"]: {"arm": "none"} for each in made}))
    assert (found["headings"]["loops"], found["headings"]["bounty"]) == (loops, best)
    assert (found["loop"], found["kept"]) == (loop, kept)
    assert found["headings"]["arm"] == "Arm"


def test_a_large_grid_fits_a_page_of_ten_megabytes() -> None:
    """5,880 trials of 100 loops, with numbers that do not repeat."""
    draws = np.random.default_rng(0)
    made = []
    for seed in range(196):
        counts = draws.integers(9000, 9900, 100).tolist()
        made += [row(f"{seed % 14 + 1}*16", "none", seed, counts)]
    size = len(index_trials(build_frame(made), {}).encoded())
    assert 5880 / len(made) * size < 8e6


def sidecar(**facts: str) -> dict[str, str]:
    """That of a record."""
    return {"psa": "0.1.0", "torch": "2.15.0", "finished": "2026-11-28T20:41:52+00:00"} | facts


def test_the_origin_is_told_by_the_records(tmp_path: Path) -> None:
    """Times and versions are those of the sidecars, each once; some records have none."""
    (tmp_path / "grid.toml").write_text("seeds = 1\n")
    found = provenance(
        [sidecar(), sidecar(finished="2026-11-27T08:00:01+00:00", torch="2.14.0"), {}],
        "psa report x",
        tmp_path / "grid.toml",
    )
    facts = dict(found.facts)
    assert (
        facts["Trained"]
        == "2026-11-27 08:00 to 2026-11-28 20:41 UTC, according to 2 of 3 records; the others have no time"
    )
    assert facts["Trained with"] == "psa 0.1.0, torch 2.14.0 and 2.15.0, according to 2 of 3 records"
    assert dict(provenance([sidecar()], "x").facts)["Trained with"] == "psa 0.1.0, torch 2.15.0"
    assert (facts["Command"], found.grid) == ("psa report x", "seeds = 1\n")
    assert dict(provenance([{}], "x").facts)["Trained"].startswith("at an unknown time")
    assert "Copied" not in facts


def test_copied_records_are_counted() -> None:
    """Pairs of which one is a copy of the other are equal by construction."""
    made = [sidecar(), sidecar(copied_from="ablation/simplemlp-2x4/none/s00-000000"), sidecar(), {}]
    facts = dict(provenance(made, "x").facts)
    assert facts["Copied"] == "1 of 4 records, from trials with equal training"


def test_the_commit_is_that_of_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the last change to psa, so that a commit of a page does not change the page; none outside of git."""

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    code = tmp_path / "psa"
    code.mkdir()
    (code / "a.py").write_text("1\n")
    monkeypatch.setattr(origin, "_PACKAGE", code)
    found = []

    def see() -> None:
        code_commit.cache_clear()
        found.append(code_commit())

    see()
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "code")
    head = git("rev-parse", "--short=12", "HEAD")
    see()
    (tmp_path / "page.html").write_text("page")
    git("add", ".")
    git("commit", "-qm", "page")
    see()
    (code / "a.py").write_text("2\n")
    see()
    code_commit.cache_clear()
    assert found == ["", head, head, f"{head}, modified"]
