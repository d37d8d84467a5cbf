"""Settings of AWS: what .env and the environment say, what is wrong there, and that no key is ever shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from psa.core.errors import UserError
from psa.execution.backend import BackendOptions

pytest.importorskip("boto3", reason="the extra aws is not installed")
pytest.importorskip("dotenv", reason="the extra aws is not installed")

from cloud.aws.settings import DEFAULTS, JobSettings, Settings, read_settings, redact
from cloud.aws.settings.job_settings import JOB_SETTINGS

GOOD = {
    "AWS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/psa",
    "S3_BUCKET_NAME": "a-bucket",
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
}
FURTHER = {"AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"}
NAMES = {*GOOD, *DEFAULTS, *JOB_SETTINGS, "AWS_REGION", "AWS_ACCOUNT_ID", "TRAINING_IMAGE", *FURTHER}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No name of ours in the environment, and no keys of the user's."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))


def written(folder: Path, **changes: str) -> Settings:
    """The settings of a folder whose .env says this."""
    lines = [f"{name}={value}\n" for name, value in {**GOOD, **changes}.items()]
    (folder / ".env").write_text("".join(lines))
    return read_settings(folder)


def test_the_file_is_read_and_the_environment_counts_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Defaults stand for what neither names."""
    found = written(tmp_path, INSTANCE_TYPE="ml.c5.xlarge, ml.m5.xlarge", USE_SPOT_INSTANCES="True")
    assert (found.bucket, found.region, found.prefix) == ("a-bucket", "us-east-1", "psa-experiment")
    assert found.instances == ("ml.c5.xlarge", "ml.m5.xlarge")
    assert found.spot
    assert found.max_run_seconds == 172_800
    monkeypatch.setenv("S3_BUCKET_NAME", "another")
    assert read_settings(tmp_path).bucket == "another"


def test_a_role_may_be_named_where_the_account_is_known(tmp_path: Path) -> None:
    """It becomes the ARN that a request needs."""
    found = written(tmp_path, AWS_SAGEMAKER_ROLE="psa", AWS_ACCOUNT_ID="123456789012")
    assert found.role == GOOD["AWS_SAGEMAKER_ROLE"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AWS_SAGEMAKER_ROLE": ""}, "AWS_SAGEMAKER_ROLE must be set"),
        (
            {"AWS_SAGEMAKER_ROLE": "arn:aws:iam::1:user/x"},
            "AWS_SAGEMAKER_ROLE must be a role .*, got 'arn:aws:iam::1:user/x'",
        ),
        ({"AWS_SAGEMAKER_ROLE": "psa"}, "AWS_ACCOUNT_ID must have 12 digits"),
        ({"AWS_ACCOUNT_ID": "999999999999"}, "must be of account 999999999999 .*, got account 123456789012"),
        ({"AWS_REGION": "us-east-11"}, "got 'us-east-11'; did you mean us-east-1"),
        ({"S3_BUCKET_NAME": "My_Bucket"}, "S3_BUCKET_NAME must be a bucket .*, got 'My_Bucket'"),
        ({"S3_BUCKET_NAME": "192.168.0.1"}, "must be a bucket .*, got '192.168.0.1'"),
        ({"S3_PREFIX": "a//b"}, "S3_PREFIX must be words separated by /, got 'a//b'"),
        ({"USE_SPOT_INSTANCES": "maybe"}, "USE_SPOT_INSTANCES must be true or false, got 'maybe'"),
        ({"MAX_RUN_SECONDS": "1e9"}, "MAX_RUN_SECONDS must be from 60 to .*, got '1e9'"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "AWS credentials must be set"),
    ],
)
def test_mistakes_are_named(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    """Without any network."""
    with pytest.raises(UserError, match=said):
        written(tmp_path, **changes)


def test_the_file_of_the_original_study_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no other, with a hint to move it."""
    old = tmp_path / "aws/sagemaker/.env"
    old.parent.mkdir(parents=True)
    old.write_text("".join(f"{name}={value}\n" for name, value in GOOD.items()))
    assert read_settings(tmp_path).bucket == "a-bucket"
    assert "the settings are read from aws/sagemaker/.env; move the file to .env" in caplog.text
    caplog.clear()
    assert written(tmp_path, S3_BUCKET_NAME="another").bucket == "another"
    assert not caplog.text


COMPANY = {
    "SAGEMAKER_SUBNETS": "subnet-a, subnet-b",
    "SAGEMAKER_SECURITY_GROUPS": "sg-1",
    "SAGEMAKER_VOLUME_KMS_KEY": "key-1",
    "SAGEMAKER_OUTPUT_KMS_KEY": "key-2",
    "SAGEMAKER_NETWORK_ISOLATION": "true",
    "SAGEMAKER_TAGS": "team=vision,cost-center=42",
    "SAGEMAKER_VOLUME_GB": "50",
    "SAGEMAKER_MAX_RETRIES": "3",
    "SAGEMAKER_KEEP_ALIVE": "600",
}


def request_of(jobs: JobSettings) -> dict[str, Any]:
    """The parts of a request that these settings change."""
    request: dict[str, Any] = {"ResourceConfig": {}, "OutputDataConfig": {}, "Tags": []}
    jobs.add_to(request)
    return request


def test_a_request_has_what_a_company_requires(tmp_path: Path) -> None:
    """Each setting is a member of the request."""
    assert request_of(written(tmp_path, **COMPANY).jobs) == {
        "ResourceConfig": {
            "VolumeSizeInGB": 50,
            "VolumeKmsKeyId": "key-1",
            "KeepAlivePeriodInSeconds": 600,
        },
        "OutputDataConfig": {"KmsKeyId": "key-2"},
        "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-a", "subnet-b"]},
        "EnableNetworkIsolation": True,
        "RetryStrategy": {"MaximumRetryAttempts": 3},
        "Tags": [{"Key": "team", "Value": "vision"}, {"Key": "cost-center", "Value": "42"}],
    }
    assert request_of(written(tmp_path).jobs) == {
        "ResourceConfig": {"VolumeSizeInGB": 30},
        "OutputDataConfig": {},
        "Tags": [],
    }


def test_options_count_more_than_settings(tmp_path: Path) -> None:
    """Tags are added to those of the settings."""
    given = vars(BackendOptions(subnets="subnet-c", volume_gb=80, tags=("run=1",)))
    jobs = written(tmp_path, **COMPANY).jobs.overridden(given)
    assert (jobs.subnets, jobs.security_groups, jobs.volume_gb) == (("subnet-c",), ("sg-1",), 80)
    assert jobs.tags == (("team", "vision"), ("cost-center", "42"), ("run", "1"))
    assert jobs.network_isolation
    with pytest.raises(UserError, match=r"--tags must hold KEY=VALUE, got 'run'"):
        jobs.overridden({"tags": ("run",)})
    with pytest.raises(UserError, match="must be given together, got subnets alone"):
        JobSettings().overridden({"subnets": "subnet-a"})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"SAGEMAKER_VOLUME_GB": "big"}, "SAGEMAKER_VOLUME_GB must be a whole number, got 'big'"),
        ({"SAGEMAKER_NETWORK_ISOLATION": "x"}, "SAGEMAKER_NETWORK_ISOLATION must be true or false, got 'x'"),
        ({"SAGEMAKER_SUBNETS": "subnet-a"}, "must be given together, got subnets alone"),
        ({"SAGEMAKER_TAGS": "team"}, "SAGEMAKER_TAGS must hold KEY=VALUE, got 'team'"),
    ],
)
def test_mistakes_in_what_companies_require_are_named(
    changes: dict[str, str], said: str, tmp_path: Path
) -> None:
    """Before any request."""
    with pytest.raises(UserError, match=said):
        written(tmp_path, **changes)


def test_who_only_looks_needs_no_role(tmp_path: Path) -> None:
    """Costs, storage and logs are read without one."""
    kept = {name: value for name, value in GOOD.items() if name != "AWS_SAGEMAKER_ROLE"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in kept.items()))
    found = read_settings(tmp_path, submits=False)
    assert (found.role, found.bucket) == ("", "a-bucket")


def test_keys_are_shown_nowhere(tmp_path: Path) -> None:
    """Not in the settings' own words, and not in a text that holds them."""
    found = written(tmp_path)
    assert "very-secret" not in repr(found)
    assert "AKIAEXAMPLE" not in repr(found)
    assert redact("key AKIAEXAMPLE of very-secret") == "key *** of ***"


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    """Bytes that are no text."""
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00S3_BUCKET_NAME")
    with pytest.raises(UserError, match=r"\.env must be UTF-8 text, got UTF-16"):
        read_settings(tmp_path)


def test_the_example_names_all_there_is() -> None:
    """Whoever copies it sees every name that is read."""
    text = (ROOT / ".env.example").read_text()
    assert [name for name in sorted(NAMES - FURTHER) if name not in text] == []


# Where AWS's own tools look.

CONFIG = """
[default]
region = eu-west-1
[profile work]
region = eu-central-1
aws_access_key_id = AKIAWORK
aws_secret_access_key = work-secret
[profile sso]
region = ap-south-1
sso_start_url = https://example.awsapps.com/start
sso_region = ap-south-1
sso_account_id = 123456789012
sso_role_name = psa
[profile process]
credential_process = /bin/echo '{"Version": 1, "AccessKeyId": "AKIAPROCESS", "SecretAccessKey": "x"}'
[profile role]
role_arn = arn:aws:iam::123456789012:role/psa
source_profile = work
[profile broken]
credential_process = /bin/false
"""
KEYLESS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a ~/.aws/config with profiles of every kind."""
    (tmp_path / "config").write_text(CONFIG)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))


@pytest.mark.slow
@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("environment", "file", "region"),
    [
        ({}, {}, "eu-west-1"),
        ({"AWS_DEFAULT_REGION": "us-west-2"}, {}, "us-west-2"),
        ({"AWS_DEFAULT_REGION": "us-west-2"}, {"AWS_REGION": "us-east-2"}, "us-east-2"),
        ({"AWS_REGION": "us-west-1", "AWS_DEFAULT_REGION": "us-west-2"}, {}, "us-west-1"),
        ({}, {"AWS_DEFAULT_REGION": "us-west-2"}, "us-west-2"),
        ({"AWS_PROFILE": "work"}, {}, "eu-central-1"),
        ({"AWS_PROFILE": "sso"}, KEYLESS, "ap-south-1"),
        ({"AWS_PROFILE": "process"}, KEYLESS, "us-east-1"),
        ({"AWS_PROFILE": "role"}, KEYLESS, "us-east-1"),
        ({}, {**KEYLESS, "AWS_PROFILE": "work"}, "eu-central-1"),
        ({"AWS_DEFAULT_PROFILE": "work"}, KEYLESS, "eu-central-1"),
    ],
)
def test_region_and_keys_are_found_where_aws_finds_them(
    environment: dict[str, str],
    file: dict[str, str],
    region: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By name, by profile, and by every kind of profile; a client can be made of them."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found = written(tmp_path, **file)
    assert found.region == region
    assert found.client("s3").meta.region_name == region


@pytest.mark.slow
@pytest.mark.usefixtures("config")
def test_keys_of_two_places_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session token of .env would make the keys of the environment invalid; a profile that is named in the
    environment counts more than keys of the file.
    """
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOTHER")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "other-secret")
    found = written(tmp_path, AWS_SESSION_TOKEN="of-the-file")  # noqa: S106
    credentials = found.client("s3")._request_signer._credentials
    assert (credentials.access_key, credentials.token) == ("AKIAOTHER", None)
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_PROFILE", "work")
    credentials = written(tmp_path).client("s3")._request_signer._credentials
    assert credentials.access_key == "AKIAWORK"


@pytest.mark.usefixtures("config")
@pytest.mark.parametrize(
    ("environment", "file", "said"),
    [
        ({"AWS_PROFILE": "nowhere"}, {}, "profile .nowhere. could not be found"),
        ({}, {**KEYLESS, "AWS_PROFILE": "nowhere"}, "profile .nowhere. could not be found"),
        ({"AWS_PROFILE": "broken"}, KEYLESS, "AWS's own settings cannot be used"),
        ({"AWS_ACCESS_KEY_ID": "AKIAHALF"}, {}, "AWS's own settings cannot be used"),
        ({}, {"AWS_SECRET_ACCESS_KEY": ""}, "belong together, got AWS_ACCESS_KEY_ID alone"),
    ],
)
def test_mistakes_in_the_places_of_aws_are_one_line(
    environment: dict[str, str],
    file: dict[str, str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In place of boto3's own exceptions."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=said):
        written(tmp_path, **file)
