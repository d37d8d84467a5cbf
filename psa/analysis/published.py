"""Published numbers: tables of trials (Markdown), read into the same frame as records, and cells with
regimes.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pandas as pd
from scipy import stats as scipy_stats

from psa.analysis.frame_schema import build_frame
from psa.analysis.stats import LEAST_N, LEVEL, Summary
from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.core.text_file import decode_text
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of
from psa.specs.training import MODES

_COLUMNS: Final = ("arch", "regime", "mode", "mean", "std_pop", "n")


@dataclass(frozen=True)
class Reference:
    """Published numbers: the regime and the parameters of each architecture (where the table has them), and
    its cells as n, mean and sample deviation.
    """

    regimes: dict[str, str]
    cells: dict[tuple[str, str], Summary]
    parameters: dict[str, int] = field(default_factory=dict)


def read_reference(path: Path) -> Reference:
    """Read published numbers from a TSV with the columns arch, regime, mode, mean, std_pop, min, max, n (see
    reproduction/published). Raises UserError that names the invalid line.
    """
    content = read_bytes(path)
    if content is None:
        raise UserError(
            f"the published numbers {path} do not exist", "Name a file like published/simplemlp.tsv"
        )
    lines = csv.DictReader(decode_text(content, str(path)).splitlines(), delimiter="\t")
    absent = [name for name in _COLUMNS if name not in (lines.fieldnames or ())]
    if absent:
        raise UserError(
            f"{path} must have a column {absent[0]}", f"The columns are {', '.join(_COLUMNS)}, min, max"
        )
    found = Reference({}, {})
    for number, row in enumerate(lines, 2):
        try:
            arch = Arch.coerce(row["arch"]).label
            found.cells[arch, row["mode"]] = _summary(row)
            found.regimes[arch] = row["regime"]
            if row.get("params"):
                found.parameters[arch] = int(row["params"])
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path}, line {number}: {error}", "Correct it") from None
    return found


def _summary(row: dict[str, str]) -> Summary:
    """Return a published cell with its deviation, which divides by n, converted to n - 1 for intervals."""
    n, mean = int(row["n"]), float(row["mean"])
    if n < LEAST_N:
        return Summary(n, mean, math.nan, math.nan, math.nan, float(row["min"]), float(row["max"]))
    sd = float(row["std_pop"]) * math.sqrt(n / (n - 1))
    half = float(scipy_stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    return Summary(
        n, mean, sd, max(mean - half, 0.0), min(mean + half, 100.0), float(row["min"]), float(row["max"])
    )


_HEADING: Final = re.compile(r"###\s*Architecture:\s*(?P<arch>[0-9*, ]+?)\s*")
_TRIAL: Final = re.compile(r"[0-9]{1,9}", re.ASCII)
_CELL: Final = re.compile(r"(?P<percent>[0-9]{1,3}(\.[0-9]+)?)\s*%")


def published_trials(path: Path, family: str, total: int = 10_000) -> pd.DataFrame:
    """Read a published table of trials (Markdown) as a frame: a heading `### Architecture: 1*2048` before
    each table, whose columns are Trial and the modes and whose cells are percentages of `total` or N/A.

    Raises UserError that names the invalid line.
    """
    content = read_bytes(path)
    if content is None:
        raise UserError(
            f"the table of trials {path} does not exist", "Name a file like results/psa_simplemlp_trials.md"
        )
    rows: list[dict[str, Any]] = []
    arch, modes, seen = "", list[str](), set[str]()
    for number, line in enumerate(decode_text(content, str(path)).splitlines(), 1):
        heading = _HEADING.fullmatch(line.strip())
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if heading is not None:
            arch, modes = _arch(heading["arch"], path, number), []
        elif not line.strip().startswith("|") or set(line) <= set("|:- "):
            continue
        elif cells[0].lower() == "trial":
            modes = _modes(cells[1:], path, number)
        elif arch and len(cells) == len(modes) + 1 and _TRIAL.fullmatch(cells[0]):
            for mode, cell in zip(modes, cells[1:], strict=True):
                row = published_row(family, arch, mode, int(cells[0]), _percent(cell, path, number), total)
                if row["id"] in seen:
                    raise UserError(
                        f"{path}, line {number} must be the only trial {cells[0]} of {arch}, mode {mode}",
                        "Remove one of them",
                    )
                seen.add(row["id"])
                rows.append(row)
        else:
            raise UserError(
                f"{path}, line {number} must be a row of trials, got {line.strip()[:60]!r}", "Correct it"
            )
    if not rows:
        raise UserError(
            f"{path} must hold a table of trials", "It begins with a line `### Architecture: 1*16`"
        )
    return build_frame(rows)


def _arch(text: str, path: Path, number: int) -> str:
    try:
        return Arch.coerce(text).label
    except UserError as error:
        raise UserError(f"{path}, line {number}: {error.message}", error.hint) from None


def _modes(cells: Sequence[str], path: Path, number: int) -> list[str]:
    """Return the headings of the columns. Raises UserError for an unknown mode, or one that occurs twice."""
    modes = [cell.lower() for cell in cells]
    for mode in modes:
        if mode not in MODES or modes.count(mode) > 1:
            rule = "must occur once" if mode in MODES else f"must be one of {', '.join(MODES)}"
            raise UserError(f"{path}, line {number}: a mode {rule}, got {mode!r}", "Correct it")
    return modes


def _percent(cell: str, path: Path, number: int) -> float | None:
    match = _CELL.fullmatch(cell)
    if match is not None and float(match["percent"]) <= 100:
        return float(match["percent"])
    if cell.upper() in ("N/A", "", "-"):
        return None
    raise UserError(f"{path}, line {number}: a trial must be a percentage or N/A, got {cell!r}", "Correct it")


def published_row(
    family: str, arch: str, mode: str, trial: int, bounty: float | None, total: int = 10_000
) -> dict[str, Any]:
    """Return the row of a trial whose bounty alone is known, in percent of `total`, or missing (None)."""
    model = PublishedModelSpec.model_validate({"family": family, "arch": arch})
    return {
        "id": f"published/{family}/{arch}/{mode}/{trial}",
        "study": "published",
        "family": family,
        "arch": arch,
        "mode": mode,
        "seed": trial,
        "status": "missing" if bounty is None else "done",
        "parameters": shape_of(model).parameters,
        "validation_size": total,
        "bounty": bounty,
        "bounty_correct": None if bounty is None else round(bounty * total / 100),
        "source": "published",
    }
