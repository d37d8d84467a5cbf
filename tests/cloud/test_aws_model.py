"""A request beside AWS's own model: every kind of fault, in words a person can use."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import pytest

from cloud.aws import request_validation
from cloud.aws.request_validation import request_errors

GOOD: dict[str, Any] = {
    "TrainingJobName": "psa-ablation-001",
    "RoleArn": "arn:aws:iam::123456789012:role/service-role/psa",
    "AlgorithmSpecification": {
        "TrainingImage": "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.8.0-cpu-py312",
        "TrainingInputMode": "File",
        "ContainerEntrypoint": ["/bin/bash", "-c"],
        "ContainerArguments": ["exec python -m cloud.sagemaker.container.entry"],
    },
    "InputDataConfig": [
        {
            "ChannelName": "code",
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://bucket/code/"}},
        }
    ],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/output"},
    "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    "HyperParameters": {"arch": "[4*8]"},
    "Tags": [{"Key": "Größe", "Value": "klein"}],
    "Environment": {"PSA_ROOT": "/opt/ml/checkpoints"},
}


def changed(path: str, value: Any) -> dict[str, Any]:
    """The good request with a value set (None: taken out) at `A.B` or `A.0.B`."""
    request = copy.deepcopy(GOOD)
    at: Any = request
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    for part in parents:
        at = at[part]
    if value is None:
        del at[last]
    else:
        at[last] = value
    return request


def test_a_good_request_has_no_fault() -> None:
    """What AWS takes passes, accents in tags included: their pattern is Java's."""
    assert request_errors("CreateTrainingJob", GOOD) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("Colour", "x", "Colour: unknown"),
        ("TrainingJobname", "x", "TrainingJobname: unknown; did you mean TrainingJobName?"),
        ("RoleArn", None, "RoleArn: missing"),
        ("OutputDataConfig.S3OutputPath", None, "OutputDataConfig.S3OutputPath: missing"),
        ("InputDataConfig.0.ChannelName", None, "InputDataConfig[0].ChannelName: missing"),
        ("ResourceConfig.InstanceCount", "1", "ResourceConfig.InstanceCount: str, not a whole number: '1'"),
        (
            "ResourceConfig.InstanceCount",
            True,
            "ResourceConfig.InstanceCount: bool, not a whole number: True",
        ),
        ("HyperParameters", ["a"], "HyperParameters: list, not a mapping: ['a']"),
        ("HyperParameters.loops", 3, "HyperParameters['loops']: int, not a string: 3"),
        (
            "HyperParameters.arch",
            "x" * 2501,
            "HyperParameters['arch']: 2,501 characters, at most 2,500 are allowed",
        ),
        ("Tags.0.Key", "", "Tags[0].Key: 0 characters, at least 1 are needed"),
        ("TrainingJobName", "a_b", "TrainingJobName: 'a_b' does not match [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"),
        (
            "TrainingJobName",
            "ok\n",
            "TrainingJobName: 'ok\\n' does not match [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}",
        ),
        (
            "AlgorithmSpecification.ContainerArguments",
            ["a\nb"],
            "AlgorithmSpecification.ContainerArguments[0]: 'a\\nb' does not match .*",
        ),
        (
            "AlgorithmSpecification.ContainerArguments",
            ["a\rb"],
            "AlgorithmSpecification.ContainerArguments[0]: 'a\\rb' does not match .*",
        ),
        (
            "AlgorithmSpecification.ContainerArguments",
            [],
            "AlgorithmSpecification.ContainerArguments: 0 items, at least 1 are needed",
        ),
        (
            "ResourceConfig.InstanceType",
            "ml.g4dn.xlage",
            "ResourceConfig.InstanceType: unknown value 'ml.g4dn.xlage'; did you mean ml.g4dn.xlarge?",
        ),
        (
            "AlgorithmSpecification.TrainingInputMode",
            "Tape",
            "AlgorithmSpecification.TrainingInputMode: unknown value 'Tape'; one of Pipe, File, FastFile",
        ),
        (
            "StoppingCondition.MaxRuntimeInSeconds",
            0,
            "StoppingCondition.MaxRuntimeInSeconds: 0 is less than 1",
        ),
        (
            "ResourceConfig.KeepAlivePeriodInSeconds",
            21_601,
            "ResourceConfig.KeepAlivePeriodInSeconds: 21601 is more than 21600",
        ),
        (
            "Environment",
            {"a-b": "x"},
            "Environment (key 'a-b'): 'a-b' does not match [a-zA-Z_][a-zA-Z0-9_]*",
        ),
    ],
)
def test_every_kind_of_fault_is_one_line_with_its_path(path: str, value: Any, said: str) -> None:
    """Unknown, missing, wrong type, too long or short, out of range, not in an enum, not of the pattern."""
    assert request_errors("CreateTrainingJob", changed(path, value)) == [said]


def test_all_faults_are_told_at_once() -> None:
    """Nobody mends a request one fault at a time."""
    request = changed("ResourceConfig.InstanceType", "huge")
    request["Environment"] = {f"V{number}": "x" for number in range(101)}
    del request["RoleArn"]
    assert len(request_errors("CreateTrainingJob", request)) == 3


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("EnableManagedSpotTraining", True, "StoppingCondition.MaxWaitTimeInSeconds: missing"),
        ("StoppingCondition.MaxWaitTimeInSeconds", 7200, "only for EnableManagedSpotTraining"),
        ("StoppingCondition", None, "StoppingCondition: missing"),
        ("AlgorithmSpecification.TrainingImage", None, "just one of TrainingImage and AlgorithmName"),
        ("ResourceConfig.InstanceType", None, "ResourceConfig.InstanceType: missing"),
        ("InputDataConfig", [GOOD["InputDataConfig"][0]] * 2, "more than one channel is called code"),
    ],
)
def test_what_the_model_allows_and_aws_does_not(path: str, value: Any, said: str) -> None:
    """Spot needs a longest wait, and so on: rules that are written nowhere in the model."""
    (line,) = request_errors("CreateTrainingJob", changed(path, value))
    assert said in line


def test_spot_waits_at_least_as_long_as_it_runs() -> None:
    """A MaxWaitTime shorter than the MaxRuntime is refused; an equal one is fine."""
    request = changed("EnableManagedSpotTraining", True)
    request["StoppingCondition"]["MaxWaitTimeInSeconds"] = 3599
    assert request_errors("CreateTrainingJob", request) == [
        "StoppingCondition.MaxWaitTimeInSeconds: 3599 is less than MaxRuntimeInSeconds"
    ]
    request["StoppingCondition"]["MaxWaitTimeInSeconds"] = 3600
    assert request_errors("CreateTrainingJob", request) == []


def test_every_pattern_of_the_operations_we_use_can_be_compiled() -> None:
    """A Java pattern that Python cannot read would fail at a user's first request."""
    for operation in ("CreateTrainingJob", "ListTrainingJobs", "DescribeTrainingJob", "StopTrainingJob"):
        patterns = set(
            _patterns(request_validation._service("sagemaker").operation_model(operation).input_shape, ())
        )
        assert patterns or operation == "ListTrainingJobs"
        for pattern in patterns:
            request_validation._java(pattern)


def _patterns(shape: Any, above: tuple[str, ...]) -> Any:
    if shape.name in above:
        return
    yield from [shape.metadata["pattern"]] if "pattern" in shape.metadata else []
    inner = list(getattr(shape, "members", {}).values()) if shape.type_name == "structure" else []
    inner += [shape.member] if shape.type_name == "list" else []
    inner += [shape.key, shape.value] if shape.type_name == "map" else []
    for each in inner:
        yield from _patterns(each, (*above, shape.name))


def test_no_client_is_made() -> None:
    """The dry run makes no session and no client."""
    script = (
        "import sys; from cloud.aws.request_validation import request_errors; "
        "request_errors('CreateTrainingJob', {}); "
        "print(sorted({'boto3', 'botocore.session', 'botocore.client', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
