"""A mistake costs one line on standard error and exit code 2: no traceback, nothing trained, nothing lost."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from psa.cli import app as cli
from psa.data import sources
from psa.data.splits import Splits

Run = Callable[..., str]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SAGEMAKER_MODEL_DIR", raising=False)
    return tmp_path


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command that must end with one line of error and 2, before any data are read; that line."""

    def load(*_: object, **__: object) -> None:
        pytest.fail("training was begun")

    monkeypatch.setattr("psa.execution.worker.run.load_splits", load)

    def call(*arguments: str, app: Any = cli.TRAIN) -> str:
        code = cli.run(app, arguments)
        _, err = capsys.readouterr()
        assert_one_line(err)
        assert code == 2
        return err

    return call


def assert_one_line(err: str) -> None:
    """An error that says something, on one line without control characters."""
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err[:-1].isprintable()
    assert 20 < len(err) < 700


WRONG_VALUES = [
    ("--arch", "4", "Write count*width segments"),
    ("--arch", "[]", "must be segments COUNT*WIDTH, got ''"),
    ("--arch", "[0*4]", "arch must have counts and widths from 1, got "),
    ("--arch", "[1*99999999999999999999]", "At most 10,000 hidden layers of at most 65,536 units"),
    ("--arch", "[9999*60000]", "arch must have at most 1,000,000,000 parameters, got "),
    ("--arch", "[4*4]\n[2*8]", "--arch"),
    ("--arch", "\x1b[31m[4*4]", "arch must have both brackets or none, got "),
    ("--hidden-layers", "0", "arch must have counts and widths from 1, got "),
    ("--hidden-layers", "70000", "At most 10,000 hidden layers"),
    ("--hidden-layers", "x", 'must be a whole number, got "x"'),
    *(
        ("--lr", value, "--lr")
        for value in ("0", "-1", "nan", "inf", "-inf", "11", "1e400", "1,5", "abc", "", "1_0", "٣")
    ),
    *(("--weight-decay", value, "--weight-decay") for value in ("-1", "nan", "inf", "11", "abc")),
    *(("--dropout", value, "--dropout") for value in ("-0.1", "1", "1.5", "nan", "inf", "abc")),
    *(
        ("--batch-size", value, "--batch-size")
        for value in ("0", "-3", "60001", "1.5", "nan", "1e3", "0x10", "9" * 50)
    ),
    *(("--meta-loops", value, "--meta-loops") for value in ("0", "-1", "1000001", "1.0", "inf", "9" * 5000)),
    *(("--seed", value, "--seed") for value in ("-1", "1.5", "nan", str(2**63), "9" * 50, "x", "¹")),
    *(("--num-runs", value, "--num-runs") for value in ("0", "-1", "1001", "two")),
    *(("--threads", value, "--threads") for value in ("0", "-1", "99999", "1.5")),
    *(("--num-workers", value, "--num-workers") for value in ("-1", "99999", "x")),
    ("--ablation-mode", "hiden", "'none', 'decay', 'dropout', 'full', 'hidden' or 'output', got 'hiden'"),
    ("--model", "cnn", 'Choose from: "simplemlp", "resmlp"'),
    ("--dataset", "cifar", "--dataset: unknown name 'cifar'. Did you mean cifar10?"),
    ("--device", "tpu", 'Choose from: "cpu", "cuda", "mps"'),
    ("--device", "\x07\n", "--device"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("option", "value", "said"), WRONG_VALUES)
def test_a_wrong_value_is_named_with_what_would_be_right(
    option: str, value: str, said: str, refused: Run
) -> None:
    """Whether it is out of range, of another kind, or nonsense."""
    assert said in refused(option, value)


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1", "0", "0.0", "x", ""])
def test_a_limit_in_dollars_is_one(value: str, refused: Run) -> None:
    """Nothing, less than nothing and no number limit nothing."""
    grid = str(ROOT / "reproduction/smoke.toml")
    assert "--max-cost" in refused("sweep", grid, "--backend", "sagemaker", "--max-cost", value, app=cli.PSA)


@pytest.mark.parametrize("mode", ["decay", "dropout"])
def test_a_rate_is_judged_in_its_own_mode_as_well(mode: str, refused: Run) -> None:
    """The same faults where the mode does use the rate."""
    option = {"decay": "--weight-decay", "dropout": "--dropout"}[mode]
    for value in ("nan", "-1", "20"):
        assert option in refused("--ablation-mode", mode, option, value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--no-such-option"], "--no-such-option"),
        (["--no-such-option", "3"], "--no-such-option"),
        (["--no-such\noption\x1b[2J"], "no-such"),
        (["[4*4]"], "[4*4]"),
        (["train"], "train"),
        (["--arch"], "--arch needs a value"),
        (["--hidden-layers"], "--hidden-layers"),
        (["--lr", "1e-3", "--lr", "1e-4"], "--lr"),
        (["--arch", "[1*4]", "--hidden-layers", "4"], "train needs --arch or --hidden-layers, got both"),
    ],
)
def test_an_unknown_or_incomplete_option_is_named(arguments: list[str], said: str, refused: Run) -> None:
    """Also a word that belongs to no option."""
    assert said in refused(*arguments)


def test_an_unknown_command_is_named(refused: Run) -> None:
    """`psa` says which commands there are."""
    assert "trian" in refused("trian", app=cli.PSA)
    assert "--nope" in refused("verify", "--nope", app=cli.PSA)
    assert "--nope" in refused("--nope", app=cli.ANALYZE_DATASET)
    assert "--nope" in refused("--nope", app=cli.CLEAN)


@pytest.mark.slow
def test_wrong_archs_by_the_dozen_are_refused(refused: Run) -> None:
    """Text of the signs of the grammar and of others, through the whole command: none crashes or hangs."""
    draws = random.Random(11)
    signs = "[]*,0123456789 -+.xX()\n\t\0\x1b\u0664\uff14\u00d7\ud800é"
    for _ in range(60):
        text = "".join(draws.choice(signs) for _ in range(draws.randrange(1, 24)))
        if not text.isascii() or not text.strip().startswith("[") or "*" not in text:
            assert "arch" in refused(f"--arch={text}")


def test_a_device_that_is_not_there_is_refused(refused: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line says what there is instead."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert (
        refused("--device", "cuda")
        == "error: --device must be available on this machine, got cuda. Available here: cpu\n"
    )


def test_a_network_that_the_memory_does_not_hold_is_refused(
    refused: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is built: with what it needs and what there is."""
    monkeypatch.setattr("psa.execution.machine._host_memory", lambda: 1e6)
    said = refused("--hidden-layers", "1024", "--num-runs", "3")
    assert "3 trials of 2,913,290 parameters need at least 0.2 GB of memory, this machine has 0.0 GB" in said


UNWRITABLE = ["file", "file/below", "/proc/psa-models", "/proc/1/psa-models", "x" * 300]


@pytest.mark.parametrize("option", ["--model-dir", "--results-dir"])
@pytest.mark.parametrize("folder", UNWRITABLE)
def test_a_folder_that_cannot_be_written_is_refused_before_training(
    option: str, folder: str, place: Path, refused: Run
) -> None:
    """Below a file, in a folder of the kernel, too long a name."""
    (place / "file").write_text("in the way")
    said = refused(option, folder)
    assert folder[:200] in said
    assert (place / "file").read_text() == "in the way"


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB of its own."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def train(
    place: Path, capsys: pytest.CaptureFixture[str], small: Splits, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str]]:
    """Run `train` on a corner of the data; exit code and standard error."""
    monkeypatch.setattr("psa.execution.worker.run.load_splits", lambda *_, **__: small)

    def call(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.run(cli.TRAIN, ["--arch", "[1*8]", "--data-dir", str(place / "data"), *arguments])
        return code, capsys.readouterr().err

    return call


def test_a_disk_that_fills_up_loses_nothing(tiny: Path, train: Callable[..., tuple[int, str]]) -> None:
    """On a real full file system: one line, what was saved is whole, and with space again the run goes on."""
    models = str(tiny / "models")
    assert train("--model-dir", models, "--meta-loops", "2")[0] == 0
    filler = tiny / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(512))
    before = {path.name: path.read_bytes() for path in (tiny / "models").glob("*.safetensors")}
    code, err = train("--model-dir", models, "--meta-loops", "3")
    assert code == 2
    assert_one_line(err)
    assert "no space left on device. Free some space and run the same command again" in err
    assert {path.name: path.read_bytes() for path in (tiny / "models").glob("*.safetensors")} == before
    filler.unlink()
    assert train("--model-dir", models, "--meta-loops", "3")[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_save_that_fails_at_any_moment_is_one_line_and_loses_nothing(
    code: int, call: str, place: Path, train: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th call of the run fails, for every n; the next run then ends with the undisturbed bytes."""
    assert train("--meta-loops", "2")[0] == 0
    wanted = (place / "models" / "mnist_lkg.safetensors").read_bytes()
    failures = 0
    for number in range(1, 40):
        folders = ["--model-dir", f"m{number}", "--results-dir", f"r{number}"]
        with monkeypatch.context() as patch:
            calls = fail(patch, call, number, code)
            exit_code, err = train(*folders, "--meta-loops", "2")
        if len(calls) < number:
            break
        failures += 1
        assert exit_code == 2
        assert_one_line(err)
        if not list(place.glob(f"r{number}/**/s00-??????.json")):  # else only the last flush has failed
            assert train(*folders, "--meta-loops", "2")[0] == 0
        state = place / f"m{number}" / "mnist_lkg.safetensors"
        assert state.read_bytes() == wanted
        assert not list(place.glob(f"?{number}/**/*.tmp"))
    assert failures >= 3


def fail(patch: pytest.MonkeyPatch, name: str, number: int, code: int) -> list[int]:
    """Let call `number` of os.<name> fail; the calls made so far."""
    real, calls = getattr(os, name), list[int]()

    def call(*arguments: Any, **options: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == number:
            raise OSError(code, os.strerror(code))
        return real(*arguments, **options)

    patch.setattr(os, name, call)
    return calls


@pytest.mark.parametrize("app", [cli.TRAIN, cli.ANALYZE_DATASET])
def test_without_data_and_without_a_network_it_says_what_to_put_where(
    app: Any, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every source asked is named with its reason, and where the files belong."""

    def nothing(names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        raise sources.SourceFailed("no route to host")
        yield

    monkeypatch.setattr(
        "psa.data.sources.sources_of", lambda dataset: iter([sources.DataSource("a mirror", nothing)])
    )
    code = cli.run(app, ["--data-dir", "empty"])
    err = capsys.readouterr().err
    assert code == 2
    assert_one_line(err)
    assert "The data set mnist is not here and could not be fetched" in err
    assert "a mirror (no route to host)" in err
    assert "train-images-idx3-ubyte" in err
    assert "into empty/mnist" in err


@pytest.mark.parametrize("app", [cli.TRAIN, cli.ANALYZE_DATASET])
def test_damaged_data_are_named(app: Any, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file of the data set that is not the published one is neither used nor overwritten."""
    path = place / "data" / "mnist" / "t10k-labels-idx1-ubyte"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the labels")
    assert cli.run(app, ["--data-dir", "data"]) == 2
    err = capsys.readouterr().err
    assert_one_line(err)
    assert "data/mnist/t10k-labels-idx1-ubyte is not the published mnist file" in err
    assert path.read_bytes() == b"not the labels"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x80\x04\x95\x00", "is a pickle (an old torch.save checkpoint)"),
        (b"", "is damaged (its header cannot be read)"),
        (b"\x02\0\0\0\0\0\0\0{}", "not one of psa's"),
    ],
)
def test_something_else_in_the_place_of_the_checkpoint_stays_there(
    content: bytes, said: str, place: Path, refused: Run
) -> None:
    """It is refused in one line, not opened, not overwritten."""
    path = place / "models" / "mnist_lkg.safetensors"
    path.parent.mkdir()
    path.write_bytes(content)
    assert said in refused("--arch", "[1*4]")
    assert path.read_bytes() == content


def test_an_unexpected_fault_is_one_line_too_and_shows_its_place_when_asked(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 1; with --debug the traceback is there."""

    def load(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault\nof two lines")

    monkeypatch.setattr("psa.execution.worker.run.load_splits", load)
    assert cli.run(cli.TRAIN, ["--arch", "[1*4]", "--data-dir", "a"]) == 1
    err = capsys.readouterr().err
    assert err.startswith("unexpected ZeroDivisionError: a fault of two lines. What was stored is untouched")
    assert err.count("\n") == 1
    with pytest.raises(ZeroDivisionError):
        cli.run(cli.TRAIN, ["--arch", "[1*4]", "--data-dir", "a", "--debug"])


def test_an_interruption_before_the_first_loop_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the data are read: exit code 130, no traceback."""

    def load(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("psa.execution.worker.run.load_splits", load)
    assert cli.run(cli.TRAIN, ["--arch", "[1*4]", "--data-dir", "b"]) == 130
    assert capsys.readouterr().err == "stopped; nothing that was stored is lost\n"


def process(*arguments: str | bytes, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run `train` as a process of its own."""
    command = [sys.executable, "-c", "from psa.cli.app import train_command; train_command()"]
    return subprocess.run([*command, *arguments], text=True, stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [["--arch", "[4x4"], ["--lr", "nan"], ["--device", "cuda:7"], ["--model-dir", "/proc/x"], ["extra"]],
)
def test_the_same_holds_for_a_process(arguments: list[str], place: Path) -> None:
    """One line, exit code 2, nothing on standard output, no traceback."""
    done = process(*arguments, stdout=subprocess.PIPE)
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done.stderr)


def test_arguments_that_are_no_text_are_refused(place: Path) -> None:
    """Bytes that are not UTF-8, as an old file name may have."""
    done = process("--arch", b"[4*\xff4]", stdout=subprocess.PIPE)
    assert done.returncode == 2
    assert_one_line(done.stderr)


@pytest.mark.slow
def test_an_output_that_is_full_is_one_line(place: Path, data_dir: Path) -> None:
    """`train > /dev/full`: the fault is that of the output, and the interpreter adds nothing to it."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full here")
    with Path("/dev/full").open("w") as full:
        done = process("--arch", "[1*4]", "--data-dir", str(data_dir), stdout=full)
    assert done.returncode == 2
    assert done.stderr == (
        "error: cannot write the output: no space left on device. "
        "Free some space and run the same command again: it goes on from what is stored\n"
    )
