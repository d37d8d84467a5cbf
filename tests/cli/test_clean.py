"""`clean` removes what was meant and nothing else; `verify` names what is damaged."""

from __future__ import annotations

import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made_up import some_record, some_state
from paths import ROOT
from processes import PATIENCE_SECONDS

from psa.cli import app as cli
from psa.storage.store import Store

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with models/, and beside it files that nobody wants to lose."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGEMAKER_MODEL_DIR", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    for name in (
        "README.md",
        "psa/x.safetensors",
        "mnist_lkg.safetensors",
        "models-of-mine/mnist_lkg.safetensors",
    ):
        put(tmp_path / name)
    (tmp_path / "models").mkdir()
    return tmp_path


def put(*paths: Path) -> None:
    """Make files."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")


def generations(folder: Path, stem: str) -> list[Path]:
    """A checkpoint, the one before it, two damaged ones, and what a kill left."""
    names = ["", ".previous", ".damaged", ".damaged-2"]
    left_over = folder / f".{stem}.safetensors.77-0a1b2c3d.tmp"
    return [*(folder / f"{stem}{name}.safetensors" for name in names), left_over]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process."""

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        app = {"clean": cli.CLEAN, "clean-all": cli.CLEAN_ALL, "psa": cli.PSA}[name]
        code = cli.run(app, arguments)
        return code, *capsys.readouterr()

    return call


def left(place: Path) -> set[str]:
    """The files below models/ but the lock."""
    models = place / "models"
    return {
        str(path.relative_to(models))
        for path in models.rglob("*")
        if path.name != ".train.lock" and not path.is_dir()
    }


def outside(place: Path) -> bool:
    """Whether everything beside models/ is still there."""
    names = (
        "README.md",
        "psa/x.safetensors",
        "mnist_lkg.safetensors",
        "models-of-mine/mnist_lkg.safetensors",
    )
    return all((place / name).read_bytes() == b"content" for name in names)


@pytest.mark.parametrize("command", [("clean", "--all", "--yes"), ("clean-all",)])
def test_the_readme_of_the_folder_stays(command: tuple[str, ...], place: Path, run: Run) -> None:
    """It comes with a clone; everything else goes."""
    put(place / "models/README.md", *generations(place / "models", "mnist_lkg"))
    assert run(*command)[0] == 0
    assert left(place) == {"README.md"}


def test_clean_takes_the_checkpoint_of_train_with_its_generations_and_does_not_ask(
    place: Path, run: Run
) -> None:
    """One checkpoint with what lies beside it is one thing: no question. Others stay."""
    models = place / "models"
    put(*generations(models, "mnist_lkg"))
    put(models / "mnist_lkg_backup.safetensors", models / "mine.safetensors", models / "notes.txt")
    put(models / "study" / "mnist_lkg.safetensors")
    code, out, err = run("clean")
    assert (code, err) == (0, "")
    assert left(place) == {
        "mnist_lkg_backup.safetensors",
        "mine.safetensors",
        "notes.txt",
        "study/mnist_lkg.safetensors",
    }
    assert out.count("removed") == 5
    assert "models/mnist_lkg.previous.safetensors" in out
    assert "7 B" in out
    assert outside(place)


@pytest.mark.parametrize("name", ["kmnist", "digits", "wine-0a1b2c", "fashion-mnist"])
def test_clean_takes_the_checkpoint_of_any_data_set(name: str, place: Path, run: Run) -> None:
    """Errors of `train` name `clean` for each of them."""
    put(*generations(place / "models", f"{name}_lkg.s07"))
    assert run("clean")[0] == 0
    assert left(place) == set()


def test_a_run_after_clean_starts_anew(place: Path, run: Run) -> None:
    """Nothing that a later `train` would go on from is left."""
    store = Store(place / "models", place / "results", single="mnist_lkg")
    file = store.state_file(some_state().trial)
    file.save(some_state(1))
    file.save(some_state(2))
    assert run("clean", "mnist_lkg.safetensors")[0] == 0
    assert (
        Store(place / "models", place / "results", single="mnist_lkg").state_file(some_state().trial).load()
        is None
    )


def test_dry_run_shows_and_removes_nothing(place: Path, run: Run) -> None:
    """For every way of choosing, and without a question."""
    put(*generations(place / "models", "mnist_lkg"), *generations(place / "models", "other"))
    before = left(place)
    for arguments in ([], ["--all"], ["mnist_lkg.safetensors", "other.safetensors"]):
        code, out, err = run("clean", "--dry-run", *arguments)
        assert (code, err) == (0, "")
        assert out.count("would be removed") == (5 if not arguments else 10)
    assert run("clean-all", "--dry-run")[1].count("would be removed") == 10
    assert left(place) == before


def test_nothing_to_remove_is_said(place: Path, run: Run) -> None:
    """An empty folder, or none, is no error."""
    for arguments in ([], ["--all"], ["--model-dir", "nowhere"], ["--dry-run"]):
        code, out, err = run("clean", *arguments)
        assert (code, err) == (0, "")
        assert out.startswith("Nothing to remove in ")
    assert not (place / "nowhere").exists()


@pytest.mark.parametrize(
    ("answer", "removed"),
    [("y\n", True), ("Y\n", True), ("yes\n", True), ("n\n", False), ("\n", False), ("yo\n", False)],
)
def test_two_checkpoints_are_asked_for(
    answer: str, removed: bool, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would go is shown first; only a plain yes is a yes."""
    put(*generations(place / "models", "mnist_lkg"), place / "models" / "mnist_lkg.s01.safetensors")
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    code, out, err = run("clean")
    assert (code, err) == (0, "")
    assert "to be removed" in out
    assert "Remove 2 checkpoints, 6 files? [y/N]" in out
    assert (left(place) == set()) == removed
    assert ("Nothing was removed" in out) != removed


def test_silence_is_not_an_answer(place: Path, run: Run) -> None:
    """Where nobody can answer nothing is removed, and the way to say it beforehand is named."""
    put(place / "models" / "a.safetensors", place / "models" / "b.safetensors")
    code, _, err = run("clean", "a.safetensors", "b.safetensors")
    assert (code, err) == (
        2,
        "error: nothing was removed: the question was not answered. Confirm with --yes\n",
    )
    assert len(left(place)) == 2
    assert run("clean", "--yes", "a.safetensors", "b.safetensors")[0] == 0
    assert left(place) == set()


def test_a_person_at_a_terminal_is_asked(place: Path) -> None:
    """The question is readable before it is answered, on a terminal of 80 columns."""
    models = place / "models"
    put(models / "a.safetensors", models / "b.safetensors")
    script = "from psa.cli.app import clean_command as c; c()"
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", script, "a.safetensors", "b.safetensors"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        cwd=place,
        env=os.environ | {"COLUMNS": "80", "TERM": "xterm"},
    )
    os.close(terminal)
    seen = b""
    while b"[y/N]" not in seen:
        seen += os.read(keyboard, 1000)
    assert b"to be removed" in seen
    assert len(left(place)) == 2
    os.write(keyboard, b"y\n")
    assert process.wait(PATIENCE_SECONDS) == 0
    os.close(keyboard)
    assert left(place) == set()


@pytest.mark.parametrize("command", [["clean", "--all"], ["clean-all"]])
def test_all_takes_everything_in_the_folder_without_asking(command: list[str], place: Path, run: Run) -> None:
    """Files, hidden files, folders that become empty; what links point to stays, and so do empty folders."""
    models = place / "models"
    put(*generations(models, "mnist_lkg"), models / "notes.txt", models / "train" / "x" / "other.safetensors")
    (models / "kept").mkdir()
    (models / "link.md").symlink_to(place / "README.md")
    (models / "linked").symlink_to(place / "psa")
    (models / "broken").symlink_to(place / "nothing")
    assert run(*command)[0] == 0
    assert left(place) == set()
    assert {path.name for path in models.iterdir()} == {".train.lock", "kept"}
    assert outside(place)


@pytest.mark.parametrize("command", [["clean", "--all"], ["clean-all"]])
@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("n\n", False), ("", False)])
def test_all_asks_before_it_removes_states_of_sweeps(
    command: list[str], answer: str, removed: bool, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names what would be lost; without an answer nothing is removed, and --yes asks nothing."""
    trial = place / "models/smoke/simplemlp-1x2/none/s00-123456/lkg.safetensors"
    put(trial, place / "models/mnist_lkg.safetensors")
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    code, out, _ = run(*command)
    assert code == (0 if answer else 2)
    assert "1 trial of sweeps (smoke) could not be resumed or extended any more" in out
    assert trial.exists() != removed
    if not removed:
        assert run(*command, "--yes")[0] == 0
        assert not trial.exists()


@pytest.mark.parametrize("folder", [".", "..", "/", "../..", "models/.."])
def test_all_refuses_the_folder_one_stands_in(folder: str, place: Path, run: Run) -> None:
    """A slip in --model-dir must not cost a project: the working folder and those above it are refused."""
    code, _, err = run("clean-all", "--model-dir", folder)
    assert code == 2
    assert "the folder you are in: everything in it would be removed. Name the files" in err
    assert outside(place)


@pytest.mark.parametrize("command", [("clean", "--all"), ("clean-all",)])
@pytest.mark.parametrize(
    ("file", "question"),
    [
        (".home", "sweeps of this folder ran on SageMaker or Ray"),
        (".slurm/psa-0123abcd/job.json", "1 job array of Slurm could not be watched or run any more"),
    ],
)
def test_all_asks_before_it_forgets_jobs_elsewhere(
    file: str, question: str, command: tuple[str, ...], place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A detached sweep has no states here: its jobs are found by what lies beside them."""
    put(place / "models" / file, place / "models/.machines/steps.json")
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, out, _ = run(*command)
    assert (code, question in out, "Nothing was removed" in out) == (0, True, True)
    assert (place / "models" / file).exists()
    assert (place / "models/.machines/steps.json").exists()


def test_the_id_and_the_queues_of_the_folder_stay(place: Path, run: Run) -> None:
    """Without them, paid results in the bucket would not be found again."""
    put(place / "models/.home", place / "models/.queues", place / "models/.machines/steps.json")
    assert run("clean", "--all", "--yes")[0] == 0
    assert sorted(path.name for path in (place / "models").iterdir()) == [".home", ".queues", ".train.lock"]


def test_all_refuses_the_home_folder(place: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the home folder."""
    put(place / "home" / "letter.txt")
    monkeypatch.setenv("HOME", str(place / "home"))
    assert "your home folder" in run("clean", "--all", "--model-dir", "home")[2]
    assert (place / "home" / "letter.txt").exists()


@pytest.mark.parametrize(
    "name",
    ["mnist_lkg.safetensors", "models/mnist_lkg.safetensors", "./models/../models/mnist_lkg.safetensors"],
)
def test_a_checkpoint_may_be_named_by_its_path_or_its_name(name: str, place: Path, run: Run) -> None:
    """Either way its generations go with it, and its namesake elsewhere stays."""
    put(*generations(place / "models", "mnist_lkg"), place / "models" / "other.safetensors")
    assert run("clean", name)[0] == 0
    assert left(place) == {"other.safetensors"}
    assert outside(place)


def test_a_generation_may_be_named_alone(place: Path, run: Run) -> None:
    """Naming a damaged or a previous file removes that one."""
    put(*generations(place / "models", "mnist_lkg"))
    assert run("clean", "mnist_lkg.damaged.safetensors")[0] == 0
    assert run("clean", "mnist_lkg.previous.safetensors")[0] == 0
    assert left(place) == {
        "mnist_lkg.safetensors",
        "mnist_lkg.damaged-2.safetensors",
        ".mnist_lkg.safetensors.77-0a1b2c3d.tmp",
    }


def test_a_checkpoint_of_which_only_the_previous_is_left_may_be_named(place: Path, run: Run) -> None:
    """The way out that `train` names works where the present file is missing."""
    put(place / "models" / "mnist_lkg.previous.safetensors")
    assert run("clean", "mnist_lkg.safetensors")[0] == 0
    assert left(place) == set()


@pytest.mark.parametrize(
    "name",
    [
        "README.md",
        "../README.md",
        "models/../README.md",
        "psa/x.safetensors",
        "/etc/passwd",
        "models",
        ".",
        "linked/x.safetensors",
    ],
)
def test_what_lies_elsewhere_is_not_removed(name: str, place: Path, run: Run) -> None:
    """A path out of the folder, by dots, absolute or by a link, is refused with exit code 2."""
    (place / "models" / "linked").symlink_to(place / "psa")
    code, _, err = run("clean", name)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert outside(place)


def test_a_name_that_is_not_there_is_listed_and_the_others_go(place: Path, run: Run) -> None:
    """As in the published study's own `clean`; if nothing is there, it is an error."""
    put(place / "models" / "a.safetensors")
    code, out, err = run("clean", "a.safetensors", "b.safetensors")
    assert (code, err) == (1, "")
    assert "Not found in models: b.safetensors" in out
    assert left(place) == set()
    code, _, err = run("clean", "a.safetensors", "b.safetensors")
    assert (code, err) == (
        2,
        "error: a.safetensors does not exist in models. List the files with clean --all --dry-run\n",
    )
    assert run("clean", "--all", "a.safetensors")[2] == (
        "error: clean needs --all or names of files, got both. Give one of them\n"
    )


def test_a_file_that_cannot_be_removed_is_shown_and_the_others_go(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table tells what became of each, and the error which one stayed."""
    put(*generations(place / "models", "mnist_lkg"))
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.name == "mnist_lkg.safetensors":
            raise PermissionError(1, "Operation not permitted")
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    code, out, err = run("clean")
    assert code == 2
    assert out.count("not removed") == 1
    assert err.startswith("error: cannot remove models/mnist_lkg.safetensors: operation not permitted")
    assert left(place) == {"mnist_lkg.safetensors"}


def test_a_name_with_brackets_or_control_characters_is_shown_as_it_is(place: Path, run: Run) -> None:
    """Nothing in a file's name is taken for markup."""
    put(place / "models" / "[red]x[/red].safetensors")
    code, out, err = run("clean", "--dry-run", "--all")
    assert (code, err) == (0, "")
    assert "[red]x[/red].safetensors" in out
    assert run("clean", "no\nsuch\x1b[2Jfile")[2].count("\n") == 1


def test_verify_names_the_damaged_and_ends_with_two(place: Path, run: Run) -> None:
    """A sound store ends with 0; one damaged file is named on a line of its own."""
    store = Store(place / "models", place / "results")
    trial = some_state().trial
    store.state_file(trial).save(some_state(1))
    store.state_file(trial).save(some_state(2))
    store.write(trial, some_record(), {"host": "here"})
    code, out, err = run("psa", "verify")
    assert (code, out, err) == (0, "Files checked in models and results: 4, damaged: 0\n", "")
    path = store.record_path(trial)
    path.write_bytes(path.read_bytes()[:-2])
    code, out, err = run("psa", "verify")
    assert (code, err) == (2, "")
    assert out.splitlines()[0].startswith(f"DAMAGED results/{path.relative_to(place / 'results')} is damaged")
    assert out.splitlines()[1] == "Files checked in models and results: 4, damaged: 1"


def test_verify_of_nothing_is_no_error(place: Path, run: Run) -> None:
    """Before anything was trained there is nothing damaged; one of the two folders is enough."""
    said = "Files checked in models and results: none, nothing is stored there yet\n"
    assert run("psa", "verify") == (0, said, "")
    (place / "results").mkdir()
    (place / "models").rmdir()
    assert run("psa", "verify") == (0, said, "")


def test_verify_of_folders_that_are_not_there_is_a_slip(place: Path, run: Run) -> None:
    """Nothing was checked, so nothing is said to be sound: the folders are named, exit code 2."""
    assert run("psa", "verify", "--model-dir", "modles", "--results-dir", "r") == (
        2,
        "",
        "error: modles or r must exist, got neither. Name the folders to check with "
        "--model-dir and --results-dir\n",
    )


KILLED = """
import pathlib
from psa.core.files import write_atomically
for content in (b"old", b"new"):
    path = pathlib.Path("models/mnist_lkg.safetensors")
    write_atomically(path, content, path.with_name("mnist_lkg.previous.safetensors"))
"""


@pytest.mark.parametrize("operation", [1, 2, 5, 6, 7, 8])
def test_what_a_kill_left_half_written_goes_with_its_checkpoint(
    operation: int, place: Path, run: Run
) -> None:
    """A process killed inside each of its file operations: `clean` knows the pieces, whatever their names."""
    crash = ROOT / "tests" / "crash"
    paths = os.pathsep.join([str(crash), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": paths, "PSA_KILL_AT": str(operation)}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert any(name.startswith(".") for name in left(place)) or operation == 8
    assert run("clean")[0] == 0
    assert left(place) == set()


@pytest.mark.parametrize("folder", ["results", "models/results"])
def test_records_stay_wherever_they_are(folder: str, place: Path, run: Run) -> None:
    """In a folder that holds states and records, or where --model-dir names the wrong one."""
    names = ("smoke/s00-3fa9c1.json", "smoke/s00-3fa9c1.machine.json", "a.parquet")
    kept = [f"{folder}/{name}" for name in names]
    for name in kept:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text("a record")
    (place / folder / "state.safetensors").write_text("a state")
    assert run("clean", "--all", "--model-dir", str(place / folder.partition("/")[0]))[0] == 0
    for name in ("a.parquet", "smoke/s00-3fa9c1.json"):
        assert "must be a checkpoint" in run("clean", name, "--model-dir", str(place / folder))[2]
    assert all((place / name).exists() for name in kept)
    assert not (place / folder / "state.safetensors").exists()
