"""`psa check aws` against the emulator: an account that is ready, and each thing that may be wrong."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="the extra rehearse is not installed")

from moto.iam.models import iam_backends
from paths import ROOT
from policies import POLICIES, actions_of, without_action

from cloud.aws.settings import read_partial_settings
from cloud.emulator import Emulator, Faults, rehearsal
from cloud.emulator.jobs import ACCOUNT
from cloud.emulator.s3_server import loopback_client
from cloud.emulator.services.policies import ApiCall, Authorizer, policy_allows
from cloud.emulator.services.s3_gate import s3_actions
from cloud.sagemaker.account_check.policy_documents import (
    PolicyName,
    policy_document,
    policy_template,
)
from cloud.sagemaker.account_check.result import CheckResult
from cloud.sagemaker.account_check.run import check_account
from psa.cli import app

SAGEMAKER = {"iam:PassedToService": "sagemaker.amazonaws.com"}
NONE = "ml.p5.48xlarge"  # the type whose quota is 0


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """An emulator whose policies a test may change."""
    faults = Faults(no_capacity=frozenset({NONE}))
    with rehearsal(tmp_path_factory.mktemp("stage"), faults, Authorizer(policies={})) as started:
        yield started


@pytest.fixture(autouse=True)
def account(stage: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator's account, with a folder that has no .env; no policy limits it."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith(("AWS_", "SAGEMAKER_", "S3_"))]:
        monkeypatch.delenv(name)
    for name, value in stage.inherited(os.environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ("INSTANCE_TYPE", "TRAINING_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    stage.authorizer.policies = {}


def faults() -> dict[str, CheckResult]:
    """The failed checks of the account, by name."""
    found = check_account(read_partial_settings())
    return {result.name: result for result in found if result.status == "failed"}


def test_an_account_that_is_ready(capsys: pytest.CaptureFixture[str], stage: Emulator) -> None:
    """Every line is ok, the exit code is 0, and nothing is left in the bucket."""
    assert app.run(app.PSA, ["check", "aws"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "The account is ready."
    assert {line.split()[0] for line in out[:-1]} == {"ok"}
    with contextlib.closing(stage.s3.client()) as s3:
        assert s3.list_objects_v2(Bucket=stage.s3.bucket)["KeyCount"] == 0


@pytest.mark.parametrize(
    ("setting", "value", "name", "text", "remedy"),
    [
        ("S3_BUCKET_NAME", "", "settings", "S3_BUCKET_NAME must be set", "see .env.example"),
        ("AWS_ACCESS_KEY_ID", "unknown", "credentials", "InvalidClientTokenId", "Run `aws configure`"),
        ("AWS_SAGEMAKER_ROLE", f"arn:aws:iam::{ACCOUNT}:role/none", "role", "does not exist", "Create it"),
        (
            "S3_BUCKET_NAME",
            "not-there",
            "bucket",
            "s3://not-there does not exist",
            "aws s3 mb s3://not-there",
        ),
        ("INSTANCE_TYPE", NONE, f"quota {NONE}", "training job usage is 0", "--quota-code L-"),
        (
            "TRAINING_IMAGE",
            "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:0.1",
            "image",
            "pytorch:0.1 does not exist",
            "Correct TRAINING_IMAGE",
        ),
    ],
)
def test_each_fault_has_a_remedy(
    setting: str, value: str, name: str, text: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line names what is wrong, and what to do."""
    monkeypatch.setenv(setting, value)
    found = faults()[name]
    assert text in found.text
    assert remedy in found.remedy


def test_a_role_that_sagemaker_may_not_assume(stage: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its trust policy names another service."""
    with contextlib.closing(loopback_client("iam", stage.endpoint)) as iam:
        trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}}]}
        iam.create_role(
            RoleName="other", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17"} | trust)
        )
    monkeypatch.setenv("AWS_SAGEMAKER_ROLE", f"arn:aws:iam::{ACCOUNT}:role/other")
    try:
        assert "cannot be assumed by sagemaker.amazonaws.com" in faults()["role"].text
    finally:
        iam_backends[ACCOUNT]["aws"].delete_role("other")


def test_a_bucket_of_another_region(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs would pay for every byte."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    assert "Set AWS_REGION=us-east-1" in faults()["bucket region"].remedy


def test_the_results_as_json(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One document; the exit code is 1 if something failed."""
    monkeypatch.setenv("S3_BUCKET_NAME", "not-there")
    assert app.run(app.PSA, ["check", "aws", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert {"name", "status", "text", "remedy"} == set(found["checks"][0])


def test_a_policy_is_printed_with_the_users_names(capsys: pytest.CaptureFixture[str]) -> None:
    """Ready to be pasted into IAM."""
    assert app.run(app.PSA, ["check", "aws", "--policy", "caller"]) == 0
    out = capsys.readouterr().out
    assert "${" not in out
    assert "arn:aws:s3:::psa-rehearsal/psa-experiment/*" in out
    assert json.loads(out)["Version"] == "2012-10-17"


def test_the_documented_policies_are_enough_for_the_check(stage: Emulator) -> None:
    """Under them nothing fails."""
    settings = read_partial_settings()
    stage.authorizer.policies = {name: policy_document(name, settings) for name in POLICIES}
    assert faults() == {}


REMOVED = [("caller", "s3:PutObject"), ("caller", "iam:PassRole"), ("role", "logs:PutLogEvents")]


@pytest.mark.parametrize(("principal", "action"), REMOVED)
def test_a_removed_action_is_named(principal: PolicyName, action: str, stage: Emulator) -> None:
    """Whether the check tries it or asks IAM's simulator."""
    removed_is_named(principal, action, stage)


@pytest.mark.slow
@pytest.mark.parametrize("principal", POLICIES)
def test_every_removed_action_is_named(principal: PolicyName, stage: Emulator) -> None:
    """One after the other."""
    for action in actions_of(policy_document(principal, read_partial_settings())):
        if action != "pricing:GetProducts":
            removed_is_named(principal, action, stage)


def removed_is_named(principal: PolicyName, action: str, stage: Emulator) -> None:
    """Check an account whose policy lacks an action."""
    settings = read_partial_settings()
    policies: dict[str, Any] = {name: policy_document(name, settings) for name in POLICIES}
    stage.authorizer.policies = policies | {principal: without_action(policies[principal], action)}
    found = faults()
    assert any(action in result.text + result.remedy for result in found.values()), (action, found)


def test_policies_allow_what_they_list() -> None:
    """Wildcards, resources and conditions; everything else is refused."""
    statement = {"Effect": "Allow", "Action": ["s3:Get*"], "Resource": "arn:aws:s3:::b/p/*"}
    passing = {
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": "*",
        "Condition": {"StringEquals": SAGEMAKER},
    }
    document = {"Statement": [statement, passing]}
    assert policy_allows(document, "s3:GetObject", "arn:aws:s3:::b/p/x", {})
    assert not policy_allows(document, "s3:GetObject", "arn:aws:s3:::b/q/x", {})
    assert not policy_allows(document, "s3:PutObject", "arn:aws:s3:::b/p/x", {})
    assert policy_allows(document, "iam:PassRole", "r", SAGEMAKER)
    assert not policy_allows(document, "iam:PassRole", "r", {"iam:PassedToService": "ec2.amazonaws.com"})
    assert list(actions_of(without_action(document, "iam:PassRole"))) == ["s3:Get*"]


def test_requests_to_s3_need_the_actions_of_iam() -> None:
    """One for each object that a request deletes."""
    body = b"<Delete><Object><Key>p/a</Key></Object><Object><Key>p/b</Key></Object></Delete>"
    assert list(s3_actions("POST", "/b?delete", body)) == [
        ("s3:DeleteObject", "arn:aws:s3:::b/p/a"),
        ("s3:DeleteObject", "arn:aws:s3:::b/p/b"),
    ]
    assert list(s3_actions("GET", "/b?list-type=2&prefix=p", b"")) == [("s3:ListBucket", "arn:aws:s3:::b")]
    assert list(s3_actions("PUT", "/b/p/a%20b", b"")) == [("s3:PutObject", "arn:aws:s3:::b/p/a b")]


def test_a_job_whose_role_lacks_a_permission_fails_with_its_name(stage: Emulator) -> None:
    """As on AWS, in the failure reason."""
    call = ApiCall("role", "logs:PutLogEvents", "x")
    stage.authorizer.policies = {"role": {"Statement": []}}
    assert not stage.authorizer.allows(call)
    assert stage.authorizer.allows(call._replace(principal="caller"))


def test_the_page_shows_the_policies() -> None:
    """Those of the package, to the letter."""
    page = (ROOT / "docs/sagemaker.md").read_text()
    for name in POLICIES:
        assert f"```json\n{policy_template(name)}```" in page
