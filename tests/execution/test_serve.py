"""`python -m psa.execution.worker --serve`: tasks in, events out, and nothing else on the line between the
two.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import trial
from processes import PATIENCE_SECONDS, end, sweep

from psa.execution.machine import Machine
from psa.execution.worker.pool import Task, WorkerPool
from psa.execution.worker.protocol import parse_event
from psa.specs.trial import Pack
from psa.storage.store import Store

TRIALS = (trial("1*4", "none", 1, batch_size=512), trial("1*4", "hidden", 2, batch_size=512))

# What a library might do: prints of Python and of C, with and without an end of line, all the time.
NOISE = """
import ctypes, os, sys, threading, time
def noise():
    c = ctypes.CDLL(None)
    while True:
        os.write(1, b"noise without an end \\xff\\x1b[2J")
        c.puts(b"noise of C")
        c.fflush(None)
        os.write(1, b'{"event": 3}\\n[[[\\nnull\\n')
        print("noise of Python", flush=True)
        time.sleep(0.02)
if "--serve" in sys.orig_argv:
    threading.Thread(target=noise, daemon=True).start()
"""


class Served:
    """A worker process that is given tasks."""

    def __init__(self, folder: Path, data_dir: Path, **options: Any) -> None:
        self.folder = folder
        command = [
            sys.executable,
            "-m",
            "psa.execution.worker",
            "--serve",
            "--data-dir",
            str(data_dir.absolute()),
        ]
        self.process = subprocess.Popen(
            [*command, "--device", "cpu"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            **options,
        )

    def give(self, pack: Pack) -> None:
        """Ask for a pack to be trained."""
        task = {
            "task": "train",
            "models": str(self.folder / "models"),
            "results": str(self.folder / "results"),
            "pack": pack.model_dump(mode="json"),
        }
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()

    def events(self) -> Iterator[dict[str, Any]]:
        """What it says, up to the end of a pack."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.strip():
                event = json.loads(line)
                yield event
                if event["event"] in ("done", "failed"):
                    return

    def end(self) -> tuple[int, str]:
        """End its input; exit code and standard error."""
        _, err = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, err


@pytest.fixture
def served(tmp_path: Path, data_dir: Path) -> Iterator[Served]:
    """A worker for the folder of a test."""
    worker = Served(tmp_path, data_dir)
    yield worker
    end(worker.process)


@pytest.mark.slow
def test_a_worker_says_what_is_left_and_what_it_has_trained(served: Served) -> None:
    """Trial-loops that are still to be done when it begins, also when it goes on from stored states."""
    for horizon, left in ((2, 4), (5, 6)):
        served.give(Pack(trials=TRIALS, horizon=horizon))
        said = [event for event in served.events() if event["event"] != "ready"]
        assert said[0] == {"event": "begun", "left": left}
        loops = said[1:-1]
        assert {event["event"] for event in loops} == {"loop"}
        assert sum(event["trained"] for event in loops) == left
        assert loops[-1]["loop"] == horizon
        assert said[-1] == {"event": "done", "trained": 2, "elsewhere": 0, "failed": {}}
    served.give(Pack(trials=TRIALS, horizon=5))
    assert list(served.events()) == [{"event": "done", "trained": 0, "elsewhere": 0, "failed": {}}]
    assert served.end() == (0, "")


@pytest.mark.slow
def test_one_that_nobody_listens_to_any_more_saves_and_leaves(served: Served) -> None:
    """Its parent has gone, and with it both ends: what is trained is stored, and no traceback is left."""
    served.give(Pack(trials=TRIALS, horizon=1_000_000))
    for event in served.events():
        if event["event"] == "loop":
            break
    assert served.process.stdout is not None
    served.process.stdout.close()
    assert served.process.stdin is not None
    served.process.stdin.close()
    assert served.process.wait(PATIENCE_SECONDS) == 75
    assert served.process.stderr is not None
    assert served.process.stderr.read() == ""
    state = Store(served.folder / "models", served.folder / "results").state_file(TRIALS[0]).load()
    assert state is not None
    assert state.loops > 0


@pytest.mark.slow
def test_prints_of_libraries_do_not_reach_the_line(tmp_path: Path, data_dir: Path) -> None:
    """A sweep whose workers are as noisy as can be ends well; the noise is on standard error."""
    (tmp_path / "noise").mkdir()
    (tmp_path / "noise" / "sitecustomize.py").write_text(NOISE)
    words = ("arch=1*4", "--pack-size", "6", "--workers", "2")
    process = sweep(tmp_path, data_dir, *words, PYTHONPATH=str(tmp_path / "noise"))
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, out + err
    assert out.splitlines()[-1] == "12 of 12 trials done, 0 failed"
    assert "noise" not in out
    assert "Traceback" not in err
    for said in ("noise without an end", "noise of C", "noise of Python"):
        assert said in err


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"noise",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b"null",
        b"[1]",
        b"3",
        b"{}",
        b'{"event":3}',
        b'{"event":["done"]}',
        b'{"event":"x"}',
        b'{"event":"done"',
    ],
)
def test_a_line_that_is_no_event_is_passed_by(line: bytes) -> None:
    """Whatever a process that is no worker of ours any more may write, the sweep does not fall over it."""
    assert parse_event(line) is None


def test_a_line_that_is_an_event_is_one() -> None:
    """The words of the protocol."""
    assert parse_event(b'{"event":"begun","left":3}') == {"event": "begun", "left": 3}


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="Linux with groups by session")
def test_a_niced_worker_gives_way_to_other_sessions() -> None:
    """It has a session of its own, whose group would otherwise weigh as much as any other."""
    script = (
        "import os; from pathlib import Path; from psa.execution.worker.start import _give_way\n"
        "os.nice(7); _give_way(); print(Path('/proc/self/autogroup').read_text().split()[-1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, start_new_session=True
    )
    assert done.stdout == "7\n"


SLOW = """
import sys, time
if "--serve" in sys.argv:
    time.sleep(4)
"""


@pytest.mark.slow
def test_a_long_task_holds_up_neither_the_parent_nor_its_end(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pipe holds 64 KiB, and a worker reads only after its imports: meanwhile ticks come, other workers
    start, and a stop in the middle of a task leaves no traceback. The task arrives whole.
    """
    (tmp_path / "sitecustomize.py").write_text(SLOW)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    task = {"task": "train", "models": str(tmp_path / "m"), "results": str(tmp_path / "r")}
    pack = Pack(trials=TRIALS, horizon=1)
    line = json.dumps(task | {"pack": pack.model_dump(mode="json"), "padding": "x" * 200_000})
    places, machine = [None, None], Machine(data_dir, "cpu")
    running = WorkerPool(machine, places).run([Task(pack, line), Task(pack, line)])
    begun = time.monotonic()
    assert [next(running).kind for _ in range(5)] == ["tick"] * 5
    assert time.monotonic() - begun < 4  # the imports of workers take longer
    running.close()
    assert capfd.readouterr().err == ""
    events = [event.kind for event in WorkerPool(machine, [None]).run([Task(pack, line)])]
    assert events.count("done") == 1
    assert "failed" not in events
