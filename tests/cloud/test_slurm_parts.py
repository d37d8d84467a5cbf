"""The parts of the Slurm backend: requests, answers of Slurm's commands, events of tasks, leases, retries."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import PREFIX, FakeClient, stopped_by, submission, watched
from helpers import trial
from made_up import some_record
from paths import ROOT

from cloud.aws.errors import Unreachable
from cloud.slurm import array_task, watch
from cloud.slurm.array_job import ENDED_KEPT, ArrayJobFolder, read_array_job
from cloud.slurm.array_task import TaskLog, train_task
from cloud.slurm.backend import SlurmBackend
from cloud.slurm.client import SlurmClient, TaskStatus, describe_end
from cloud.slurm.event_log import EventLogReader, EventLogWriter
from cloud.slurm.request import batch_script, check_options, sbatch_arguments, time_limit_seconds
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage import locks
from psa.storage.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "models", tmp_path / "results")


@pytest.fixture
def packs() -> list[Pack]:
    """Return two packs of two trials."""
    return [Pack(trials=(trial("1*4", seed=seed), trial("1*4", seed=seed + 1)), horizon=3) for seed in (0, 2)]


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Return a function that puts a shell script in the place of one of Slurm's commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def write(name: str, script: str) -> None:
        path = folder / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    for name in ("sbatch", "squeue", "scontrol", "scancel"):
        write(name, "echo 7")
    return write


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 90), ("2:00:00", 7200), ("1-0", 86_400), ("1-2:30", 95_400),
     ("1-2:30:05", 95_405), ("x", 0), ("0", 0), ("1:2:3:4", 0), ("-5", 0), ("1-", 0)],
)  # fmt: skip
def test_time_limits_are_read_as_slurm_does(text: str, seconds: int) -> None:
    """The six forms of `sbatch --time`; 0 for any other."""
    assert time_limit_seconds(text) == seconds


@pytest.mark.parametrize(
    "option", [{"time": "soon"}, {"time": "0"}, {"gpus_per_task": "0"}, {"gpus_per_task": "a b:1"}]
)
def test_an_option_that_slurm_would_refuse_is_named(option: dict[str, str]) -> None:
    """Before anything is written or sent."""
    (name,) = option
    with pytest.raises(UserError, match=f"--{name.replace('_', '-')} must be .*, got {option[name]}"):
        check_options(BackendOptions(**option))


def test_a_request_holds_what_the_user_gave_and_no_more() -> None:
    """Options that are left out stay with sbatch's variables and the cluster; the signal fits the limit."""
    folder = Path("/shared/100%/x")
    plain = sbatch_arguments("x", 4, folder, BackendOptions())
    assert {"--array=0-3", "--requeue", "--signal=B:USR2@60"} <= set(plain)
    assert "--output=/shared/100%%/x/%a.log" in plain
    assert not any(
        each.startswith(("--partition", "--account", "--qos", "--time", "--gpus")) for each in plain
    )
    where = BackendOptions(
        partition="gpu", account="me", qos="long", time="2", gpus_per_task="a100:1", array_parallelism=2
    )
    full = sbatch_arguments("x", 4, folder, where)
    assert {
        "--array=0-3%2", "--partition=gpu", "--account=me", "--qos=long", "--time=2", "--signal=B:USR2@30",
        "--gpus-per-task=a100:1",
    } <= set(full)  # fmt: skip


def test_the_script_runs_the_code_of_the_sweep(tmp_path: Path) -> None:
    """From any folder, in which a file `cloud.py` or `psa.py` changes nothing."""
    for name in ("cloud.py", "psa.py"):
        (tmp_path / name).write_text("raise SystemExit(9)")
    script = tmp_path / "script.sh"
    script.write_text(batch_script(tmp_path))
    done = subprocess.run(
        ["sh", script], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PATH": os.environ["PATH"], "SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "7"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "")
    assert done.stdout.startswith(f"ERROR {tmp_path}/job.json must describe a job array")
    assert sys.executable in script.read_text()
    assert str(ROOT) in script.read_text()


def test_answers_of_squeue_are_read(commands: Callable[[str, str], None]) -> None:
    """Array tasks of this workspace alone; a reason may hold the separator."""
    rows = f"{PREFIX}a|7|0|RUNNING|n1|1000|None\n{PREFIX}a|7|1|PENDING||1001|(a|b)"
    rows += f"\nother|8|0|RUNNING|n1|1000|None\n{PREFIX}b|9|N/A|RUNNING|n1|1000|None"
    commands("squeue", f"cat <<'EOF'\n{rows}\nEOF")
    found = SlurmClient().list_tasks(PREFIX)
    assert list(found) == [(f"{PREFIX}a", 0), (f"{PREFIX}a", 1)]
    assert found[f"{PREFIX}a", 0].task_id == "7_0"
    assert found[f"{PREFIX}a", 1].reason == "(a|b)"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", Unreachable),
        ("sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", Unreachable),
        ("sbatch: error: invalid partition specified: nope", UserError),
    ],
)
def test_an_outage_is_told_from_a_refusal(
    said: str, kind: type[UserError], commands: Callable[[str, str], None]
) -> None:
    """The first is waited for, the second ends the sweep, in one line without Slurm's prefixes."""
    commands("sbatch", f"echo '{said}' >&2; exit 1")
    with pytest.raises(UserError) as caught:
        SlurmClient().submit([], Path("x"))
    assert type(caught.value) is kind
    assert "error: " not in caught.value.message.removeprefix("sbatch failed: ").replace("jobs error: ", "")


def test_a_slow_controller_counts_as_an_outage(
    commands: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command is waited for without end."""
    monkeypatch.setattr("cloud.slurm.client.ANSWER_SECONDS", 0.1)
    commands("squeue", "exec sleep 5")
    with pytest.raises(Unreachable, match=r"squeue did not answer within 0\.1 s"):
        SlurmClient().list_tasks(PREFIX)


def test_a_host_without_slurm_is_told_so(monkeypatch: pytest.MonkeyPatch, store: Store) -> None:
    """One line, before anything is written."""
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match=r"sbatch must be on PATH\. Run psa on a login node"):
        SlurmBackend(store, Machine(), CostModel(store.models / "x"), BackendOptions())
    assert not store.models.exists()


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"JobState": "NODE_FAIL", "NodeList": "n1", "ExitCode": "0:0"}, "ended as NODE_FAIL on n1"),
        (
            {"JobState": "FAILED", "NodeList": "n2", "ExitCode": "127:0"},
            "ended as FAILED on n2, exit code 127",
        ),
        ({"JobState": "FAILED", "NodeList": "n2", "ExitCode": "0:9"}, "ended as FAILED on n2, signal 9"),
        ({"JobState": "CANCELLED", "NodeList": "(null)"}, "ended as CANCELLED"),
        ({}, "has ended, and Slurm does not say how"),
    ],
)
def test_the_end_of_a_task_is_said_in_one_line(facts: dict[str, str], text: str) -> None:
    """State, node, and code or signal."""
    assert describe_end(facts) == text


def test_an_ended_task_is_recalled_from_the_accounting_database(commands: Callable[[str, str], None]) -> None:
    """The controller forgets a job after some minutes."""
    commands("scontrol", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    commands("sacct", "echo 'OUT_OF_MEMORY|0:125|n3'")
    assert describe_end(SlurmClient().describe("7_0")) == "ended as OUT_OF_MEMORY on n3, signal 125"
    commands("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert SlurmClient().describe("7_0") == {}


def test_events_survive_torn_lines_and_attempts(tmp_path: Path) -> None:
    """A line that a kill left unfinished is left out; a late reader sees the present attempt alone."""
    path = tmp_path / "0.jsonl"
    reader = EventLogReader(path)
    assert reader.read() == []
    EventLogWriter(path).append("begun", left=3)
    with path.open("ab") as file:
        file.write(b'{"event":"lo')
    assert [event["event"] for event in reader.read()] == ["begun"]
    writer = EventLogWriter(path)
    writer.append("begun", left=2)
    writer.append("loop", loop=2)
    assert [event["left"] for event in reader.read() if event["event"] == "begun"] == [2]
    assert [event["event"] for event in EventLogReader(path).read_last_attempt()] == ["begun", "loop"]


@pytest.fixture
def client() -> Any:
    """Return a Slurm with an empty queue."""
    return FakeClient()


def test_packs_are_submitted_once(client: Any, store: Store, packs: list[Pack]) -> None:
    """One task per pack; a second sweep of the same trials submits nothing."""
    tasks = submission(client, store).submit(packs, {})
    assert tasks is not None
    assert [(task.pack, task.task_id) for task in tasks] == [(packs[0], "1_0"), (packs[1], "1_1")]
    assert read_array_job(tasks[0].array.folder).packs == packs
    assert submission(client, store).submit(packs[1:], {}) is None
    assert len(client.submitted) == 1


def test_a_lost_answer_submits_nothing_twice(client: Any, store: Store, packs: list[Pack]) -> None:
    """The queue shows the job under its name; the repeated submission takes it up."""
    client.lose_answer = True
    mine = submission(client, store)
    with pytest.raises(Unreachable):
        mine.submit(packs, {})
    tasks = mine.submit(packs, {})
    assert tasks is not None
    assert [task.task_id for task in tasks] == ["1_0", "1_1"]
    assert len(client.submitted) == 1


def test_many_packs_take_several_arrays(client: Any, store: Store, packs: list[Pack]) -> None:
    """An array has at most MaxArraySize tasks."""
    client.size = 1
    tasks = submission(client, store).submit(packs, {})
    assert tasks is not None
    assert [task.task_id for task in tasks] == ["1_0", "2_0"]


def test_a_retry_takes_up_the_task_of_another_sweep(client: Any, store: Store, packs: list[Pack]) -> None:
    """Two sweeps watch the same tasks; the faster one submits again, for both."""
    first = submission(client, store).submit_again(packs[:1])
    copies = [Pack.model_validate(packs[0].model_dump())]
    second = submission(client, store).submit_again(copies)
    assert second[0].key == first[0].key
    assert len(client.submitted) == 1


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a Slurm that a test holds at once."""
    for name in ("EVENT_POLL_SECONDS", "FIRST_QUEUE_SECONDS", "LAST_QUEUE_SECONDS"):
        monkeypatch.setattr(watch, name, 0.0)


def test_a_task_that_vanishes_is_submitted_again_three_times_at_most(
    client: Any, store: Store, packs: list[Pack]
) -> None:
    """Each time with Slurm's reason and the last line that the task printed; then the pack has failed."""
    view, tasks = watched(client, store, packs[:1])
    said: list[tuple[str, str]] = []
    for event in view.events():
        if event.kind in ("died", "failed"):
            said.append((event.kind, event.facts["error"]))
        if client.queue:
            (tasks[0].array.folder / "0.log").write_text("first\n/opt/python: not found\n\n")
            client.queue.clear()
    assert [kind for kind, _ in said] == ["died", "died", "failed"]
    assert said[0][1] == "job 1_0 ended as FAILED on n1, exit code 1: /opt/python: not found"
    assert len(client.submitted) == 3


@pytest.mark.parametrize(("state", "kind"), [("CANCELLED", "failed"), ("PREEMPTED", "died")])
def test_a_cancelled_task_fails_and_a_preempted_one_does_not(
    state: str, kind: str, client: Any, store: Store, packs: list[Pack]
) -> None:
    """Where preemption cancels, the pack is submitted again however often that happens."""
    client.ends = {"JobState": state, "NodeList": "n1"}
    view, tasks = watched(client, store, packs[:1])
    client.queue.clear()
    events = itertools.islice((event for event in view.events() if event.kind != "tick"), 1)
    assert [event.kind for event in events] == [kind]
    assert tasks[0].deaths == (state == "CANCELLED")


def test_events_reach_the_sweep_in_the_order_of_the_contract(
    client: Any, store: Store, packs: list[Pack]
) -> None:
    """An attempt that ended without a word counts as died before the next one begins."""
    view, (task,) = watched(client, store, packs[:1])
    for _ in range(2):
        EventLogWriter(task.array.events_path(0)).append("begun", left=6)
    log = EventLogWriter(task.array.events_path(0))
    task.read()  # from here on the watch sees whatever is appended, of any attempt
    facts = {"loop": 1, "trained": 2, "best": 0.5, "trial": "x"}
    log.append("begun", left=6, node="n1", task="1_0")
    log.append("loop", **facts, held=True)
    EventLogWriter(log.path).append("begun", left=4)
    log.append("stopped", error="saved", trained=2)
    log.append("begun", left=2)
    log.append("done", trained=2, elsewhere=0, failed={})
    events = [event for event in view.events() if event.kind not in ("tick", "ready")]
    kinds = [event.kind for event in events]
    assert kinds == ["begun", "loop", "died", "begun", "died", "begun", "done"]
    assert [set(event.facts) for event in events[:3]] == [{"left"}, set(facts), {"error"}]


def test_locks_that_do_not_hold_between_hosts_end_the_sweep(
    client: Any, store: Store, packs: list[Pack]
) -> None:
    """A task says that it holds its leases after this host has seen them free."""
    view, (task,) = watched(client, store, packs[:1])
    log = EventLogWriter(task.array.events_path(0))
    log.append("begun", left=6)
    facts = {"loop": 1, "trained": 2, "best": 0.5, "trial": "x", "held": True}
    seen = []

    def watch_on() -> None:
        for event in view.events():
            seen.append(event.kind)
            log.append("loop", **facts)

    with pytest.raises(UserError, match=r"file locks in .* must hold between nodes.* \(job 1_0\)"):
        watch_on()
    assert seen.count("tick") >= 2


def test_locks_that_hold_are_not_suspected(client: Any, store: Store, packs: list[Pack]) -> None:
    """Leases that this host sees as held agree with what the node says."""
    view, (task,) = watched(client, store, packs[:1])
    log = EventLogWriter(task.array.events_path(0))
    log.append("begun", left=6)
    facts = {"loop": 1, "trained": 2, "best": 0.5, "trial": "x", "held": True}
    with locks.lock_trials(store, packs[0].trials):
        for number, event in enumerate(view.events()):
            if number == 8:
                log.append("done", trained=2, elsewhere=0, failed={})
            elif event.kind == "tick" and number < 8:
                log.append("loop", **facts)


def test_results_without_events_are_found(client: Any, store: Store, packs: list[Pack]) -> None:
    """Another sweep may have removed the files of the array: the records count."""
    view, _ = watched(client, store, packs[:1])
    for each in packs[0].trials:
        store.write(each, some_record(3, each), {})
    client.queue.clear()
    done = [event for event in view.events() if event.kind == "done"]
    assert [event.facts["trained"] for event in done] == [2]
    assert len(client.submitted) == 1


def test_a_held_task_is_named_once(client: Any, store: Store, packs: list[Pack]) -> None:
    """Nothing else would say why a sweep waits for ever."""
    view, (task,) = watched(client, store, packs[:1])
    key = task.key
    client.queue[key] = TaskStatus(*key[:1], "1", 0, "PENDING", "", 0, "(launch failed requeued held)")
    events = list(itertools.islice(view.events(), 12))
    messages = [event.facts["message"] for event in events if event.kind == "message"]
    assert messages == [
        "job 1_0 is held by Slurm (launch failed requeued held): release it with `scontrol release`"
    ]


def test_old_arrays_are_removed_but_for_the_newest(store: Store, packs: list[Pack]) -> None:
    """Logs of a failure stay for a while; what is in the queue stays in any case."""
    folder = ArrayJobFolder(store)
    made = [folder.create(PREFIX, packs, Machine()) for _ in range(ENDED_KEPT + 3)]
    for number, array in enumerate(made):
        os.utime(array.folder, (number, number))
    folder.remove_ended({made[0].name})
    assert {path.name for path in folder.path.iterdir()} == {
        array.name for array in (made[0], *made[-ENDED_KEPT:])
    }


def test_loops_are_merged_and_failures_stored(
    store: Store, packs: list[Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few writes to the shared folder, and none of the counts is lost; `psa status` finds what failed."""
    array = ArrayJobFolder(store).create(PREFIX, packs, Machine())
    log = TaskLog(array, 0, {"node": "n1"})
    monkeypatch.setattr(array_task, "LOOP_SECONDS", 1e9)
    log._written = float("inf")
    log.handle_event(WorkerEvent("begun", packs[0], {"left": 6}))
    for loop in (1, 2):
        facts = {"loop": loop, "trained": 2, "best": 0.5, "trial": "x"}
        log.handle_event(WorkerEvent("loop", packs[0], facts))
    bad = packs[0].trials[0]
    log.handle_event(WorkerEvent("done", packs[0], {"trained": 1, "elsewhere": 0, "failed": {bad.id: "why"}}))
    events = EventLogReader(array.events_path(0)).read()
    assert [event["event"] for event in events] == ["begun", "loop", "done"]
    assert events[0]["node"] == "n1"
    assert (events[1]["trained"], events[1]["held"]) == (4, False)
    assert store.failure(bad) == "why"


def test_a_time_limit_that_no_loop_fits_into_ends_after_three_runs(
    store: Store, packs: list[Pack], monkeypatch: pytest.MonkeyPatch, commands: Callable[[str, str], None]
) -> None:
    """Twice the task returns to the queue; then its trials have failed with what to change."""
    commands("scontrol", 'echo "JobState=RUNNING NodeList=n1"')
    monkeypatch.setattr(array_task, "LocalBackend", stopped_by(signal.SIGUSR2))
    array = ArrayJobFolder(store).create(PREFIX, packs, Machine())
    assert [train_task(array.folder, 0, "7_0") for _ in range(3)] == [75, 75, 75]
    events = EventLogReader(array.events_path(0)).read()
    assert [event["event"] for event in events] == ["stopped", "stopped", "failed"]
    assert "put back into the queue" in events[0]["error"]
    assert "choose a longer --time" in str(store.failure(packs[0].trials[0]))
