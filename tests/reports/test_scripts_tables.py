"""The commands that write tables, as people use them, and the scripts of the same names."""

from __future__ import annotations

import ast
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up_study import some_study, stored
from paths import ROOT
from rendered_tables import cells

from psa.cli import app
from psa.cli.named.tables import (
    generate_reproduction_tests,
    make_architecture_table,
    make_trial_accuracy_table,
)
from psa.experiments.grid import load_grid
from psa.reports.ablation.markdown import summary_markdown, trials_markdown
from psa.storage.store import Store

SMOKE = ROOT / "reproduction/smoke.toml"
COMMANDS: dict[str, Callable[..., int]] = {
    "make-architecture-table": make_architecture_table,
    "make-trial-accuracy-table": make_trial_accuracy_table,
    "generate-reproduction-tests": generate_reproduction_tests,
}
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that has reproduction/."""
    (tmp_path / "reproduction").symlink_to(ROOT / "reproduction")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; its exit code, and what it said."""

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        code = app.run(app.command(name, COMMANDS[name]), arguments)
        return code, *capsys.readouterr()

    return call


def table(home: Path, name: str) -> list[list[str]]:
    """A table that was written, as its rows."""
    return cells((home / f"results/reports/{name}.md").read_text())


def test_the_architecture_table_needs_no_results(home: Path, run: Run) -> None:
    """98 architectures of the study, in three formats; redirected output is the LaTeX alone."""
    code, out, err = run("make-architecture-table")
    assert code == 0
    assert len(table(home, "psa_simplemlp_architectures")) == 99
    for ending in ("md", "tex", "csv"):
        assert f"Table results/reports/psa_simplemlp_architectures.{ending}\n" in err
    assert out == (home / "results/reports/psa_simplemlp_architectures.tex").read_text()
    latex = (home / "results/reports/psa_simplemlp_architectures.tex").read_text()
    assert r"\caption{Parameters for Network Architectures}\label{tab:architecture_parameters}" in latex


def test_every_option_of_the_architecture_table_does_something(home: Path, run: Run) -> None:
    """Family, lists, tolerance, caption, label and folder are all seen in what is written."""
    (home / "order.txt").write_text("1*64\n1*8\n2*10 # a remark\n")
    (home / "odd.txt").write_text("1*8\n")
    code, *_ = run(
        "make-architecture-table",
        *("--order", "order.txt", "--asymmetric", "odd.txt", "--family", "resmlp", "--tolerance", "90"),
        *("--caption", "Of 100%", "--label", "tab:x", "--output-dir", "out"),
    )
    assert code == 0
    markdown = (home / "out/psa_resmlp_architectures.md").read_text()
    assert markdown.startswith("### Of 100%")
    assert cells(markdown)[0][5] == "Within 90%"
    assert [row[:4] for row in cells(markdown)[1:]] == [
        ["1*64", "59,210", "Matched", "budget"],
        ["1*8", "6,514", "Asymmetric", "budget"],
        ["2*10", "8,400", "Matched", "1*64"],
    ]
    assert r"\caption{Of 100\%}\label{tab:x}" in (home / "out/psa_resmlp_architectures.tex").read_text()
    assert run("make-architecture-table", "--published")[0] == 0
    assert len(table(home, "psa_simplemlp_architectures_published")[0]) == 3


def test_architectures_of_a_grid(home: Path, run: Run) -> None:
    """With as many outputs as its data have classes."""
    assert run("make-architecture-table", "--grid", "reproduction/smoke.toml")[0] == 0
    rows = table(home, "psa_simplemlp_architectures")
    assert [row[:2] for row in rows[1:]] == [["1*4", "3,150"], ["2*3", "2,375"]]


def test_accuracies_of_records(home: Path, run: Run) -> None:
    """Of the study in the grid, with what is missing of it named."""
    trials = load_grid(SMOKE).trials
    store = stored(home, trials[:-3])
    store.write_failure(trials[-1], "out of memory")
    code, _, said = run("make-trial-accuracy-table", "--grid", "reproduction/smoke.toml")
    assert code == 0
    rows = table(home, "psa_simplemlp_accuracy")
    assert [row[0] for row in rows] == ["Architecture", "1*4", "2*3"]
    assert rows[2][5:7] == ["23.40 (n=1)", "n/a"]  # no winner among single trials
    assert "2 of 12 cells have fewer: 2*3 hidden 1 (1 missing); 2*3 output 0 (1 failed, 1 missing)" in said


def test_another_study_and_its_folder(home: Path, run: Run) -> None:
    """--study, --results-dir, and a folder as --datafile."""
    stored(home / "elsewhere", load_grid(SMOKE).trials)
    for asked in (["--results-dir", "elsewhere/results"], ["--datafile", "elsewhere/results"]):
        assert run("make-trial-accuracy-table", "--study", "smoke", *asked)[0] == 0
        assert len(table(home, "psa_simplemlp_accuracy")) == 3
    code, _, err = run("make-trial-accuracy-table", "--results-dir", "elsewhere/results")
    assert code == 2
    assert "elsewhere/results holds no record of ablation" in err


def test_a_terminal_shows_the_paths_and_no_latex(
    home: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The LaTeX is for `> table.tex`."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    code, out, err = run("make-architecture-table")
    assert (code, err) == (0, "")
    assert "Table results/reports/psa_simplemlp_architectures.tex" in out
    assert "tabular" not in out


@pytest.mark.parametrize("kind", ["summary", "trials"])
def test_the_tables_of_the_results_parser_are_read_without_options(kind: str, home: Path, run: Run) -> None:
    """Where the study's own programs wrote them, unless there are records or another source is named."""
    study = some_study()
    written = {"summary": summary_markdown, "trials": trials_markdown}[kind](study)
    (home / "results").mkdir()
    (home / f"results/psa_resmlp_{kind}.md").write_text(written)
    assert run("make-trial-accuracy-table")[0] == 0
    rows = table(home, "psa_resmlp_accuracy")
    assert [row[0] for row in rows[1:]] == ["1*64", "1*16", "2*30", "4*4", "2*1"]
    stored(home, [trial.changed(study="ablation") for trial in load_grid(SMOKE).trials])
    assert run("make-trial-accuracy-table")[0] == 0
    assert len(table(home, "psa_simplemlp_accuracy")) == 3


def test_accuracies_of_markdown(home: Path, run: Run) -> None:
    """A table of trials and a summary, each told by what is in it, give the same means."""
    study = some_study()
    (home / "psa_simplemlp_trials.md").write_text(trials_markdown(study))
    (home / "psa_simplemlp_summary.md").write_text(summary_markdown(study))
    found = []
    for option, name in (
        ("--published-trials", "psa_simplemlp_trials.md"),
        ("--datafile", "psa_simplemlp_trials.md"),
        ("--datafile", "psa_simplemlp_summary.md"),
    ):
        assert run("make-trial-accuracy-table", option, name)[0] == 0
        found.append([row[:8] for row in table(home, "psa_simplemlp_accuracy")])
    assert found[0] == found[1] == found[2]
    assert [row[0] for row in found[0][1:]] == ["1*64", "1*16", "2*30", "4*4", "2*1"]


def test_order_tolerance_and_texts_of_accuracies(home: Path, run: Run) -> None:
    """Each is seen in the table."""
    (home / "t.md").write_text(trials_markdown(some_study()))
    (home / "order.txt").write_text("4*4\n2*1\n")
    code, *_ = run(
        "make-trial-accuracy-table",
        *("--datafile", "t.md", "--order", "order.txt", "--tolerance", "100", "--family", "resmlp"),
        *("--caption", "Mine", "--label", "tab:mine", "--output-dir", "out"),
    )
    assert code == 0
    rows = cells((home / "out/psa_resmlp_accuracy.md").read_text())
    assert [row[0] for row in rows[1:]] == ["4*4", "2*1", "1*64", "1*16", "2*30"]
    assert rows[3][7] == "Tie: all"
    assert r"\caption{Mine}\label{tab:mine}" in (home / "out/psa_resmlp_accuracy.tex").read_text()


MISTAKES = [
    (
        "make-architecture-table",
        ["--order", "nowhere.txt"],
        "the list of architectures nowhere.txt does not exist",
    ),
    ("make-architecture-table", ["--label", "a}b"], "--label must be a LaTeX label, got 'a}b'"),
    ("make-architecture-table", ["--tolerance", "-1"], "--tolerance must be from 0 to 1,000, got -1"),
    ("make-architecture-table", ["--tolerance", "nan"], "--tolerance must be from 0 to 1,000, got nan"),
    (
        "make-architecture-table",
        ["--grid", "reproduction/smoke.toml", "--family", "resmlp"],
        "has no trial",
    ),
    ("make-trial-accuracy-table", [], "results holds no record of ablation"),
    ("make-trial-accuracy-table", ["--tolerance", "inf"], "--tolerance must be from 0 to 100, got inf"),
    (
        "make-trial-accuracy-table",
        ["--datafile", "nowhere.md"],
        "the table of trials nowhere.md does not exist",
    ),
    (
        "make-trial-accuracy-table",
        ["--datafile", "reproduction/smoke.toml"],
        "must be a row|must hold a table",
    ),
    (
        "make-trial-accuracy-table",
        ["--datafile", "a", "--published-trials", "b"],
        "needs --datafile or --published-trials, got both",
    ),
    (
        "make-trial-accuracy-table",
        ["--grid", "reproduction/smoke.toml", "--study", "x"],
        "must be that of reproduction/smoke.toml, smoke, got x",
    ),
    ("generate-reproduction-tests", ["--grid", "nowhere.toml"], "nowhere.toml"),
    ("generate-reproduction-tests", ["--grid", "reproduction/screen.toml"], "must be run as a whole"),
]


@pytest.mark.parametrize(("name", "arguments", "said"), MISTAKES)
def test_a_mistake_is_one_line(name: str, arguments: list[str], said: str, run: Run) -> None:
    """On standard error, with exit code 2, and nothing is written."""
    code, _, err = run(name, *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert any(part in err for part in said.split("|")), err
    assert not Path("results/reports").exists()


def test_without_any_list_the_way_out_is_named(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that holds no reproduction/."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    code, _, err = run("make-architecture-table")
    assert (code, "Name the architectures with --order or --grid" in err) == (2, True)


STUB = """#!/bin/sh
echo "$@" >> "$CALLS"
case "$*" in
    *"$FAILING"*) exit "$CODE" ;;
esac
"""


def reproduced(home: Path, failing: str, code: int, *words: str) -> tuple[int, list[list[str]]]:
    """Run the script with a stand-in for `psa`; its exit code, and what it called."""
    (home / "stub").write_text(STUB)
    (home / "stub").chmod(0o755)
    (home / "calls").unlink(missing_ok=True)
    given = {"PSA": str(home / "stub"), "CALLS": str(home / "calls"), "FAILING": failing, "CODE": str(code)}
    script = [str(home / "results/reports/run_reproduction.sh"), *words]
    done = subprocess.run(
        script, cwd=home, env=os.environ | given, capture_output=True, text=True, check=False
    )
    return done.returncode, [shlex.split(line) for line in (home / "calls").read_text().splitlines()]


@pytest.mark.slow
def test_the_reproduction_script_sweeps_every_architecture(home: Path, run: Run) -> None:
    """All 98, each with all seeds; together they are the grid, and words are handed on."""
    code, out, _ = run("generate-reproduction-tests")
    assert (code, out) == (0, "Script results/reports/run_reproduction.sh\n")
    code, calls = reproduced(home, "nothing fails", 0, "meta_loops=1", "--workers", "2")
    assert code == 0
    assert len(calls) == 98
    grid = ROOT / "reproduction/simplemlp.toml"
    head = ["sweep", "reproduction/simplemlp.toml", "seeds=0..9", "meta_loops=1", "--workers", "2", "--only"]
    assert all(call[:-1] == head for call in calls)
    found = [trial.id for call in calls[::20] for trial in load_grid(grid, [call[2]], call[-1]).trials]
    assert len(set(found)) == len(found) == 5 * 60


def test_the_reproduction_script_goes_on_after_failures_and_not_after_a_stop(home: Path, run: Run) -> None:
    """1 from a sweep is remembered, everything else ends it at once."""
    assert run("generate-reproduction-tests", "--grid", "reproduction/smoke.toml")[0] == 0
    code, calls = reproduced(home, "[1*4]", 1)
    assert (code, len(calls)) == (1, 2)
    code, calls = reproduced(home, "[1*4]", 130)
    assert (code, len(calls)) == (130, 1)


def test_the_reproduction_script_says_where_it_belongs(home: Path, run: Run) -> None:
    """In another folder it calls nothing."""
    assert (
        run("generate-reproduction-tests", "--grid", "reproduction/smoke.toml", "--output-dir", "out")[0] == 0
    )
    done = subprocess.run(
        ["sh", "run_reproduction.sh"], cwd=home / "out", capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "start this in the folder that holds it" in done.stderr


def test_an_architecture_with_several_widths_reaches_its_sweep(home: Path, run: Run) -> None:
    """The space and the stars in its name are the sweep's to read."""
    (home / "mixed.toml").write_text('seeds = [1, 5]\n[axes]\narch = ["4*4, 2*8", "1*3"]\n')
    assert (
        run("generate-reproduction-tests", "--grid", "mixed.toml", "--output-dir", "results/reports")[0] == 0
    )
    script = (home / "results/reports/run_reproduction.sh").read_text()
    assert "seeds=" not in script
    assert "reproduce '[4*4, 2*8]' \"$@\"" in script
    assert len(load_grid(home / "mixed.toml", (), "arch=[4*4, 2*8]").trials) == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_scripts_run(name: str, home: Path) -> None:
    """`python scripts/x.py` is the command of that name, its exit code included."""
    script = ROOT / f"scripts/{name.replace('-', '_')}.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    for words, code in ((["--help"], 0), (["--no-such-option"], 2)):
        done = subprocess.run(
            [sys.executable, str(script), *words],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code
        assert "Traceback" not in done.stderr
        assert name in done.stdout + done.stderr


@pytest.mark.slow
def test_regimes_are_classified_from_files(home: Path) -> None:
    """As a line of Python, in the order of the list; what the table lacks is Unknown."""
    (home / "psa_simplemlp_trials.md").write_text(trials_markdown(some_study()))
    line = (
        "from scripts.regime_classifier import get_all_regime_classifications; "
        "print(get_all_regime_classifications('reproduction/configurations.txt', 'psa_simplemlp_trials.md'))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=home, env=environment, capture_output=True, text=True, check=True
    )
    found = ast.literal_eval(done.stdout)
    assert len(found) == 98
    assert next(iter(found)) == "1*2048"
    named = {arch: found[arch] for arch in ("1*64", "2*1", "4*4", "1*2048")}
    assert named == {"1*64": "optimally-sized", "2*1": "untrainable", "4*4": "unknown", "1*2048": "Unknown"}


def test_a_store_is_only_read(home: Path, run: Run) -> None:
    """Tables change no record and make no folder of models."""
    store = stored(home, load_grid(SMOKE).trials[:2])
    before = {path: path.read_bytes() for path in Store(home / "models", home / "results").record_paths()}
    assert run("make-trial-accuracy-table", "--study", "smoke", "--output-dir", "out")[0] == 0
    assert {path: path.read_bytes() for path in store.record_paths()} == before
    assert not (home / "models").exists()
