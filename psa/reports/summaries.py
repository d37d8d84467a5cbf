"""The summary of a family, six lines per architecture, as the study published it: written and read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.core.text_file import decode_text
from psa.reports.cells import Cells, cells_of
from psa.reports.tables import Uncertain
from psa.specs.arch import Arch
from psa.specs.training import MODES

_HEAD: Final = re.compile(r"Results Shape \{(?P<arch>[0-9*, ]+)\} Parameters \{(?P<parameters>[0-9,]+)\}")
_PERCENT: Final = r"([0-9]{1,3}(?:\.[0-9]+)?)\s*%"
_LINE: Final = re.compile(
    rf"\* (?P<mode>\w+): Mean={_PERCENT} \| Std={_PERCENT} \| Min={_PERCENT} \| Max={_PERCENT}"
    r" \(n=(?P<n>[0-9]+)\)"
)
_TOKEN: Final = re.compile(r"\* (?P<mode>\w+): (?P<token>[A-Z_]+)")


@dataclass(frozen=True)
class Block:
    """An architecture of a summary: its parameters and its modes, None where the summary has a token."""

    arch: str
    parameters: int
    modes: dict[str, Uncertain | None]


def summary_markdown(frame: pd.DataFrame, tokens: Mapping[tuple[str, str], str] | None = None) -> str:
    """The summary of a frame of one family. Std is the population's; a cell without any trial says FAILED,
    DAMAGED or MISSING, or what `tokens` has for its arch and mode, and n counts the trials that are there.
    """
    cells = cells_of(frame)
    blocks = []
    for arch in cells.archs:
        lines = [f"Results Shape {{{arch}}} Parameters {{{cells.parameters[arch]}}}"]
        lines += [f"* {mode.capitalize()}: {_said(cells, arch, mode, tokens or {})}" for mode in MODES]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _said(cells: Cells, arch: str, mode: str, tokens: Mapping[tuple[str, str], str]) -> str:
    cell = cells.cell(arch, mode)
    if not cell.found:
        return tokens.get((arch, mode), cell.token)
    of = cell.numbers
    numbers = {"Mean": of.mean, "Std": of.sd, "Min": of.low, "Max": of.high}
    said = " | ".join(f"{name}={number:.2f}%" for name, number in numbers.items())
    return f"{said} (n={len(cell.found)})"


def read_summary(path: Path) -> list[Block]:
    """The architectures of a summary. Raises UserError that names the line which is not so."""
    content = read_bytes(path)
    if content is None:
        raise UserError(f"there is no summary {path}", "Name a file like results/psa_simplemlp_summary.md")
    blocks: list[Block] = []
    for number, line in enumerate(decode_text(content, str(path)).splitlines(), 1):
        text, where = line.strip(), f"{path}, line {number}"
        head = _HEAD.fullmatch(text)
        if head is not None:
            blocks.append(_read_head(head, where))
        elif text.startswith("* "):
            _read_mode(text, blocks, where)
    if not blocks:
        raise UserError(
            f"{path} holds no summary", "It begins with a line `Results Shape {1*16} Parameters ...`"
        )
    most = max([mode.n for block in blocks for mode in block.modes.values() if mode is not None], default=0)
    return [_expecting(block, most) for block in blocks]


def _read_head(head: re.Match[str], where: str) -> Block:
    try:
        return Block(Arch.coerce(head["arch"]).label, int(head["parameters"].replace(",", "")), {})
    except UserError as error:
        raise UserError(f"{where}: {error.what}", error.way_out) from None


def _read_mode(text: str, blocks: list[Block], where: str) -> None:
    found, token = _LINE.fullmatch(text), _TOKEN.fullmatch(text)
    match = found or token
    if match is None or not blocks or match["mode"].lower() not in MODES:
        raise UserError(f"{where}: {text[:60]!r} is no line of a summary", "Correct it")
    cell = None
    if found is not None:
        n = int(found["n"])
        cell = Uncertain(float(found[2]), float(found[3]) if n > 1 else float("nan"), n, n)
    blocks[-1].modes[match["mode"].lower()] = cell


def _expecting(block: Block, trials: int) -> Block:
    """A cell has as many trials as the fullest of the file, or some of its own are missing."""
    modes = {
        name: None if mode is None else Uncertain(mode.mean, mode.sd, mode.n, trials)
        for name, mode in block.modes.items()
    }
    return Block(block.arch, block.parameters, modes)
