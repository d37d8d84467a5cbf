"""Faults beside a sweep on Slurm: its tasks continue, and only a stop of the user cancels them."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_slurm import PREFIX, FakeClient, stopped_by, submission, watched
from helpers import trial

from cloud import retry
from cloud.aws.errors import Unreachable
from cloud.slurm import array_task, event_log, watch
from cloud.slurm import backend as backends
from cloud.slurm.array_job import ENDED_KEPT, ArrayJobFolder
from cloud.slurm.array_task import train_task
from cloud.slurm.backend import SlurmBackend
from cloud.slurm.client import SlurmClient, TaskStatus
from cloud.slurm.event_log import EventLogReader, EventLogWriter
from cloud.slurm.request import check_options
from cloud.slurm.watch import ArrayWatch
from cloud.slurm.watched_task import LocksNotSharedError, WatchedTask
from psa.core.errors import UserError
from psa.core.file_locks import Locked
from psa.execution.backend import BackendOptions, RemoteBackend
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage.store import Store

LOOP = {"loop": 1, "trained": 2, "best": 0.5, "trial": "x"}
DONE: dict[str, Any] = {"trained": 2, "elsewhere": 0, "failed": {}}
BAD_NODE = {"what": "cannot lock models", "way_out": "Mount it", "node": "n1"}
LIMIT = UserError("sbatch failed: Job violates accounting/QOS policy", "Wait")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Return an empty store."""
    return Store(tmp_path / "models", tmp_path / "results")


@pytest.fixture
def packs() -> list[Pack]:
    """Return four packs of one trial."""
    return [Pack(trials=(trial("1*4", seed=seed),), horizon=3) for seed in range(4)]


@pytest.fixture
def client() -> FakeClient:
    """Return a Slurm with an empty queue."""
    return FakeClient()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask a Slurm that a test holds at once."""
    for name in ("EVENT_POLL_SECONDS", "FIRST_QUEUE_SECONDS", "LAST_QUEUE_SECONDS", "RESUBMIT_SECONDS"):
        monkeypatch.setattr(watch, name, 0.0, raising=False)


def log_of(task: WatchedTask) -> EventLogWriter:
    """The event log of the present attempt of a task."""
    return EventLogWriter(task.array.events_path(task.index))


def news(view: ArrayWatch) -> Iterator[WorkerEvent]:
    """The events of a watch without its ticks. It must not watch for ever."""
    for event in itertools.islice(view.events(), 400):
        if event.kind not in ("tick", "ready"):
            yield event


def finish(task: WatchedTask) -> None:
    """Let a task train and report its end."""
    log = log_of(task)
    log.append("begun", left=3)
    log.append("loop", **LOOP, held=True)
    log.append("done", **DONE)


# A node on which nothing can be trained.


def test_a_node_that_cannot_train_costs_its_tasks_one_death(
    client: Any, store: Store, packs: list[Pack]
) -> None:
    """The task is submitted again for the other nodes; the task on another node goes on."""
    view, (bad, good) = watched(client, store, packs[:2])
    log_of(bad).append("unusable", **BAD_NODE)
    del client.queue[bad.key]
    events = []
    for event in news(view):
        events.append((event.pack, event.kind))
        if event.kind == "died":
            assert "cannot lock models" in event.facts["error"]
            finish(good)
        if event == WorkerEvent("done", packs[1], DONE):
            finish(bad)
    assert [kind for pack, kind in events if pack == packs[0]] == ["died", "begun", "loop", "done"]
    assert [kind for pack, kind in events if pack == packs[1]] == ["begun", "loop", "done"]
    assert client.excluded == ["--exclude=n1"]


def test_a_sweep_gives_up_when_no_task_can_train(client: Any, store: Store, packs: list[Pack]) -> None:
    """Three tasks report it and none has trained: the others would report the same."""
    view, tasks = watched(client, store, packs)
    for task in tasks[:3]:
        log_of(task).append("unusable", **BAD_NODE)
    with pytest.raises(UserError, match="cannot lock models"):
        list(news(view))


def test_a_sweep_goes_on_while_some_task_trains(client: Any, store: Store, packs: list[Pack]) -> None:
    """Packs that find no usable node fail after three deaths, and no others."""
    view, (good, *bad) = watched(client, store, packs)
    log_of(good).append("begun", left=3)
    ends = []
    for event in itertools.islice(view.events(), 400):
        ends += [(event.pack, event.kind)] if event.kind in ("done", "failed") else []
        for task in bad:
            if good.begun and not task.over and client.queue.pop(task.key, None):
                log_of(task).append("unusable", **BAD_NODE)
        if len(ends) == 3:
            log_of(good).append("done", **DONE)
    assert ends == [*((pack, "failed") for pack in packs[1:]), (packs[0], "done")]


# Submissions that Slurm refuses.


@pytest.mark.parametrize("error", [LIMIT, Locked("another sweep is submitting"), Unreachable("no answer")])
def test_a_refused_resubmission_is_tried_again(
    error: UserError, client: Any, store: Store, packs: list[Pack]
) -> None:
    """One message says so, the death counts once, and nothing of the refused array stays."""
    view, (task,) = watched(client, store, packs[:1])
    client.refusals = [error, error, error, None]
    client.queue.clear()
    events = []
    for event in news(view):
        events.append(event.kind)
        if event.kind == "message":
            assert event.facts["message"].startswith(error.message)
    # the queue holds the new task, which is not listed a second time as ended
    assert events == ["died", "message"]
    assert (task.deaths, len(client.submitted)) == (1, 2)
    if not isinstance(error, Unreachable):
        assert len(list((store.models / ".slurm").glob("psa-*"))) == 2


def test_refused_packs_fail_once_nothing_else_is_watched(
    client: Any, store: Store, packs: list[Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as other tasks are in the queue, waiting costs nothing; then only these packs fail."""
    monkeypatch.setattr(watch, "MAX_OUTAGE_SECONDS", 0.0)
    view, (lost, other) = watched(client, store, packs[:2])
    client.refusals = [LIMIT] * 1000
    del client.queue[lost.key]
    ticks, ends = 0, []
    for event in view.events():
        ticks += event.kind == "tick"
        ends += [(event.pack, event.kind)] if event.kind in ("done", "failed") else []
        if event.kind == "tick" and ticks == 20:
            assert ends == []
            finish(other)
    assert ends == [(packs[1], "done"), (packs[0], "failed")]


# The end of a watch.


@pytest.fixture
def slurm(
    client: Any, store: Store, monkeypatch: pytest.MonkeyPatch, commands: Callable[[str, str], None]
) -> SlurmBackend:
    """Return a backend on such a Slurm, whose data need no download."""
    monkeypatch.setattr(backends, "data_files", lambda specs, folder: [])
    there = SlurmBackend(store, Machine(), CostModel(store.models / "x"), BackendOptions())
    there.client, there.prefix = client, PREFIX
    return there


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
        write(name, "exit 0")
    return write


def launched(slurm: SlurmBackend, client: Any, packs: Sequence[Pack]) -> Iterator[WorkerEvent]:
    """A launch that has submitted its tasks and watches them."""
    events = slurm.launch(slurm.plan(packs))
    while not client.submitted:
        next(events)
    next(events)
    return events


def test_ctrl_c_cancels_the_tasks(slurm: SlurmBackend, client: Any, packs: list[Pack]) -> None:
    """Closing the generator is a stop of the user."""
    events: Any = launched(slurm, client, packs)
    events.close()
    assert client.cancelled == [("1", index) for index in range(4)]
    assert slurm.stopped == "the tasks have saved and ended."


def test_tasks_of_others_are_not_cancelled(slurm: SlurmBackend, client: Any, packs: list[Pack]) -> None:
    """Members of a group may share a folder: their tasks are watched, and stay."""
    submission(client, slurm.store).submit(packs[:2], {})
    for key in client.queue:
        client.queue[key] = TaskStatus(*key[:1], "1", key[1], "RUNNING", "n1", os.getuid() + 1, "")
    events: Any = slurm.launch(slurm.plan(packs))
    while len(client.submitted) < 2:
        next(events)
    next(events)
    events.close()
    assert client.cancelled == [("2", 0), ("2", 1)]


def test_other_signals_leave_the_tasks(slurm: SlurmBackend, client: Any, packs: list[Pack]) -> None:
    """The line of the stopped sweep names them."""
    assert isinstance(slurm, RemoteBackend)
    events: Any = launched(slurm, client, packs)
    slurm.leave_running()
    events.close()
    assert client.cancelled == []
    assert slurm.stopped == "4 tasks left to Slurm (job 1)."


def test_an_outage_leaves_the_tasks(
    slurm: SlurmBackend, client: Any, packs: list[Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After half an hour the sweep ends with one line, which names the tasks."""
    monkeypatch.setattr(retry, "MAX_OUTAGE_SECONDS", 0.0)
    events = launched(slurm, client, packs)
    client.listing_error = Unreachable("squeue failed: Unable to contact slurm controller")
    with pytest.raises(UserError, match=r"Unable to contact.* 4 tasks left to Slurm \(job 1\): run the same"):
        list(itertools.islice(events, 400))
    assert client.cancelled == []


def test_leases_that_protect_nothing_cancel_the_tasks(
    slurm: SlurmBackend, client: Any, packs: list[Pack]
) -> None:
    """Two processes could train the same trial otherwise."""
    events = launched(slurm, client, packs)
    names = {name for name, _ in client.queue}
    (array,) = slurm.arrays.find(names)
    log = EventLogWriter(array.events_path(0))
    log.append("begun", left=3)

    def watch_on() -> None:
        for _ in itertools.islice(events, 400):
            log.append("loop", **LOOP, held=True)

    with pytest.raises(LocksNotSharedError):
        watch_on()
    assert len(client.cancelled) == 4


def test_arrays_before_a_refused_one_are_named(slurm: SlurmBackend, client: Any, packs: list[Pack]) -> None:
    """They are in the queue already; the same command watches them and submits the rest."""
    client.size, client.refusals = 1, [None, None, LIMIT]
    with pytest.raises(
        UserError, match=r"QOS policy.* Wait\. 2 tasks left to Slurm \(job 1, 2\): run the same"
    ):
        list(slurm.launch(slurm.plan(packs)))
    assert client.cancelled == []
    assert len(list((slurm.store.models / ".slurm").glob("psa-*"))) == 2
    events = slurm.launch(slurm.plan(packs))
    while len(client.submitted) < 4:
        next(events)


def test_a_lock_that_another_sweep_holds_keeps_nobody_from_starting(
    slurm: SlurmBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old logs are removed by the next sweep."""
    monkeypatch.setattr("cloud.slurm.array_job._LOCK_SECONDS", 0.0)
    with slurm.arrays.lock():
        slurm.fetch()


# Slurm's commands.


@pytest.mark.parametrize(
    "answer",
    [
        "slurm_load_jobs error: Protocol authentication error",
        "error: Munge encode failed: no socket",
        "who knows",
    ],
)
def test_whatever_squeue_says_is_an_outage(answer: str, commands: Callable[[str, str], None]) -> None:
    """It is asked for the queue with fixed arguments: there is nothing to refuse."""
    commands("squeue", f"echo '{answer}' >&2; exit 1")
    with pytest.raises(Unreachable):
        SlurmClient().list_tasks(PREFIX)


@pytest.mark.parametrize(
    "answer",
    [
        "Protocol authentication error",
        "Munge encode failed",
        "Slurm temporarily unable to accept job, sleeping",
    ],
)
def test_a_submission_during_an_outage_is_no_refusal(
    answer: str, commands: Callable[[str, str], None]
) -> None:
    """It is tried again."""
    commands("sbatch", f"echo 'sbatch: error: {answer}' >&2; exit 1")
    with pytest.raises(Unreachable):
        SlurmClient().submit([], Path("x"))


def test_a_host_without_processes_is_an_outage(
    monkeypatch: pytest.MonkeyPatch, commands: Callable[[str, str], None]
) -> None:
    """Login nodes limit what a user may start."""

    def refuse(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    there = SlurmClient()
    monkeypatch.setattr(subprocess, "run", refuse)
    with pytest.raises(Unreachable, match="squeue cannot be run: Resource temporarily unavailable"):
        there.list_tasks(PREFIX)


def test_each_command_must_be_there_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, commands: Callable[[str, str], None]
) -> None:
    """A command that is missing later is an outage."""
    (tmp_path / "bin/scancel").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UserError, match="Slurm's command scancel must be on PATH"):
        SlurmClient()


# Reads of event files.


def test_reads_are_bounded_and_take_turns(client: Any, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two pauses no more than the bound, none of a pending task, and each running one in its turn."""
    pack = Pack(trials=(trial("1*4"),), horizon=3)
    view, tasks = watched(client, store, [pack.model_copy() for _ in range(3 * watch.READS_PER_POLL)])
    reads: list[WatchedTask] = []
    monkeypatch.setattr(WatchedTask, "read", lambda task: reads.append(task) or [])
    events = view.events()
    while next(events).kind != "ready":
        pass
    for task in tasks[: watch.READS_PER_POLL]:
        task.state = "PENDING"
    monkeypatch.setattr(watch, "FIRST_QUEUE_SECONDS", 3600.0)
    monkeypatch.setattr(watch, "LAST_QUEUE_SECONDS", 3600.0)
    reads.clear()
    counts = []
    for event in itertools.islice(events, 4):
        assert event.kind == "tick"
        counts.append(len(reads))
    assert max(after - before for before, after in itertools.pairwise(counts)) <= watch.READS_PER_POLL
    assert set(reads) == set(tasks[watch.READS_PER_POLL :])


# Devices.


@pytest.mark.parametrize(
    ("asked", "gpus", "device"),
    [
        (None, None, "cpu"),
        (None, "1", "cuda"),
        (None, "a100:1", "cuda"),
        ("cpu", "1", "cpu"),
        ("cuda", None, "cuda"),
    ],
)
def test_the_device_is_fixed_at_the_submission(
    asked: Any,
    gpus: str | None,
    device: str,
    store: Store,
    packs: list[Pack],
    commands: Callable[[str, str], None],
) -> None:
    """A task takes no GPU that it was not given, and does not train on the CPU in place of a broken one."""
    there = SlurmBackend(
        store, Machine(device=asked), CostModel(store.models / "x"), BackendOptions(gpus_per_task=gpus)
    )
    assert there._submission().arrays.create(PREFIX, packs, there.machine).machine.device == device


@pytest.mark.parametrize("gpus", ["2", "a100:4", "10"])
def test_a_task_has_one_gpu(gpus: str) -> None:
    """It runs one worker, and further GPUs would be idle."""
    with pytest.raises(UserError, match=f"--gpus-per-task must be 1 or TYPE:1, .* got {gpus}"):
        check_options(BackendOptions(gpus_per_task=gpus))


# A folder of several users.


def test_arrays_of_others_are_not_removed(
    store: Store, packs: list[Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Slurm that hides the jobs of others lists none of them."""
    folder = ArrayJobFolder(store)
    made = {folder.create(PREFIX, packs, Machine()).name for _ in range(ENDED_KEPT + 3)}
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    folder.remove_ended(set())
    assert {path.name for path in folder.path.iterdir()} == made


def test_the_queue_is_that_of_all_users(tmp_path: Path, commands: Callable[[str, str], None]) -> None:
    """The names of the jobs tell which folder they belong to."""
    commands("squeue", f'echo "$@" > {tmp_path}/asked; echo "{PREFIX}a|7|0|RUNNING|n1|4321|None"')
    found = SlurmClient().list_tasks(PREFIX)
    assert found[f"{PREFIX}a", 0].user == 4321
    assert "--user" not in (tmp_path / "asked").read_text()
    assert "--me" not in (tmp_path / "asked").read_text()


# Attempts.


def test_preemptions_are_no_fault_of_the_time_limit(
    store: Store, packs: list[Pack], monkeypatch: pytest.MonkeyPatch, commands: Callable[[str, str], None]
) -> None:
    """However often: a longer --time would not help."""
    commands("scontrol", 'echo "JobState=COMPLETING NodeList=n1"')
    monkeypatch.setattr(array_task, "LocalBackend", stopped_by(signal.SIGTERM))
    array = ArrayJobFolder(store).create(PREFIX, packs, Machine())
    assert [train_task(array.folder, 0, "7_0") for _ in range(5)] == [75] * 5
    assert [event["event"] for event in EventLogReader(array.events_path(0)).read()] == ["stopped"] * 5
    assert store.failure(packs[0].trials[0]) is None


@pytest.mark.parametrize(("saved", "submissions"), [(1, 10), (0, 3)])
def test_deaths_count_between_two_checkpoints(
    saved: int, submissions: int, client: Any, store: Store, packs: list[Pack]
) -> None:
    """A pack that is killed at every time limit ends, if each of its runs has saved something."""
    view, (task,) = watched(client, store, packs[:1])
    left, kinds = 10, []
    for event in view.events():
        kinds.append(event.kind)
        if client.queue.pop(task.key, None):
            log = log_of(task)
            log.append("begun", left=left)
            log.append("loop", **LOOP, held=True)
            left -= saved
            if not left:
                log.append("done", **DONE)
    assert len(client.submitted) == submissions
    assert kinds[-1] == ("done" if saved else "failed") or kinds[-2] == ("done" if saved else "failed")


def test_long_event_logs_are_read_to_their_end(
    store: Store, packs: list[Pack], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An event per second fills the block that is read at once within a day."""
    monkeypatch.setattr(event_log, "_LONGEST_READ", 64)
    array = ArrayJobFolder(store).create(PREFIX, packs, Machine())
    log = EventLogWriter(array.events_path(0))
    log.append("begun", left=9)
    for _ in range(3):
        log.append("stopped", error="x", trained=0, signal="SIGUSR2")
        log.append("begun", left=9)
    for number in range(20):
        log.append("loop", **{**LOOP, "loop": number})
    events = EventLogReader(log.path).read_last_attempt()
    assert [(event["event"], event.get("loop"), event.get("trained")) for event in events] == [
        ("begun", None, None),
        ("loop", 19, 40),
    ]
    assert array_task._idle_runs(array, 0) == 0
