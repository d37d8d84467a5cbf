"""What every test may use: the data folder, filled once, and one thread, as in a worker."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from processes import ending, train_in_process, tree
from slurm import SlurmCluster, missing, slurm_cluster

from psa.data.datasets import DATASETS
from psa.data.download import download_dataset
from psa.data.splits import Splits, load_splits
from psa.specs.data import DataSpec

# Their tests take longest, and so begin: whoever came last with one of them would be waited for.
LONGEST = (
    "test_docs.py", "test_ray.py", "test_backends.py", "test_search.py", "test_sagemaker.py",
    "test_crash.py", "test_rehearsal.py", "test_sagemaker_rehearsed.py", "test_stop.py",
    "test_staged_sweep.py", "test_sweep.py", "test_report.py", "test_slurm.py",
)  # fmt: skip

torch.set_num_threads(1)
torch.set_flush_denormal(True)
# Under nohup, and in the background of a script, pytest hands an ignored signal to the processes of a test,
# and psa respects it.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests first; each file stays together, for what its tests share."""
    rank = {name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.name, len(rank)))


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[str]]]:
    """Return a list for processes that end with the test."""
    with ending() as processes:
        yield processes


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder that holds MNIST: PSA_DATA_DIR, or dataset/ beside this folder. Fetched the first time."""
    folder = Path(os.environ.get("PSA_DATA_DIR") or Path(__file__).parents[1] / "dataset")
    download_dataset(DATASETS["mnist"], folder)
    return folder


@pytest.fixture(scope="session")
def splits(data_dir: Path) -> Splits:
    """All of MNIST, split as published."""
    return load_splits(DataSpec(), data_dir)


@pytest.fixture(scope="session")
def small(splits: Splits) -> Splits:
    """A corner of MNIST for tests that train: 600, 300 and 200 samples; the last batches are short."""
    return Splits(splits.train.first(600), splits.val.first(300), splits.test.first(200), 10, splits.digits)


@pytest.fixture(scope="session")
def slurm() -> Iterator[SlurmCluster]:
    """A Slurm of this machine, for this process and its children; skipped where it is not installed."""
    if absent := missing():
        pytest.skip(f"not installed: {', '.join(absent)} (Debian: slurm-wlm and munge)")
    with slurm_cluster() as cluster, pytest.MonkeyPatch.context() as context:
        for name in ("PATH", "SLURM_CONF"):
            context.setenv(name, cluster.environment[name])
        yield cluster


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Callable[[int], dict[str, bytes]]:
    """The tree that the smoke grid leaves after so many meta-loops, whoever trains it (trained in peace).

    Loops cost seconds: whichever of the tests' processes asks first trains them, the others read.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def after(meta_loops: int) -> dict[str, bytes]:
        folder = shared / f"smoke-{meta_loops}"
        with FileLock(shared / f"{folder.name}.lock"):
            if not folder.exists():
                half = tmp_path_factory.mktemp("smoke")
                train_in_process(half, data_dir, meta_loops)
                half.rename(folder)
        return tree(folder)

    return after
