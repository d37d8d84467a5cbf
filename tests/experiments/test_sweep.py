"""`psa sweep` beyond the good case: a bad trial, damaged records, failed packs, weights not kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from paths import ROOT

from psa.cli.app import PSA, run
from psa.execution.worker.protocol import WorkerEvent
from psa.experiments.grid import load_grid
from psa.experiments.sweep import _booked
from psa.specs.trial import Pack
from psa.storage.retention import delete_checkpoints
from psa.storage.store import Store, decode_record, encode_record

GRID = ROOT / "reproduction" / "smoke.toml"
ONLY = ("--only", "arch=1*4 mode=none,hidden")
Psa = Callable[..., tuple[int, str, str]]


@pytest.fixture
def psa(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Psa:
    """Run `psa` in an empty folder that has the data; exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dataset").symlink_to(data_dir.resolve())

    def call(*words: str) -> tuple[int, str, str]:
        code = run(PSA, list(words))
        said = capfd.readouterr()
        return code, said.out, said.err

    return call


def sweep(psa: Psa, *words: str) -> tuple[int, str, str]:
    """A sweep of four trials in packs of four by one worker."""
    return psa("sweep", str(GRID), *words, *ONLY, "--workers", "1", "--pack-size", "4")


def store_of(folder: Path) -> Store:
    """The trees of a folder."""
    return Store(folder / "models", folder / "results")


def test_one_bad_trial_does_not_hold_up_its_pack(psa: Psa, tmp_path: Path) -> None:
    """Where both generations of one state are damaged, the other trials of the pack go on; the bad one is
    named, and done once its files are out of the way.
    """
    assert sweep(psa)[0] == 0
    trials = load_grid(GRID, [], ONLY[1]).trials
    bad = store_of(tmp_path).state_file(trials[0])
    for path in (bad.path, bad.previous):
        path.write_bytes(path.read_bytes()[:-3])
    shorter = "0 of 4 trials done; 4 trials stored with 3 of 4 meta-loops"
    assert shorter in psa("status", str(GRID), "meta_loops=4", *ONLY)[1]
    code, out, _ = sweep(psa, "meta_loops=4")
    assert code == 1
    assert "3 of 4 trials done, 1 failed" in out
    assert str(bad.path.relative_to(tmp_path)) in out
    shown = psa("status", str(GRID), "meta_loops=4", *ONLY)[1]
    assert "3 of 4 trials done" in shown
    assert shown.count("failed ") == 1
    bad.path.unlink()
    bad.previous.unlink()
    assert sweep(psa, "meta_loops=4")[0] == 0
    assert "failed" not in psa("status", str(GRID), "meta_loops=4", *ONLY)[1]


@pytest.mark.slow
def test_a_damaged_record_is_named_and_stops_nothing_else(psa: Psa, tmp_path: Path) -> None:
    """plan, status and sweep say which record is damaged; the rest is trained; exit code 1."""
    assert sweep(psa, "meta_loops=1")[0] == 0
    trials = load_grid(GRID, ["meta_loops=1"], ONLY[1]).trials
    path = store_of(tmp_path).record_path(trials[1])
    path.write_bytes(path.read_bytes().replace(b'"loops":1', b'"loops":7'))
    for words in (("plan", str(GRID), *ONLY), ("status", str(GRID), *ONLY)):
        code, out, _ = psa(*words)
        assert code == {"plan": 0, "status": 4}[words[0]]
        assert str(path.relative_to(tmp_path)) in out
    code, out, _ = sweep(psa)
    assert code == 1
    assert "3 of 4 trials done" in out
    path.unlink()
    assert sweep(psa)[0] == 0


@pytest.mark.slow
def test_a_record_that_differs_is_refused_and_the_others_are_written(psa: Psa, tmp_path: Path) -> None:
    """A stored record that this code would not make is an error, never overwritten."""
    assert sweep(psa, "meta_loops=1", "--keep-weights", "none")[0] == 0
    trials = load_grid(GRID, ["meta_loops=1"], ONLY[1]).trials
    path = store_of(tmp_path).record_path(trials[2])
    record = decode_record(path.read_bytes(), "")
    record["history"]["correct"][0] += 1
    path.write_bytes(encode_record(record))
    before = path.read_bytes()
    code, out, _ = sweep(psa, "meta_loops=2")
    assert code == 1
    assert "differs" in out
    assert "3 of 4 trials done, 1 failed" in out
    assert path.read_bytes() == before


@pytest.mark.slow
def test_weights_are_kept_as_asked_and_a_longer_horizon_finds_the_same_bits(psa: Psa, tmp_path: Path) -> None:
    """none and best remove states of finished trials; what they held can be trained again."""
    assert sweep(psa, "--keep-weights", "best")[0] == 0
    store, trials = store_of(tmp_path), load_grid(GRID, [], ONLY[1]).trials
    kept = [trial for trial in trials if store.state_file(trial).path.exists()]
    assert {trial.intervention.mode for trial in kept} == {"none", "hidden"}
    assert len(kept) == 2
    for trial in kept:
        rivals = [other for other in trials if other.intervention == trial.intervention]
        scores = [(store.read(other) or {})["finals"]["bounty"]["correct"] for other in rivals]
        assert (store.read(trial) or {})["finals"]["bounty"]["correct"] == max(scores)
    delete_checkpoints(store, trials, "none")
    assert not list((tmp_path / "models").rglob("lkg*.safetensors"))
    assert sweep(psa, "meta_loops=4")[0] == 0
    assert store_of(tmp_path).progress(trials, 4).pending == []


@pytest.mark.slow
def test_a_second_sweep_trains_nothing(psa: Psa, tmp_path: Path) -> None:
    """What is done is never run again."""
    assert sweep(psa)[0] == 0
    sidecars = {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")}
    code, out, _ = sweep(psa)
    assert code == 0
    assert "4 of 4 trials done, 0 failed" in out
    assert {path: path.read_bytes() for path in (tmp_path / "results").rglob("*.json")} == sidecars


@pytest.mark.parametrize(
    "words", [("--workers", "-1"), ("--workers", "0"), ("--pack-size", "0"), ("--pack-size", "x")]
)
def test_numbers_out_of_range_are_one_line(words: tuple[str, str], psa: Psa) -> None:
    """No sweep without workers, no pack without trials."""
    code, _, err = psa("sweep", str(GRID), *words)
    assert code == 2
    assert err.count("\n") == 1


@pytest.mark.slow
def test_files_beside_the_user_are_not_imported(psa: Psa, tmp_path: Path) -> None:
    """A queue.py or torch.py in the folder of a study does not end up in the workers."""
    for name in ("queue.py", "torch.py", "random.py"):
        (tmp_path / name).write_text("raise SystemExit(3)\n")
    assert sweep(psa, "meta_loops=1")[0] == 0


@pytest.mark.slow
def test_a_trial_that_is_done_is_not_marked_as_failed(psa: Psa, tmp_path: Path) -> None:
    """A worker that dies over the last trial of a pack leaves the others done, and no mark on them."""
    assert sweep(psa, "meta_loops=1")[0] == 0
    trials, store = load_grid(GRID, ["meta_loops=1"], ONLY[1]).trials, store_of(tmp_path)
    store.record_path(trials[3]).unlink()
    event = WorkerEvent("failed", Pack(trials=trials, horizon=1), {"error": "a worker ended with code -9"})
    _booked(store, event, "all")
    assert [store.failure(trial) is None for trial in trials] == [True, True, True, False]
    assert sweep(psa, "meta_loops=1")[0] == 0
    assert not list((tmp_path / "results").rglob("*.failed.json"))


@pytest.mark.slow
def test_weights_of_more_trials_than_files_may_be_open_are_dropped(tmp_path: Path) -> None:
    """Four hundred trials under a limit of 256 open files leave no weights."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from pathlib import Path; from psa.experiments.grid import load_grid; "
        "from psa.storage.retention import delete_checkpoints\n"
        "from psa.storage.store import Store; import sys; sys.path.insert(0, 'tests/support')\n"
        "from made_up import some_record, some_state\n"
        f"folder = Path({str(tmp_path)!r}); store = Store(folder / 'models', folder / 'results')\n"
        f"trials = load_grid(Path({str(GRID)!r}), ['seeds=0..33']).trials[:400]\n"
        "for trial in trials:\n"
        "    store.state_file(trial).save(some_state(trial=trial))\n"
        "    store.write(trial, some_record(3, trial), {})\n"
        "delete_checkpoints(store, trials, 'none')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=GRID.parents[1], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "results").rglob("s*.json"))) >= 400
    assert not list((tmp_path / "models").rglob("*.safetensors"))


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line(psa: Psa, tmp_path: Path) -> None:
    """No worker can use it: that is no failure of any trial, and nothing is marked as failed."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    code, _, err = sweep(psa, "--device", "cuda")
    assert code == 2
    assert "--device must be available on this machine, got cuda" in err
    assert not list((tmp_path / "results").rglob("*.failed.json"))


@pytest.mark.slow
def test_the_largest_seed_is_a_seed(psa: Psa) -> None:
    """What a machine is measured with takes seeds that there are."""
    code, out, err = psa(
        "sweep", str(GRID), "seeds=9223372036854775807", "meta_loops=1", "--only", "arch=1*4 mode=none",
        "--workers", "1",
    )  # fmt: skip
    assert code == 0, err
    assert "1 of 1 trials done" in out
