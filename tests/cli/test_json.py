"""`--json`: one document on standard output that fits its documented model, errors included."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up import TINY, some_record
from paths import ROOT

from psa.cli import app
from psa.cli.commands import fetch as fetch_command
from psa.cli.commands.search import _document
from psa.cli.output.document import Document, ErrorDocument
from psa.cli.output.schema import (
    FetchDocument,
    PlanDocument,
    ReportDocument,
    SearchDocument,
    StatusDocument,
    VerifyDocument,
)
from psa.experiments.grid import load_grid
from psa.experiments.search import load_search
from psa.experiments.search_log import SearchLog
from psa.storage.store import Store

Psa = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a grid of four trials: one is done, one has failed, and two have nothing."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.toml").write_text(TINY)
    first, second, *_ = load_grid(Path("tiny.toml")).trials
    store = Store("models", "results")
    store.write(first, some_record(3, first), {"machine": "this one"})
    store.write_failure(second, "a worker ended with code -9")
    return tmp_path


@pytest.fixture
def psa(home: Path, capsys: pytest.CaptureFixture[str]) -> Psa:
    """Run `psa` with --json; its exit code, the object on standard output, and standard error."""

    def call(*words: str) -> tuple[int, Any, str]:
        code = app.run(app.PSA, [*words, "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out), err

    return call


def fitting(body: Any, model: type[Document]) -> Document:
    """The document that a body is, without one field more or less."""
    document = model.model_validate_json(json.dumps(body), strict=True)
    assert document.model_dump() == body
    return document


def test_plan(psa: Psa) -> None:
    """Counts, cost and sizes of the rest."""
    code, body, err = psa("plan", "tiny.toml")
    assert (code, err) == (0, "")
    fitting(body, PlanDocument)
    (stage,) = body["stages"]
    assert (stage["trials"], stage["done"], stage["pending"]) == (4, 1, 3)
    assert sum(each["trials"] * each["packs"] for each in stage["packs"]) == 3
    assert stage["seconds"] > 0
    assert stage["disk_bytes"] > 0
    assert (body["networks"], body["unmeasured"]) == (1, 1)


def test_status(psa: Psa) -> None:
    """Counts by mode and architecture, and the failed trial with its error."""
    code, body, err = psa("status", "tiny.toml")
    assert (code, err) == (4, "")
    fitting(body, StatusDocument)
    (stage,) = body["stages"]
    counts = {"trials": 4, "done": 1, "diverged": 0, "pending": 3, "failed": 1, "damaged": 0}
    assert {key: stage[key] for key in counts} == counts
    assert {each["value"]: (each["done"], each["trials"]) for each in stage["modes"]} == {
        "none": (1, 2),
        "hidden": (0, 2),
    }
    assert [(each["value"], each["failed"]) for each in stage["archs"]] == [("1*1", 1)]
    assert [each["reason"] for each in body["failed"]] == ["a worker ended with code -9"]
    assert body["disk"]["record_bytes"] > 0


def test_verify(psa: Psa, home: Path) -> None:
    """A damaged record is a problem with its path, and the exit code stays that of the text."""
    assert psa("verify")[:2] == (0, {**psa("verify")[1], "problems": []})
    (path,) = (each for each in (home / "results").rglob("s*.json") if each.suffixes == [".json"])
    path.write_bytes(path.read_bytes()[:-9])
    code, body, _ = psa("verify")
    assert code == 2
    fitting(body, VerifyDocument)
    assert [(each["kind"], each["path"]) for each in body["problems"]] == [
        ("damaged", str(path.relative_to(home)))
    ]


def test_fetch(psa: Psa, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trials that are missing after the download, by id."""

    class Nothing:
        def __init__(self, *_: object) -> None: ...
        def fetch(self) -> None:
            print("a library prints this")  # noqa: T201

    monkeypatch.setattr(fetch_command, "backend_named", lambda *_: Nothing)
    code, body, err = psa("fetch", "tiny.toml")
    assert (code, err) == (1, "a library prints this\n")
    fitting(body, FetchDocument)
    assert len(body["stages"][0]["missing"]) == 3
    assert not body["complete"]


@pytest.mark.slow
def test_report(psa: Psa, home: Path) -> None:
    """The paths of everything that was written, and the number of trials, not of their meta-loops."""
    code, body, _ = psa("report", "tiny")
    assert code == 0
    fitting(body, ReportDocument)
    (page,) = body["reports"]
    assert (home / page["page"]).is_file()
    assert {(home / path).is_file() for path in page["files"]} == {True}
    assert page["trials"] == 1


def test_search(home: Path) -> None:
    """Configurations with their settings, accuracies and errors."""
    log = SearchLog(load_search(ROOT / "reproduction/search.toml"), home / "results")
    log.handle_event({"event": "loop", "pack": "a", "space": {"lr": 0.1}, "loop": 1, "each": [0.5, 0.25]})
    log.handle_event({"event": "failed", "pack": "b", "space": {"lr": 0.2}, "error": "too wide"})
    body = json.loads(json.dumps(_document(log, [Path("x.csv")]).model_dump()))
    fitting(body, SearchDocument)
    assert [(each["name"], each["status"]) for each in body["configurations"]] == [
        ("a", "running"),
        ("b", "failed"),
    ]
    assert body["configurations"][0]["accuracies"] == [50.0, 25.0]
    assert not body["complete"]


@pytest.mark.parametrize(
    ("words", "error", "hint"),
    [
        (["plan"], "missing GRID", "See `psa plan --help`"),
        (["status", "none.toml"], "the grid none.toml does not exist", ""),
        (["status", "tiny.toml", "--watch", "0"], "--watch must be from 0.1 to 86,400, got 0", ""),
        (["verify", "--results-dir", "gone"], "models or gone must exist, got neither", ""),
        (["sweep", "tiny.toml"], "Unknown option: --json.", ""),
    ],
)
def test_an_error_is_a_document_too(words: list[str], error: str, hint: str, psa: Psa) -> None:
    """With exit code 2, and the line on standard error as ever."""
    code, body, err = psa(*words)
    assert code == 2
    fitting(body, ErrorDocument)
    assert body["error"].startswith(error)
    assert body["hint"].startswith(hint)
    assert err.count("\n") == 1
    assert err.startswith(f"error: {error}")


def test_stored_text_cannot_control_a_terminal(
    psa: Psa, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Control characters of an error are escaped; ASCII reaches any terminal."""
    trial = load_grid(home / "tiny.toml").trials[3]
    Store("models", "results").write_failure(trial, "\x1b[31mred \u202eé")
    assert app.run(app.PSA, ["status", "tiny.toml", "--json"]) == 4
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.replace("\n", "").isprintable()


def test_the_page_of_documents_is_up_to_date() -> None:
    """docs/json.md has every field of every document, with its type and its meaning."""
    words = [sys.executable, ROOT / "tools/json_page.py", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
