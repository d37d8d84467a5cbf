"""Sweeps on a rehearsal of SageMaker: whatever AWS does to jobs and watchers, the same bytes come home."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import tarred
from processes import GRID, LONG, PATIENCE_SECONDS, descendants, psa, sweep, tree, until

from psa.storage.sweep_registry import active_sweeps

pytest.importorskip("moto", reason="the extra rehearse is not installed")

from cloud.aws.bucket import Bucket
from cloud.emulator import rehearsal
from cloud.emulator.faults import Faults

ALWAYS = ("--backend", "sagemaker", f"meta_loops={LONG}")
WORDS = (*ALWAYS, "--pack-size", "6")
TEN = (*ALWAYS, "--pack-size", "2", "--jobs", "10")
DONE = "24 of 24 trials done, 0 failed"


@pytest.fixture(scope="module")
def expected(trained: Callable[[int], dict[str, bytes]]) -> dict[str, bytes]:
    """Return the files of an undisturbed run."""
    return trained(LONG)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for it; exit code and last line."""
    out, err = process.communicate(timeout=2 * PATIENCE_SECONDS)
    return process.returncode, (out.splitlines() or [err])[-1]


def jobs_of(stage: Any) -> list[Any]:
    """What the rehearsal knows of its jobs, as AWS would say it."""
    there = client(stage, "sagemaker")
    jobs = there.list_training_jobs(MaxResults=100)["TrainingJobSummaries"]
    return [there.describe_training_job(TrainingJobName=job["TrainingJobName"]) for job in jobs]


def client(stage: Any, service: str) -> Any:
    """boto3's, of a service of the rehearsal."""
    import boto3

    keys = stage.environment
    return boto3.client(
        service,
        endpoint_url=keys["AWS_ENDPOINT_URL_S3" if service == "s3" else "AWS_ENDPOINT_URL"],
        region_name=keys["AWS_REGION"],
        aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
    )


def interruptions(job: dict[str, Any]) -> int:
    """How often a job has lost its instance."""
    return sum(step["Status"] == "Interrupted" for step in job["SecondaryStatusTransitions"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("times", "loops"),
    [(1, LONG), pytest.param(10, 60, marks=pytest.mark.crash)],
    ids=["one interruption", "ten interruptions"],
)
def test_spot_interruptions_lose_nothing(
    times: int,
    loops: int,
    tmp_path: Path,
    data_dir: Path,
    trained: Callable[[int], dict[str, bytes]],
    started: list[Any],
) -> None:
    """Each job loses its instance so often, and goes on from its checkpoints."""
    faults = Faults(interrupt_every=2.0, interruptions=times, grace=10)
    with rehearsal(tmp_path / "stage", faults) as stage:
        words = ("--backend", "sagemaker", f"meta_loops={loops}", "--pack-size", "6", "--spot")
        started.append(sweep(tmp_path, data_dir, *words, **stage.environment))
        assert ended(started[-1]) == (0, DONE)
        assert [interruptions(job) for job in jobs_of(stage)] == [times]
    assert tree(tmp_path) == trained(loops)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("faults", "words", "settings"),
    [
        pytest.param(Faults(quota=2), TEN, {}, marks=pytest.mark.crash, id="quota"),
        pytest.param(
            Faults(throttle=2), (*WORDS, "--jobs", "4"), {}, marks=pytest.mark.crash, id="throttling"
        ),
        pytest.param(
            Faults(no_capacity=frozenset({"ml.c5.xlarge"})),
            WORDS,
            {"INSTANCE_TYPE": "ml.c5.xlarge,ml.m5.xlarge"},
            id="no capacity",
            marks=pytest.mark.crash,
        ),
    ],
)
def test_what_aws_refuses_is_waited_for_or_gone_around(
    faults: Faults,
    words: tuple[str, ...],
    settings: dict[str, str],
    tmp_path: Path,
    data_dir: Path,
    expected: dict[str, bytes],
    started: list[Any],
) -> None:
    """Two jobs at once for ten, two requests a second, an instance type that is never to be had."""
    with rehearsal(tmp_path / "stage", faults) as stage:
        started.append(sweep(tmp_path, data_dir, *words, **{**stage.environment, **settings}))
        assert ended(started[-1]) == (0, DONE)
        if settings:
            tried = {
                job["ResourceConfig"]["InstanceType"]: job["TrainingJobStatus"] for job in jobs_of(stage)
            }
            assert tried == {"ml.c5.xlarge": "Failed", "ml.m5.xlarge": "Completed"}
    assert tree(tmp_path) == expected


@pytest.mark.slow
def test_a_watcher_is_killed_and_a_second_one_goes_on(
    tmp_path: Path, data_dir: Path, expected: dict[str, bytes], started: list[Any]
) -> None:
    """The jobs do not notice; no second job is made of what is in training."""
    with rehearsal(tmp_path / "stage") as stage:
        first = sweep(tmp_path, data_dir, *WORDS, "--jobs", "2", **stage.environment)
        started.append(first)
        until(lambda: " loop " in "\n".join(map(str, active_sweeps(tmp_path / "models"))), first)
        os.kill(first.pid, signal.SIGKILL)
        started.append(sweep(tmp_path, data_dir, *WORDS, "--jobs", "2", **stage.environment))
        assert ended(started[-1]) == (0, DONE)
        assert len(jobs_of(stage)) == 2
    assert tree(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.crash
def test_the_same_sweep_twice_at_once_trains_once(
    tmp_path: Path, data_dir: Path, expected: dict[str, bytes], started: list[Any]
) -> None:
    """The second one waits for what the first has in hand."""
    with rehearsal(tmp_path / "stage") as stage:
        started += [sweep(tmp_path, data_dir, *WORDS, **stage.environment) for _ in range(2)]
        assert [ended(process) for process in started] == [(0, DONE), (0, DONE)]
        assert len(jobs_of(stage)) == 1
    assert tree(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.crash  # a watcher that is killed and comes back is tested every time
def test_a_detached_sweep_comes_home_later(
    tmp_path: Path, data_dir: Path, expected: dict[str, bytes], started: list[Any]
) -> None:
    """--detach leaves at once; `psa fetch` names what is missing, and brings all home when it is there."""
    with rehearsal(tmp_path / "stage") as stage:
        started.append(sweep(tmp_path, data_dir, *WORDS, "--detach", **stage.environment))
        out, _ = started[-1].communicate(timeout=2 * PATIENCE_SECONDS)
        last = out.splitlines()[-1]
        assert (started[-1].returncode, last.split(".")[0]) == (0, "1 job left running")
        assert "in the hands of others" not in out
        words = ("fetch", str(GRID), f"meta_loops={LONG}")
        early = psa(tmp_path, *words, **stage.environment)
        started.append(early)
        out, _ = early.communicate(timeout=PATIENCE_SECONDS)
        assert early.returncode == 1
        assert "smoke: 0 of 24 trials are here" in out
        assert out.count("missing ") == 20
        asked = psa(tmp_path, "status", *words[1:], "--backend", "sagemaker", **stage.environment)
        started.append(asked)
        assert "InProgress, " in asked.communicate(timeout=PATIENCE_SECONDS)[0]
        assert stage.wait(PATIENCE_SECONDS)
        late = psa(tmp_path, *words, **stage.environment)
        started.append(late)
        assert ended(late) == (0, "smoke: 24 of 24 trials are here")
    assert tree(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.crash
def test_a_part_is_not_trained_twice_while_a_job_trains_all(
    tmp_path: Path, data_dir: Path, expected: dict[str, bytes], started: list[Any]
) -> None:
    """--only after --detach watches the job that is there, whose other trials come home as well."""
    with rehearsal(tmp_path / "stage") as stage:
        started.append(sweep(tmp_path, data_dir, *WORDS, "--detach", **stage.environment))
        assert ended(started[-1])[0] == 0
        started.append(sweep(tmp_path, data_dir, *WORDS, "--only", "arch=1*4", **stage.environment))
        assert ended(started[-1]) == (0, "12 of 12 trials done, 0 failed")
        assert len(jobs_of(stage)) == 1
    assert tree(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.crash
def test_half_a_tree_and_a_hostile_artifact(
    tmp_path: Path, data_dir: Path, expected: dict[str, bytes], started: list[Any]
) -> None:
    """What has not arrived is named; an artifact that would write elsewhere is refused, and trained anew."""
    with rehearsal(tmp_path / "stage") as stage:
        started.append(sweep(tmp_path, data_dir, *WORDS, "--detach", **stage.environment))
        assert ended(started[-1])[0] == 0
        assert stage.wait(PATIENCE_SECONDS)
        bucket = Bucket(client(stage, "s3"), stage.environment["S3_BUCKET_NAME"], "psa-experiment")
        (line,) = bucket.folders("lines")
        for part in ("models", "results"):
            bucket.remove(f"lines/{line}/checkpoints/{part}/smoke/simplemlp-1x4")
        (artifact,) = (name for name in bucket.tree("lines") if name.endswith("model.tar.gz"))
        bucket.write(f"lines/{artifact}", tarred({"../../etc/psa": b"gotcha"}))
        started.append(psa(tmp_path, "fetch", str(GRID), f"meta_loops={LONG}", **stage.environment))
        out, _ = started[-1].communicate(timeout=PATIENCE_SECONDS)
        assert started[-1].returncode == 1
        assert "smoke: 12 of 24 trials are here" in out
        assert (
            sorted(re.findall(r"missing smoke/(simplemlp-1x4|simplemlp-2x3)/", out)) == ["simplemlp-1x4"] * 12
        )
        started.append(sweep(tmp_path, data_dir, *WORDS, **stage.environment))
        out, err = started[-1].communicate(timeout=2 * PATIENCE_SECONDS)
        assert (started[-1].returncode, out.splitlines()[-1]) == (0, DONE)
        assert "../../etc/psa" in err
    assert tree(tmp_path) == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"AWS_SAGEMAKER_ROLE": "nobody/at all"},
        {"AWS_REGION": "us-east-11"},
        {"S3_BUCKET_NAME": "No_Bucket"},
        {"INSTANCE_TYPE": "ml.c5.enormous"},
    ],
    ids=["role", "region", "bucket", "instance"],
)
def test_a_dry_run_finds_mistakes_without_a_network(
    change: dict[str, str], tmp_path: Path, data_dir: Path
) -> None:
    """One line each, exit code 2; and without any it shows each request with its price."""
    good = {
        "AWS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/psa",
        "S3_BUCKET_NAME": "a-bucket",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    }
    process = sweep(tmp_path, data_dir, *WORDS, "--dry-run", **{**good, **change})
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err.count("\n")) == (2, 1), err
    assert next(iter(change)).replace("INSTANCE_TYPE", "InstanceType") in err
    assert "very-secret" not in out + err


@pytest.mark.slow
def test_a_dry_run_needs_no_credentials(tmp_path: Path, data_dir: Path) -> None:
    """Nor a role or a bucket: placeholders stand for them."""
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "AWS_EC2_METADATA_DISABLED": "true"}
    process = sweep(tmp_path, data_dir, *WORDS, "--dry-run", **none)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert "placeholders stand for AWS_SAGEMAKER_ROLE, S3_BUCKET_NAME" in out
    assert "$" in out


def test_a_dry_run_shows_each_request_and_its_price(tmp_path: Path, data_dir: Path) -> None:
    """As AWS would get it, and nothing is sent; a budget that is too small is refused."""
    good = {
        "AWS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/psa",
        "S3_BUCKET_NAME": "a-bucket",
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "very-secret",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
    }
    process = sweep(tmp_path, data_dir, *WORDS, "--dry-run", "--jobs", "3", "--spot", **good)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out.count('"TrainingJobName"') == 3
    assert "as spot" in out
    assert "3 jobs:" in out.splitlines()[-1]
    assert "very-secret" not in out
    process = sweep(tmp_path, data_dir, *WORDS, "--dry-run", "--max-cost", "0.001", **good)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 2
    assert "--max-cost 0.001: the jobs are expected to cost $" in err


@pytest.mark.slow
@pytest.mark.crash  # a rehearsal is begun twice
def test_a_rehearsal_whose_process_group_is_interrupted(
    tmp_path: Path, data_dir: Path, expected: dict[str, bytes], started: list[Any]
) -> None:
    """SIGINT to all of it, as `timeout` or a script sends it: it ends with nothing left running, and the same
    command goes on.
    """
    command = ["psa", "sweep", str(GRID), *WORDS, "--data-dir", str(data_dir.absolute()), "--device", "cpu"]
    words = ("rehearse", "--dir", "stage", "--", *command)
    first = psa(tmp_path, *words)
    started.append(first)
    until(lambda: " loop " in "\n".join(map(str, active_sweeps(tmp_path / "models"))), first)
    processes = descendants(first.pid)
    os.killpg(first.pid, signal.SIGINT)
    out, err = first.communicate(timeout=PATIENCE_SECONDS)
    assert first.returncode == 130, (out, err)
    assert "Traceback" not in err
    until(lambda: not [pid for pid in processes if is_running(pid)])
    again = psa(tmp_path, *words)
    started.append(again)
    assert ended(again) == (0, DONE)
    assert tree(tmp_path) == expected


def is_running(pid: int) -> bool:
    """Return whether a process is there and has not ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    return False
