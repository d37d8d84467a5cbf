"""`train` as people use it: stop it, go on, switch modes. N loops and then M are N+M in one go."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from psa.cli import app as cli
from psa.data.splits import Splits
from psa.storage.store import decode_record
from psa.storage.trial_state import TrialState, decode_state


class Home:
    """A folder to train in, and the commands run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.models, self.results = folder / "models", folder / "results"
        self.checkpoint = self.models / "mnist_lkg.safetensors"
        self.out = self.err = ""

    def options(self, *asked: str) -> list[str]:
        """What is asked for, and for the rest a small network, quick to train, in this folder."""
        usual = {
            "--arch": "[1*4]",
            "--lr": "1e-3",
            "--batch-size": "64",
            "--model-dir": str(self.models),
            "--results-dir": str(self.results),
            "--data-dir": str(self.folder / "data"),
        }
        rest = [part for option, value in usual.items() if option not in asked for part in (option, value)]
        return [*rest, *asked]

    def train(self, *asked: str) -> int:
        """Run `train` in this process; its exit code, and what it said in `out` and `err`."""
        code = cli.run(cli.TRAIN, self.options(*asked))
        self.out, self.err = self.capsys.readouterr()
        return code

    def state(self) -> TrialState:
        """The present checkpoint."""
        return decode_state(self.checkpoint.read_bytes(), "x")

    def records(self) -> dict[str, bytes]:
        """Every record by its place, without what differs from run to run."""
        paths = [path for path in self.results.rglob("*.json") if not path.name.endswith(".machine.json")]
        return {str(path.relative_to(self.results)): path.read_bytes() for path in paths}

    def last_record(self) -> dict[str, Any]:
        """The record of the checkpoint's trial."""
        return decode_record(self.records()[f"{self.state().trial.id}.json"], "x")


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    """An empty folder to train in."""
    return Home(tmp_path, capsys)


@pytest.fixture
def homes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Home, Home]:
    """Two empty folders."""
    return Home(tmp_path / "one", capsys), Home(tmp_path / "two", capsys)


@pytest.fixture
def quick(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A corner of the data in the place of all of it."""
    monkeypatch.setattr("psa.execution.worker.run.load_splits", lambda *_, **__: small)


@pytest.mark.usefixtures("quick")
def test_a_run_leaves_a_checkpoint_and_a_record(home: Home) -> None:
    """It says where they are, shows the layers, every loop, and the test accuracy at the end."""
    assert home.train("--meta-loops", "3", "--ablation-mode", "hidden") == 0
    assert home.err == ""
    assert "resmlp [1*4]: 3,230 parameters" in home.out
    assert re.search(
        r"Loop 3/3 \| current .* % \| bounty .* % \((new LKG|LKG of loop \d)\) \| ablated", home.out
    )
    assert re.search(r"validation bounty .* % \(loop \d\), test .* %", home.out)
    assert f"Checkpoint {home.checkpoint}" in home.out
    assert f"Record     {home.results}/train/resmlp-1x4/hidden/s00-" in home.out
    assert home.state().loops == 3
    assert home.last_record()["loops"] == 3


def continued(home: Home, *runs: list[str]) -> tuple[bytes, dict[str, bytes]]:
    """The checkpoint and the records after several runs."""
    for arguments in runs:
        assert home.train(*arguments) == 0, home.err
    return home.checkpoint.read_bytes(), home.records()


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("mode", ["none", "decay", "dropout", "full", "hidden", "output"])
def test_n_loops_and_then_m_are_n_plus_m(mode: str, homes: tuple[Home, Home]) -> None:
    """Checkpoint and record have the same bytes whether a run was continued or done in one go."""
    asked = ["--ablation-mode", mode]
    twice = continued(homes[0], [*asked, "--meta-loops", "2"], [*asked, "--meta-loops", "3"])
    once = continued(homes[1], [*asked, "--meta-loops", "5"])
    assert twice == once
    assert "up to loop 5" in homes[0].out


@pytest.mark.usefixtures("quick")
def test_a_mode_may_be_switched_and_is_recorded(homes: tuple[Home, Home]) -> None:
    """The history says the mode of every loop, the spec the legs; how often one stops makes no difference."""
    none, hidden, decay = (["--ablation-mode", mode] for mode in ("none", "hidden", "decay"))
    often = continued(
        homes[0],
        [*none, "--meta-loops", "1"],
        [*none, "--meta-loops", "1"],
        [*hidden, "--meta-loops", "1"],
        [*hidden, "--meta-loops", "1"],
        [*decay, "--meta-loops", "2"],
    )
    seldom = continued(
        homes[1], [*none, "--meta-loops", "2"], [*hidden, "--meta-loops", "2"], [*decay, "--meta-loops", "2"]
    )
    assert often[0] == seldom[0]
    assert set(seldom[1]) <= set(often[1])
    assert all(often[1][name] == content for name, content in seldom[1].items())
    record = homes[1].last_record()
    assert record["history"]["mode"] == ["none", "none", "hidden", "hidden", "decay", "decay"]
    assert [(leg["until"], leg["intervention"]["mode"]) for leg in record["spec"]["legs"]] == [
        (2, "none"),
        (4, "hidden"),
    ]
    assert "mode none up to loop 2, hidden up to loop 4, decay from then on" in homes[1].out


SMALL = [
    "--study",
    "memory",
    "--train-size",
    "200",
    "--val-size",
    "100",
    "--test-size",
    "100",
    "--epochs",
    "1",
]


@pytest.mark.slow
def test_what_is_trained_and_recorded_is_not_called_missing(home: Home) -> None:
    """The study's command shows the result again; of a lost record it says that it makes it."""
    assert home.train(*SMALL, "--memory-size", "300") == 0
    records = home.records()
    assert home.train(*SMALL, "--memory-size", "300") == 0
    assert "all 1 loops are trained and tested; here is the result again" in home.out
    for name in records:
        (home.results / name).unlink()
    assert home.train(*SMALL, "--memory-size", "300") == 0
    assert "the test and the record are missing" in home.out
    assert home.records() == records


def test_a_memory_that_no_machine_holds_is_refused_at_once(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the entries take the room, and not by the system's killing the process."""
    monkeypatch.setattr("psa.execution.machine._host_memory", lambda: 1e9)
    assert home.train(*SMALL, "--memory-size", "10000000", "--arch", "1*64") == 2
    assert "1 trial of 50,890 parameters with their hidden-state memories need at least 5.4 GB" in home.err
    assert "Choose a smaller memory_size" in home.err


def test_the_help_names_every_other_study(home: Home) -> None:
    """A list that is typed forgets the next one."""
    assert home.train("--help") == 0
    assert "activations, glonet, gradients, memory." in " ".join(home.out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (
            ["--forgetting", "ttl", "--ttl-steps", "0"],
            "error: --ttl-steps must be greater than or equal to 1, got 0.",
        ),
        (["--refresh-rate", "2"], "error: --refresh-rate must be less than or equal to 1, got 2.0."),
        (
            ["--growing", "true", "--grow-interval", "0"],
            "error: --grow-interval must be greater than or equal to 1, got 0.",
        ),
        (["--momentum", "0.5"], "error: --momentum must be left out unless optimizer is sgd, got "),
        (["--memory-mode", "overwrite"], "error: memory_mode overwrite must have absolute values"),
        (
            ["--network", "cnn", "--arch", "1*4, 1*8", "--growing", "true"],
            "error: family must be mlp or simplemlp to grow, got cnn",
        ),
    ],
)
def test_a_fault_is_named_as_the_option_it_is_of(home: Home, asked: list[str], said: str) -> None:
    """Not by where it stands in the spec, and a sentence about several options is no option."""
    assert home.train(*SMALL, *asked) == 2
    assert home.err.startswith(said)


@pytest.mark.usefixtures("quick")
def test_a_stop_before_the_record_is_made_good_without_a_further_loop(home: Home) -> None:
    """All loops trained but no record: the same command tests and records, and trains nothing more."""
    assert home.train("--meta-loops", "3") == 0
    checkpoint, records = home.checkpoint.read_bytes(), home.records()
    for name in records:
        (home.results / name).unlink()
    assert home.train("--meta-loops", "3") == 0
    assert "all 3 loops are trained, the test and the record are missing" in home.out
    assert (home.checkpoint.read_bytes(), home.records()) == (checkpoint, records)


@pytest.mark.usefixtures("quick")
def test_several_runs_are_trials_of_their_own(homes: tuple[Home, Home]) -> None:
    """`--num-runs 2` is seeds 0 and 1, each as it is alone, each with its checkpoint and its record."""
    assert homes[0].train("--meta-loops", "2", "--num-runs", "2") == 0
    assert (homes[0].models / "mnist_lkg.s01.safetensors").is_file()
    assert homes[1].train("--meta-loops", "2") == 0
    assert homes[0].checkpoint.read_bytes() == homes[1].checkpoint.read_bytes()
    assert len(homes[0].records()) == 2
    assert homes[0].records().items() >= homes[1].records().items()
    assert "seed 1: validation bounty" in homes[0].out


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--arch", "[1*5]"], "error: --arch must be that of the checkpoint, [1*4], got [1*5]."),
        (["--seed", "7"], "error: --seed must be that of the checkpoint, 0, got 7."),
        (["--model", "simplemlp"], "error: --model must be that of the checkpoint, resmlp, got simplemlp."),
    ],
)
def test_another_network_is_refused_with_the_way_out(asked: list[str], said: str, home: Home) -> None:
    """Nothing is trained or changed, and the way out is named."""
    assert home.train("--meta-loops", "1") == 0
    before = home.checkpoint.read_bytes(), home.records()
    assert home.train("--meta-loops", "1", *asked) == 2
    assert home.err == f"{said} Use another --model-dir, or remove the checkpoint with `clean`\n"
    assert (home.checkpoint.read_bytes(), home.records()) == before
    assert cli.run(cli.CLEAN, ["--model-dir", str(home.models)]) == 0
    assert home.train("--meta-loops", "1", *asked) == 0


@pytest.mark.usefixtures("quick")
def test_a_damaged_checkpoint_goes_on_from_the_one_before_to_the_same_bits(homes: tuple[Home, Home]) -> None:
    """A warning, once; the loops in between are trained again; the damaged file is set aside, not removed."""
    for home in homes:
        assert home.train("--meta-loops", "3") == 0
    sound = homes[0].checkpoint.read_bytes()
    homes[0].checkpoint.write_bytes(sound[:-1])
    assert homes[0].train("--meta-loops", "2") == 0
    assert homes[0].err.startswith(f"WARNING: {homes[0].checkpoint} is damaged")
    assert homes[0].err.count("\n") == 1
    assert "finishing the run to loop 3" in homes[0].out
    assert homes[0].checkpoint.read_bytes() == sound
    assert (homes[0].models / "mnist_lkg.damaged.safetensors").read_bytes() == sound[:-1]
    for home in homes:
        assert home.train("--meta-loops", "2") == 0
        assert home.err == ""
    assert homes[0].checkpoint.read_bytes() == homes[1].checkpoint.read_bytes()
    assert homes[0].records() == homes[1].records()


@pytest.mark.usefixtures("quick")
def test_without_a_sound_checkpoint_it_stops(home: Home) -> None:
    """Both generations damaged: one line, exit code 2, no fresh start, and every file as it was."""
    assert home.train("--meta-loops", "3") == 0
    for path in home.models.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:-1])
    before = {path: path.read_bytes() for path in home.models.iterdir()}
    assert home.train("--meta-loops", "3") == 2
    assert home.err.startswith(f"error: {home.checkpoint} is damaged")
    assert home.err.endswith("mnist_lkg.safetensors`\n")
    assert home.err.count("\n") == 1
    assert {path: path.read_bytes() for path in home.models.iterdir()} == before


@pytest.mark.usefixtures("quick")
def test_a_leading_separator_is_ignored(home: Home) -> None:
    """`poetry run train -- --arch x` hands the two dashes on."""
    assert cli.run(cli.TRAIN, ["--", *home.options("--meta-loops", "1")]) == 0
    assert cli.run(cli.PSA, ["train", "--", *home.options("--meta-loops", "1")]) == 0
    assert home.state().loops == 2


@pytest.mark.parametrize(("option", "mode"), [("--dropout", "dropout"), ("--weight-decay", "decay")])
def test_an_option_that_would_do_nothing_is_refused(home: Home, option: str, mode: str) -> None:
    """A rate of another mode would be passed over in silence; in its mode it acts."""
    assert home.train("--meta-loops", "1", option, "0.2", "--ablation-mode", "hidden") == 2
    assert home.err == (
        f"error: {option} must be left out in mode hidden. It acts in mode {mode} only: "
        f"add --ablation-mode {mode}, or leave it out\n"
    )


def test_a_second_train_in_one_folder_is_turned_away(home: Home) -> None:
    """One clear line, and the lock of a process that has gone holds nobody up."""
    home.models.mkdir()
    with FileLock(home.models / ".train.lock"):
        assert home.train() == 2
        assert home.err.startswith(
            f"error: another `train` or `clean` is at work in {home.models}. Wait for it"
        )
        assert home.err.count("\n") == 1
        assert cli.run(cli.CLEAN_ALL, ["--model-dir", str(home.models)]) == 0  # nothing there to remove


COMMAND = [sys.executable, "-u", "-c", "from psa.cli.app import train_command; train_command()"]


@pytest.fixture
def background(home: Home, data_dir: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `train` as a process of its own, on all of MNIST, and waits for a line of it."""
    started: list[subprocess.Popen[str]] = []

    def start(until: str, *arguments: str) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if key != "SAGEMAKER_MODEL_DIR"}
        process = subprocess.Popen(
            [*COMMAND, *home.options("--data-dir", str(data_dir), *arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if until in line:
                return process
        raise AssertionError(process.communicate()[1])

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_ctrl_c_loses_no_finished_loop_and_says_how_to_go_on(
    home: Home,
    background: Callable[..., subprocess.Popen[str]],
    splits: Splits,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Exit code 130, one line with the command; going on ends with the bits of an undisturbed run."""
    process = background("Loop 2/5", "--meta-loops", "5", "--ablation-mode", "full", "--batch-size", "512")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == ""
    stopped = re.search(
        r"Stopped at loop (\d) of 5; every finished loop is saved\. Resume: .*--meta-loops 5 ", out
    )
    assert stopped is not None
    assert home.state().loops == int(stopped[1])
    assert 2 <= home.state().loops < 5
    assert home.records() == {}
    monkeypatch.setattr("psa.execution.worker.run.load_splits", lambda *_, **__: splits)
    assert home.train("--meta-loops", "5", "--ablation-mode", "full", "--batch-size", "512") == 0
    assert f"Going on from loop {stopped[1]}" in home.out
    assert "finishing the run to loop 5" in home.out
    undisturbed = Home(tmp_path / "undisturbed", home.capsys)
    assert undisturbed.train("--meta-loops", "5", "--ablation-mode", "full", "--batch-size", "512") == 0
    assert home.checkpoint.read_bytes() == undisturbed.checkpoint.read_bytes()
    assert home.records() == undisturbed.records()


@pytest.mark.slow
def test_sigterm_does_the_same_and_meanwhile_the_folder_is_taken(
    home: Home, background: Callable[..., subprocess.Popen[str]]
) -> None:
    """Exit code 143; while it is at work neither `train` nor `clean` may touch its folder."""
    process = background("Loop  1/90", "--meta-loops", "90", "--batch-size", "512")
    for app, arguments in (
        (cli.TRAIN, home.options()),
        (cli.CLEAN, ["--model-dir", str(home.models)]),
    ):
        assert cli.run(app, arguments) == 2
        assert home.capsys.readouterr().err.startswith("error: another `train` or `clean` is at work in")
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=300)
    assert (process.returncode, err) == (143, "")
    assert "every finished loop is saved" in out
    assert home.state().horizon == 90
    assert cli.run(cli.CLEAN, ["--model-dir", str(home.models)]) == 0


@pytest.mark.slow
def test_a_reader_that_leaves_is_no_error(
    home: Home, background: Callable[..., subprocess.Popen[str]]
) -> None:
    """`train | head`: the finished loops are saved, and nothing is said to a pipe that nobody reads."""
    process = background("Loop  1/90", "--meta-loops", "90", "--batch-size", "512")
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(300) == 141
    assert home.state().loops >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["main", "train_command", "clean_command", "clean_all_command", "analyze_dataset_command"]
)
def test_help_answers_without_torch(command: str) -> None:
    """`--help` ends with 0, names its options, and has not imported what only training needs."""
    script = (
        f"import sys; from psa.cli.app import {command} as c\n"
        "try: c()\n"
        "finally: print(sorted({'torch', 'ray', 'boto3', 'pandas', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "Usage: " in done.stdout
    assert done.stderr == ""


def test_the_help_of_train_shows_choices_and_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option is explained, with its choices and its default."""
    assert cli.run(cli.TRAIN, ["--help"]) == 0
    text = " ".join(re.sub(r"[^\x20-\x7e]", " ", capsys.readouterr().out).split())
    for said in (
        "[choices: none, decay, dropout, full, hidden, output] [default: none]",
        "[choices: simplemlp, resmlp] [default: resmlp]",
        "file:PATH?label=COLUMN (NPZ, CSV or Parquet). [default: mnist]",
        "[default: 1*1024]",
        "[default: 100]",
        "[default: 0.0001]",
        "[default: 256]",
        "[default: 0.1]",
        "[default: cuda if available, else cpu]",
        "Folder of the checkpoints. [default: models]",
        'Example: train --arch "[2*64]" --ablation-mode hidden --meta-loops 10',
    ):
        assert said in text
    assert "SAGEMAKER" not in text
