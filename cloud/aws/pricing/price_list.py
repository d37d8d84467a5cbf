"""Read the prices of a region from AWS's Price List API, and write them as a table."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from cloud.aws.errors import aws_errors, require_member
from cloud.aws.pricing.table import Price, PriceTable, unpriced_instance
from psa.core.errors import UserError

# The API has an endpoint in few regions; each answers for all regions of its partition.
ENDPOINTS: Final = {"aws": "us-east-1", "aws-cn": "cn-northwest-1"}
# The usage type is the only attribute that every product has: instanceName and instanceType are often empty.
_TRAINING: Final = re.compile(r"(?:[A-Z0-9]+-)?Train:(ml\.[a-z0-9-]+\.[a-z0-9]+)")
_STORAGE: Final = re.compile(r"(?:[A-Z0-9]+-)?TimedStorage-ByteHrs")


def read_price_list(client: Any, region: str, known: PriceTable) -> PriceTable:
    """Return the present on-demand prices of training in a region, and of S3 Standard.

    client: boto3's, of `pricing`. known: supplies the range of spot prices, which the API does not have, and
    the number of GPUs. Raises UserError if AWS refuses or has no price of the region.
    """
    instances = {
        price.instance: price
        for product in _products(client, "AmazonSageMaker", region, "ML Instance")
        if (price := _training_price(product, known)) is not None
    }
    if not instances:
        raise UserError(
            f"AWS's Price List must have prices of training in {region}, got none",
            "Name a region in which SageMaker is offered with --region",
        )
    storage = (_storage_price(product) for product in _products(client, "AmazonS3", region, "Storage"))
    monthly = next((price for price in storage if price is not None), known.storage)
    today = dt.datetime.now(dt.UTC).date()
    return PriceTable(today, region, monthly, dict(sorted(instances.items())))


def _products(client: Any, service: str, region: str, family: str) -> Iterator[Mapping[str, Any]]:
    fields = {"regionCode": region, "productFamily": family}
    filters = [{"Type": "TERM_MATCH", "Field": name, "Value": value} for name, value in fields.items()]
    pages = client.get_paginator("get_products").paginate(ServiceCode=service, Filters=filters)
    with aws_errors("AWS's Price List cannot be read"):
        for page in pages:
            yield from (json.loads(text) for text in require_member(page, "PriceList"))


def _training_price(product: Mapping[str, Any], known: PriceTable) -> Price | None:
    attributes = product.get("product", {}).get("attributes", {})
    match = _TRAINING.fullmatch(str(attributes.get("usagetype", "")))
    hourly = _dollars(product, "Hrs")
    if match is None or not hourly:
        return None
    before = known.price_of(match[1])
    vcpus = str(attributes.get("vCpu", ""))
    spot = before.spot if before.hourly is not None else _usual_spot(known)
    return Price(match[1], hourly, int(vcpus) if vcpus.isdecimal() else before.vcpus, before.gpus, spot)


def _usual_spot(known: PriceTable) -> tuple[float, float]:
    return next((price.spot for price in known.instances.values()), unpriced_instance("").spot)


def _storage_price(product: Mapping[str, Any]) -> float | None:
    usage = str(product.get("product", {}).get("attributes", {}).get("usagetype", ""))
    return _dollars(product, "GB-Mo") if _STORAGE.fullmatch(usage) else None


def _dollars(product: Mapping[str, Any], unit: str) -> float | None:
    """Return the on-demand price in USD of the first units, or None."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term.get("priceDimensions", {}).values():
            text = dimension.get("pricePerUnit", {}).get("USD", "")
            is_first = dimension.get("beginRange", "0") == "0"
            if is_first and str(dimension.get("unit", "")).lower() == unit.lower() and text:
                dollars = float(text)
                return dollars if 0 <= dollars < math.inf else None
    return None


def encode_price_table(table: PriceTable) -> bytes:
    """Encode a table in the layout of the built-in one."""
    low, high = _usual_spot(table)
    lines = [
        "# Written by `psa prices refresh` from AWS's Price List API; without it the built-in one is used.",
        f"dated = {table.dated.isoformat()}",
        f"region = {json.dumps(table.region)}",
        f"storage = {table.storage!r}",
        f"spot = [{low!r}, {high!r}]",
        "",
        "[instances]",
    ]
    for name, price in table.instances.items():
        lines.append(
            f"{json.dumps(name)} = {{ dollars = {price.hourly!r}, vcpus = {price.vcpus}, "
            f"gpus = {price.gpus}, spot = [{price.spot[0]!r}, {price.spot[1]!r}] }}"
        )
    return "".join(f"{line}\n" for line in lines).encode()
