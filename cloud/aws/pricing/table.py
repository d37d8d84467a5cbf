"""Prices of instances and storage, from a dated table that users may replace, and the cost of a job.

The table is, in this order: the file of --prices, the user's own table of the region, which
`psa prices refresh` writes, and the built-in one.
"""

from __future__ import annotations

import datetime as dt
import importlib.resources
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cloud.aws.job_description import TrainingJob
from cloud.cache import config_folder
from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.core.formatting import quote
from psa.core.parsing import check_choice
from psa.core.text_file import read_toml

_HINT: Final = "Lay it out like the table that psa brings along (cloud/aws/pricing/prices.toml)"
_BUILT_IN: Final = "cloud/aws/pricing/prices.toml"
_TYPE: Final = re.compile(r"ml(\.[a-z0-9-]{1,30}){2}")
_SIZE: Final = re.compile(r"(\d*)(x?large)")
_VCPUS_PER_XLARGE: Final = 4  # of every family that SageMaker trains on
_WITH_GPUS: Final = re.compile(r"ml\.[gp]\d")
_KEYS: Final = {"dated", "region", "storage", "spot", "instances"}
_GB: Final = 2**30  # S3 counts gigabytes in powers of two


@dataclass(frozen=True)
class Price:
    """An instance type: its on-demand price in USD per hour (None if it is unknown), its hardware, and the
    range of spot prices as fractions of the on-demand price.
    """

    instance: str
    hourly: float | None
    vcpus: int
    gpus: int
    spot: tuple[float, float]

    def cost(self, seconds: float) -> float:
        """Return the on-demand cost in USD of one instance for `seconds`; 0 if the price is unknown."""
        return seconds / 3600 * (self.hourly or 0.0)

    def spot_cost(self, seconds: float) -> tuple[float, float]:
        """Return the range of the cost in USD of one spot instance for `seconds`. For estimates only."""
        low, high = self.spot
        return low * self.cost(seconds), high * self.cost(seconds)


@dataclass(frozen=True)
class PriceTable:
    """Prices of one region on one day. storage: USD per month and gigabyte in S3."""

    dated: dt.date
    region: str
    storage: float
    instances: Mapping[str, Price]

    def price_of(self, instance: str) -> Price:
        """Return an instance type, with its price if the table has it."""
        return self.instances.get(instance) or unpriced_instance(instance)

    def monthly_cost(self, size: float) -> float:
        """Return the cost in USD per month of `size` bytes in S3."""
        return size / _GB * self.storage

    @property
    def description(self) -> str:
        """A short description of the table."""
        return f"prices of {self.region}, {self.dated.isoformat()}"


def user_table(region: str) -> Path:
    """Return the path of the user's own table of a region; it exists once `psa prices refresh` has run."""
    return config_folder("prices") / f"{region}.toml"


def price_table(path: Path | None = None, region: str | None = None, *, built_in: bool = False) -> PriceTable:
    """Read a price table in TOML: that of a path, else the user's own of the region, else the built-in one.

    region: by default that of the built-in table; built_in: pass over the user's own table.
    Raises UserError that names the key.
    """
    if path is None:
        content = (importlib.resources.files("cloud.aws.pricing") / "prices.toml").read_bytes()
        table = parse_price_table(content, _BUILT_IN)
        path = user_table(region or table.region)
        if built_in or not path.exists():
            return table
    found = read_bytes(path)
    if found is None:
        raise UserError(f"the table of prices {path} does not exist", _HINT)
    return parse_price_table(found, str(path))


def parse_price_table(content: bytes, where: str) -> PriceTable:
    """Parse a price table. where: its name in errors. Raises UserError that names the key."""
    table = read_toml(content, where, "table of prices")
    for key in table:
        check_choice(key, _KEYS, where, "key")
    dated, region, instances = table.get("dated"), table.get("region"), table.get("instances")
    if type(dated) is not dt.date:
        raise UserError(f"{where}: dated must be a date, got {quote(dated)}", "Write it like 2025-06-01")
    if not isinstance(region, str) or not region:
        raise UserError(
            f"{where}: region must be the name of a region, got {quote(region)}", "Write it like us-east-1"
        )
    if not isinstance(instances, dict) or not instances:
        raise UserError(f"{where} has no [instances]", _HINT)
    spot = _shares(table.get("spot"), where)
    return PriceTable(
        dated,
        region,
        _number(table.get("storage"), f"{where}: storage"),
        {name: _price(name, values, spot, f"{where}: {name}") for name, values in instances.items()},
    )


def _price(name: str, values: Any, spot: tuple[float, float], where: str) -> Price:
    if _TYPE.fullmatch(name) is None:
        raise UserError(f"{where} must be an instance type of SageMaker", "They read like ml.g4dn.xlarge")
    if not isinstance(values, dict):
        raise UserError(f"{where} must be a table of prices, got {quote(values)}", _HINT)
    for key in values:
        check_choice(key, {"dollars", "vcpus", "gpus", "spot"}, where, "key")
    vcpus, gpus = (values.get(key) for key in ("vcpus", "gpus"))
    for key, count, least in (("vcpus", vcpus, 1), ("gpus", gpus, 0)):
        if type(count) is not int or not least <= count <= 10_000:
            raise UserError(f"{where}: {key} must be a count, got {quote(count)}", _HINT)
    return Price(
        name,
        _number(values.get("dollars"), f"{where}: dollars"),
        values["vcpus"],
        values["gpus"],
        _shares(values["spot"], where) if "spot" in values else spot,
    )


def unpriced_instance(name: str) -> Price:
    """Return an instance type without a price. Its hardware follows from AWS's names: two virtual CPUs for
    `large`, four for `xlarge` and for each of the N in `Nxlarge`; families in g and p have GPUs of NVIDIA.
    """
    size = _SIZE.fullmatch(name.rpartition(".")[2])
    count = int(size[1] or 1) if size else 1
    vcpus = count * _VCPUS_PER_XLARGE if size and size[2] == "xlarge" else 2
    return Price(name, None, vcpus, int(_WITH_GPUS.match(name) is not None), (0.0, 1.0))


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise UserError(
            f"{where} must be a price in USD, got {quote(value)}", "Write dollars, such as 0.7364"
        )
    return float(value)


def _shares(value: Any, where: str) -> tuple[float, float]:
    is_pair = isinstance(value, list) and len(value) == 2
    low, high = value if is_pair else (None, None)
    numbers = [each for each in (low, high) if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) != 2 or not 0 <= numbers[0] <= numbers[1] <= 1:
        raise UserError(
            f"{where}: spot must be a range of shares, got {quote(value)}", "Write it like [0.3, 0.5]"
        )
    return float(numbers[0]), float(numbers[1])


def job_cost(job: TrainingJob, table: Mapping[str, Price]) -> float:
    """Return the cost of a job in USD: billable seconds x instances x the on-demand price, also for spot
    instances, since their discount is already in the billable seconds. Raises UserError for an instance type
    without a price.
    """
    return math.fsum(
        count * _priced(instance, table).cost(job.billable_seconds + job.retained_seconds)
        for instance, count in job.instances
    )


def _priced(instance: str, table: Mapping[str, Price]) -> Price:
    price = table.get(instance)
    if price is None:
        raise UserError(
            f"{instance} has no price",
            "Run `psa prices refresh`, or name a table that has it with --prices",
        )
    return price
