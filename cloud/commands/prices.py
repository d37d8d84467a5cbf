"""`psa prices`: the prices in use, and their refresh from AWS's Price List API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from cloud.aws import settings
from cloud.aws.pricing import PriceTable, price_table
from cloud.aws.pricing.price_list import ENDPOINTS, encode_price_table, read_price_list
from cloud.aws.pricing.table import user_table
from cloud.commands.common import Region, progress_line
from psa.cli.console import console, print_line
from psa.core.files import write_atomically
from psa.core.formatting import pluralize


def prices(
    action: Annotated[
        Literal["show", "refresh"], Parameter(help="Show the table in use, or download it from AWS.")
    ] = "show",
    *,
    region: Region = None,
    output_file: Annotated[
        Path | None,
        Parameter(help="Path of the refreshed table. [default: psa/prices/REGION.toml in ~/.config]"),
    ] = None,
) -> int:
    """Show the prices of SageMaker training, or refresh them from AWS.

    `refresh` downloads the prices of the region. Estimates then use them instead of the built-in table. It
    needs AWS credentials that allow pricing:GetProducts, but no role and no bucket.

    Example: psa prices refresh --region eu-west-1
    """
    out = console()
    found = settings.read_partial_settings(region=region)
    region = found.region
    if action == "show":
        _print_table(out, price_table(region=region), region)
        return 0
    endpoint = ENDPOINTS["aws-cn" if region.startswith("cn-") else "aws"]
    with progress_line(out, "Reading AWS's Price List"):
        table = read_price_list(found.client("pricing", endpoint), region, price_table(built_in=True))
    path = output_file or user_table(region)
    write_atomically(path, encode_price_table(table))
    print_line(out, f"{pluralize(len(table.instances), 'instance type')}: {table.description}")
    print_line(out, f"Prices {path}")
    return 0


def _print_table(out: Console, found: PriceTable, region: str) -> None:
    table = Table(title=f"{found.description}", title_justify="left")
    table.add_column("instance type")
    for head in ("vCPUs", "GPUs", "USD per hour"):
        table.add_column(head, justify="right")
    for name, price in found.instances.items():
        table.add_row(name, f"{price.vcpus}", f"{price.gpus}", f"{price.hourly:g}")
    out.print(table)
    if found.region != region:
        print_line(out, f"`psa prices refresh --region {region}` reads the prices of {region}")
