"""The results of the check of a device as a table, as JSON and as Markdown."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from gpu.checks import CheckResult
from psa.execution.machine import describe


def facts_of(device: torch.device, data: str, limit: float, seconds: float) -> dict[str, Any]:
    """Return the facts on the machine and on this run. limit, seconds: allowed and taken."""
    body = describe(device, torch.get_num_threads())
    del body["code"], body["host"]
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return body | {"memory_bytes": memory, "data": data, "limit": limit, "seconds": round(seconds, 1)}


def as_dict(
    checks: Sequence[CheckResult], facts: dict[str, Any], benchmark: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the body of gpu.json; docs/reproduction.md explains its keys."""
    return {
        "machine": facts,
        "passed": all(check.status != "failed" for check in checks),
        "checks": [dataclasses.asdict(check) for check in checks],
        "benchmark": benchmark,
    }


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool = False) -> list[str]:
    """Return the lines of a table: aligned columns for a terminal, or Markdown."""
    if markdown:
        return [f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows)]
    widths = [max(len(row[at]) for row in (headings, *rows)) for at in range(len(headings))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def check_lines(checks: Sequence[CheckResult], *, markdown: bool = False) -> list[str]:
    """Return the table of the checks."""
    rows = [[check.status, check.name, check.detail, f"{check.seconds:.1f} s"] for check in checks]
    return table(["result", "check", "finding", "time"], rows, markdown=markdown)


def speed_lines(benchmark: dict[str, Any], *, markdown: bool = False) -> list[str]:
    """Return the table of the architectures that were measured, and the estimate for the published study."""
    headings = ["family", "arch", "pack", "s / trial-epoch", "of bandwidth", "of arithmetic"]
    rows = [
        [
            row["family"],
            row["arch"].replace("*", "\\*") if markdown else row["arch"],
            f"{row['pack_size']}{'' if row['size_search_complete'] else ' (others not tried)'}",
            f"{row['seconds']:.3g}",
            f"{row['bandwidth_share']:.0%}",
            f"{row['arithmetic_share']:.0%}",
        ]
        for row in benchmark["architectures"]
    ]
    return [*table(headings, rows, markdown=markdown), "", *study_lines(benchmark)]


def study_lines(benchmark: dict[str, Any]) -> list[str]:
    """Return sentences on the device's limits, on what was measured, and on the published study."""
    study = benchmark["study"]
    lines = [
        f"Copies run at {benchmark['bandwidth'] / 1e9:,.0f} GB/s, "
        f"float32 products at {benchmark['matmul'] / 1e9:,.0f} GFLOP/s.",
        f"Measured: {benchmark['measured']} of {benchmark['of']} architectures, "
        "an even choice by arithmetic; the others are estimated."
        if benchmark["measured"] < benchmark["of"]
        else f"Measured: all {benchmark['of']} architectures.",
    ]
    if study is None:
        return [*lines, "Too few architectures were measured to estimate the published study."]
    hours = ", ".join(f"{family} {value:,.2f} h" for family, value in study["hours"].items())
    lines.append(f"The study of 98 architectures, 6 modes, 10 seeds and 100 loops by one process: {hours}.")
    lines += [
        f"On {offer['instance']}: ${offer['dollars']:,.2f} for both families ({offer['dated']})."
        for offer in study["dollars"]
    ] or ["The table of prices (cloud/aws/pricing/prices.toml) has no instance with this device."]
    published = study["published"]
    return [
        *lines,
        f"Published for {published['family']}: {published['hours']} GPU-hours and ${published['dollars']}.",
    ]


def write(folder: Path, body: dict[str, Any], checks: Sequence[CheckResult]) -> None:
    """Write gpu.json and gpu.md into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gpu.json").write_text(json.dumps(_plain(body), indent=1, allow_nan=False) + "\n")
    machine = body["machine"]
    lines = [
        f"# {machine['device_name']}",
        "",
        f"torch {machine['torch']}, {machine['platform']}, data: {machine['data']}, {machine['seconds']} s.",
        "",
        *check_lines(checks, markdown=True),
        "",
    ]
    lines += speed_lines(body["benchmark"], markdown=True) if body["benchmark"] else ["No benchmark was run."]
    (folder / "gpu.md").write_text("\n".join(lines) + "\n")


def _plain(value: Any) -> Any:
    """Return a value as JSON can hold it: a number that is not finite is null."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
