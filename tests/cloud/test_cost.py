"""Prices and what jobs have cost: the original study's bill, and every way in which a table can be wrong."""

from __future__ import annotations

import datetime as dt
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_jobs import described, study
from paths import ROOT

from cloud.aws.job_description import parse_description, read_jobs
from cloud.aws.pricing import job_cost, price_table
from cloud.commands.cost_report import make_bill
from psa.core.errors import UserError

SHIPPED = ROOT / "cloud/aws/pricing/prices.toml"


def test_the_bill_of_the_original_study() -> None:
    """588 jobs, 869.5 billed hours, $640.32, the longest 27.9 hours."""
    bill = make_bill([parse_description(answer, "x") for answer in study()], price_table())
    total = bill.total
    assert total.jobs == 588
    assert f"{total.hours:.1f} {total.dollars:.2f} {total.longest:.1f}" == "869.5 640.32 27.9"
    for group in ("status", "arch", "mode", "both"):
        sums = bill.by(group).values()
        assert sum(each.jobs for each in sums) == 588
        assert sum(each.dollars for each in sums) == pytest.approx(total.dollars, abs=1e-9)
    assert len(bill.by("arch")) == 98
    assert len(bill.by("both")) == 588
    assert set(bill.by("mode")) == {
        (mode,) for mode in ("none", "decay", "dropout", "full", "hidden", "output")
    }


def test_the_report_of_the_original_study_lists_its_jobs(tmp_path: Path) -> None:
    """As its own estimator wrote it: 588 jobs of one instance type, at the same cost."""
    jobs = [
        {"name": each["TrainingJobName"], "status": each["TrainingJobStatus"],
         "billable_seconds": each["BillableTimeInSeconds"], "billable_hours": 0.0, "cost": 0.0}
        for each in study()
    ]  # fmt: skip
    about = {"instance_type": "ml.g4dn.xlarge", "cost_per_hour": 0.7364, "region": "us-east-1"}
    path = tmp_path / "sagemaker_cost_report.json"
    path.write_text(json.dumps({"metadata": about, "breakdown": {}, "jobs": jobs}))
    names, found = read_jobs(path)
    total = make_bill(found, price_table()).total
    assert (len(names), f"{total.dollars:.2f}", found[0].region) == (588, "640.32", "us-east-1")
    path.write_text(json.dumps({"metadata": about, "jobs": [{"name": "psa-1x8-none-1"}]}))
    with pytest.raises(UserError, match="TrainingJobStatus must be a name, got None"):
        read_jobs(path)


def test_a_spot_discount_is_counted_once() -> None:
    """It is inside the billable seconds: the same seconds cost the same, and what was saved is said apart."""
    on_demand, spot = (
        parse_description(described("psa-1x8-none-1", 3_600, spot=spot, training=12_000), "x")
        for spot in (False, True)
    )
    assert job_cost(spot, price_table().instances) == job_cost(on_demand, price_table().instances) == 0.7364
    bill = make_bill([on_demand, spot], price_table())
    assert bill.saved == pytest.approx(0.7)
    assert make_bill([on_demand], price_table()).saved is None


def test_instances_groups_and_warm_pools_are_billed() -> None:
    """Every instance of every group, and the time for which a pool was kept."""
    many = described("psa-a", 1_800) | {
        "ResourceConfig": {
            "InstanceGroups": [
                {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "InstanceGroupName": "a"},
                {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "InstanceGroupName": "b"},
            ]
        },
        "WarmPoolStatus": {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 1_800},
    }
    assert job_cost(parse_description(many, "x"), price_table().instances) == pytest.approx(2 * 0.23 + 0.7364)


def test_what_has_no_price_or_has_not_ended_is_named() -> None:
    """It is not counted as nothing without a word."""
    dear = described("psa-b", 3_600)
    dear["ResourceConfig"]["InstanceType"] = "ml.p9.huge"
    running = described("psa-c", 0, "InProgress")
    del running["BillableTimeInSeconds"]
    far = described("psa-d", 60) | {"TrainingJobArn": "arn:aws:sagemaker:eu-west-1:1:training-job/psa-d"}
    bill = make_bill([parse_description(answer, "x") for answer in (dear, running, far)], price_table())
    assert bill.unpriced == {"ml.p9.huge": ["psa-b"]}
    assert bill.running == ("psa-c",)
    assert bill.elsewhere == ("psa-d",)
    assert bill.total.jobs == 2
    with pytest.raises(UserError, match=r"ml\.p9\.huge has no price.*--prices"):
        job_cost(parse_description(dear, "x"), price_table().instances)


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 8), st.booleans()), max_size=20))
def test_groups_always_add_up(jobs: list[tuple[int, int, bool]]) -> None:
    """Whatever the jobs are."""
    made = []
    for at, (seconds, count, spot) in enumerate(jobs):
        answer = described(f"psa-{at + 1}x2-none-1", seconds, spot=spot)
        answer["ResourceConfig"]["InstanceCount"] = count
        made.append(parse_description(answer, "x"))
    bill = make_bill(made, price_table())
    wanted = sum(seconds * count for seconds, count, _ in jobs) / 3600
    assert bill.total.hours == pytest.approx(wanted)
    assert bill.total.dollars == pytest.approx(wanted * 0.7364)
    assert sum(each.dollars for each in bill.by("both").values()) == pytest.approx(bill.total.dollars)


def test_the_table_that_is_shipped() -> None:
    """Dated, of a region, with the study's instances; spot is a part of the price."""
    table = price_table()
    assert table.dated <= dt.datetime.now(dt.UTC).date()
    assert table.description == f"prices of us-east-1, {table.dated}"
    assert table.monthly_cost(100 * 2**30) == pytest.approx(2.3)
    study = table.instances["ml.g4dn.xlarge"]
    assert (study.hourly, study.vcpus, study.gpus) == (0.7364, 4, 1)
    assert price_table(SHIPPED).instances == dict(table.instances)
    for price in table.instances.values():
        low, high = price.spot_cost(3600)
        assert 0 < low <= high <= price.hourly == price.cost(3600)


def changed(tmp_path: Path, old: str, new: str) -> Path:
    """The shipped table with a part of it replaced."""
    text = SHIPPED.read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    return path


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    """Every price of it counts, and a type may have a spot range of its own."""
    mine = price_table(
        changed(tmp_path, "dollars = 0.7364, vcpus = 4,", "dollars = 1, spot = [0, 0.1], vcpus = 4,")
    ).instances
    assert mine["ml.g4dn.xlarge"].hourly == 1.0
    assert mine["ml.g4dn.xlarge"].spot == (0.0, 0.1)
    assert mine["ml.m5.large"].spot == (0.3, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("dated = 2026-09-27", 'dated = "June"', "dated must be a date, got 'June'"),
        ("dated = 2026-09-27", "", "dated must be a date, got None"),
        ('region = "us-east-1"', "region = 3", "region must be the name of a region, got 3"),
        ("storage = 0.023", "storage = -1", "storage must be a price in USD, got -1"),
        ("storage = 0.023", "storages = 0.023", "unknown key 'storages'. Did you mean storage?"),
        ("spot = [0.3, 0.5]", "spot = [0.5, 0.3]", "spot must be a range of shares, got [0.5, 0.3]"),
        ("spot = [0.3, 0.5]", "spot = 0.5", "spot must be a range of shares, got 0.5"),
        ("spot = [0.3, 0.5]", 'spot = ["a", "b"]', "spot must be a range of shares, got ['a', 'b']"),
        ("dollars = 0.7364", "dollars = nan", "ml.g4dn.xlarge: dollars must be a price in USD, got nan"),
        ("dollars = 0.7364", 'dollars = "0.7364"', "dollars must be a price in USD, got '0.7364'"),
        ("dollars = 0.7364", "dollars = true", "dollars must be a price in USD, got True"),
        ("dollars = 0.7364", "dollar = 0.7364", "unknown key 'dollar'"),
        ("gpus = 1 } # what", "gpus = 1.5 } # what", "gpus must be a count, got 1.5"),
        ("dollars = 0.7364, vcpus = 4", "dollars = 0.7364, vcpus = 0", "vcpus must be a count, got 0"),
        ('"ml.g4dn.xlarge"', '"g4dn.xlarge"', "must be an instance type of SageMaker"),
        ('"ml.m5.large" = {', '"ml.m5.large" = 3\n"ml.m6.large" = {', "must be a table of prices, got 3"),
        ("[instances]", "[instances", "must be valid TOML"),
        ("[instances]", "", "unknown key"),
    ],
)
def test_a_wrong_table_is_told(old: str, new: str, said: str, tmp_path: Path) -> None:
    """One line that names the file and the key."""
    with pytest.raises(UserError, match=re.escape(said)) as caught:
        price_table(changed(tmp_path, old, new))
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_table_is_told(tmp_path: Path) -> None:
    """With what it should look like."""
    with pytest.raises(
        UserError, match=r"the table of prices .* does not exist.*cloud/aws/pricing/prices\.toml"
    ):
        price_table(tmp_path / "nowhere.toml")
    (tmp_path / "noise.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="must be UTF-8 text, got UTF-16"):
        price_table(tmp_path / "noise.toml")


WRONG: list[dict[str, Any]] = [
    {"TrainingJobName": None},
    {"TrainingJobName": "a\nb"},
    {"TrainingJobStatus": 3},
    {"BillableTimeInSeconds": -1},
    {"BillableTimeInSeconds": "60"},
    {"BillableTimeInSeconds": True},
    {"ResourceConfig": None},
    {"ResourceConfig": {"InstanceType": "ml.m5.large"}},
    {"ResourceConfig": {"InstanceGroups": "x"}},
    {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1.5}},
    {"WarmPoolStatus": [1]},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_a_wrong_description_is_told(change: dict[str, Any]) -> None:
    """With the file that it stands in."""
    with pytest.raises(UserError, match=r"jobs\.json"):
        parse_description(described("psa-a", 60) | change, "jobs.json")
