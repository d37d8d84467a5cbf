"""The price of a sweep without an account, and the refresh of prices from AWS's Price List API."""

from __future__ import annotations

import datetime as dt
import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

pytest.importorskip("boto3", reason="the extra aws is not installed")

from cloud.aws.pricing import price_table, unpriced_instance
from cloud.aws.pricing.price_list import encode_price_table, read_price_list
from cloud.aws.pricing.table import parse_price_table, user_table
from cloud.aws.request_validation import training_instance_types
from psa.cli import app
from psa.core.errors import UserError

SMOKE = str(ROOT / "reproduction/smoke.toml")
FAMILIES = ["m5", "m6i", "m7i", "c5", "c6i", "c7i", "g4dn", "g5", "g6", "g6e", "p3", "p4d", "p5"]


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting, no credentials, and no connection to anywhere."""
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_SAGEMAKER_ROLE", "S3_BUCKET_NAME", "AWS_ACCESS_KEY_ID", "INSTANCE_TYPE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))

    def refused(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """The exit code of a command, and what it printed."""
    code = app.run(app.PSA, words)
    return code, *capsys.readouterr()


def test_a_dry_run_needs_no_account(capsys: pytest.CaptureFixture[str]) -> None:
    """Placeholders stand in the requests, and one line names them."""
    code, out, err = said(capsys, "sweep", SMOKE, "--backend", "sagemaker", "--dry-run")
    assert (code, err) == (0, "")
    request = json.loads(next(line for line in out.splitlines() if line.startswith("{")))
    assert request["RoleArn"].endswith("role/AWS_SAGEMAKER_ROLE")
    assert request["CheckpointConfig"]["S3Uri"].startswith("s3://S3_BUCKET_NAME/psa-experiment/")
    assert "placeholders stand for AWS_SAGEMAKER_ROLE, S3_BUCKET_NAME" in out
    assert re.search(r"1 job: .* instance-hours, \$\d+\.\d\d \(prices of us-east-1", out)


def test_what_is_set_has_no_placeholder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what is missing is named."""
    monkeypatch.setenv("S3_BUCKET_NAME", "a-bucket")
    _, out, _ = said(capsys, "sweep", SMOKE, "--backend", "sagemaker", "--dry-run")
    assert "s3://a-bucket/" in out
    assert "placeholders stand for AWS_SAGEMAKER_ROLE:" in out


def test_a_plan_prints_the_price_without_the_requests(capsys: pytest.CaptureFixture[str]) -> None:
    """The table of this machine, then hours and dollars; no JSON."""
    code, out, _ = said(capsys, "plan", SMOKE, "--backend", "sagemaker", "--spot", "--jobs", "2")
    assert code == 0
    assert "trials pending" in out
    assert re.search(r"2 jobs: .* as spot", out)
    assert "{" not in out


def test_a_plan_of_this_machine_is_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing of a backend is printed unless it is named."""
    _, out, _ = said(capsys, "plan", SMOKE)
    assert "instance-hours" not in out
    code, _, err = said(capsys, "plan", SMOKE, "--jobs", "2")
    assert code == 2
    assert "--jobs must be left out with --backend local" in err


def test_a_submission_still_needs_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """What a dry run stands in for."""
    code, _, err = said(capsys, "sweep", SMOKE, "--backend", "sagemaker")
    assert code == 2
    assert "S3_BUCKET_NAME must be set" in err


def test_a_type_without_a_price_runs_unless_the_cost_is_limited(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its hardware follows from its name."""
    monkeypatch.setenv("INSTANCE_TYPE", "ml.r5.2xlarge")
    code, out, _ = said(capsys, "plan", SMOKE, "--backend", "sagemaker")
    assert code == 0
    assert "without a price" in out
    assert "ml.r5.2xlarge has no price in the prices of us-east-1" in out
    code, _, err = said(capsys, "plan", SMOKE, "--backend", "sagemaker", "--max-cost", "5")
    assert code == 2
    assert "--max-cost needs a price of every instance type, got 'ml.r5.2xlarge'" in err


@pytest.mark.parametrize("name", list(price_table(built_in=True).instances))
def test_hardware_follows_from_the_names_of_aws(name: str) -> None:
    """The convention for types without a price holds for all types that have one."""
    known, guess = price_table(built_in=True).instances[name], unpriced_instance(name)
    assert (guess.vcpus, guess.gpus > 0) == (known.vcpus, known.gpus > 0)


def test_the_built_in_table_holds_the_usual_families() -> None:
    """Each of its types is one that SageMaker trains on."""
    table = price_table(built_in=True)
    assert set(table.instances) <= set(training_instance_types())
    assert {name.split(".")[1] for name in table.instances} >= set(FAMILIES)


class PriceList:
    """A client of the Price List API: its pages, and the filters that it was asked for."""

    def __init__(self, *products: dict[str, Any]) -> None:
        self.products, self.asked = products, list[dict[str, Any]]()

    def get_paginator(self, name: str) -> PriceList:
        """Of get_products."""
        assert name == "get_products"
        return self

    def paginate(self, **request: Any) -> Iterator[dict[str, Any]]:
        """One product per page."""
        self.asked.append(request)
        for product in self.products:
            yield {"PriceList": [json.dumps(product)]}


def product(usage: str, dollars: str, unit: str = "Hrs", **attributes: str) -> dict[str, Any]:
    """A product in the layout of AWS's offer files."""
    dimension = {"unit": unit, "beginRange": "0", "pricePerUnit": {"USD": dollars}}
    return {
        "product": {"attributes": {"usagetype": usage, **attributes}},
        "terms": {"OnDemand": {"X.Y": {"priceDimensions": {"X.Y.Z": dimension}}}},
    }


def test_the_price_list_becomes_a_table() -> None:
    """Training alone counts: hosting has its own price, and a free tier is no price."""
    client = PriceList(
        product("EU-Train:ml.m5.xlarge", "0.2570000000", vCpu="4"),
        product("EU-Train:ml.zz9.2xlarge", "9.0000000000"),
        product("EU-Train:ml.m5.large", "0.0000000000"),
        product("EU-Host:ml.c5.xlarge", "0.2000000000"),
        product("EU-TimedStorage-ByteHrs", "0.0240000000", "GB-Mo"),
    )
    table = read_price_list(client, "eu-west-1", price_table(built_in=True))
    assert {name: price.hourly for name, price in table.instances.items()} == {
        "ml.m5.xlarge": 0.257,
        "ml.zz9.2xlarge": 9.0,
    }
    assert (table.region, table.storage) == ("eu-west-1", 0.024)
    assert table.instances["ml.zz9.2xlarge"].vcpus == 8
    assert {"Type": "TERM_MATCH", "Field": "regionCode", "Value": "eu-west-1"} in client.asked[0]["Filters"]
    assert parse_price_table(encode_price_table(table), "x") == table


def test_a_region_without_prices_is_an_error() -> None:
    """Rather than an empty table."""
    with pytest.raises(UserError, match="must have prices of training in mars-1, got none"):
        read_price_list(PriceList(), "mars-1", price_table(built_in=True))


def test_the_users_own_table_takes_the_place_of_the_built_in_one() -> None:
    """Each region has its own; --prices counts more than both."""
    client = PriceList(product("Train:ml.m5.xlarge", "0.5"))
    known = price_table(built_in=True)
    mine = read_price_list(client, "eu-west-1", known)
    path = user_table("eu-west-1")
    path.parent.mkdir(parents=True)
    path.write_bytes(encode_price_table(mine))
    assert price_table(region="eu-west-1").instances["ml.m5.xlarge"].hourly == 0.5
    assert price_table(region="us-east-1") == price_table() == known
    assert price_table(ROOT / "cloud/aws/pricing/prices.toml", "eu-west-1") == known
    assert mine.dated == dt.datetime.now(dt.UTC).date()


def test_a_dry_run_shows_and_checks_what_companies_require(capsys: pytest.CaptureFixture[str]) -> None:
    """In the request; AWS's own model refuses what it does not allow."""
    dry = ("sweep", SMOKE, "--backend", "sagemaker", "--dry-run")
    options = (
        "--subnets",
        "subnet-a",
        "--security-groups",
        "sg-1",
        "--tags",
        "team=vision",
        "--network-isolation",
    )
    code, out, _ = said(capsys, *dry, *options)
    assert code == 0
    request = json.loads(out.splitlines()[1])
    assert request["VpcConfig"] == {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-a"]}
    assert request["EnableNetworkIsolation"] is True
    assert {"Key": "team", "Value": "vision"} in request["Tags"]
    for wrong, text in (
        (("--max-retries", "31"), "RetryStrategy.MaximumRetryAttempts: 31 is more than 30"),
        (
            ("--keep-alive", "60", "--spot"),
            "KeepAlivePeriodInSeconds: only without EnableManagedSpotTraining",
        ),
        (("--subnets", "a b", "--security-groups", "sg-1"), "VpcConfig.Subnets[0]"),
    ):
        code, _, err = said(capsys, *dry, *wrong)
        assert code == 2
        assert text in err
