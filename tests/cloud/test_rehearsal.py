"""SageMaker on this machine, through real boto3: what AWS does with a job, a bad request and a bad day."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from processes import PATIENCE_SECONDS, children, until
from rehearsals import IMAGE, PATIENT, Aws, staged

pytest.importorskip("moto", reason="the extra rehearse is not installed")
from botocore.config import Config
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.session import Session

from cloud.emulator import Emulator, Faults, command, rehearsal
from cloud.emulator import emulator as stage_module
from cloud.emulator import s3_server as s3
from cloud.emulator.containers.container import Container, Namespaces
from cloud.emulator.control_plane import Throttle
from cloud.emulator.job_runner import JobRunner, Site
from cloud.emulator.jobs import EmulatedJob, JobTable
from cloud.emulator.log_store import LogStore
from cloud.emulator.s3_server import ACCESS_KEY, SECRET_KEY, loopback_client, s3_server
from psa.core.errors import UserError
from psa.core.file_locks import locked

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("unshare"), reason="needs Linux's namespaces"
)
DEAF = "echo ready; while :; do sleep 0.05; done"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """One rehearsal for all tests that need no faults."""
    with staged(tmp_path_factory.mktemp("stage")) as made:
        yield made


def refused(action: Callable[[], Any]) -> tuple[str, str]:
    """Code and message of the error that AWS answers; always HTTP 400."""
    with pytest.raises(ClientError) as caught:
        action()
    response = caught.value.response
    assert response["ResponseMetadata"]["HTTPStatusCode"] == 400
    return response["Error"]["Code"], response["Error"]["Message"]


def statuses(job: dict[str, Any]) -> list[str]:
    """Its secondary statuses, in their order."""
    return [each["Status"] for each in job["SecondaryStatusTransitions"]]


@pytest.mark.slow
def test_a_job_from_its_data_to_its_model(aws: Aws) -> None:
    """Channel, hyperparameters and environment come in; logs, checkpoint, output and model go out."""
    aws.put("data/a/one.txt", b"one\n")
    aws.put("data/two.txt", b"two\n")
    aws.put("database.txt", b"not of this prefix' folder")
    channel = {
        "ChannelName": "train",
        "DataSource": {
            "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"s3://{aws.bucket}/data/"},
        },
    }
    script = (
        "cd /opt/ml; cat input/data/train/a/one.txt input/data/train/two.txt; "
        "cat input/config/hyperparameters.json; echo; echo $TRAINING_JOB_NAME $AWS_REGION $PSA_WORD $$ "
        "$(cat /proc/sys/kernel/hostname) >&2; "
        "echo $(cd input/data/train && find . -type f | sort); "
        "echo state > checkpoints/last; echo model > model/weights; echo log > output/data/x"
    )
    job = aws.run(
        "whole", script, InputDataConfig=[channel], HyperParameters={"a": "1"}, Environment={"PSA_WORD": "hi"}
    )
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Completed", "Completed")
    assert statuses(job) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all(each["StartTime"] <= each["EndTime"] for each in job["SecondaryStatusTransitions"])
    said = aws.printed("whole")
    assert said == ["one", "two", '{"a": "1"}', "whole us-east-1 hi 1 algo-1", "./a/one.txt ./two.txt"]
    assert aws.get("checkpoints/whole/last") == b"state\n"
    assert job["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{aws.bucket}/out/whole/output/model.tar.gz"
    assert unpacked(aws.get("out/whole/output/model.tar.gz")) == {"weights": b"model\n"}
    assert unpacked(aws.get("out/whole/output/output.tar.gz")) == {"x": b"log\n"}
    assert job["TrainingTimeInSeconds"] == job["BillableTimeInSeconds"] >= 1
    assert job["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert job["TrainingStartTime"] <= job["TrainingEndTime"]
    assert job["HyperParameters"] == {"a": "1"}


def unpacked(content: bytes) -> dict[str, bytes]:
    """The files of a tar.gz."""
    with tarfile.open(fileobj=BytesIO(content)) as archive:
        files = {each.name: archive.extractfile(each) for each in archive if each.isfile()}
        return {name: file.read() for name, file in files.items() if file}


def test_one_object_comes_as_a_file_of_its_name(aws: Aws) -> None:
    """A channel may name an object in place of a prefix, and a prefix may lack its slash."""
    aws.put("single/pack.json", b"{}")
    source = {"S3DataType": "S3Prefix", "S3Uri": f"s3://{aws.bucket}/single/pack.json"}
    bare = source | {"S3Uri": f"s3://{aws.bucket}/single"}
    channels = [
        {"ChannelName": name, "DataSource": {"S3DataSource": each}}
        for name, each in (("file", source), ("bare", bare))
    ]
    aws.run("single", "ls /opt/ml/input/data/file /opt/ml/input/data/bare", InputDataConfig=channels)
    assert [line for line in aws.printed("single") if line.endswith(".json")] == ["pack.json", "pack.json"]


def test_nothing_of_the_outside_leaks_into_a_container(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither variables nor keys nor this machine's processes, nor its psa."""
    monkeypatch.setenv("PSA_SECRET_OF_MINE", "x")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    find = "import importlib.util as u; print([n for n in ('torch', 'psa', 'cloud') if u.find_spec(n)])"
    aws.run(
        "clean",
        f'env; command -v python; ls -d /proc/[0-9]* | wc -l; ls /opt/ml; python -P -c "{find}"',
    )
    said = aws.printed("clean")
    assert not [line for line in said if line.startswith(("PSA_", "AWS_SECRET", "AWS_ACCESS", "PYTHONPATH"))]
    assert str(Path(sys.executable).with_name("python")) not in said
    assert "['torch']" in said
    assert int(next(line for line in said if line.strip().isdigit())) < 10
    assert not Path("/opt/ml/checkpoints").exists()


@pytest.mark.parametrize(
    ("name", "script", "reason"),
    [
        ("fails", "exit 3", "AlgorithmError: , exit code: 3"),
        ("says-why", "echo lost > /opt/ml/output/failure; exit 1", "AlgorithmError: lost, exit code: 1"),
        ("killed", "kill -SEGV $BASHPID; bash -c 'kill -9 $$'; exit $?", "AlgorithmError: , exit code: 137"),
        ("talks", "head -c 5000 /dev/zero | tr '\\0' x > /opt/ml/output/failure; exit 1", "exit code: 1"),
    ],
)  # fmt: skip
def test_a_job_that_fails_says_why(aws: Aws, name: str, script: str, reason: str) -> None:
    """Exit code and what the script left in /opt/ml/output/failure, at most 1,024 characters; no model."""
    job = aws.run(name, script)
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Failed", "Failed")
    assert job["FailureReason"].startswith("AlgorithmError: ")
    assert job["FailureReason"].endswith(reason)
    assert len(job["FailureReason"]) <= 1024
    assert "ModelArtifacts" not in job
    assert aws.keys(f"out/{name}/") == []


def test_checkpoints_go_up_while_the_job_runs(aws: Aws) -> None:
    """New, changed and deleted files; the next job of the same prefix starts with them."""
    script = (
        "cd /opt/ml/checkpoints; mkdir a; echo 1 > a/x; echo t > gone; "
        "wait_for() { while [ ! -e /tmp/$TRAINING_JOB_NAME-$1 ]; do sleep 0.05; done; }; "
        "wait_for change; echo 22 > a/x; rm gone; wait_for end"
    )
    aws.create("follows", script)
    prefix = "checkpoints/follows/"
    until(lambda: aws.keys(prefix) == ["a/x", "gone"])
    assert aws.describe("follows")["SecondaryStatus"] == "Training"
    touch("follows-change")
    until(lambda: aws.keys(prefix) == ["a/x"] and aws.get(f"{prefix}a/x") == b"22\n")
    touch("follows-end")
    assert aws.ended("follows")["TrainingJobStatus"] == "Completed"
    aws.put("checkpoints/follows-10/of-another", b"x")
    aws.put("checkpoints/follows/", b"")  # as a console marks a folder
    config = {"S3Uri": f"s3://{aws.bucket}/checkpoints/follows", "LocalPath": "/opt/ml/kept"}
    aws.run("resumes", "cd /opt/ml/kept; ls; cat a/x; echo 3 > b", CheckpointConfig=config)
    assert aws.printed("resumes") == ["a", "22"]
    assert [key for key in aws.keys(prefix) if key] == ["a/x", "b"]


def test_what_a_job_writes_at_once_goes_up(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the machine is slow to look at the folder for the first time."""

    class Quick(Container):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            time.sleep(1)

    monkeypatch.setattr("cloud.emulator.job_runner.Container", Quick)
    aws.run("early", "echo 1 > /opt/ml/checkpoints/x")
    assert aws.keys("checkpoints/early/") == ["x"]


def touch(name: str) -> None:
    """A file that jobs see as well, in the folder that they share with the machine."""
    Path("/tmp", name).touch()  # noqa: S108 -- removed by the fixture below


@pytest.fixture(autouse=True)
def no_marks() -> Iterator[None]:
    """What `touch` has left is removed."""
    yield
    for name in ("follows-change", "follows-end"):
        Path("/tmp", name).unlink(missing_ok=True)  # noqa: S108


def test_a_stopped_job_may_save(aws: Aws) -> None:
    """SIGTERM reaches PID 1, what it saves comes home; a second stop is refused, as it is on AWS."""
    aws.create("stopped", PATIENT)
    aws.ready("stopped")
    aws.jobs.stop_training_job(TrainingJobName="stopped")
    assert aws.describe("stopped")["TrainingJobStatus"] in ("Stopping", "Stopped")
    job = aws.ended("stopped")
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert statuses(job)[-3:] == ["Stopping", "Uploading", "Stopped"]
    assert aws.get("checkpoints/stopped/last") == b"saved\n"
    assert "ModelArtifacts" in job
    code, message = refused(lambda: aws.jobs.stop_training_job(TrainingJobName="stopped"))
    assert (code, "in status Stopped" in message) == ("ValidationException", True)


def test_a_job_that_does_not_listen_is_killed_after_the_grace(tmp_path: Path) -> None:
    """PID 1 ignores a SIGTERM that it has no handler for; after the grace nothing of it is left."""
    with staged(tmp_path, grace=1.0) as aws:
        aws.create("deaf", DEAF)
        aws.ready("deaf")
        began = time.monotonic()
        aws.jobs.stop_training_job(TrainingJobName="deaf")
        assert aws.ended("deaf")["TrainingJobStatus"] == "Stopped"  # by itself it never ends
        assert time.monotonic() - began > 0.9


def test_the_longest_time_is_an_end_like_a_stop(aws: Aws) -> None:
    """MaxRuntimeInSeconds: SIGTERM, time to save, Stopped with its own secondary status."""
    job = aws.run("long", PATIENT, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert aws.get("checkpoints/long/last") == b"saved\n"


def test_a_bad_request_is_refused_as_on_aws(aws: Aws) -> None:
    """By AWS's own model first; all faults in one answer."""
    request = aws.request("bad", "true", Environment={"a-b": "x" * 513})
    request["ResourceConfig"]["InstanceType"] = "ml.g4dn.xlage"
    code, message = refused(lambda: aws.jobs.create_training_job(**request))
    assert code == "ValidationException"
    assert message.startswith("3 validation errors detected: ")
    assert "did you mean ml.g4dn.xlarge?" in message
    assert refused(lambda: aws.describe("bad")) == ("ValidationException", "Requested resource not found.")


CHANNEL = {"S3DataType": "S3Prefix", "S3Uri": "s3://psa-rehearsal/nothing/here"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"RoleArn": "arn:aws:iam::123456789012:role/nobody"}, "Could not assume role"),
        ({"RoleArn": "arn:aws:iam::999999999999:role/psa-rehearsal"}, "Could not assume role"),
        ({"RoleArn": "arn:aws:iam::123456789012:user/me"}, "RoleArn: "),
        ({"OutputDataConfig": {"S3OutputPath": "s3://not-there/x"}}, "bucket of OutputDataConfig does not"),
        ({"CheckpointConfig": {"S3Uri": "s3://not-there/x"}}, "bucket of CheckpointConfig does not"),
        (
            {"InputDataConfig": [{"ChannelName": "a", "DataSource": {"S3DataSource": CHANNEL}}]},
            "No S3 objects found under S3 URL",
        ),
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds: missing"),
        ({"AlgorithmSpecification": {"TrainingImage": IMAGE, "TrainingInputMode": "File"}}, "has no images"),
        ({"CheckpointConfig": {"S3Uri": "s3://psa-rehearsal/x", "LocalPath": "/var/x"}}, "LocalPath"),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}},
            "one instance",
        ),
    ],
)  # fmt: skip
def test_what_aws_finds_out_beyond_the_request(aws: Aws, changes: dict[str, Any], said: str) -> None:
    """A role that is none, buckets and data that are not there; and what a rehearsal cannot do, it says."""
    code, message = refused(lambda: aws.create("refused", "true", **changes))
    assert code == "ValidationException"
    assert said in message


def test_a_name_is_used_once(aws: Aws) -> None:
    """Also after the job has ended: that is what makes submission idempotent."""
    aws.run("once", "true")
    code, message = refused(lambda: aws.create("once", "true"))
    assert code == "ResourceInUse"
    assert "arn:aws:sagemaker:us-east-1:123456789012:training-job/once" in message


def test_other_keys_and_other_operations_are_refused(aws: Aws) -> None:
    """A client that was led here without the rehearsal's key, and what there is no stand-in for."""
    code, _ = refused(aws.jobs.list_models)
    assert code == "UnknownOperationException"
    with stranger(aws.stage, "another") as other:
        assert refused(other.list_training_jobs)[0] == "UnrecognizedClientException"


@contextlib.contextmanager
def stranger(stage: Emulator, key: str) -> Iterator[Any]:
    """A client of SageMaker with a key of its own, which tries nothing twice."""
    with contextlib.closing(
        Session().create_client(
            "sagemaker",
            "us-east-1",
            endpoint_url=stage.endpoint,
            aws_access_key_id=key,
            aws_secret_access_key=SECRET_KEY,
            config=Config(retries={"total_max_attempts": 1}, proxies={}),
        )
    ) as made:
        yield made


@pytest.mark.slow
def test_a_list_is_filtered_then_sorted_then_cut(tmp_path: Path) -> None:
    """Every filter of the API, both orders, and pages that hold as many as were asked for."""
    with staged(tmp_path) as aws:
        aws.create("run-a", "exit 1")
        aws.ended("run-a")
        middle = aws.describe("run-a")["LastModifiedTime"].timestamp() + 0.02
        time.sleep(0.05)
        for name in ("other", "run-c", "run-b"):
            aws.create(name, "true")
        for name in ("other", "run-c", "run-b"):
            aws.ended(name)

        def names(**filters: Any) -> list[str]:
            pages = aws.jobs.get_paginator("list_training_jobs").paginate(**filters)
            return [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]

        assert names() == ["run-a", "other", "run-c", "run-b"]
        assert names(SortOrder="Descending") == ["run-b", "run-c", "other", "run-a"]
        assert names(SortBy="Name") == ["other", "run-a", "run-b", "run-c"]
        assert names(SortBy="Status", SortOrder="Descending")[0] == "run-a"
        assert names(NameContains="run-", SortBy="Name") == ["run-a", "run-b", "run-c"]
        assert names(StatusEquals="Failed") == names(CreationTimeBefore=middle) == ["run-a"]
        assert names(LastModifiedTimeBefore=middle) == ["run-a"]
        assert len(names(CreationTimeAfter=middle)) == len(names(LastModifiedTimeAfter=middle)) == 3
        assert names(WarmPoolStatusEquals="Available") == []
        first = aws.jobs.list_training_jobs(NameContains="run-", SortBy="Name", MaxResults=2)
        assert [job["TrainingJobName"] for job in first["TrainingJobSummaries"]] == ["run-a", "run-b"]
        rest = aws.jobs.list_training_jobs(
            NameContains="run-", SortBy="Name", MaxResults=2, NextToken=first["NextToken"]
        )
        assert [job["TrainingJobName"] for job in rest["TrainingJobSummaries"]] == ["run-c"]
        assert "NextToken" not in rest
        for order in ("Ascending", "Descending"):
            paged = names(SortOrder=order, PaginationConfig={"PageSize": 1})
            assert paged == names(SortOrder=order)
        assert refused(lambda: aws.jobs.list_training_jobs(NextToken="x"))[0] == "ValidationException"
        assert refused(lambda: aws.jobs.list_training_jobs(MaxResults=101))[0] == "ValidationException"
        summary = first["TrainingJobSummaries"][0]
        assert {"TrainingJobArn", "CreationTime", "TrainingEndTime", "SecondaryStatus"} <= set(summary)


@pytest.mark.slow
def test_spot_capacity_is_taken_back_and_comes_again(tmp_path: Path) -> None:
    """Interrupted, then all over again on a new disk, with the checkpoints; billed less than used."""
    script = (
        "cd /opt/ml; cat checkpoints/n; ls model; touch model/x; "
        "echo $(( $(cat checkpoints/n || echo 0) + 1 )) > checkpoints/n; "
        "[ $(cat checkpoints/n) = 3 ] && exit 0; trap 'exit 0' TERM; while :; do sleep 0.05; done"
    )
    with staged(tmp_path, interrupt_every=2.0, interruptions=2, grace=1.0) as aws:
        aws.jobs.create_training_job(**aws.spot("spot", script))
        aws.create("on-demand", "sleep 2.5")
        # the longest wait counts from the start, with all interruptions
        aws.jobs.create_training_job(**aws.spot("waits", DEAF, MaxRuntimeInSeconds=3, MaxWaitTimeInSeconds=3))
        job = aws.ended("spot")
        once = ["Starting", "Downloading", "Training"]
        assert statuses(job) == [*once, "Interrupted", *once, "Interrupted", *once, "Uploading", "Completed"]
        assert aws.get("checkpoints/spot/n") == b"3\n"
        assert [line for line in aws.printed("spot") if line in "12x"] == ["1", "2"]
        assert job["BillableTimeInSeconds"] < job["TrainingTimeInSeconds"]
        assert "Interrupted" not in statuses(aws.ended("on-demand"))
        job = aws.ended("waits")
        assert (job["TrainingJobStatus"], job["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
        assert "Interrupted" in statuses(job)


@pytest.mark.slow
def test_a_quota_frees_as_jobs_end(tmp_path: Path) -> None:
    """ResourceLimitExceeded for one too many of a type; other types and spot have quotas of their own."""
    with staged(tmp_path, quota=1, no_capacity=frozenset({"ml.p4d.24xlarge"})) as aws:
        aws.create("first", PATIENT)
        code, message = refused(lambda: aws.create("second", "true"))
        assert code == "ResourceLimitExceeded"
        assert message.startswith(
            "The account-level service limit 'ml.g4dn.xlarge for training job usage' is 1"
        )
        other = {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1}
        aws.create("third", "true", ResourceConfig=other)
        aws.jobs.create_training_job(**aws.spot("fourth", "true"))
        aws.ready("first")
        aws.jobs.stop_training_job(TrainingJobName="first")
        aws.ended("first")
        aws.create("second", "true")
        assert aws.ended("second")["TrainingJobStatus"] == "Completed"
        # a type that is never to be had
        job = aws.run("nowhere", "true", ResourceConfig=other | {"InstanceType": "ml.p4d.24xlarge"})
        assert job["TrainingJobStatus"] == "Failed"
        assert job["FailureReason"].startswith(
            "CapacityError: Unable to provision requested ML compute capacity"
        )


@pytest.mark.slow
def test_too_many_requests_are_throttled(tmp_path: Path) -> None:
    """With the code that botocore's retries know: a patient client gets all its answers.

    A tenth of a second passes with each request, however fast this machine is.
    """
    ticks = itertools.count()
    with staged(tmp_path, throttle=5.0) as aws, stranger(aws.stage, ACCESS_KEY) as hasty:
        assert aws.stage.plane._throttle._rate == 5.0
        aws.stage.plane._throttle = Throttle(5.0, lambda: next(ticks) / 10)
        for _ in range(9):  # five at once, and half of one more with each
            hasty.list_training_jobs()
        assert refused(hasty.list_training_jobs)[0] == "ThrottlingException"
        assert [aws.jobs.list_training_jobs()["TrainingJobSummaries"] for _ in range(3)] == [[]] * 3
        assert next(ticks) > 14  # some of them were asked twice


def test_a_throttle_lets_its_rate_pass() -> None:
    """A second's worth at once, then one by one as time goes on."""
    now = 0.0
    throttle = Throttle(2.0, lambda: now)
    assert [throttle.allows() for _ in range(3)] == [True, True, False]
    now = 0.5
    assert [throttle.allows() for _ in range(2)] == [True, False]
    now = 60.0
    assert [throttle.allows() for _ in range(3)] == [True, True, False]


@pytest.mark.slow
def test_a_second_rehearsal_of_a_folder_knows_the_first(tmp_path: Path) -> None:
    """Objects, jobs and logs stay; what still ran when it ended was stopped, and had time to save."""
    with staged(tmp_path) as aws:
        aws.run("done", "echo hello")
        aws.create("running", PATIENT)
        aws.ready("running")
        with pytest.raises(UserError, match="another rehearsal is going on in"), staged(tmp_path):
            pass
    with staged(tmp_path) as aws:
        assert aws.describe("done")["TrainingJobStatus"] == "Completed"
        assert aws.describe("running")["TrainingJobStatus"] == "Stopped"
        assert aws.get("checkpoints/running/last") == b"saved\n"
        assert aws.printed("done") == ["hello"]
        assert refused(lambda: aws.create("done", "true"))[0] == "ResourceInUse"
    assert [path.name for path in (tmp_path / "jobs/running").iterdir() if path.is_dir()] == []


def test_a_job_that_was_cut_short_has_failed(tmp_path: Path) -> None:
    """After a rehearsal that was killed, none of its jobs seems to run for ever, nor draws upon a quota."""
    request = {"TrainingJobName": "cut", "ResourceConfig": {"InstanceType": "ml.m5.large"}}
    assert JobTable(tmp_path).add(request, 1) is not None
    assert JobTable(tmp_path).add(request | {"TrainingJobName": "next"}, 1) is not None
    job = JobTable(tmp_path).get("cut")
    assert job is not None
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("InternalServerError")


def test_sts_iam_and_the_environment_agree(aws: Aws) -> None:
    """Account and role are the same wherever a client asks."""
    environment = aws.stage.environment
    with contextlib.closing(loopback_client("sts", aws.stage.endpoint)) as sts:
        assert sts.get_caller_identity()["Account"] == environment["AWS_ACCOUNT_ID"]
    with contextlib.closing(loopback_client("iam", aws.stage.endpoint)) as iam:
        assert iam.get_role(RoleName="psa-rehearsal")["Role"]["Arn"] == environment["AWS_SAGEMAKER_ROLE"]


def test_what_leads_elsewhere_is_taken_away(aws: Aws) -> None:
    """Profiles, tokens, certificates and endpoints of the user's do not reach the command."""
    elsewhere = {
        "AWS_PROFILE": "work",
        "AWS_SESSION_TOKEN": "x",
        "AWS_CA_BUNDLE": "/x.pem",
        "AWS_ENDPOINT_URL_SAGEMAKER": "http://elsewhere",
        "PATH": "/bin",
        "NO_PROXY": "example.com",
    }
    inherited = aws.stage.inherited(elsewhere)
    assert inherited["PATH"] == "/bin"
    assert inherited["NO_PROXY"] == "example.com,127.0.0.1,localhost"
    assert {name for name in inherited if name.startswith("AWS_")} == {
        name for name in aws.stage.environment if name.startswith("AWS_")
    }


def test_a_container_can_be_made_without_being_root(tmp_path: Path) -> None:
    """By way of a user namespace, with the same semantics of PID 1."""
    said: list[str] = []
    (tmp_path / "ml").mkdir()
    probe = Container(tmp_path, ["true"], {}, said.append, ["--user", "--map-root-user"])
    if probe.wait(PATIENCE_SECONDS) != 0:
        pytest.skip("this machine lets nobody make user namespaces")
    script = "trap 'exit 7' TERM; echo $$ > /opt/ml/pid; echo ready; while :; do sleep 0.05; done"
    container = Container(tmp_path, ["bash", "-c", script], {}, said.append, ["--user", "--map-root-user"])
    until(lambda: "ready" in said)
    container.terminate()
    assert container.wait(PATIENCE_SECONDS) == 7
    assert (tmp_path / "ml/pid").read_text() == "1\n"


@pytest.mark.slow
def test_the_s3_server_leaves_nothing_in_the_systems_temporary_folder(tmp_path: Path) -> None:
    """Neither the sockets that it makes there by its ports, nor a log by its process."""
    shared = Path("/tmp")  # noqa: S108
    with s3_server(tmp_path) as server:
        pids = children(os.getpid())
        assert list(shared.glob(f"seaweedfs-*-{server.port}.sock"))
    for name in (f"seaweedfs-*-{server.port}.sock", f"seaweedfs-*-{server.port + 10_000}.sock"):
        assert not list(shared.glob(name))
    assert not [path for pid in pids for path in shared.glob(f"weed.*.{pid}")]


def test_a_machine_without_namespaces_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, with what the kernel said, and before anything was started."""
    monkeypatch.setattr(
        "cloud.emulator.containers.container._unshared", lambda *_: ["sh", "-c", "echo denied >&2; exit 1"]
    )
    with pytest.raises(UserError, match=r"needs user namespaces, which this machine refuses.*denied"):
        _ = Namespaces(tmp_path).flags


@pytest.mark.slow
def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the extra that brings it."""
    monkeypatch.setattr("cloud.emulator.s3_server.sys.executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match=r"SeaweedFS is not installed.*rehearse"), rehearsal(tmp_path):
        pass


def psa(*words: str, **options: Any) -> subprocess.Popen[str]:
    """The command, as a process."""
    script = "from psa.cli.app import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def left_of(folder: Path) -> list[str]:
    """The command lines of all processes that name a folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(folder) in line:
                found.append(line)
    return found


SUBMIT = """
import os, sys, time, boto3
def submit(name, script):
    bucket = os.environ["S3_BUCKET_NAME"]
    boto3.client("sagemaker").create_training_job(
        TrainingJobName=name, RoleArn=os.environ["AWS_SAGEMAKER_ROLE"],
        AlgorithmSpecification={"TrainingImage": "x", "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash", "-c"], "ContainerArguments": [script]},
        OutputDataConfig={"S3OutputPath": f"s3://{bucket}/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60})
"""


@pytest.mark.slow
def test_the_command_and_its_options_are_left_alone(tmp_path: Path) -> None:
    """What follows the hyphens is another command's, --help and hyphens too; its exit code is ours."""
    done = psa(
        "rehearse",
        "--dir",
        str(tmp_path),
        "--",
        "sh",
        "-c",
        'echo "$@"; exit 7',
        "x",
        "--help",
        "--",
        "--debug",
    )
    out, err = done.communicate(timeout=PATIENCE_SECONDS)
    assert (out, err, done.returncode) == ("--help -- --debug\n", "", 7)
    assert left_of(tmp_path) == []


@pytest.mark.slow
def test_jobs_that_are_left_behind_are_waited_for(tmp_path: Path) -> None:
    """A detached sweep: one line says so; --no-wait stops them."""
    # the job ends after the command has, however slow this machine is
    flag = tmp_path / "ended"
    submit = f"{SUBMIT}\nsubmit('job', 'until [ -e {flag} ]; do sleep 0.1; done')"
    cases = {"Stopped": ("--no-wait", "--grace", "0.1s"), "Completed": ()}
    running = {
        status: psa("rehearse", "--dir", str(tmp_path / status), *words, "--", sys.executable, "-c", submit)
        for status, words in cases.items()
    }
    for status, process in running.items():
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "the command has ended, 1 job in progress" in line
        if status == "Completed":
            flag.touch()
        _, rest = process.communicate(timeout=PATIENCE_SECONDS)
        assert (process.returncode, rest) == (0, "")
        job = json.loads((tmp_path / status / "jobs/job/job.json").read_text())
        assert job["TrainingJobStatus"] == status


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda each: each.name
)
def test_nothing_outlives_a_rehearsal(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and even SIGKILL: no server, no container, no command is left."""
    mark = tmp_path / "submitted"
    submit = f"{SUBMIT}\nsubmit('job', 'sleep 1000')\nopen({str(mark)!r}, 'w').close()\ntime.sleep(1000)"
    words = ("rehearse", "--dir", str(tmp_path), "--grace", "0.5s", "--", sys.executable, "-c", submit)
    process = psa(*words, start_new_session=True)
    try:
        until(lambda: mark.exists() and len(left_of(tmp_path)) >= 3)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        process.communicate(timeout=PATIENCE_SECONDS)
        assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
        until(lambda: left_of(tmp_path) == [])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_no_port_is_the_second_one_of_another() -> None:
    """SeaweedFS takes a second port above each of its own, and refuses to start where two of them meet."""
    for _ in range(100):
        ports = s3._free_ports(5)
        assert len({each + offset for each in ports for offset in (0, s3._GRPC)}) == 10


def test_folders_of_killed_rehearsals_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose lock nobody holds; one that goes on or begins, and what only looks like one, stay."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for name in ("killed", "going-on", "beginning", "other"):
        (tmp_path / f"psa-rehearsal-{name}").mkdir()
    for name in ("killed", "going-on", "beginning"):
        (tmp_path / f"psa-rehearsal-{name}/lock").touch()
    for name in ("killed", "going-on"):
        os.utime(tmp_path / f"psa-rehearsal-{name}/lock", (0, 0))
    with locked(tmp_path / "psa-rehearsal-going-on/lock"), command._folder(None) as folder:
        names = {path.name for path in tmp_path.iterdir()} - {folder.name}
    assert names == {"psa-rehearsal-going-on", "psa-rehearsal-beginning", "psa-rehearsal-other"}


def test_a_job_whose_s3_has_ended_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A batch system may send a signal to every process, SeaweedFS included. The job has failed."""

    class Gone:
        """Stands for the client of an S3 server that has ended."""

        def get_paginator(self, _operation: str) -> Any:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1/x", error="refused")

    source = {"S3DataSource": {"S3Uri": "s3://bucket/data"}}
    request = {
        "TrainingJobName": "job-1",
        "ResourceConfig": {"InstanceType": "ml.c5.xlarge"},
        "InputDataConfig": [{"ChannelName": "data", "DataSource": source}],
    }
    job = EmulatedJob.created(tmp_path / "job-1", request)
    JobRunner(job, Site(Gone(), [], Path("python"), LogStore(), Faults(), threading.Event())).run()
    assert [(record.exc_info, "\n" in record.getMessage()) for record in caplog.records] == [(None, False)]
    assert "job-1: s3://bucket/data cannot be listed: Could not connect" in caplog.text
    assert job["TrainingJobStatus"] == "Failed"


def test_a_rehearsal_begins_while_another_looks_at_its_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one, which removes what was abandoned, holds a shared lock for a moment."""
    (tmp_path / "lock").touch()
    descriptor = os.open(tmp_path / "lock", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_SH)

    def let_go(_seconds: float) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)

    def reached(_folder: Path) -> None:
        raise FileNotFoundError("the lock is held")

    monkeypatch.setattr("psa.core.file_locks.time.sleep", let_go)
    monkeypatch.setattr(stage_module, "image_python", lambda _: Path("python"))
    monkeypatch.setattr(stage_module, "Namespaces", reached)
    with pytest.raises(FileNotFoundError, match="the lock is held"), rehearsal(tmp_path):
        pass
    os.close(descriptor)
