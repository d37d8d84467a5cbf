"""Settings of AWS: what .env and the environment say, what is wrong there, and that no key is ever shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from psa.errors import UserError

pytest.importorskip("boto3", reason="the extra aws is not installed")
pytest.importorskip("dotenv", reason="the extra aws is not installed")

from cloud.settings import DEFAULTS, Settings, hidden, read

GOOD = {
    "AWS_SAGEMAKER_ROLE": "arn:aws:iam::123456789012:role/psa",
    "S3_BUCKET_NAME": "a-bucket",
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "very-secret",
}
NAMES = {*GOOD, *DEFAULTS, "AWS_ACCOUNT_ID", "TRAINING_IMAGE", "AWS_PROFILE", "AWS_SESSION_TOKEN"}


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
    return read(folder)


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
    assert read(tmp_path).bucket == "another"


def test_a_role_may_be_named_where_the_account_is_known(tmp_path: Path) -> None:
    """It becomes the ARN that a request needs."""
    found = written(tmp_path, AWS_SAGEMAKER_ROLE="psa", AWS_ACCOUNT_ID="123456789012")
    assert found.role == GOOD["AWS_SAGEMAKER_ROLE"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"AWS_SAGEMAKER_ROLE": ""}, "AWS_SAGEMAKER_ROLE is not set"),
        ({"AWS_SAGEMAKER_ROLE": "arn:aws:iam::1:user/x"}, "AWS_SAGEMAKER_ROLE: .* is no role"),
        ({"AWS_SAGEMAKER_ROLE": "psa"}, "AWS_ACCOUNT_ID is no number of 12 digits"),
        ({"AWS_ACCOUNT_ID": "999999999999"}, "is of account 123456789012, AWS_ACCOUNT_ID is 999999999999"),
        ({"AWS_REGION": "us-east-11"}, "no region 'us-east-11'; did you mean us-east-1"),
        ({"S3_BUCKET_NAME": "My_Bucket"}, "S3_BUCKET_NAME: 'My_Bucket' is no bucket"),
        ({"S3_BUCKET_NAME": "192.168.0.1"}, "is no bucket"),
        ({"S3_PREFIX": "a//b"}, "S3_PREFIX: 'a//b' is no prefix"),
        ({"USE_SPOT_INSTANCES": "maybe"}, "USE_SPOT_INSTANCES: 'maybe' is neither true nor false"),
        ({"MAX_RUN_SECONDS": "1e9"}, "MAX_RUN_SECONDS: '1e9' is no number from 60"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "there are no AWS credentials"),
    ],
)
def test_mistakes_are_named(changes: dict[str, str], said: str, tmp_path: Path) -> None:
    """Without any network."""
    with pytest.raises(UserError, match=said):
        written(tmp_path, **changes)


def test_who_only_looks_needs_no_role(tmp_path: Path) -> None:
    """Costs, storage and logs are read without one."""
    kept = {name: value for name, value in GOOD.items() if name != "AWS_SAGEMAKER_ROLE"}
    (tmp_path / ".env").write_text("".join(f"{name}={value}\n" for name, value in kept.items()))
    found = read(tmp_path, submits=False)
    assert (found.role, found.bucket) == ("", "a-bucket")


def test_keys_are_shown_nowhere(tmp_path: Path) -> None:
    """Not in the settings' own words, and not in a text that holds them."""
    found = written(tmp_path)
    assert "very-secret" not in repr(found)
    assert "AKIAEXAMPLE" not in repr(found)
    assert hidden("key AKIAEXAMPLE of very-secret") == "key *** of ***"


def test_a_file_that_is_none_is_one_line(tmp_path: Path) -> None:
    """Bytes that are no text."""
    (tmp_path / ".env").write_bytes(b"\xff\xfe\x00S3_BUCKET_NAME")
    with pytest.raises(UserError, match=r"\.env cannot be read"):
        read(tmp_path)


def test_the_example_names_all_there_is() -> None:
    """Whoever copies it sees every name that is read."""
    text = (Path(__file__).parents[1] / ".env.example").read_text()
    assert [name for name in sorted(NAMES - {"AWS_PROFILE", "AWS_SESSION_TOKEN"}) if name not in text] == []
