"""`psa report`: one command from records to pages, also where half of the records are missing."""

from __future__ import annotations

import base64
import contextlib
import csv
import gc
import html
import io
import json
import re
import shlex
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_up import some_record
from made_up_frames import ARCHS, ASYMMETRIC, frame
from paths import ROOT
from pictures import undrawn

from psa.analysis.pooling import identical_arms
from psa.analysis.published import published_trials
from psa.analysis.records_frame import load_records_frame
from psa.cli import record_options
from psa.cli.app import PSA, run
from psa.cli.commands.report import _context, _PublishedLists
from psa.cli.output.report_page import _frozen
from psa.core.errors import UserError
from psa.experiments.grid import load_grid
from psa.experiments.promotion import stage_statuses
from psa.reports.ablation import report as ablation
from psa.reports.contract import ReportContext
from psa.reports.rendering.tables import Table
from psa.specs.trial import Trial
from psa.storage.store import Store

GRID = """
meta_loops = 6
seeds = "0..2"
[base]
family = "simplemlp"
[axes]
arch = ["1*8", "4*1", "1*2"]
mode = ["none", "decay", "dropout", "full", "hidden", "output"]
"""
Report = Callable[..., tuple[int, str, str]]


def record(trial: Trial, loops: int = 6) -> dict[str, Any]:
    """A made-up record; mode decay has the very numbers of mode none."""
    mode = "none" if trial.intervention.mode == "decay" else trial.intervention.mode
    start = 1000 + 700 * len(mode) + 11 * trial.seed + 40 * sum(trial.model.arch.widths)
    correct = [start + 30 * loop - 100 * (loop % 3 == 2) for loop in range(loops)]
    made = some_record(loops, trial)
    made["built"]["parameters"] = 785 * trial.model.arch.widths[0] + 20
    made["history"] |= {
        "correct": correct,
        "kept": [count > max([-1, *correct[:at]]) for at, count in enumerate(correct)],
        "mode": [trial.intervention.mode] * loops,
    }
    made["finals"]["bounty"] = {"correct": max(correct), "loop": correct.index(max(correct)) + 1}
    made["finals"]["test"] = {"correct": max(correct) - 9, "loss": 0.5}
    return made


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Report:
    """Run `psa report` in a folder with a grid; exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(GRID)

    def call(*words: str) -> tuple[int, str, str]:
        code = run(PSA, ["report", *words])
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def stored(folder: Path, wanted: Callable[[Trial], bool] = lambda trial: True) -> list[Trial]:
    """Store the records of some trials of the grid; all trials."""
    store, trials = Store(folder / "models", folder / "results"), load_grid(folder / "grid.toml").trials
    for trial in filter(wanted, trials):
        store.write(trial, record(trial), {})
    return list(trials)


@dataclass(frozen=True)
class Reported:
    """A folder whose records are all there, and what was said when they were reported."""

    folder: Path
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Reported:
    """Reported once: to draw every figure takes seconds."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "grid.toml").write_text(GRID)
    stored(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(PSA, ["report", "ablation"])
    return Reported(folder, code, out.getvalue(), err.getvalue())


def test_the_garbage_collector_sees_all_objects_again_after_the_figures() -> None:
    """Also if a figure cannot be drawn: what stays frozen is never collected."""
    with contextlib.suppress(ZeroDivisionError), _frozen():
        assert gc.get_freeze_count() > 0
        raise ZeroDivisionError
    assert gc.get_freeze_count() == 0


@pytest.mark.slow
def test_one_command_makes_everything(whole: Reported) -> None:
    """A page, and beside it tables in three formats, figures in two, the rows and the published listings."""
    assert whole.code == 0, whole.err
    assert "ablation_simplemlp.html" in whole.out
    folder = whole.folder / "results/reports/ablation_simplemlp"
    names = {path.name for path in folder.iterdir()}
    for table in ("architectures", "accuracies", "paired", "aggregate", "regimes"):
        assert {f"{table}.md", f"{table}.tex", f"{table}.csv"} <= names
    assert {f"psa_simplemlp_{each}.md" for each in ("summary", "trials", "trials_lkg_growth")} <= names
    assert {"rows.parquet", "rows.csv", "accuracy_dots.png", "heatmaps.pdf"} <= names
    page = (whole.folder / "results/reports/ablation_simplemlp.html").read_text()
    assert "54 of 54" in page
    assert "Mode decay has the numbers of mode none in all 9 pairs" in page
    assert "psa may therefore train one trial of a pair and store its results for both" in page
    assert "by the factor 1 − 1e-08 in each step, which is 1 in single precision" in page
    assert "expected trials" not in page
    again = published_trials(folder / "psa_simplemlp_trials.md", "simplemlp")
    assert len(again) == 54


@pytest.mark.slow
def test_the_same_records_give_the_same_bytes_and_what_another_report_left_is_named(
    whole: Reported, report: Report, tmp_path: Path
) -> None:
    """A report is a function of the rows: written twice, every file is the same, but for the folder that the
    command at the foot of the page names. A figure that is not made any more would pass for one of these
    rows, and is told of.
    """
    left = tmp_path / "again/ablation_simplemlp/old.png"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    assert "did not write" not in whole.err
    where = ("--results-dir", str(whole.folder / "results"), "--output-dir", "again")
    code, out, err = report("ablation", *where)
    assert (code, "also holds what this report did not write: old.png" in err) == (0, True)
    count = len(list(left.parent.iterdir()))
    assert f"({count - 1} files" in out
    left.unlink()
    one, two = contents(whole.folder / "results/reports"), contents(tmp_path / "again")
    page = "ablation_simplemlp.html"
    words = ("--results-dir", str(whole.folder / "results"))
    named = "".join(f' <span class="word">{word}</span>' for word in words).encode()
    assert two[page].count(named) == 1
    two[page] = two[page].replace(named, b"")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_a_partial_grid_is_reported_as_such(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the cells missing, one mode missing, one trial failed: all comes out and says so."""
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    trials = stored(
        tmp_path,
        lambda trial: (
            trial.intervention.mode != "hidden"
            and str(trial.model.arch) != "[1*2]"
            and (trial.seed, trial.intervention.mode) != (1, "full")
        ),
    )
    store = Store(tmp_path / "models", tmp_path / "results")
    failed = next(each for each in trials if (each.seed, each.intervention.mode) == (1, "full"))
    store.write_failure(failed, "the worker died")
    code, _, err = report("ablation", "--grid", "grid.toml")
    assert code == 0, err
    page = (tmp_path / "results/reports/ablation_simplemlp.html").read_text()
    assert "28 of 54" in page
    assert "26 of 54 expected trials have no result (1 failed, 25 missing)" in page
    with (tmp_path / "results/reports/ablation_simplemlp/accuracies.csv").open() as lines:
        rows = {row["Architecture"]: row for row in csv.DictReader(lines)}
    none = [
        record(each)["finals"]["bounty"]["correct"] / 100 for each in trials if _is(each, "[1*8]", "none")
    ]
    assert float(rows["1*8"]["None mean"]) == pytest.approx(sum(none) / 3)
    assert rows["1*8"]["Full n"] == "2"
    assert rows["1*2"]["None n"] == "0"


@pytest.mark.slow
def test_shorter_trials_take_no_part(report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trial of fewer loops than the grid asks for is unfinished; without it, on a page of its length."""
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    store, trials = Store(tmp_path / "models", tmp_path / "results"), load_grid(tmp_path / "grid.toml").trials
    for trial in trials:
        store.write(trial, record(trial, 4 if trial.seed == 0 else 6), {})
    assert report("ablation", "--grid", "grid.toml")[0] == 0
    page = (tmp_path / "results/reports/ablation_simplemlp.html").read_text()
    assert "18 of 54 expected trials have no result (18 unfinished)" in page
    assert report("ablation")[0] == 0
    page = (tmp_path / "results/reports/ablation_simplemlp_loops-6.html").read_text()
    assert (
        "This page has the trials of 6 meta-loops. Those of another length (18 trials of 4) are on pages"
        in page
    )
    for loops, seeds in (("4", "1"), ("6", "2")):
        with (tmp_path / f"results/reports/ablation_simplemlp_loops-{loops}/accuracies.csv").open() as lines:
            assert {row["None n"] for row in csv.DictReader(lines)} == {seeds}


def test_a_longer_arm_is_not_compared_where_the_grid_was_named(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a sweep was extended to 12 loops; the grid asks for 6, which the longer ones have, too."""
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    store, trials = Store(tmp_path / "models", tmp_path / "results"), load_grid(tmp_path / "grid.toml").trials
    for trial in trials:
        store.write(trial, record(trial, 12 if trial.intervention.mode == "full" else 6), {})
    assert report("ablation", "--grid", "grid.toml")[0] == 0
    for loops, n in (("6", ("3", "0")), ("12", ("0", "3"))):
        folder = tmp_path / f"results/reports/ablation_simplemlp_loops-{loops}"
        assert "nothing is compared across lengths" in folder.with_suffix(".html").read_text()
        with (folder / "accuracies.csv").open() as lines:
            # a mode without a trial of this length has no column
            assert {(row.get("None n", "0"), row.get("Full n", "0")) for row in csv.DictReader(lines)} == {n}
        with (folder / "paired.csv").open() as lines:
            pairs = {row["Pairs"] for row in csv.DictReader(lines) if row["Mode"] == "full"}
            # without a trial of the mode there is no row, without one of mode none no pair
        assert pairs == ({"0"} if loops == "12" else set())


def commands_in(page: str) -> list[str]:
    """The commands of a page that train a trial again."""
    encoded = re.search(r'id="trial-data">"([^"<]*)"<', page)
    assert encoded is not None
    commands: list[str] = json.loads(zlib.decompress(base64.b64decode(encoded[1])))["commands"]
    return commands


def test_overrides_and_only_name_the_trials_of_a_sweep(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for `psa plan`; trials of the plain grid do not mix with them. The commands that the page names for
    itself and for its trials have them, too.
    """
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    store = Store(tmp_path / "models", tmp_path / "results")
    stored(tmp_path)
    for trial in load_grid(tmp_path / "grid.toml", ["lr=1e-3"]).trials:
        store.write(trial, record(trial), {})
    words = ("lr=1e-3", "--grid", "grid.toml", "--only", "arch=1*8,4*1 seed=0,1", "--order", "list.txt")
    code, _, err = report("ablation", *words)
    assert code == 0, err
    page = (tmp_path / "results/reports/ablation_simplemlp.html").read_text()
    assert "24 of 24" in page
    command = "psa report ablation --grid grid.toml lr=1e-3 --only 'arch=1*8,4*1 seed=0,1' --order list.txt"
    assert command in re.sub("<[^>]*>", "", html.unescape(page))
    commands = commands_in(page)
    assert len(commands) == 24
    for each in commands:
        sweep, *words = shlex.split(each)[1:]
        assert (sweep, words[:2]) == ("sweep", ["grid.toml", "lr=1e-3"])
        assert len(load_grid(tmp_path / words[0], words[1:2], words[words.index("--only") + 1]).trials) == 1
    folder = tmp_path / "results/reports/ablation_simplemlp"
    with (folder / "rows.csv").open() as lines:
        assert {row["lr"] for row in csv.DictReader(lines)} == {"0.001"}
    code, _, err = report("ablation", "lr=1e-3")
    assert (code, "must belong to a grid, got 'lr=1e-3'" in err) == (2, True)


def test_trials_of_several_settings_are_on_several_pages(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a grid: trials with another number of images are never averaged with the others."""
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    store = Store(tmp_path / "models", tmp_path / "results")
    for size in (500, 8000):
        for trial in load_grid(tmp_path / "grid.toml", [f"train_size={size}"]).trials:
            store.write(trial, record(trial), {})
    assert report("ablation")[0] == 0
    names = {path.name for path in (tmp_path / "results/reports").glob("*.html")}
    assert names == {f"ablation_simplemlp_train_size-{size}.html" for size in (500, 8000)}
    page = (tmp_path / "results/reports/ablation_simplemlp_train_size-500.html").read_text()
    assert "ablation, training size 500: simplemlp" in page


STAGED = """
study = "activations"
name = "staged"
seeds = [0, 1]
[base]
arch = "1*4"
[variants]
a = { activation = "ReLU" }
b = { activation = "Tanh" }
c = { activation = "SiLU" }
[[stages]]
name = "short"
meta_loops = 2
[[stages]]
name = "long"
meta_loops = 4
settings = { dropout = 0.2 }
promote = { best = 1 }
"""


def test_a_finished_staged_grid_lacks_nothing(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Candidates that did not go on to the second stage are not missing from it."""
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    (tmp_path / "staged.toml").write_text(STAGED)
    store, grid = Store(tmp_path / "models", tmp_path / "results"), load_grid(tmp_path / "staged.toml")
    for trial in grid.stages[0].trials:
        store.write(trial, record(trial, 2), {})
    best = next(each for each in stage_statuses(grid, store) if each.number == 1)
    assert len(best.trials) == 2
    for trial in best.trials:
        store.write(trial, record(trial, 4), {})
    code, _, err = report("staged", "--grid", "staged.toml")
    assert code == 0, err
    for name, done in (("staged_loops-2", 6), ("staged_loops-4", 2)):
        page = (tmp_path / f"results/reports/{name}.html").read_text()
        assert f"{done} of {done}" in page
        table = (tmp_path / f"results/reports/{name}/results.csv").read_text().splitlines()
        assert table[0].startswith("Variant,")
        assert [line[:2] for line in table[1:]] == ["a,", "b,", "c,"][: done // 2]
        assert "expected trials" not in page


def test_a_grid_of_other_trials_is_a_mistake(report: Report, tmp_path: Path) -> None:
    """Its report would be empty, and look as if nothing had been trained."""
    stored(tmp_path)
    (tmp_path / "other.toml").write_text(GRID.replace('"1*8", "4*1", "1*2"', '"3*3"'))
    code, _, err = report("ablation", "--grid", "other.toml")
    assert code == 2
    assert "holds 54 records, and none of them is of this grid" in err


def test_a_grid_of_another_study_is_a_mistake(report: Report, tmp_path: Path) -> None:
    """None of its records would be read, and each would count as damaged."""
    stored(tmp_path)
    (tmp_path / "other.toml").write_text(GRID.replace("[base]", 'name = "mine"\n[base]', 1))
    code, _, err = report("ablation", "--grid", "other.toml")
    assert code == 2
    assert "the study must be mine, the name of the grid, got ablation. Write that name, or all" in err


def _is(trial: Trial, arch: str, mode: str) -> bool:
    return str(trial.model.arch) == arch and trial.intervention.mode == mode


def test_identical_arms_are_counted(tmp_path: Path) -> None:
    """Equal in every number of every loop, not merely in the bounty."""
    (tmp_path / "grid.toml").write_text(GRID)
    stored(tmp_path)
    found = identical_arms(load_records_frame(Store(tmp_path / "models", tmp_path / "results")))
    assert found["decay"] == (9, 9)
    assert found["output"] == (0, 9)


def test_what_cannot_be_reported_is_one_line(report: Report, tmp_path: Path) -> None:
    """No records, another study, a grid that is not there, a reference that is not there."""
    stored(tmp_path)
    for words in (
        ("nothing",),
        ("ablation", "--results-dir", "elsewhere"),
        ("ablation", "--grid", "nowhere.toml"),
        ("ablation", "--reference", "nowhere.tsv"),
    ):
        code, _, err = report(*words)
        assert (code, err.count("\n")) == (2, 1), err
        assert "Traceback" not in err
        assert not (tmp_path / "results/reports").exists()


@pytest.mark.parametrize(("dataset", "published"), [("mnist", True), ("fashion-mnist", False)])
def test_the_lists_of_the_study_are_of_its_data(
    dataset: str, published: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With other data its labels and partners say nothing of these networks; lists that a user names do."""
    monkeypatch.chdir(ROOT)
    rows = frame(("1*16",), 1, 2).assign(dataset=dataset)
    found = _context(
        tmp_path, rows, _PublishedLists(record_options.CONFIGURATIONS, record_options.ASYMMETRIC, None)
    )
    assert tuple(found.order) == (tuple(ARCHS) if published else ())
    assert set(found.asymmetric) == (set(ASYMMETRIC) if published else set())
    own = tmp_path / "own.txt"
    own.write_text("1*16\n4*1\n")
    assert _context(tmp_path, rows, _PublishedLists(own, own, None)).order == ("1*16", "4*1")


def test_the_command_of_a_page_names_the_folders_it_was_made_from(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that were given, so that it finds the records again; a default is left out."""
    monkeypatch.setattr("psa.reports.plotting.style.save", undrawn)
    stored(tmp_path)
    (tmp_path / "results").rename(tmp_path / "my records")
    code, _, err = report(
        "ablation", "--results-dir", "my records", "--model-dir", "m", "--data-dir", "dataset"
    )
    assert code == 0, err
    page = html.unescape((tmp_path / "results/reports/ablation_simplemlp.html").read_text())
    texts = [re.sub("<[^>]*>", "", code) for code in re.findall("<code>(.+?)</code>", page)]
    (command,) = (text for text in texts if text.startswith("psa report "))
    assert command == "psa report ablation --model-dir m --results-dir 'my records'"
    code, _, err = report(*shlex.split(command)[2:])
    assert code == 0, err
    assert html.unescape((tmp_path / "results/reports/ablation_simplemlp.html").read_text()) == page


def test_a_page_that_cannot_be_written_leaves_the_others(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written, the message names what is wrong, and the exit code is 2."""
    trials = stored(tmp_path)
    store = Store(tmp_path / "models", tmp_path / "results")
    for trial in trials[:6]:
        other = Trial.model_validate(trial.model_dump(mode="json") | {"study": "b"})
        store.write(other, record(other), {})
    tables = ablation.tables

    def refuse(rows: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
        if rows["study"].iloc[0] == "ablation":
            raise UserError("the rows hold more than one thing", "Name one")
        return tables(rows, context)

    monkeypatch.setattr(ablation, "tables", refuse)
    code, out, err = report("all")
    assert (code, err) == (2, "error: the rows hold more than one thing. Name one\n")
    assert "results/reports/ablation_simplemlp.html was not written\n" in out
    assert "results/reports/b_simplemlp.html\n" in out
    assert (tmp_path / "results/reports/b_simplemlp.html").exists()
    assert not list((tmp_path / "results/reports").glob("ablation*"))


def test_pages_of_an_earlier_report_are_named(report: Report, tmp_path: Path) -> None:
    """A second learning rate has a page of its own, and the page without one in its name is outdated."""
    stored(tmp_path, lambda trial: str(trial.model.arch) == "[1*8]")
    assert report("ablation")[2] == ""
    store = Store(tmp_path / "models", tmp_path / "results")
    for trial in load_grid(tmp_path / "grid.toml", ["lr=0.5", "arch=1*8"]).trials:
        store.write(trial, record(trial), {})
    code, out, err = report("ablation")
    assert code == 0
    assert out.count("ablation_simplemlp_lr-0.5.html") == 1
    assert err.endswith("results/reports/ also holds pages of an earlier report: ablation_simplemlp.html\n")
