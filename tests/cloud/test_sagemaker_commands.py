"""The commands about jobs on SageMaker as people use them: real S3, CloudWatch's and SageMaker's answers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from archives import tarred
from botocore.stub import Stubber
from made_up_jobs import COMMANDS, ROOT, described, log, study
from moto import mock_aws
from rendered_tables import cells
from s3 import BUCKET, s3_server

from cloud.aws import account as accounts
from cloud.aws.account import Account
from cloud.aws.cloudwatch import LOG_GROUP
from cloud.aws.job_description import parse_job_names
from cloud.aws.job_names import is_sweep_job, latest_legacy_jobs, parse_legacy_name
from cloud.commands.storage_report import place_in_bucket
from cloud.emulator.s3_server import S3
from cloud.legacy.logs import parse_runs
from psa.analysis.published import published_trials
from psa.cli import app
from psa.cli.output.document import Document
from psa.cli.output.sagemaker_schema import (
    CostDocument,
    JobResultsDocument,
    LogDownloadDocument,
    LogTablesDocument,
    StorageDocument,
)
from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.reports.ablation.markdown import read_summary

PREFIX = "psa-experiment"
OURS = "psa-0123abcd-0123456789ab-01"
LINE = "lines/0123abcd-0123456789ab"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no way to anybody's account."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command in this process; its exit code, and what it said."""

    def call(name: str, *arguments: str) -> tuple[int, str, str]:
        code = app.run(app.command(name, COMMANDS[name]), arguments)
        return code, *capsys.readouterr()

    return call


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """A real S3."""
    with s3_server(tmp_path_factory.mktemp("s3")) as started:
        yield started


@pytest.fixture
def bucket(server: S3) -> Iterator[Any]:
    """A client of it, whose prefix is empty."""
    client = server.client()
    yield client
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            client.delete_object(Bucket=BUCKET, Key=item["Key"])
    client.close()


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The clients of the account that commands find, by service."""
    found: dict[str, Any] = {}
    monkeypatch.setattr(
        accounts,
        "open_account",
        lambda region=None: Account(region or "us-east-1", BUCKET, PREFIX, lambda service: found[service]),
    )
    return found


def document(done: tuple[int, str, str], model: type[Document]) -> dict[str, Any]:
    """The document that a command printed, alone, with exactly the fields of its model."""
    code, out, err = done
    assert (code, err) == (0, "")
    found = model.model_validate_json(out, strict=True).model_dump(mode="json")
    assert found == json.loads(out)
    return found


def put(client: Any, files: dict[str, bytes]) -> None:
    """Store files below the prefix."""
    for name, content in files.items():
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{name}", Body=content)


def sagemaker() -> tuple[Any, Stubber]:
    """A client whose answers are told beforehand, and checked against SageMaker's own description."""
    client = boto3.client("sagemaker", region_name="us-east-1")
    return client, Stubber(client)


# What names say


def test_names_of_jobs() -> None:
    """The study's and ours are told apart; other jobs of the account are neither."""
    job = parse_legacy_name("psa-1024x1-none-2025-08-04-19-56-46-515")
    assert job is not None
    assert (job.arch, job.mode, job.stamp[:3]) == ("1024*1", "none", (2025, 8, 4))
    assert parse_legacy_name("psa-1024x1-other-2025-08-04") is None
    assert parse_legacy_name("psa-0x4-none-1") is None
    assert parse_legacy_name(OURS) is None
    assert is_sweep_job(OURS)
    assert not is_sweep_job("psa-1024x1-none-2025-08-04-19-56-46-515")


def test_the_latest_job_by_time_and_not_by_letters() -> None:
    """`-9-` comes before `-10-`."""
    found = latest_legacy_jobs(
        ["psa-1x8-none-2025-9-1", "psa-1x8-none-2025-10-1", "psa-1x8-full-2024", OURS, "x"]
    )
    assert [job.name for job in found["1*8", "none"]] == ["psa-1x8-none-2025-10-1", "psa-1x8-none-2025-9-1"]
    assert set(found) == {("1*8", "none"), ("1*8", "full")}


@pytest.mark.parametrize(
    "text", ["../etc", "psa/x", "psa-1x8-none-1\na b", "", "# nothing\n", "-x", "x" * 64]
)
def test_a_list_of_jobs_holds_names(text: str) -> None:
    """Nothing else, for a name becomes the name of a folder."""
    with pytest.raises(UserError, match=r"jobs\.txt"):
        parse_job_names(text, "jobs.txt")


# Cost


def test_the_cost_of_the_study(home: Path, run: Run) -> None:
    """$640.32, from descriptions in a file and without an account; every group in the report."""
    (home / "jobs.json").write_text(json.dumps(study()))
    code, out, err = run(
        "sagemaker-cost-estimator", "--jobs-file", "jobs.json", "--by", "status", "arch", "mode", "both"
    )
    assert (code, err) == (0, "")
    assert "588 jobs, 869.5 billed hours: $640.32 (prices of us-east-1, 2026-09-27)" in out
    assert "27 h 54 min" in out
    for title in ("by status", "by arch", "by mode", "by arch and mode"):
        assert f"Cost {title} " in out
    report = json.loads((home / "results/sagemaker_cost_report.json").read_text())
    assert report["total"]["dollars"] == 640.3198
    assert len(report["by_arch_and_mode"]) == len(report["details"]) == 588
    assert report["by_status"][0]["name"] == "Completed"
    shown = document(run("sagemaker-cost-estimator", "--jobs-file", "jobs.json", "--json"), CostDocument)
    assert shown == report | {"report": "results/sagemaker_cost_report.json"}
    code, _, err = run("sagemaker-cost-estimator", "--jobs-file", "jobs.json", "--region", "eu-west-1")
    assert (code, "--jobs-file must list jobs of --region eu-west-1, got none" in err) == (2, True)


def test_the_cost_of_jobs_of_the_account(home: Path, run: Run, clients: dict[str, Any]) -> None:
    """Of all that it lists, over several pages; those of others are left out."""
    client, stub = sagemaker()
    clients["sagemaker"] = client
    names = ["psa-1x8-none-2025-08-04", "psa-1x8-full-2025-08-04", OURS]
    summary = {"TrainingJobArn": "arn:aws:x", "CreationTime": 0, "TrainingJobStatus": "Completed"}
    summaries = [{"TrainingJobName": name, **summary} for name in [*names, "not-psa-1"]]
    stub.add_response(
        "list_training_jobs",
        {"TrainingJobSummaries": summaries[:2], "NextToken": "2"},
        {"NameContains": "psa-", "MaxResults": 100},
    )
    stub.add_response(
        "list_training_jobs",
        {"TrainingJobSummaries": summaries[2:]},
        {"NameContains": "psa-", "MaxResults": 100, "NextToken": "2"},
    )
    for name in names:
        stub.add_response("describe_training_job", answer(name, 3_600), {"TrainingJobName": name})
    with stub:
        code, out, err = run("sagemaker-cost-estimator", "--by", "arch")
    assert (code, err) == (0, "")
    assert "3 jobs, 3.0 billed hours: $2.21" in out
    assert "sweep 0123abcd" in out
    stub.assert_no_pending_responses()


def test_the_cost_of_named_jobs(home: Path, run: Run, clients: dict[str, Any]) -> None:
    """requested-jobs.txt is found; a name that SageMaker does not know is said, and the rest is counted."""
    (home / "requested-jobs.txt").write_text("psa-1x8-none-2025-08-04\npsa-gone # long ago\n")
    client, stub = sagemaker()
    clients["sagemaker"] = client
    stub.add_response("describe_training_job", answer("psa-1x8-none-2025-08-04", 7_200))
    stub.add_client_error("describe_training_job", "ValidationException", "Requested resource not found.")
    with stub:
        code, out, _ = run("sagemaker-cost-estimator")
    assert code == 0
    assert "$1.47" in out
    assert "1 job unknown to SageMaker in this region: psa-gone" in out


def answer(name: str, billable: int) -> dict[str, Any]:
    """A description that SageMaker might send."""
    return described(name, billable) | {
        "ModelArtifacts": {"S3ModelArtifacts": "s3://x/y"},
        "SecondaryStatus": "Completed",
        "StoppingCondition": {},
        "CreationTime": 0,
    }


def test_an_account_that_refuses_is_one_line(run: Run, clients: dict[str, Any]) -> None:
    """Whatever AWS says, with the way out."""
    client, stub = sagemaker()
    clients["sagemaker"] = client
    stub.add_client_error("list_training_jobs", "ExpiredTokenException", "The token has expired\nreally")
    with stub:
        code, _, err = run("sagemaker-cost-estimator")
    assert code == 2
    assert err.count("\n") == 1
    assert "ExpiredTokenException: The token has expired really" in err


# Storage

FILES = {
    "psa-1x8-none-2025-08-04/output/model.tar.gz": b"m" * 250,
    "psa-1x8-none-2025-08-04/profiler-output/framework/1.json": b"p" * 9_000,
    "psa-1x8-none-2025-08-04/profiler-output/system/2.json": b"p" * 1_000,
    "psa-1x8-none-2025-08-04/source/sourcedir.tar.gz": b"c" * 70,
    "psa-1x8-full-2025-08-04/output/model.tar.gz": b"m" * 260,
    f"{LINE}/checkpoints/models/a/lkg.safetensors": b"s" * 5_000,
    f"{LINE}/checkpoints/results/a.json": b"r" * 500,
    f"{LINE}/inputs/packs.json": b"{}",
    f"{LINE}/output/{OURS}/output/model.tar.gz": b"o" * 30,
    "code/0123.tar.gz": b"k" * 11,
}


def test_files_have_their_place() -> None:
    """Job and kind by the name alone."""
    assert [place_in_bucket(name) for name in FILES] == [
        ("psa-1x8-none-2025-08-04", "model artifacts"),
        ("psa-1x8-none-2025-08-04", "profiler output"),
        ("psa-1x8-none-2025-08-04", "profiler output"),
        ("psa-1x8-none-2025-08-04", "code"),
        ("psa-1x8-full-2025-08-04", "model artifacts"),
        ("managed job 0123abcd-0123456789ab", "checkpoints"),
        ("managed job 0123abcd-0123456789ab", "checkpoints"),
        ("managed job 0123abcd-0123456789ab", "other"),
        (OURS, "model artifacts"),
        ("(shared)", "code"),
    ]


def test_storage_by_kind_and_job(home: Path, run: Run, bucket: Any, clients: dict[str, Any]) -> None:
    """From a real bucket; nothing outside of the prefix counts."""
    clients["s3"] = bucket
    put(bucket, FILES)
    bucket.put_object(Bucket=BUCKET, Key=f"{PREFIX}-other/x", Body=b"x" * 99)
    code, out, err = run("sagemaker-estimate-storage", "--detailed", "--output-file", "out/storage.json")
    assert (code, err) == (0, "")
    assert f"s3://{BUCKET}/{PREFIX}: 10 files, 16.1 kB: $0.00 a month" in out
    report = json.loads((home / "out/storage.json").read_text())
    assert report["bytes"] == sum(map(len, FILES.values()))
    assert report["kinds"]["profiler output"] == {"files": 2, "bytes": 10_000}
    assert report["job_details"][0]["job"] == "psa-1x8-none-2025-08-04"
    assert report["jobs"] == 4
    rows = [line for line in out.splitlines() if "psa-1x8-none-2025-08-04" in line]
    assert len(rows) == 1
    assert "10.3 kB" in rows[0]
    shown = document(run("sagemaker-estimate-storage", "--json"), StorageDocument)
    assert shown == report | {"report": None}


def test_storage_of_named_jobs(home: Path, run: Run, bucket: Any, clients: dict[str, Any]) -> None:
    """--jobs-file names which; one without files is said."""
    clients["s3"] = bucket
    put(bucket, FILES)
    (home / "mine.txt").write_text("psa-1x8-full-2025-08-04\npsa-nothing\n")
    code, out, _ = run("sagemaker-estimate-storage", "--jobs-file", "mine.txt")
    assert code == 0
    assert "1 file, 260 B" in out
    assert "1 job without any file" in out
    assert "psa-nothing" in out


def test_storage_is_listed_page_by_page(run: Run, clients: dict[str, Any]) -> None:
    """S3 gives a thousand files at once; the token leads on."""
    client = boto3.client("s3", region_name="us-east-1")
    clients["s3"] = client
    with Stubber(client) as stub:
        for page in range(3):
            contents = [
                {"Key": f"{PREFIX}/psa-a/profiler-output/{page}-{n}", "Size": 10} for n in range(1000)
            ]
            more = {"IsTruncated": True, "NextContinuationToken": f"{page + 1}"} if page < 2 else {}
            asked = {"Bucket": BUCKET, "Prefix": f"{PREFIX}/"}
            asked |= {"ContinuationToken": f"{page}"} if page else {}
            stub.add_response(
                "list_objects_v2", {"IsTruncated": bool(more), "Contents": contents, **more}, asked
            )
        code, out, _ = run("sagemaker-estimate-storage")
    assert code == 0
    assert "3,000 files, 30.0 kB" in out


# Logs


@pytest.fixture
def cloudwatch(clients: dict[str, Any]) -> Iterator[Any]:
    """CloudWatch as moto plays it, with two jobs whose names begin alike."""
    with mock_aws():
        client = boto3.client("logs", region_name="us-east-1")
        clients["logs"] = client
        client.create_log_group(logGroupName=LOG_GROUP)
        write(client, "psa-1x8-none-1/algo-1-100", log(3, 2).splitlines())
        write(client, "psa-1x8-none-11/algo-1-100", ["another job"])
        yield client


def write(client: Any, stream: str, lines: list[str]) -> None:
    """Lines of a log, in batches."""
    client.create_log_stream(logGroupName=LOG_GROUP, logStreamName=stream)
    now = int(1000 * time.time()) - 60_000  # CloudWatch takes neither old lines nor those to come
    for at in range(0, len(lines), 5_000):
        events = [
            {"timestamp": now + at + n, "message": text} for n, text in enumerate(lines[at : at + 5_000])
        ]
        client.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=events)


def test_logs_are_fetched_once(home: Path, run: Run, cloudwatch: Any) -> None:
    """A file per stream and a summary; the second time nothing is asked for, with --force all is."""
    write(cloudwatch, "psa-1x8-none-1/algo-1-200", [f"line {n}" for n in range(12_000)])
    (home / "requested-jobs.txt").write_text("psa-1x8-none-1\npsa-1x8-full-1\n")
    code, out, err = run("sagemaker-get-training-logs")
    assert (code, err) == (0, "")
    assert "1 job fetched" in out
    assert "1 job without a log: psa-1x8-full-1" in out
    folder = home / "results/logs/psa-1x8-none-1"
    assert {path.name for path in folder.iterdir()} == {"algo-1-100.log", "algo-1-200.log", "summary.json"}
    assert (folder / "algo-1-200.log").read_text().splitlines() == [f"line {n}" for n in range(12_000)]
    summary = json.loads((folder / "summary.json").read_text())
    assert [file["lines"] for file in summary["log_files"]] == [len(log(3, 2).splitlines()), 12_000]
    done = json.loads((home / "results/logs/download_summary.json").read_text())
    assert (done["downloaded"], done["skipped"], done["without_log"]) == (1, 0, ["psa-1x8-full-1"])
    shown = document(run("sagemaker-get-training-logs", "--json"), LogDownloadDocument)
    assert (shown["downloaded"], shown["skipped_jobs"]) == (0, ["psa-1x8-none-1"])
    (folder / "algo-1-100.log").touch()
    assert "0 jobs fetched, 0 B; 1 were here already" in run("sagemaker-get-training-logs")[1]
    assert "1 job fetched" in run("sagemaker-get-training-logs", "--force")[1]
    (folder / "algo-1-100.log").write_text("cut")
    assert "1 job fetched" in run("sagemaker-get-training-logs")[1]
    assert (folder / "algo-1-100.log").read_text() == log(3, 2)


def test_the_list_of_jobs_is_reconstructed(
    home: Path, run: Run, clients: dict[str, Any], bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the folders in S3: the study's jobs and ours; then their logs are asked for."""
    clients["s3"] = bucket
    put(bucket, FILES | {"notes.txt": b"x", "psa-bad name/output/model.tar.gz": b"x"})
    client = boto3.client("logs", region_name="us-east-1")
    clients["logs"] = client
    names = sorted([OURS, "psa-1x8-full-2025-08-04", "psa-1x8-none-2025-08-04"])
    with Stubber(client) as stub:
        for name in names:
            asked = {"logGroupName": LOG_GROUP, "logStreamNamePrefix": f"{name}/"}
            stub.add_response("describe_log_streams", {"logStreams": []}, asked)
        clients["sagemaker"], described = sagemaker()
        described.add_response("list_training_jobs", {"TrainingJobSummaries": []})
        with described:
            code, out, err = run("sagemaker-get-training-logs", "--reconstruct-jobs", "--output-dir", "kept")
    assert (code, err) == (0, "")
    assert "3 jobs found, listed in requested-jobs.txt" in out
    assert (home / "requested-jobs.txt").read_text().split() == names


def test_jobs_whose_results_are_here_are_listed_as_well(
    home: Path, run: Run, clients: dict[str, Any], bucket: Any
) -> None:
    """Their folder is removed when their results have been downloaded; SageMaker still knows their names."""
    clients["s3"], clients["logs"] = bucket, boto3.client("logs", region_name="us-east-1")
    put(bucket, {f"{LINE}/inputs/packs.json": b"{}"})
    clients["sagemaker"], described = sagemaker()
    names = [f"{OURS[:-2]}{attempt:02d}" for attempt in (1, 2)]
    other = f"psa-{'0' * 8}-{'0' * 12}-01"
    jobs = [
        {
            "TrainingJobName": name,
            "TrainingJobArn": "arn:aws:sagemaker:us-east-1:123456789012:training-job/x",
            "CreationTime": 0,
            "TrainingJobStatus": "Completed",
        }
        for name in (*names, other)
    ]
    described.add_response("list_training_jobs", {"TrainingJobSummaries": jobs})
    with described, Stubber(clients["logs"]) as stub:
        for _ in names:
            stub.add_response("describe_log_streams", {"logStreams": []})
        code, _, err = run("sagemaker-get-training-logs", "--reconstruct-jobs")
    assert (code, err) == (0, "")
    assert (home / "requested-jobs.txt").read_text().split() == names


def test_an_account_without_any_log(home: Path, run: Run, clients: dict[str, Any]) -> None:
    """A group that is not there is no mistake."""
    (home / "requested-jobs.txt").write_text("psa-1x8-none-1\n")
    client = boto3.client("logs", region_name="us-east-1")
    clients["logs"] = client
    with Stubber(client) as stub:
        stub.add_client_error("describe_log_streams", "ResourceNotFoundException", "no such group")
        code, out, _ = run("sagemaker-get-training-logs")
    assert code == 0
    assert "1 job without a log" in out


# Log lines


@pytest.mark.parametrize("width", [200, 100, 80, 60, 45])
def test_log_lines_are_read_at_any_width(width: int) -> None:
    """Terminals broke them between words and put the name of the source in between."""
    runs = parse_runs(log(5, 3, width=width))
    assert [run.horizon for run in runs] == [5, 5, 5]
    assert all(run.complete for run in runs)
    assert runs[1].current == [91.5, 90.0, 92.5, 90.0, 93.5]
    assert runs[1].lkg == [91.5, 91.5, 92.5, 92.5, 93.5]
    assert runs[1].test == 93.25


def kept(home: Path, job: str, name: str, text: str) -> None:
    """Store a log as if it had been fetched."""
    folder = home / "results/logs" / job
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def test_logs_become_convergence_and_growth(home: Path, run: Run) -> None:
    """In the layout of the study; a trial that is cut off is named, and no part of a mean."""
    kept(home, "psa-1x8-none-2025-08-04", "algo-1-1.log", log(4, 2, width=80))
    whole = log(4, 3)
    kept(home, "psa-1x8-full-2025-08-04", "algo-1-1.log", whole[: whole.rindex("Loop 3/4")])
    kept(home, "psa-1x8-full-2025-07-01", "algo-1-1.log", log(4, 9))
    kept(home, "psa-2x8-none-2025-08-04", "algo-1-9.log", log(4, 9))
    kept(home, "psa-2x8-none-2025-08-04", "algo-1-10.log", log(4, 1, start=50))
    kept(home, "psa-4x8-none-2025-08-04", "algo-1-1.log", "no loop here\n")
    code, out, err = run("sagemaker-logs-parser")
    assert (code, err) == (0, "")
    assert "psa-1x8-full-2025-08-04: trial 3 is cut off at loop 2 of 4" in out
    assert "psa-1x8-full-2025-07-01: left out, psa-1x8-full-2025-08-04 is later" in out
    assert "algo-1-9.log is of an earlier attempt" in out
    assert "psa-4x8-none-2025-08-04: no loop in its logs" in out
    assert "3 jobs, 5 of 6 trials complete" in out
    rows = {tuple(row[:2]): row for row in table(home / "results/psa_resmlp_trials_convergence.md")}
    heads = ["Architecture", "Mode", *(f"Meta-Loop {n}" for n in (1, 2, 3, 4)), "Final Test"]
    assert rows["Architecture", "Mode"] == heads
    assert rows["1*8", "None (n=2)"][2:] == ["91.00", "89.50", "92.00", "89.50", "91.75"]
    assert rows["1*8", "Full (n=2)"][2:] == ["91.00", "89.50", "92.00", "89.50", "91.75"]
    assert rows["2*8", "None (n=1)"][2:4] == ["50.50", "49.00"]
    assert rows["1*8", "Hidden"][2:] == ["N/A"] * 5
    lkg = {tuple(row[:2]): row for row in table(home / "results/psa_resmlp_trials_lkg.md")}
    assert lkg["1*8", "None (n=2)"][2:] == ["91.00", "91.00", "92.00", "92.00", "91.75"]
    assert lkg["2*8", "None (n=1)"][2:] == ["50.50", "50.50", "51.50", "51.50", "51.25"]
    growth = {tuple(row[:2]): row for row in table(home / "results/psa_resmlp_trials_lkg_growth.md")}
    assert growth["1*8", "None (n=2)"][2:] == ["0.00", "0.00", "1.00", "0.00", "91.75"]
    shown = document(run("sagemaker-logs-parser", "--json"), LogTablesDocument)
    assert (shown["jobs"], shown["complete"], shown["trials"]) == (3, 5, 6)
    assert all((home / path).is_file() for path in shown["tables"])


def table(path: Path) -> list[list[str]]:
    """The rows of a Markdown table."""
    return cells(path.read_text())


def test_a_log_with_a_hole_is_told(home: Path, run: Run) -> None:
    """A line that is missing in the middle makes no shorter trial."""
    lines = log(4, 2).splitlines(keepends=True)
    kept(home, "psa-1x8-none-1", "algo-1-1.log", "".join(line for line in lines if "Loop 2/4" not in line))
    kept(home, "psa-1x8-full-1", "algo-1-1.log", "".join(lines))
    code, out, _ = run("sagemaker-logs-parser", "--family", "resmlp", "--output-dir", "out")
    assert code == 0
    assert "psa-1x8-none-1: lines of trial 1 are missing" in out
    assert (home / "out/psa_resmlp_trials_convergence.md").exists()


# Results


def lone(name: str, text: str) -> bytes:
    """An artifact with one text in it."""
    return tarred({name: text.encode()})


ARTIFACTS = {
    "psa-1x8-none-2025-08-05": lone(
        "comprehensive_results.json",
        json.dumps([{"bounty": 91.22, "final_test_accuracy": 90.0}, {"bounty": 91.0}]),
    ),
    "psa-1x8-none-2025-08-04": lone("results.txt", "1.00\n"),
    "psa-1x8-decay-2025-08-04": lone("./out/results.txt", "91.30\n91.31\n91.32\n"),
    "psa-1x8-dropout-2025-08-04": lone("results.txt", "\n"),
    "psa-1x8-full-2025-08-04": lone("other.txt", "x"),
    "psa-1x8-hidden-2025-08-04": lone("results.txt", "ninety\n"),
    "psa-2x8-none-2025-08-04": tarred({"../results.txt": b"91.00\n"}),
    "psa-2x8-decay-2025-08-04": lone("results.txt", "91.00\n")[:-20],
    "psa-2x8-dropout-2025-08-04": tarred({"results.txt": b"88.00\n", "mnist_lkg.pt": b"\x80\x04."}),
}


@pytest.fixture
def order(home: Path) -> None:
    """Two architectures are listed."""
    (home / "order.txt").write_text("1*8\n2*8\n")


@pytest.mark.parametrize("place", ["s3", "folder"])
@pytest.mark.usefixtures("order")
def test_results_of_the_study(home: Path, run: Run, bucket: Any, clients: dict[str, Any], place: str) -> None:
    """Two files that psa reads back; a word says why a cell is empty, a line what is wrong."""
    clients["s3"] = bucket
    artifacts = {f"{job}/output/model.tar.gz": content for job, content in ARTIFACTS.items()}
    started = {"psa-1x8-output-2025-08-04/source/sourcedir.tar.gz": b"x"}
    ours = {f"{LINE}/output/{OURS}/output/model.tar.gz": b"x"} if place == "s3" else {}
    where: tuple[str, ...] = ()
    if place == "s3":
        put(bucket, artifacts | started | ours)
    else:
        where = ("--artifacts-dir", "jobs")
        for name, content in (artifacts | started).items():
            (home / "jobs" / name).parent.mkdir(parents=True)
            (home / "jobs" / name).write_bytes(content)
    code, out, err = run("sagemaker-results-parser", "--order", "order.txt", *where)
    assert (code, err) == (0, "")
    summary = (home / "results/psa_resmlp_summary.md").read_text()
    assert summary.splitlines() == [
        "Results Shape {1*8} Parameters {6514}",
        "* None: Mean=91.11% | Std=0.11% | Min=91.00% | Max=91.22% (n=2)",
        "* Decay: Mean=91.31% | Std=0.01% | Min=91.30% | Max=91.32% (n=3)",
        "* Dropout: EMPTY_RESULTS",
        "* Full: RESULTS_NOT_FOUND",
        "* Hidden: RESULTS_DAMAGED",
        "* Output: FAILED_OR_INCOMPLETE",
        "",
        "Results Shape {2*8} Parameters {6658}",
        "* None: ARTIFACT_REFUSED",
        "* Decay: ARTIFACT_REFUSED",
        "* Dropout: Mean=88.00% | Std=0.00% | Min=88.00% | Max=88.00% (n=1)",
        "* Full: NO_JOB_FOUND",
        "* Hidden: NO_JOB_FOUND",
        "* Output: NO_JOB_FOUND",
    ]
    blocks = read_summary(home / "results/psa_resmlp_summary.md")
    assert [block.arch for block in blocks] == ["1*8", "2*8"]
    frame = published_trials(home / "results/psa_resmlp_trials.md", "simplemlp")
    done = frame[frame["status"] == "done"]
    assert sorted(done["bounty"]) == [88.0, 91.0, 91.22, 91.3, 91.31, 91.32]
    assert "psa-2x8-none-2025-08-04: ARTIFACT_REFUSED" in out
    assert "leads out of the archive" in out
    assert "6 trials in 3 cells" in out
    assert ("1 job of psa's own sweeps left out: `psa fetch GRID`" in out) == (place == "s3")
    again = run("sagemaker-results-parser", "--order", "order.txt", *where, "--json")
    shown = document(again, JobResultsDocument)
    assert (shown["trials"], shown["cells"], shown["sweep_jobs"]) == (6, 3, int(place == "s3"))
    assert shown["without_results"]["ARTIFACT_REFUSED"] == 2


def test_the_list_decides_the_order_of_the_architectures(home: Path, run: Run) -> None:
    """Of both files, whether it is --order or configurations.txt."""
    for name in ("psa-1x4-none-1", "psa-2x214-none-1", "psa-2x2-none-1"):
        (home / "jobs" / name / "output").mkdir(parents=True)
        (home / "jobs" / name / "output/model.tar.gz").write_bytes(lone("results.txt", "91.00\n"))
    listed = ["1*4", "2*2", "2*214"]
    for words in (["--order", "order.txt"], []):
        path = home / (words[1] if words else "reproduction/configurations.txt")
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(f"{arch}\n" for arch in listed))
        code, _, err = run("sagemaker-results-parser", "--artifacts-dir", "jobs", *words)
        assert (code, err) == (0, "")
        blocks = read_summary(home / "results/psa_resmlp_summary.md")
        assert [block.arch for block in blocks] == listed
        trials = (home / "results/psa_resmlp_trials.md").read_text()
        heads = [line for line in trials.splitlines() if line.startswith("### ")]
        assert heads == [f"### Architecture: {arch}" for arch in listed]
        listed.reverse()


def test_only_sweeps_of_our_own(run: Run, bucket: Any, clients: dict[str, Any]) -> None:
    """They have records, and the command that brings them home is named."""
    clients["s3"] = bucket
    put(bucket, {f"{LINE}/output/{OURS}/output/model.tar.gz": b"x"})
    code, _, err = run("sagemaker-results-parser")
    assert code == 2
    assert "psa fetch GRID" in err


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"a": 1}',
        b'[{"bounty": "x"}]',
        b"[1]",
        b'[{"bounty": NaN}]',
        b'[{"bounty": 101}]',
        b"[" * 9**5,
    ],
)
def test_damaged_results_are_a_word(home: Path, run: Run, content: bytes) -> None:
    """Whatever stands in the file, nothing but percentages become results."""
    folder = home / "jobs/psa-1x8-none-1/output"
    folder.mkdir(parents=True)
    (folder / "model.tar.gz").write_bytes(tarred({"comprehensive_results.json": content}))
    code, out, _ = run("sagemaker-results-parser", "--artifacts-dir", "jobs")
    assert code == 0
    assert "psa-1x8-none-1: RESULTS_DAMAGED" in out
    assert "* None: RESULTS_DAMAGED" in (home / "results/psa_resmlp_summary.md").read_text()


# All of them

MISTAKES = [
    (
        "sagemaker-cost-estimator",
        ["--jobs-file", "nowhere.json"],
        "the list of jobs nowhere.json does not exist",
    ),
    ("sagemaker-cost-estimator", ["--jobs-file", "bad.json"], "bad.json must be JSON"),
    ("sagemaker-cost-estimator", ["--jobs-file", "empty.json"], "empty.json must list a job, got none"),
    ("sagemaker-cost-estimator", ["--by", "moon"], "moon"),
    (
        "sagemaker-cost-estimator",
        ["--prices", "nowhere.toml"],
        "the table of prices nowhere.toml does not exist",
    ),
    (
        "sagemaker-estimate-storage",
        ["--jobs-file", "nowhere.txt"],
        "the list of jobs nowhere.txt does not exist",
    ),
    (
        "sagemaker-get-training-logs",
        ["--jobs-file", "paths.txt"],
        "paths.txt, line 1: must be the name of a job, got '../up'",
    ),
    ("sagemaker-logs-parser", [], "results/logs has no log"),
    ("sagemaker-logs-parser", ["--family", "cnn"], "cnn"),
    (
        "sagemaker-results-parser",
        ["--artifacts-dir", "nowhere"],
        "the folder nowhere does not exist",
    ),
    (
        "sagemaker-results-parser",
        ["--artifacts-dir", ".", "--region", "x"],
        "results need --region or --artifacts-dir, got both",
    ),
    ("sagemaker-results-parser", ["--artifacts-dir", "."], "has no job of the original study"),
    (
        "sagemaker-results-parser",
        ["--order", "nowhere.txt"],
        "the list of architectures nowhere.txt does not exist",
    ),
]


@pytest.mark.parametrize(("name", "arguments", "said"), MISTAKES)
def test_a_mistake_is_one_line(
    name: str, arguments: list[str], said: str, home: Path, run: Run, clients: dict[str, Any]
) -> None:
    """On standard error, with exit code 2."""
    (home / "bad.json").write_text("[{")
    (home / "empty.json").write_text("[]")
    (home / "paths.txt").write_text("../up\n")
    code, _, err = run(name, *arguments)
    assert code == 2
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "sagemaker-logs-parser"])
def test_without_boto3_the_extra_is_named(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Help needs nothing, and whatever needs the account says what is missing."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda module, *rest: None if module == "boto3" else real(module, *rest)
    )
    code, _, err = run(name)
    assert code == 2
    assert err == f"error: boto3 is not installed. {how_to_install('aws')}\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_needs_no_boto3(name: str, home: Path) -> None:
    """`python scripts/x.py --help` where neither boto3 nor anything heavy can be imported."""
    script = ROOT / f"scripts/{name.replace('-', '_')}.py"
    blocked = "; ".join(
        f"sys.modules[{module!r}] = None" for module in ("boto3", "botocore", "pandas", "torch")
    )
    line = (
        f"import runpy, sys; {blocked}; sys.argv = [{name!r}, '--help']; "
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", line],
        cwd=home,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Example: {name} " in done.stdout
