"""The commands about jobs against a job that did run: from its creation to its bill, through real HTTP."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest
from made_up_jobs import COMMANDS, log
from processes import PATIENCE_SECONDS

from cloud.emulator import Emulator, rehearsal
from psa.cli import app
from psa.reports.ablation.markdown import read_summary

JOB = "psa-1x8-none-2025-08-04-19-17-02-730"
PREFIX = "psa-experiment"


def job_of_the_study(stage: Emulator) -> None:
    """A job as the study's were: it logs its loops, leaves results.txt, and its profiler leaves more."""
    environment = stage.environment
    client = boto3.client(
        "sagemaker",
        endpoint_url=stage.endpoint,
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
    where = f"s3://{stage.s3.bucket}/{PREFIX}"
    script = "cat /opt/ml/input/data/log/log.txt; printf '91.22\\n91.00\\n' > /opt/ml/model/results.txt"
    storage = stage.s3.client()
    storage.put_object(Bucket=stage.s3.bucket, Key="log/log.txt", Body=log(4, 2, width=80).encode())
    storage.put_object(
        Bucket=stage.s3.bucket, Key=f"{PREFIX}/{JOB}/profiler-output/framework/1.json", Body=bytes(5_000)
    )
    client.create_training_job(
        TrainingJobName=JOB,
        RoleArn=environment["AWS_SAGEMAKER_ROLE"],
        AlgorithmSpecification={
            "TrainingImage": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.6.0-cpu-py312",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["/bin/bash", "-c"],
            "ContainerArguments": [script],
        },
        InputDataConfig=[
            {
                "ChannelName": "log",
                "DataSource": {
                    "S3DataSource": {
                        "S3DataType": "S3Prefix",
                        "S3Uri": f"s3://{stage.s3.bucket}/log/",
                        "S3DataDistributionType": "FullyReplicated",
                    }
                },
            }
        ],
        OutputDataConfig={"S3OutputPath": where},
        ResourceConfig={"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 600},
    )
    assert stage.wait(PATIENCE_SECONDS)
    storage.close()
    client.close()


@pytest.mark.slow
def test_a_job_of_the_study_from_its_log_to_its_bill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All five commands, which know no more than the environment."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.chdir(home)

    def said(name: str, *arguments: str) -> str:
        code = app.run(app.command(name, COMMANDS[name]), arguments)
        out, err = capsys.readouterr()
        assert (code, err) == (0, "")
        return out

    with rehearsal(tmp_path / "stage") as stage:
        for name, value in stage.environment.items():
            monkeypatch.setenv(name, value)
        job_of_the_study(stage)
        out = said("sagemaker-get-training-logs", "--reconstruct-jobs")
        assert "1 job fetched" in out
        assert (home / "requested-jobs.txt").read_text() == f"{JOB}\n"
        assert "1 job, 2 of 2 trials complete" in said("sagemaker-logs-parser")
        assert "2 trials in 1 cell" in said("sagemaker-results-parser")
        assert "profiler output" in said("sagemaker-estimate-storage", "--output-file", "storage.json")
        assert "1 job, " in said("sagemaker-cost-estimator")
    block = next(each for each in read_summary(home / "results/psa_resmlp_summary.md"))
    none = block.modes["none"]
    assert none is not None
    assert (block.arch, none.mean, none.n) == ("1*8", 91.11, 2)
    report = json.loads((home / "storage.json").read_text())
    assert report["kinds"]["profiler output"]["bytes"] == 5_000
    assert report["kinds"]["model artifacts"]["files"] == 1
    bill = json.loads((home / "results/sagemaker_cost_report.json").read_text())
    assert bill["by_arch_and_mode"][0]["name"] == ["1*8", "none"]
    assert bill["details"][0]["status"] == "Completed"
    assert bill["total"]["dollars"] >= 0
