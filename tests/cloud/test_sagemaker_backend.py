"""The SageMaker backend against an account in memory: what it submits, watches, counts and says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from helpers import trial

pytest.importorskip("boto3", reason="the extra aws is not installed")
pytest.importorskip("dotenv", reason="the extra aws is not installed")

from botocore.exceptions import ClientError, EndpointConnectionError
from buckets import bucket

from cloud.aws import settings
from cloud.aws.account import Account
from cloud.sagemaker.backend import SageMakerBackend
from cloud.sagemaker.container import entry
from cloud.sagemaker.jobs import controller as watching
from cloud.sagemaker.jobs.managed_job import ManagedJob, upload_inputs
from cloud.workspace import add_job_queue
from psa.core.errors import UserError
from psa.core.files import write_atomically
from psa.execution.backend import BackendOptions, RemoteBackend
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.execution.worker.run import run_pack
from psa.specs.trial import Pack
from psa.storage.store import Store

A, B, C = (trial("1*4", seed=seed, batch_size=500) for seed in range(3))
PLACE = {
    "S3_BUCKET_NAME": "a-bucket",
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
}
ROLE = {"AWS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/psa"}


class FakeSageMaker:
    """SageMaker's side: jobs by name, as they would be described. run: what becomes of a job, asked at each
    listing for all that are in progress.
    """

    def __init__(self) -> None:
        self.jobs: dict[str, dict[str, Any]] = {}
        self.created: list[str] = []
        self.stopped: list[str] = []
        self.run: Callable[[dict[str, Any]], None] = lambda job: job.update(TrainingJobStatus="Failed")

    def there(self, name: str, status: str = "InProgress", billed: int = 0) -> None:
        """A job of an earlier time."""
        self.jobs[name] = {
            "TrainingJobName": name,
            "TrainingJobStatus": status,
            "ResourceConfig": {"InstanceType": "ml.c5.xlarge"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "BillableTimeInSeconds": billed,
        }

    def create_training_job(self, **request: Any) -> None:
        """A new one."""
        self.created.append(request["TrainingJobName"])
        self.there(self.created[-1])

    def describe_training_job(self, *, TrainingJobName: str) -> dict[str, Any]:
        """All of it."""
        if TrainingJobName not in self.jobs:
            raise ClientError({"Error": {"Code": "ValidationException"}}, "DescribeTrainingJob")
        return self.jobs[TrainingJobName]

    def stop_training_job(self, *, TrainingJobName: str) -> None:
        """Ask it to stop."""
        self.stopped.append(TrainingJobName)

    def get_paginator(self, _operation: str) -> FakeSageMaker:
        """Of list_training_jobs."""
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        """All, and then time goes on."""
        yield {"TrainingJobSummaries": [dict(job) for job in self.jobs.values()]}
        for job in self.jobs.values():
            if job["TrainingJobStatus"] == "InProgress":
                self.run(job)


class FakeBatch:
    """A queue of AWS Batch, with every operation that psa uses; no job of it starts by itself."""

    def __init__(self, sagemaker: FakeSageMaker) -> None:
        self.sagemaker = sagemaker
        self.submitted: dict[str, dict[str, Any]] = {}  # by queue and name
        self.terminated: list[str] = []

    def submit_service_job(self, *, jobQueue: str, jobName: str, **request: Any) -> None:
        """Put a job into the queue."""
        self.submitted[jobName] = {"jobId": jobName, "jobQueue": jobQueue, "status": "RUNNABLE", **request}

    def start(self, name: str, training_job: str, **facts: Any) -> None:
        """Start a training job for a job of the queue."""
        job = self.submitted[name]
        arn = {"serviceResourceId": {"value": f"arn:aws:sagemaker:x:1:training-job/{training_job}"}}
        job.update(status="RUNNING", latestAttempt=arn, attempts=[*job.get("attempts", []), arn])
        self.sagemaker.there(training_job, **facts)

    def describe_service_job(self, *, jobId: str) -> dict[str, Any]:
        """All of it."""
        return self.submitted[jobId]

    def terminate_service_job(self, *, jobId: str, **_: Any) -> None:
        """Stop it."""
        self.terminated.append(jobId)

    def get_paginator(self, _operation: str) -> FakeBatch:
        """Return the paginator of list_service_jobs, the only operation that has one here."""
        return self

    def paginate(self, *, jobQueue: str, filters: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Those of the queue whose names begin so."""
        start = filters[0]["values"][0].rstrip("*")
        if jobQueue == "removed":
            error = {"Code": "ClientException", "Message": "JobQueue removed does not exist"}
            raise ClientError({"Error": error}, "ListServiceJobs")
        jobs = (
            {"jobName": name, **job}
            for name, job in self.submitted.items()
            if job["jobQueue"] == jobQueue and name.startswith(start)
        )
        yield {"jobSummaryList": list(jobs)}


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of its own, whose settings are those of the place alone; hardly any waiting."""
    monkeypatch.chdir(tmp_path)
    for name in {*ROLE, *settings.DEFAULTS, "AWS_ACCOUNT_ID", "AWS_PROFILE", "AWS_SESSION_TOKEN"}:
        monkeypatch.delenv(name, raising=False)
    for name, value in PLACE.items():
        monkeypatch.setenv(name, value)
    for name, seconds in {
        "MIN_POLL_SECONDS": 0.01,
        "MAX_POLL_SECONDS": 0.01,
        "WAIT_TICK_SECONDS": 0.0,
    }.items():
        monkeypatch.setattr(watching, name, seconds)


@pytest.fixture
def with_role(monkeypatch: pytest.MonkeyPatch, data_dir: Path) -> Path:
    """Who submits has one; the data folder."""
    for name, value in ROLE.items():
        monkeypatch.setenv(name, value)
    return data_dir


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, bytes]:
    """What a container leaves that trained all three, by name."""
    folder = tmp_path_factory.mktemp("container")
    here = Store(folder / "models", folder / "results")
    run_pack(Pack(trials=(A, B, C), horizon=1), here, Machine(data_dir, "cpu"))
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".trials.lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def backend(tmp_path: Path, data_dir: Path = Path("nowhere"), **where: Any) -> SageMakerBackend:
    """The backend of a folder, with its own account and bucket in memory."""
    store = Store(tmp_path / "models", tmp_path / "results")
    made = SageMakerBackend(
        store, Machine(data_dir), CostModel(tmp_path / "costs.json"), BackendOptions(**where)
    )
    sagemaker = FakeSageMaker()
    clients = {"s3": bucket().client, "sagemaker": sagemaker, "batch": FakeBatch(sagemaker)}
    made.account = Account("us-east-1", "a-bucket", "psa-experiment", clients.__getitem__)
    return made


def line(there: SageMakerBackend, *trials: Any, horizon: int = 1) -> ManagedJob:
    """A line that the bucket knows."""
    made = ManagedJob(there.workspace, {"p0000": Pack(trials=trials, horizon=horizon)})
    for _ in upload_inputs(made, there.bucket, there.store):
        pass
    return made


def leave(there: SageMakerBackend, where: ManagedJob, files: dict[str, bytes], *trials: Any) -> None:
    """The checkpoints of these trials, in a line of the bucket."""
    for name, content in files.items():
        if any(each.id in name for each in trials):
            there.bucket.write(f"{where.folder}/checkpoints/{name}", content)


def swept(there: SageMakerBackend, *trials: Any, horizon: int = 1) -> list[WorkerEvent]:
    """What a launch of these trials says, to its end."""
    packs = [Pack(trials=(each,), horizon=horizon) for each in trials]
    return [event for event in there.launch(there.plan(packs)) if event.kind != "tick"]


def test_fetch_and_status_need_no_role_no_prices_and_no_code(
    tmp_path: Path, trained: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is complete comes home and is removed, but not while a job is at work on it."""
    there = backend(tmp_path, prices=tmp_path / "none.toml")
    monkeypatch.setattr("cloud.sagemaker.planner.build_archive", lambda: pytest.fail("the code was packed"))
    done, live, half = line(there, A), line(there, B), line(there, A, C, horizon=2)
    account = there.account.client("sagemaker")
    account.run = lambda job: None
    account.there(live.job_name(1))
    leave(there, done, trained, A)
    leave(there, live, trained, B)
    leave(there, half, trained, C)
    there.fetch()
    assert there.store.progress([A, B, C], 1).pending == []
    names = "\n".join(there.bucket.tree("lines"))
    assert [f"{each.name}/checkpoints" in names for each in (done, live, half)] == [False, True, True]
    assert [said.partition(":")[0] for said in there.status()] == [half.job_name(1)]
    with pytest.raises(UserError, match="AWS_SAGEMAKER_ROLE must be set"):
        swept(there, C, horizon=2)


def at_work(tmp_path: Path, with_role: Path) -> tuple[SageMakerBackend, Any, ManagedJob]:
    """A backend, its account, and the job there that trains A, B and C."""
    there = backend(tmp_path, with_role)
    account = there.account.client("sagemaker")
    whole = line(there, A, B, C)
    account.there(whole.job_name(1))
    return there, account, whole


def test_a_job_that_trains_more_than_is_asked_for_is_watched_before_anything_is_submitted(
    tmp_path: Path, trained: dict[str, bytes], with_role: Path
) -> None:
    """`--only` while a detached job runs: no second job trains B; what comes home of C does so as well."""
    there, account, whole = at_work(tmp_path, with_role)

    def run(job: dict[str, Any]) -> None:
        assert not account.created
        leave(there, whole, trained, B, C)
        job["TrainingJobStatus"] = "Completed"

    account.run = run
    events = swept(there, B)
    assert account.created == []
    assert [event.facts["trained"] for event in events if event.kind == "done"] == [1]
    assert there.store.progress([A, B, C], 1).pending == [A]
    said = [event.facts["message"] for event in events if event.kind == "message"]
    assert len(said) == 1
    assert said[0].startswith("1 job running with more trials than requested")


def test_what_such_a_job_did_not_train_is_lined_up_anew(
    tmp_path: Path, trained: dict[str, bytes], with_role: Path
) -> None:
    """In a line of just what is asked for, once the job has ended; the same for another horizon."""
    there, account, whole = at_work(tmp_path, with_role)

    def run(job: dict[str, Any]) -> None:
        job["TrainingJobStatus"] = "Stopped"
        if account.created:
            leave(there, ManagedJob(whole.workspace, {"p0000": Pack(trials=(B,), horizon=1)}), trained, B)

    account.run = run
    swept(there, B)
    assert account.created == [
        ManagedJob(whole.workspace, {"p0000": Pack(trials=(B,), horizon=1)}).job_name(1)
    ]
    assert there.store.progress([B], 1).pending == []


def test_a_line_without_a_job_gives_what_it_has_and_is_passed_over(
    tmp_path: Path, trained: dict[str, bytes], with_role: Path
) -> None:
    """Its progress is not lost, and its unwanted trials are not paid for."""
    there = backend(tmp_path, with_role)
    account = there.account.client("sagemaker")
    whole = line(there, A, B, C)
    account.there(whole.job_name(1), "Stopped")
    leave(there, whole, trained, A)
    rest = ManagedJob(whole.workspace, {"p0000": Pack(trials=(B,), horizon=1)})

    def run(job: dict[str, Any]) -> None:
        leave(there, rest, trained, B)
        job["TrainingJobStatus"] = "Completed"

    account.run = run
    swept(there, A, B)
    assert account.created == [rest.job_name(1)]
    assert there.store.progress([A, B, C], 1).pending == [C]


def test_the_second_of_two_jobs_upon_one_trial_is_asked_to_stop(
    tmp_path: Path, trained: dict[str, bytes], with_role: Path
) -> None:
    """Both are watched to their end."""
    there = backend(tmp_path, with_role)
    account = there.account.client("sagemaker")
    lines = [line(there, A, B), line(there, B, C)]
    for each in lines:
        account.there(each.job_name(2))

    def run(job: dict[str, Any]) -> None:
        for each in lines:
            leave(there, each, trained, *each.trials)
        job["TrainingJobStatus"] = "Completed"

    account.run = run
    steps = there.launch(there.plan([Pack(trials=(each,), horizon=1) for each in (A, B, C)]))
    account.run = lambda job: None
    trained_trials = 0
    for event in steps:
        if event.kind == "ready":
            account.run = run
        trained_trials += event.facts.get("trained", 0) if event.kind == "done" else 0
    assert trained_trials == 3
    assert account.stopped == [max(lines, key=lambda each: each.name).job_name(2)]
    assert account.created == []
    assert there.store.progress([A, B, C], 1).pending == []


def test_a_known_line_gets_the_data_as_well_and_a_stop_during_the_upload_is_heard(
    tmp_path: Path, with_role: Path
) -> None:
    """Nothing has been submitted then; afterwards all that the job needs is there."""
    there = backend(tmp_path, with_role)
    line(there, A)
    steps = there.launch(there.plan([Pack(trials=(A,), horizon=1)]))
    while not list(there.bucket.tree("data")):
        next(steps)
    steps.close()
    assert len(list(there.bucket.tree("data"))) == 1
    assert there.account.client("sagemaker").created == []
    assert there.stopped == "No job was running."
    swept(there, A)
    assert len(list(there.bucket.tree("data"))) == 4


def test_a_running_job_gets_no_inputs_again(
    tmp_path: Path, trained: dict[str, bytes], with_role: Path
) -> None:
    """It has read them; data and code that the bucket holds are not sent again, either."""
    there = backend(tmp_path, with_role, detach=True)
    there.account.client("sagemaker").run = lambda job: None
    write_atomically(there.store.state_file(A).path, trained[f"models/{A.id}/lkg.safetensors"])
    swept(there, A, horizon=2)
    sent = there.account.client("s3").sent
    assert sum(A.id in key for key in sent) == 1
    sent.clear()
    swept(again(there, detach=True), A, horizon=2)
    assert sent == []


def test_jobs_that_are_asked_to_stop_are_not_said_to_be_saved(tmp_path: Path, with_role: Path) -> None:
    """They take a while."""
    there = backend(tmp_path, with_role)
    there.account.client("sagemaker").run = lambda job: None
    steps = there.launch(there.plan([Pack(trials=(A,), horizon=1)]))
    while not there.account.client("sagemaker").created:
        next(steps)
    next(steps)
    steps.close()
    assert there.account.client("sagemaker").stopped == there.account.client("sagemaker").created
    assert there.stopped == "1 job stopping after a save, which may take two minutes."


def running(there: SageMakerBackend) -> tuple[Any, Any]:
    """Launch a job that does not end. Return the fake account and the generator of events."""
    account = there.account.client("sagemaker")
    account.run = lambda job: None
    steps = there.launch(there.plan([Pack(trials=(A,), horizon=1)]))
    while not account.created:
        next(steps)
    next(steps)
    return account, steps


def test_jobs_are_left_running_after_any_signal_but_ctrl_c(tmp_path: Path, with_role: Path) -> None:
    """No job is asked to stop, and the line of the stopped sweep names them."""
    there = backend(tmp_path, with_role)
    assert isinstance(there, RemoteBackend)
    account, steps = running(there)
    there.leave_running()
    steps.close()
    assert account.stopped == []
    assert there.stopped == "1 job left running, which may cause further costs."


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ClientError({"Error": {"Code": "ValidationException"}}, "Stop"), "No job was running."),
        (
            EndpointConnectionError(endpoint_url="https://nowhere"),
            "1 job could not be stopped and may cause further costs: {job}. Stop them with",
        ),
    ],
)
def test_a_job_that_was_not_reached_is_named(
    error: Exception, line: str, tmp_path: Path, with_role: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not counted among those that stop; nor is one that has ended by itself."""
    there = backend(tmp_path, with_role)
    account, steps = running(there)

    def refuse(TrainingJobName: str) -> None:
        raise error

    monkeypatch.setattr(account, "stop_training_job", refuse)
    steps.close()
    assert there.stopped.startswith(line.format(job=account.created[0]))


def test_earlier_jobs_of_a_study_count_towards_its_limit(tmp_path: Path, with_role: Path) -> None:
    """With what they were billed; those at work with the most that they may be."""
    there = backend(tmp_path, with_role, max_cost=1.0)
    account = there.account.client("sagemaker")
    past, mine = line(there, B), line(there, A)
    account.there(past.job_name(1), "Completed", billed=3 * 3600)
    account.there(mine.job_name(1), "Failed", billed=2 * 3600)
    with pytest.raises(UserError, match=r"--max-cost 1: .* beside the \$1\.02 that are spent"):
        swept(there, A)
    assert account.created == []
    there = backend(tmp_path / "again", with_role, max_cost=1.0)
    account = there.account.client("sagemaker")
    account.run = lambda job: None
    account.there(line(there, A).job_name(1))
    steps = there.launch(there.plan([Pack(trials=(A,), horizon=1)]))
    while not there.planner.budget.reserved:
        next(steps)
    assert there.planner.budget.reserved == {line(there, A).job_name(1): pytest.approx(0.204)}
    steps.close()


def again(there: SageMakerBackend, **where: Any) -> SageMakerBackend:
    """The backend of a later command in the same folder and account."""
    made = SageMakerBackend(there.store, there.machine, there.costs, BackendOptions(**where))
    made.account = there.account
    return made


def queued(tmp_path: Path, with_role: Path) -> tuple[SageMakerBackend, FakeBatch, str]:
    """A sweep of A left in a queue: its backend, the queue, and the name of its job."""
    there = backend(tmp_path, with_role, job_queue="mine", detach=True)
    there.account.client("sagemaker").run = lambda job: None
    swept(there, A)
    batch = there.account.client("batch")
    (name,) = batch.submitted
    return there, batch, name


def test_status_and_fetch_know_the_queue_of_an_earlier_sweep(tmp_path: Path, with_role: Path) -> None:
    """They have no option for it."""
    there, _, name = queued(tmp_path, with_role)
    assert [said.split("; ")[0] for said in again(there).status()] == [f"{name}: InProgress, Pending"]
    assert again(there)._live() == {name.split("-")[2]}


@pytest.mark.parametrize("options", [{}, {"job_queue": "another"}, {"job_queue": "mine"}])
def test_a_job_in_a_queue_is_not_submitted_again(
    options: dict[str, Any], tmp_path: Path, with_role: Path
) -> None:
    """With the option left out or changed, the sweep watches the job that is there."""
    there, batch, name = queued(tmp_path, with_role)
    swept(again(there, detach=True, **options), A)
    assert (list(batch.submitted), there.account.client("sagemaker").created) == ([name], [])
    assert batch.submitted[name]["jobQueue"] == "mine"


def test_a_job_without_a_queue_is_not_put_into_one(tmp_path: Path, with_role: Path) -> None:
    """`--job-queue` added while the job runs."""
    there = backend(tmp_path, with_role, detach=True)
    account = there.account.client("sagemaker")
    account.run = lambda job: None
    swept(there, A)
    swept(again(there, detach=True, job_queue="mine"), A)
    assert len(account.created) == 1
    assert there.account.client("batch").submitted == {}


@pytest.mark.parametrize("pattern", ["{}-8f00", "AWSBatch{}" + "0a" * 16])
def test_a_training_job_of_an_unknown_queue_is_found_by_its_name(
    pattern: str, tmp_path: Path, with_role: Path
) -> None:
    """If the folder does not know the queue, no second job is submitted, and the job can be stopped."""
    there = backend(tmp_path, with_role, detach=True)
    account = there.account.client("sagemaker")
    account.run = lambda job: None
    name = line(there, A).job_name(1)
    account.there(pattern.format(name))
    swept(there, A)
    assert account.created == []
    assert there.describe_job(name)["TrainingJobName"] == name
    assert there.training_jobs.stop(name)
    assert account.stopped == [pattern.format(name)]


def test_a_running_job_of_a_queue_that_cannot_be_attributed_stops_the_sweep(
    tmp_path: Path, with_role: Path
) -> None:
    """AWS cuts the name to 63 characters: the error names the job and asks for the queue."""
    there = backend(tmp_path, with_role, detach=True)
    account = there.account.client("sagemaker")
    account.run = lambda job: None
    cut = f"AWSBatch{line(there, A).job_name(1)[:23]}{'0a' * 16}"
    account.there(cut)
    with pytest.raises(UserError, match=rf"{cut}.*SAGEMAKER_JOB_QUEUE"):
        swept(there, A)
    assert account.created == []
    account.jobs[cut]["TrainingJobStatus"] = "Stopped"
    swept(there, A)
    assert len(account.created) == 1


def test_a_queue_that_was_deleted_holds_no_jobs(
    tmp_path: Path, with_role: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """AWS deletes a queue only without its jobs."""
    there = backend(tmp_path, with_role, detach=True)
    add_job_queue(there.store.models, "removed")
    there.account.client("sagemaker").run = lambda job: None
    swept(there, A)
    assert len(there.account.client("sagemaker").created) == 1
    assert caplog.text.count("JobQueue removed does not exist") == 1


def test_a_limit_counts_every_training_job_of_a_queue(tmp_path: Path, with_role: Path) -> None:
    """Those that it has started are billed; one that it may start again counts as often as it may."""
    there, batch, name = queued(tmp_path, with_role)
    assert batch.submitted[name]["retryStrategy"] == {"attempts": 3}
    first, second = (f"AWSBatch{name[:23]}{digit * 32}" for digit in "12")
    batch.start(name, first, status="Failed", billed=3600)
    batch.start(name, second)
    limited = again(there, detach=True, max_cost=9.0)
    swept(limited, A)
    # an hour billed, and two jobs of at most an hour: the running one, and the last that may follow it
    assert limited.planner.budget.reserved == {name: pytest.approx(3 * 0.204)}
    batch.submitted[name]["status"] = "FAILED"
    there.account.client("sagemaker").there(second, "Failed", billed=1800)
    assert limited.describe_job(name)["BillableTimeInSeconds"] == 5400


def test_with_a_limit_a_queue_makes_one_attempt(tmp_path: Path, with_role: Path) -> None:
    """Each attempt has the full time; the sweep itself submits the next one, within the limit."""
    there = backend(tmp_path, with_role, job_queue="mine", detach=True, max_cost=9.0)
    swept(there, A)
    (job,) = there.account.client("batch").submitted.values()
    assert job["retryStrategy"] == {"attempts": 1}


def test_what_failed_in_a_container_is_told_with_its_job(tmp_path: Path) -> None:
    """So that nobody takes it for the failure of a later one."""
    pack = Pack(trials=(A,), horizon=1)
    said = entry._ProgressWriter(tmp_path, {id(pack): "p0000"}, "psa-a-job")
    said.handle_event(WorkerEvent("failed", pack, {"error": "it blew up"}))
    said.write()
    told = json.loads((tmp_path / entry.FAILURES_FILE).read_text())
    assert told == {"job": "psa-a-job", "trials": {A.id: "it blew up"}}


@pytest.mark.parametrize("is_full", [False, True])
def test_an_artifact_holds_records_and_then_states(
    is_full: bool, tmp_path: Path, trained: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As much as a reader takes into its memory."""
    store = Store(tmp_path / "models", tmp_path / "results")
    for name, content in trained.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    records = sum(len(content) for name, content in trained.items() if name.startswith("results"))
    if is_full:
        monkeypatch.setattr(entry, "MAX_ARTIFACT_BYTES", records)
    entry._fill_artifact(store, tmp_path / "model")
    kept = {path.relative_to(tmp_path / "model").parts[0] for path in (tmp_path / "model").rglob("*.*")}
    assert kept == ({"results"} if is_full else {"results", "models"})
