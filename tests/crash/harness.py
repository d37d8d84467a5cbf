"""Kill a sweep again and again, start it again each time, and compare what it leaves with an undisturbed run.

python tests/crash/harness.py --kills 200
python tests/crash/harness.py --kills 200 --open-files 64
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from processes import GRID, ROOT, children, tree

HERE = Path(__file__).parent


def sweep(
    folder: Path, data_dir: Path, kill_at: int = 0, workers: int = 2, size: int = 6
) -> subprocess.Popen[bytes]:
    """Start a sweep of the smoke grid in a session of its own."""
    environment = {**os.environ, "PSA_KILL_AT": str(kill_at), "PYTHONPATH": f"{HERE}{os.pathsep}{ROOT}"}
    options = ["--pack-size", str(size), "--workers", str(workers), "--data-dir", str(data_dir)]
    command = [sys.executable, "-c", "from psa.cli.app import main; main()", "sweep", str(GRID), *options]
    with (folder / "out.txt").open("ab") as out:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )


def kill(pid: int) -> None:
    """SIGKILL, unless it has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def first_file(process: subprocess.Popen[bytes], folder: Path, begun: float) -> float:
    """Wait until a sweep that was started at `begun` (Unix time) writes, or ends; seconds it took."""
    since = time.monotonic()
    while process.poll() is None:
        written = (path for path in folder.rglob("*") if path.suffix in (".safetensors", ".json", ".tmp"))
        with contextlib.suppress(FileNotFoundError):
            if any(path.stat().st_mtime > begun for path in written if ".sweeps" not in path.parts):
                break
        time.sleep(0.01)
    return time.monotonic() - since


def one_kill(
    folder: Path, data_dir: Path, draws: random.Random, longest: float, working: float
) -> tuple[str, bool]:
    """Start the sweep and kill some of it: how, and whether it had come to its end before that.

    A fifth of the kills fall anywhere in the run, which is mostly its start; the others fall in the short
    time in which it writes.
    """
    how = draws.choice(("everything", "parent alone", "a worker", "inside a write", "inside a write"))
    begun = time.time()
    process = sweep(folder, data_dir, draws.randint(1, 120) if how == "inside a write" else 0)
    if draws.random() < 0.2:
        deadline = time.monotonic() + draws.uniform(0.2, longest)
    else:
        first_file(process, folder, begun)
        deadline = time.monotonic() + draws.uniform(0, working)
    while process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    if process.poll() is not None:
        return how, process.returncode == 0
    workers = children(process.pid)
    if how == "a worker" and workers:
        kill(draws.choice(workers))
        time.sleep(draws.uniform(0, 1))
        workers = children(process.pid)
    kill(process.pid)
    process.wait()
    if how in ("everything", "a worker"):
        for pid in workers:
            kill(pid)
    return how, False


def campaign(kills: int, seed: int, data_dir: Path, say: bool = True) -> int:
    """Run the kills; how many whole sweeps came to an end and were compared. Raises AssertionError."""
    draws, compared, done = random.Random(seed), 0, 0
    with tempfile.TemporaryDirectory() as base:
        calm = Path(base) / "calm"
        calm.mkdir()
        begun = time.time()
        process = sweep(calm, data_dir)
        starting = first_file(process, calm, begun)
        assert process.wait() == 0, (calm / "out.txt").read_text()
        longest = time.time() - begun
        working = longest - starting
        expected = tree(calm)
        assert len(expected) == 48, sorted(expected)
        round_number = 0
        while done < kills or compared == 0:
            round_number += 1
            folder = Path(base) / f"round{round_number}"
            folder.mkdir()
            finished = False
            while not finished and done < kills:
                how, finished = one_kill(folder, data_dir, draws, longest, working)
                done += not finished
                if say and not finished:
                    sys.stdout.write(f"kill {done}/{kills}: {how}; {len(tree(folder))} files so far\n")
                    sys.stdout.flush()
            if not finished:
                process = sweep(folder, data_dir)
                assert process.wait() == 0, (folder / "out.txt").read_text()
            # a worker that outlived its parent may still be writing what it had in hand
            found = settled(folder, expected)
            assert found == expected, sorted(
                name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
            )
            compared += 1
            remove(folder)
    return compared


def remove(folder: Path) -> None:
    """Remove a folder into which a worker that outlived its parent may still write a temporary file."""
    for _ in range(100):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
    shutil.rmtree(folder)


def settled(folder: Path, expected: dict[str, bytes]) -> dict[str, bytes]:
    """The tree once it is as expected, or after some seconds as it is."""
    for _ in range(100):
        found = tree(folder)
        if found == expected:
            break
        time.sleep(0.1)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--open-files", type=int, help="limit of open files for each process of a sweep")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "dataset")
    options = parser.parse_args()
    if options.open_files is not None:  # inherited by every sweep and its workers, who cannot raise it again
        resource.setrlimit(resource.RLIMIT_NOFILE, (options.open_files, options.open_files))
    rounds = campaign(options.kills, options.seed, options.data_dir.absolute())
    sys.stdout.write(
        f"{options.kills} kills, {rounds} sweeps finished and byte-identical to an undisturbed one\n"
    )
