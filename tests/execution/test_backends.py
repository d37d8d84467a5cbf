"""One contract for every backend: the same trials in, the same bytes out as in this process."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from clusters import cluster_of
from own_data import write_wine
from processes import GRID, LONG, PATIENCE_SECONDS, end, sweep, train_in_process, tree, until

from psa.core.errors import UserError
from psa.execution.backend import BACKEND_OPTIONS, BACKENDS, BackendOptions, backend_named
from psa.storage.sweep_registry import active_sweeps

PACKS = ("--pack-size", "6")


QUEUED = "sagemaker through a job queue"
EACH = [
    *(pytest.param(name, marks=pytest.mark.slow) if name == "slurm" else name for name in sorted(BACKENDS)),
    pytest.param(QUEUED, marks=[pytest.mark.slow, pytest.mark.crash]),
]


@pytest.fixture(scope="module", params=EACH)
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Each of them; SageMaker in a rehearsal, whose containers reach no network; Slurm with two nodes."""
    if request.param == "slurm":
        request.getfixturevalue("slurm").clear()
    if request.param == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
    if request.param not in ("sagemaker", QUEUED):
        yield str(request.param)
        return
    pytest.importorskip("moto", reason="the extra rehearse is not installed")
    from cloud.emulator import Faults, rehearsal
    from cloud.emulator.services.batch_queue import QUEUE

    faults = Faults(no_network=True)
    with (
        rehearsal(tmp_path_factory.mktemp("stage"), faults) as stage,
        pytest.MonkeyPatch.context() as context,
    ):
        for name, value in stage.environment.items():
            context.setenv(name, value)
        if request.param == QUEUED:
            context.setenv("SAGEMAKER_JOB_QUEUE", QUEUE)
        yield "sagemaker"


@pytest.fixture(scope="module")
def where(backend: str) -> Iterator[tuple[str, ...]]:
    """The backend as options: a Ray that is there already, or each sweep would start its own."""
    if backend != "ray":
        yield "--backend", backend
        return
    with cluster_of(num_cpus=2) as cluster:
        yield "--backend", backend, "--address", cluster.address


@pytest.fixture(scope="module")
def swept(
    where: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory, data_dir: Path
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which the smoke grid was swept, and what the sweep said."""
    folder = tmp_path_factory.mktemp("swept")
    return folder, finished(folder, data_dir, *where, *PACKS)


def finished(
    folder: Path, data_dir: Path, *words: str, grid: Path = GRID
) -> subprocess.CompletedProcess[str]:
    """Sweep to the end."""
    process = sweep(folder, data_dir, *words, grid=grid)
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.mark.slow
def test_the_same_bytes_as_in_process(
    swept: tuple[Path, subprocess.CompletedProcess[str]], trained: Callable[[int], dict[str, bytes]]
) -> None:
    """Records and states, byte by byte; nothing else is said but progress."""
    folder, done = swept
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines()[-1] == "24 of 24 trials done, 0 failed"
    assert tree(folder) == trained(3)


def test_a_sidecar_says_which_code_has_trained(
    swept: tuple[Path, subprocess.CompletedProcess[str]], backend: str
) -> None:
    """On SageMaker the archive's; nothing else of psa is found there."""
    sidecars = [json.loads(path.read_text()) for path in (swept[0] / "results").rglob("*.machine.json")]
    wanted = "/opt/ml/code/psa" if backend == "sagemaker" else None
    codes = {each["code"] for each in sidecars}
    assert len(sidecars) == 24
    assert codes == {wanted} if wanted else all(Path(code).name == "psa" for code in codes)
    assert all(each["torch"] and each["device_name"] and each["cpu_capability"] for each in sidecars)


@pytest.mark.slow
def test_what_is_done_is_not_done_again(
    swept: tuple[Path, subprocess.CompletedProcess[str]], where: tuple[str, ...], data_dir: Path
) -> None:
    """No file is touched."""
    folder, _ = swept
    before = {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*.json")}
    done = finished(folder, data_dir, *where, *PACKS)
    assert done.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "results").rglob("*.json")} == before


@pytest.fixture
def going(where: tuple[str, ...], tmp_path: Path, data_dir: Path) -> Iterator[subprocess.Popen[str]]:
    """A sweep that has trained some loops and has far to go."""
    process = sweep(tmp_path, data_dir, f"meta_loops={LONG}", *where, *PACKS)
    until(lambda: " loop " in "\n".join(map(str, active_sweeps(tmp_path / "models"))), process)
    yield process
    end(process)


@pytest.mark.slow
def test_a_stopped_sweep_goes_on(
    going: subprocess.Popen[str],
    where: tuple[str, ...],
    tmp_path: Path,
    data_dir: Path,
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """Ctrl-C: one line and 130; the same command then ends where an undisturbed sweep would."""
    going.send_signal(signal.SIGINT)
    out, err = going.communicate(timeout=PATIENCE_SECONDS)
    assert (going.returncode, err) == (130, "")
    assert out.splitlines()[-1].startswith("Stopped; ")
    done = finished(tmp_path, data_dir, f"meta_loops={LONG}", *where, *PACKS)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert tree(tmp_path) == trained(LONG)


@pytest.mark.slow
def test_a_longer_horizon_goes_on_but_for_a_damaged_trial(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
    where: tuple[str, ...],
    tmp_path: Path,
    data_dir: Path,
    trained: Callable[[int], dict[str, bytes]],
) -> None:
    """Three loops and two more are five in one go, also in packs of another size. One state is of no use:
    exit code 1, that trial alone fails with its reason; once it is sound, the same command ends as well.
    """
    shutil.copytree(swept[0], tmp_path, dirs_exist_ok=True)
    state = next((tmp_path / "models" / "smoke").rglob("lkg.safetensors"))
    sound = state.read_bytes()
    state.write_bytes(b"nonsense")
    state.with_name("lkg.previous.safetensors").unlink(missing_ok=True)
    words = ("meta_loops=5", *where, "--pack-size", "12")
    done = finished(tmp_path, data_dir, *words)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1] == "23 of 24 trials done, 1 failed"
    assert "FAILED" in done.stdout
    state.write_bytes(sound)
    done = finished(tmp_path, data_dir, *words)
    assert done.returncode == 0, done.stdout + done.stderr  # warnings name the copies that are still damaged
    assert done.stdout.splitlines()[-1] == "24 of 24 trials done, 0 failed"
    assert tree(tmp_path) == trained(5)


STUDIES = {"stochastic": "activations", "diverged": "ablation", "diverged-remote": "ablation"}
DIVERGED = 'family = "simplemlp"\nmode = "none"\narch = "60*16"\nbatch_size = 64\n[axes]\nlr = [10.0, 1e-3]'
# One small grid of each sister study, and the backends on which it is run. A backend moves packs, records and
# states, whatever the study: clusters take their time, and get the one that leaves the most kinds of files.
SMALL = 'seeds = "0..1"\nmeta_loops = 2\n[base]\ndigits = [0, 1]\n'
SISTERS = {
    "glonet": ('num_layers = 4\nfeatures = 5\n[axes]\nmodel = ["GloNet", "MLP"]', {"local"}),
    "activations": (
        'arch = "2*5"\n[axes]\nactivation = ["ReLU", "JumpReLU(initial=0.5)"]',
        {"local"},
    ),
    "stochastic": (
        'arch = "2*5"\nactivation = "Identity"\nsimplex = "all"\nscaling = "simplex"\n'
        '[axes]\ntemperature = [0.01, 0.5]',
        {"local"},
    ),
    "gradients": (
        'arch = "1*5"\nprobes = ["gradients_online", "gradients"]', {"local", "ray", "sagemaker", "slurm"},
    ),
    # two of the four diverge, which is said at the end
    "diverged": (DIVERGED, {"local"}),
    "diverged-remote": (DIVERGED, {"ray", "sagemaker", "slurm"}),
    "memory": (
        'train_size = 300\nval_size = 300\ntest_size = 200\narch = "2*6"\n'  # all of them are searched
        'grow_depth = 1\ngrow_width = 2\nmax_width = 12\n'
        '[axes]\nmethod = ["nn", "hybrid"]\ngrowing = [false, true]',
        {"local"},
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(
    "grid",
    [
        pytest.param(grid, marks=pytest.mark.crash) if grid == "diverged-remote" else grid
        for grid in sorted(SISTERS)
    ],
)
def test_a_sister_study_runs_as_any_grid_does(
    grid: str, backend: str, where: tuple[str, ...], tmp_path: Path, data_dir: Path
) -> None:
    """Records, what probes kept, and states with what optimisers and memories hold, byte by byte."""
    settings, shown_on = SISTERS[grid]
    if backend not in shown_on:
        pytest.skip("shown on another backend")
    path = tmp_path / f"{grid}.toml"
    sizes = "" if "val_size" in settings else "val_size = 55000\n"
    path.write_text(f'study = "{STUDIES.get(grid, grid)}"\nname = "{grid}"\n{SMALL}{sizes}{settings}\n')
    swept, alone = tmp_path / "swept", tmp_path / "alone"
    swept.mkdir()
    done = finished(swept, data_dir, *where, *PACKS, grid=path)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert ("(2 diverged)" in done.stdout.splitlines()[-1]) == grid.startswith("diverged")
    train_in_process(alone, data_dir, 2, path)
    assert tree(swept) == tree(alone)


OWN = """
study = "ablation"
name = "own"
meta_loops = 3
seeds = "0..1"
[base]
family = "simplemlp"
lr = 1e-2
batch_size = 16
[axes]
dataset = ["file:wine.csv?label=grape", "digits"]
arch = ["1*8", "2*5"]
mode = ["none", "hidden"]
"""


@pytest.mark.slow
def test_data_of_ones_own_travel(where: tuple[str, ...], tmp_path: Path) -> None:
    """A file, and a set that psa carries: every backend ends with the bytes of this process."""
    write_wine(tmp_path)
    grid, there, here = tmp_path / "own.toml", tmp_path / "there", tmp_path / "here"
    grid.write_text(OWN)
    there.mkdir()
    done = finished(there, tmp_path / "data", *where, grid=grid)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert done.stdout.splitlines()[-1] == "16 of 16 trials done, 0 failed"
    train_in_process(here, tmp_path / "data", 3, grid)
    assert tree(there) == tree(here)


def test_another_backends_option_is_a_mistake(tmp_path: Path, data_dir: Path) -> None:
    """An option that would change nothing is refused, and the message names its backend."""
    assert set(BACKEND_OPTIONS) == set(BACKENDS)
    with pytest.raises(UserError, match=r"--address must be left out with --backend local.*--backend ray"):
        backend_named("local", BackendOptions(address="auto"))
    done = finished(tmp_path, data_dir, "--gpus-per-pack", "0.5")
    assert done.returncode == 2
    assert "--gpus-per-pack must be left out with --backend local" in done.stderr
    assert not (tmp_path / "results" / "smoke").exists()
