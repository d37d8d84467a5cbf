"""Jobs through a queue of AWS Batch: submitted all at once, started by the queue, with the same records."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from processes import tree, until
from rehearsals import PATIENT, staged

pytest.importorskip("moto", reason="the extra rehearse is not installed")

from cloud.aws.job_queue import JobQueue
from cloud.aws.settings.job_settings import JobSettings, check_place_in_queue
from cloud.aws.training_jobs import TrainingJobs, UnknownJob
from cloud.emulator.s3_server import loopback_client
from cloud.emulator.services.batch_queue import FAIR_QUEUE, QUEUE
from psa.core.errors import UserError


def queue_of(aws: Any, name: str = QUEUE) -> JobQueue:
    """A queue of the emulator."""
    return JobQueue(loopback_client("batch", aws.stage.endpoint), name, TrainingJobs(aws.jobs))


def test_a_queue_starts_jobs_as_the_quota_allows(tmp_path: Path) -> None:
    """All are taken at once; names are unique; a job is described, stopped and listed like any other."""
    with staged(tmp_path, quota=1) as aws:
        queue = queue_of(aws)
        for name in ("psa-a-01", "psa-b-01"):
            assert queue.submit(aws.request(name, PATIENT)).kind == "submitted"
        assert queue.submit(aws.request("psa-a-01", PATIENT)).kind == "exists"
        until(lambda: queue.list_jobs("psa-a")["psa-a-01"].secondary == "Training")
        jobs = queue.list_jobs("psa-")
        assert {name: job.secondary for name, job in jobs.items()} == {
            "psa-a-01": "Training",
            "psa-b-01": "Pending",
        }
        described = queue.describe("psa-a-01")
        assert (described["TrainingJobName"], described["TrainingJobStatus"]) == ("psa-a-01", "InProgress")
        assert described["ResourceConfig"]["InstanceType"] == "ml.g4dn.xlarge"
        assert queue.describe("psa-b-01")["SecondaryStatus"] == "Pending"
        assert queue.stop("psa-b-01")
        assert queue.list_jobs("psa-b")["psa-b-01"].ended
        assert not queue.stop("psa-b-01")
        assert queue.stop("psa-a-01")
        until(lambda: queue.list_jobs("psa-a")["psa-a-01"].ended)
        with pytest.raises(UnknownJob):
            queue.describe("psa-c-01")


def test_the_highest_rank_starts_first(tmp_path: Path) -> None:
    """While the quota is taken, jobs wait in the order of their ranks, not of their submission."""
    with staged(tmp_path, quota=1) as aws:
        client = loopback_client("batch", aws.stage.endpoint)
        first, low, high = (
            JobQueue(client, QUEUE, TrainingJobs(aws.jobs), priority=rank) for rank in (None, 0, 9)
        )
        first.submit(aws.request("psa-a-01", PATIENT))
        until(lambda: first.list_jobs("psa-a")["psa-a-01"].secondary == "Training")
        low.submit(aws.request("psa-b-01", PATIENT))
        high.submit(aws.request("psa-c-01", PATIENT))
        # the place is free only once both wait for it, however slow this machine is
        assert first.stop("psa-a-01")
        until(lambda: first.list_jobs("psa-c")["psa-c-01"].secondary == "Training")
        assert first.list_jobs("psa-b")["psa-b-01"].secondary == "Pending"
        assert first.stop("psa-c-01")
        until(lambda: first.list_jobs("psa-b")["psa-b-01"].secondary == "Training")


def test_a_queue_with_a_fair_share_policy(tmp_path: Path) -> None:
    """The share that runs less is next, however many jobs of another wait; each job must name its share."""
    with staged(tmp_path, quota=2) as aws:
        client = loopback_client("batch", aws.stage.endpoint)
        many, few = (
            JobQueue(client, FAIR_QUEUE, TrainingJobs(aws.jobs), share=share) for share in ("vision", "text")
        )
        for name in ("psa-a-01", "psa-b-01", "psa-c-01"):
            many.submit(aws.request(name, PATIENT))
        few.submit(aws.request("psa-d-01", PATIENT))
        until(lambda: sum(job.secondary == "Training" for job in many.list_jobs("psa-").values()) == 2)
        assert many.stop("psa-a-01")
        until(lambda: many.list_jobs("psa-d")["psa-d-01"].secondary == "Training")
        assert many.list_jobs("psa-c")["psa-c-01"].secondary == "Pending"
        with pytest.raises(UserError, match="shareIdentifier must be specified"):
            queue_of(aws, FAIR_QUEUE).submit(aws.request("psa-e-01", "true"))
        with pytest.raises(UserError, match="shareIdentifier cannot be specified"):
            JobQueue(client, QUEUE, TrainingJobs(aws.jobs), share="text").submit(
                aws.request("psa-e-01", "true")
            )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"job_queue": "q", "job_priority": 10_000}, "the job priority must be 0 to 9,999, got 10,000"),
        ({"job_priority": 0}, "a job priority or share needs a job queue"),
        ({"job_share": "vision"}, "a job priority or share needs a job queue"),
    ],
)
def test_ranks_and_shares_belong_to_a_queue(options: dict[str, Any], message: str) -> None:
    """Without one they would change nothing."""
    with pytest.raises(UserError, match=message):
        check_place_in_queue(JobSettings().overridden(options))
    assert JobSettings().overridden({"job_queue": "q", "job_priority": 0}).job_priority == 0


def test_a_failed_job_is_tried_again_by_the_queue(tmp_path: Path) -> None:
    """Three times, then it has failed with the reason of the last one."""
    with staged(tmp_path) as aws:
        queue = queue_of(aws)
        queue.submit(aws.request("psa-a-01", "exit 3"))
        until(lambda: queue.list_jobs("psa-a")["psa-a-01"].ended)
        assert "exit code: 3" in queue.describe("psa-a-01")["FailureReason"]
        names = [each["TrainingJobName"] for each in aws.jobs.list_training_jobs()["TrainingJobSummaries"]]
        assert len(names) == 3
        assert all(name.startswith("AWSBatchpsa-a-01") for name in names)


def test_a_queue_that_does_not_exist(tmp_path: Path) -> None:
    """One line with AWS's reason."""
    with staged(tmp_path) as aws, pytest.raises(UserError, match="JobQueue nothing does not exist"):
        queue_of(aws, "nothing").submit(aws.request("psa-a-01", "true"))


@pytest.mark.slow
def test_a_sweep_hands_all_jobs_to_the_queue_and_leaves(
    tmp_path: Path, data_dir: Path, trained: Callable[[int], dict[str, bytes]]
) -> None:
    """With a quota of one, `--detach` submits both; `status` and `fetch` work as without a queue.

    A second sweep without the option submits nothing.

    Records and states are those of training in this process, byte by byte.
    """
    places = ["--model-dir", str(tmp_path / "models"), "--results-dir", str(tmp_path / "results")]
    grid = [str(ROOT / "reproduction/smoke.toml"), "meta_loops=1", *places]
    with staged(tmp_path / "stage", quota=1) as aws:
        environment = aws.stage.inherited(os.environ)

        def run(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "psa", *words], env=environment, cwd=tmp_path, capture_output=True,
                text=True, check=False, timeout=600,
            )  # fmt: skip
            assert done.returncode in ((0, 3) if words[0] == "status" else (0,)), done.stderr
            return done.stdout

        cloud = ["--backend", "sagemaker"]
        sweep = ["sweep", *grid, *cloud, "--jobs", "2", "--detach", "--data-dir", str(data_dir)]
        assert "2 jobs left running." in run(*sweep, "--job-queue", QUEUE)
        assert "InProgress" in run("status", *grid, *cloud)
        run(*sweep)
        assert aws.stage.wait(600)
        assert len(aws.jobs.list_training_jobs()["TrainingJobSummaries"]) == 2
        run("fetch", *grid)
        assert tree(tmp_path) == trained(1)
        assert "24 of 24 trials done" in run("sweep", *grid, "--dry-run")
