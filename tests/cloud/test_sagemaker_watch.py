"""The watch over SageMaker's jobs, against a backend that answers as AWS: no job runs, nothing is sent."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="the extra aws is not installed")

from botocore.exceptions import ClientError
from managed_jobs import A, B, C, FakeJobBackend, line

from cloud.aws.errors import Unreachable
from cloud.aws.training_jobs import SubmitResult, TrainingJobs, TrainingJobStatus
from cloud.sagemaker.jobs import controller as watching
from cloud.sagemaker.jobs.controller import JOB_ATTEMPTS, JobController
from cloud.sagemaker.jobs.managed_job import ManagedJob
from cloud.sagemaker.jobs.messages import detach_message
from cloud.sagemaker.jobs.submission import QUOTA_RETRY_SECONDS
from psa.core.errors import UserError
from psa.execution.worker.protocol import WorkerEvent

TRIALS = (A, B)
WANTED = {each.id: 2 for each in TRIALS}
HOME = "0123abcd"
NO_CAPACITY = {"FailureReason": "CapacityError: none", "SecondaryStatus": "Failed"}
NO_QUOTA = "The account-level service limit 'ml.c5.xlarge for training job usage' is 0 Instances, with"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look follows the other at once."""
    for name in ("MIN_POLL_SECONDS", "MAX_POLL_SECONDS", "WAIT_TICK_SECONDS"):
        monkeypatch.setattr(watching, name, 0.0)


def watched(
    backend: FakeJobBackend, lines: list[ManagedJob], most: int = 500, **options: Any
) -> list[WorkerEvent]:
    """What a watch says to its end, which comes."""
    events = []
    for event in JobController(backend, lines, WANTED, **options).events(detach=options.pop("detach", False)):
        events.append(event)
        assert len(events) < most, "it does not end"
    return events


def failures(events: list[WorkerEvent]) -> dict[str, str]:
    """Of all packs."""
    return {trial: why for event in events for trial, why in event.facts.get("failed", {}).items()}


@pytest.mark.parametrize("choices", [1, 2])
def test_types_without_capacity_are_gone_through_twice_and_then_count(choices: int, tmp_path: Path) -> None:
    """Once each, once more on demand, and then as often as any other attempt without progress."""
    backend = FakeJobBackend(tmp_path, said=NO_CAPACITY)
    failed = failures(watched(backend, [line()], choices=choices))
    assert [choice for _, choice in backend.asked] == list(range(2 * choices + JOB_ATTEMPTS - 1))
    assert set(failed) == set(WANTED)
    assert "CapacityError" in failed[TRIALS[0].id]


def test_spot_capacity_that_never_came_is_none(tmp_path: Path) -> None:
    """A job that waited for too long before it began tries the next type; one that had begun does not."""
    waited = {"SecondaryStatus": "MaxWaitTimeExceeded"}
    backend = FakeJobBackend(tmp_path, said=waited, status="Stopped")
    watched(backend, [line()], choices=2)
    assert [choice for _, choice in backend.asked] == [0, 1, 2, 3, 4, 5]
    backend = FakeJobBackend(tmp_path, said=waited | {"TrainingStartTime": "today"}, status="Stopped")
    watched(backend, [line()], choices=2)
    assert [choice for _, choice in backend.asked] == [0, 0, 0]


def test_a_spot_job_without_capacity_for_six_hours_is_stopped(tmp_path: Path) -> None:
    """AWS itself would wait for the training time as well. It counts as lack of capacity."""
    now = datetime.now(UTC)
    waited = {
        "EnableManagedSpotTraining": True,
        "SecondaryStatus": "Starting",
        "CreationTime": now - timedelta(hours=7),
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": now - timedelta(hours=7)}],
    }
    backend = FakeJobBackend(tmp_path, said=waited, status="InProgress", secondary="Starting")
    events = watched(backend, [line()], choices=1)
    assert backend.stopped == [job for job, _ in backend.asked]
    assert [choice for _, choice in backend.asked] == [0, 1, 2, 3]
    assert "no spot capacity within 6 hours" in next(e.facts["error"] for e in events if e.kind == "died")


@pytest.mark.parametrize(
    "changes",
    [
        {"EnableManagedSpotTraining": False},
        {"SecondaryStatus": "Training"},
        {"SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": datetime.now(UTC)}]},
    ],
)
def test_other_jobs_are_not_stopped(changes: dict[str, Any], tmp_path: Path) -> None:
    """On demand, training, or interrupted a moment ago."""
    since = datetime.now(UTC) - timedelta(hours=7)
    waited = {
        "EnableManagedSpotTraining": True,
        "SecondaryStatus": "Starting",
        "CreationTime": since,
        "SecondaryStatusTransitions": [{"Status": "Starting", "StartTime": since}],
    }
    backend = FakeJobBackend(tmp_path, said=waited | changes, status="InProgress", secondary="Starting")
    watch = JobController(backend, [line()], WANTED)
    for _ in watch.submission.events():
        pass
    for _ in watch._poll(backend.list_jobs()):
        pass
    assert backend.stopped == []


def test_a_throttled_submission_is_asked_again_at_the_next_look(tmp_path: Path) -> None:
    """Also by a sweep that is to leave its jobs alone."""
    backend = FakeJobBackend(tmp_path, [SubmitResult("throttled"), SubmitResult("throttled")])
    watch = JobController(backend, [line()], WANTED)
    for _ in watch.events(detach=True):
        pass
    assert backend.asked == [(line().job_name(1), 0)] * 3
    assert detach_message(watch).startswith("1 job left running. ")


def test_a_submission_that_is_refused_for_too_long_ends_with_its_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of the error: a clock is set, a network is mended."""
    monkeypatch.setattr("cloud.retry.MAX_OUTAGE_SECONDS", -1.0)
    backend = FakeJobBackend(
        tmp_path, [SubmitResult("throttled", "AWS refuses the job", "Set the clock")] * 3
    )
    with pytest.raises(Unreachable) as caught:
        watched(backend, [line()])
    assert (caught.value.message, caught.value.hint) == ("AWS refuses the job", "Set the clock")


def test_a_full_quota_is_said_once_and_asked_again_after_some_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of others may have ended."""
    now = [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now.append(now[-1] + 1.0) or now[-1])
    backend = FakeJobBackend(tmp_path, [SubmitResult("quota", "the quota is 1 Instances")] * 3)
    events = watched(backend, [line()], most=5000)
    said = [event.facts["message"] for event in events if event.kind == "message"]
    assert said == ["1 job to be submitted when the quota allows it: the quota is 1 Instances"]
    assert len(backend.asked) == 3 + JOB_ATTEMPTS
    assert now[-1] > 3 * QUOTA_RETRY_SECONDS


def test_no_quota_at_all_ends_with_one_line(tmp_path: Path) -> None:
    """Nothing frees it; it is said what to do."""
    backend = FakeJobBackend(tmp_path, [SubmitResult("quota", NO_QUOTA)])
    with pytest.raises(UserError, match=r"is 0 Instances.*Request an increase.*INSTANCE_TYPE"):
        watched(backend, [line()])


def test_no_quota_is_waited_with_while_a_job_of_ours_runs(tmp_path: Path) -> None:
    """What runs comes home first."""
    lines = [line(TRIALS[0]), line(TRIALS[1])]
    backend = FakeJobBackend(
        tmp_path,
        [SubmitResult("submitted"), SubmitResult("quota", NO_QUOTA), *[SubmitResult("quota", NO_QUOTA)] * 9],
    )
    with pytest.raises(UserError, match="is 0 Instances"):
        watched(backend, lines)
    assert backend.homes == [lines[0].job_name(1)]


@pytest.mark.parametrize(
    ("answer", "why"), [("quota", "since the quota is reached"), ("budget", "all of --max-cost")]
)
def test_a_detached_sweep_says_why_jobs_are_not_submitted(answer: Any, why: str, tmp_path: Path) -> None:
    """The quota, or the budget."""
    backend = FakeJobBackend(tmp_path, [SubmitResult("submitted"), SubmitResult(answer)])
    watch = JobController(backend, [line(TRIALS[0]), line(TRIALS[1])], WANTED)
    for _ in watch.events(detach=True):
        pass
    assert detach_message(watch).startswith("1 job left running, 1 job not submitted")
    assert why in detach_message(watch)


def test_failures_of_another_job_are_not_this_ones(tmp_path: Path) -> None:
    """A container that never started leaves the file of the attempt before it."""
    backend = FakeJobBackend(tmp_path)
    told = {"job": line().job_name(1), "trials": dict.fromkeys(WANTED, "it blew up")}
    backend.files["failures.json"] = json.dumps(told).encode()
    failed = failures(watched(backend, [line()]))
    log = f"log stream {line().job_name(1)}/algo-1-* in /aws/sagemaker/TrainingJobs"
    assert (len(backend.asked), set(failed.values())) == (1, {f"it blew up ({log})"})
    backend = FakeJobBackend(tmp_path)
    backend.files["failures.json"] = json.dumps({**told, "job": "another"}).encode()
    failed = failures(watched(backend, [line()]))
    assert (len(backend.asked), set(failed.values())) == (
        JOB_ATTEMPTS,
        {f"{line().job_name(JOB_ATTEMPTS)}: Failed"},
    )


@pytest.mark.parametrize(
    ("said", "shown", "is_logged"),
    [
        ("AlgorithmError: line 1\nImportError: no x, exit code: 1", "line 1 ImportError: no x, exit", True),
        (
            f"AlgorithmError: {'File x ' * 200}\nImportError: no x, exit code: 1",
            "ImportError: no x, exit",
            True,
        ),
        ("InternalServerError: We encountered an internal error", "an internal error", False),
    ],
)
def test_a_job_that_fails_says_why_and_where_its_log_is(
    said: str, shown: str, is_logged: bool, tmp_path: Path
) -> None:
    """In one line, to the exception itself; a container that never ran has no log."""
    backend = FakeJobBackend(tmp_path, said={"FailureReason": said})
    events = watched(backend, [line()])
    died = [event.facts["error"] for event in events if event.kind == "died"]
    for job, error in zip((1, 2), died, strict=True):
        assert shown in error
        assert "\n" not in error
        assert len(error) < 800
        logged = f"(log stream {line().job_name(job)}/algo-1-* in /aws/sagemaker/TrainingJobs)"
        assert error.endswith(logged) == is_logged
    assert all(shown in error for error in failures(events).values())


def test_a_record_that_disagrees_fails_its_trial_at_once(tmp_path: Path) -> None:
    """No further job could mend it; the other trial is tried again."""
    backend = FakeJobBackend(tmp_path)
    backend.refused = {TRIALS[0].id: "differs"}
    failed = failures(watched(backend, [line()]))
    assert failed[TRIALS[0].id] == "differs"
    assert failed[TRIALS[1].id].endswith(": Failed")


def test_of_a_line_with_more_than_was_asked_for_only_the_present_job_is_watched(tmp_path: Path) -> None:
    """No other one follows; what it has not trained is failed by nobody."""
    other = line(*TRIALS, C, horizon=9)
    backend = FakeJobBackend(tmp_path)
    backend.jobs[other.job_name(3)] = TrainingJobStatus("InProgress", "Starting")
    watch = JobController(backend, [other], WANTED, last={other.name})
    said: list[WorkerEvent] = []
    for event in watch.events():
        said.append(event)
        backend.jobs[other.job_name(3)] = TrainingJobStatus("Stopped", "Stopped")
    assert (backend.asked, backend.homes, failures(said)) == ([], [other.job_name(3)], {})
    assert [event.facts["trained"] for event in said if event.kind == "done"] == [0]


def test_an_end_that_was_not_brought_home_is_seen_again(tmp_path: Path) -> None:
    """AWS is out of reach at that moment: no second job is made of it."""
    backend = FakeJobBackend(tmp_path)
    backend.trouble = [Unreachable("AWS cannot be reached")]
    backend.refused = dict.fromkeys(WANTED, "differs")
    watched(backend, [line()])
    assert (len(backend.asked), backend.homes) == (1, [line().job_name(1)])


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("ResourceInUse", "exists"),
        ("ResourceLimitExceeded", "quota"),
        ("ThrottlingException", "throttled"),
        ("InternalFailure", "throttled"),
    ],
)
def test_what_aws_answers_a_submission(code: str, kind: str) -> None:
    """And only the word of a quota of none is hopeless."""
    assert submitted(code, "x").kind == kind
    assert submitted(code, NO_QUOTA).zero_quota == (kind == "quota")
    assert not submitted(code, NO_QUOTA.replace("is 0", "is 10")).zero_quota
    with pytest.raises(UserError, match="job a is refused: ValidationException"):
        submitted("ValidationException", "x")


def submitted(code: str, message: str) -> SubmitResult:
    """What becomes of a submission that AWS answers so."""
    return TrainingJobs(Refusing(code, message)).submit({"TrainingJobName": "a"})


class Refusing:
    """A client whose every submission is refused."""

    def __init__(self, code: str, message: str) -> None:
        self.error = ClientError({"Error": {"Code": code, "Message": message}}, "CreateTrainingJob")

    def create_training_job(self, **_: Any) -> None:
        """Refuse it."""
        raise self.error
