"""The ablation study as Markdown: its listings in the published format, and its summaries."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import equal_budgets
from psa.analysis.stats import Values
from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.core.text_file import decode_text
from psa.reports.ablation.cells import Cells, cells_of
from psa.reports.ablation.curves import lkg_matrix
from psa.reports.ablation.numbers import cells_note
from psa.reports.rendering.latex import escape_markdown
from psa.reports.rendering.tables import MeanSd, grid, rounded
from psa.specs.arch import Arch
from psa.specs.training import MODES

_NOTHING: Final = "N/A"


def trials_markdown(frame: pd.DataFrame) -> str:
    """Return the bounty of every trial, a table per architecture with a row per seed. psa.analysis.published
    reads it.
    """
    cells = cells_of(frame)
    heads = ["Trial", *map(str.capitalize, MODES)]
    parts = [
        f"# Trials of {cells.family}",
        f"Best validation accuracy of each trial; Trial is its seed. {escape_markdown(cells_note(cells))}",
    ]
    for arch in cells.archs:
        rows = [
            [str(seed), *(_percent(cells.cell(arch, mode).bounties[at], "%") for mode in MODES)]
            for at, seed in enumerate(cells.seeds)
        ]
        parts += [f"### Architecture: {arch}", grid(heads, rows, [False] * len(heads))]
    return "\n\n".join(parts) + "\n"


def convergence_markdown(frame: pd.DataFrame) -> str:
    """Return the accuracy of each meta-loop, kept or not, mean over the trials of a cell."""
    intro = (
        "Validation accuracy of each meta-loop in percent, kept or not, mean over the trials of a cell; "
        "Final Test: mean test accuracy of their last LKG in percent."
    )
    return _by_loop(frame, "Convergence", intro, lambda curve: curve, "accuracy")


def lkg_markdown(frame: pd.DataFrame) -> str:
    """Return the accuracy of the LKG after each meta-loop, mean over the trials of a cell."""
    intro = (
        "Validation accuracy of the LKG in percent after each meta-loop, mean over the trials of a cell; "
        "Final Test: mean test accuracy of their last LKG in percent."
    )
    return _by_loop(frame, "LKG", intro, lambda curve: curve)


def lkg_growth_markdown(frame: pd.DataFrame) -> str:
    """Return the gain in LKG accuracy of each meta-loop, mean over the trials of a cell."""
    intro = (
        "Growth of the LKG in percentage points, LKG(t) - LKG(t-1) of its validation accuracy, 0.00 in the "
        "first meta-loop, mean over the trials of a cell; Final Test: mean test accuracy of their last LKG "
        "in percent."
    )
    return _by_loop(frame, "LKG growth", intro, lambda curve: np.diff(curve, prepend=curve[:1]))


def _by_loop(
    frame: pd.DataFrame,
    title: str,
    intro: str,
    values: Callable[[Values], Values],
    column: str = "lkg_correct",
) -> str:
    """Return a row per cell and a column per meta-loop. A loop that one trial of the cell has not reached is
    N/A, since a mean over other trials than the loop before would jump. A trial that stopped early keeps its
    LKG.
    """
    frame = equal_budgets(frame)
    cells, done = cells_of(frame), frame[frame["status"] == "done"]
    loops = range(1, int(done["loop"].max()) + 1) if done["loop"].notna().any() else range(0)
    heads = ["Architecture", "Mode", *(f"Meta-Loop {loop}" for loop in loops), "Final Test"]
    curves = _mean_counts(done, loops, column, cells.samples)
    tests = trials_of(done).groupby(["arch", "mode"], observed=True)["test"].mean().to_dict()
    nothing = np.full(len(loops), np.nan)

    rows = [
        [
            arch,
            _name(cells, arch, mode),
            *map(_percent, 100 * values(curves.get((arch, mode), nothing)) / cells.samples),
            _percent(test),
        ]
        for arch in cells.archs
        for mode in MODES
        for test in [tests.get((arch, mode), np.nan)]
    ]
    left = [True, True, *[False] * (len(heads) - 2)]
    note = escape_markdown(cells_note(cells))
    return f"# {title} of {cells.family}\n\n{intro} {note}\n\n{grid(heads, rows, left)}\n"


def _name(cells: Cells, arch: str, mode: str) -> str:
    n = len(cells.cell(arch, mode).found)
    return f"{mode.capitalize()} (n={n})" if 0 < n < cells.expected else mode.capitalize()


def _mean_counts(
    done: pd.DataFrame, loops: range, column: str, samples: int
) -> dict[tuple[str, str], Values]:
    """Return the mean number of correct answers over the trials of each cell, per meta-loop. The last one of
    the LKG is that of the bounties: see `Trials.mean`.

    column: `lkg_correct`, or `accuracy` in percent.
    """
    looped = done.loc[done["loop"].notna(), ["arch", "mode", "id", "loop", column, "stopped_early"]]
    # one matrix for all: a group of pandas per cell takes several times as long
    curves = lkg_matrix(looped, len(loops), column)
    if column == "accuracy":
        curves = np.rint(curves * samples / 100)
    trials = looped.drop_duplicates("id").reset_index(drop=True)
    return {
        (str(arch), str(mode)): curves[rows.index].mean(axis=0)
        for (arch, mode), rows in trials.groupby(["arch", "mode"], observed=True)
    }


def _percent(value: float, sign: str = "") -> str:
    return _NOTHING if np.isnan(value) else f"{rounded(float(value), 2)}{sign}"


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
    modes: dict[str, MeanSd | None]


def summary_markdown(frame: pd.DataFrame, tokens: Mapping[tuple[str, str], str] | None = None) -> str:
    """Return the summary of a frame of one family. Std is the population standard deviation; an empty cell
    shows FAILED, DAMAGED or MISSING, or its entry in `tokens` by arch and mode; n counts the trials present.
    """
    cells = cells_of(frame)
    blocks = []
    for arch in cells.archs:
        lines = [f"Results Shape {{{arch}}} Parameters {{{cells.parameters[arch]}}}"]
        lines += [f"* {mode.capitalize()}: {_line_of(cells, arch, mode, tokens or {})}" for mode in MODES]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _line_of(cells: Cells, arch: str, mode: str, tokens: Mapping[tuple[str, str], str]) -> str:
    cell = cells.cell(arch, mode)
    if not cell.found:
        return tokens.get((arch, mode), cell.token)
    of = cell.numbers
    numbers = {"Mean": of.mean, "Std": of.sd, "Min": of.low, "Max": of.high}
    text = " | ".join(f"{name}={number:.2f}%" for name, number in numbers.items())
    return f"{text} (n={len(cell.found)})"


def read_summary(path: Path) -> list[Block]:
    """Read the architectures of a summary. Raises UserError, which names the malformed line."""
    content = read_bytes(path)
    if content is None:
        raise UserError(
            f"the summary {path} does not exist", "Name a file like results/psa_simplemlp_summary.md"
        )
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
            f"{path} must hold a summary", "It begins with a line `Results Shape {1*16} Parameters ...`"
        )
    most = max([mode.n for block in blocks for mode in block.modes.values() if mode is not None], default=0)
    return [_expecting(block, most) for block in blocks]


def _read_head(head: re.Match[str], where: str) -> Block:
    try:
        return Block(Arch.coerce(head["arch"]).label, int(head["parameters"].replace(",", "")), {})
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None


def _read_mode(text: str, blocks: list[Block], where: str) -> None:
    found, token = _LINE.fullmatch(text), _TOKEN.fullmatch(text)
    match = found or token
    if match is None or not blocks or match["mode"].lower() not in MODES:
        raise UserError(f"{where} must be a line of a summary, got {text[:60]!r}", "Correct it")
    cell = None
    if found is not None:
        n = int(found["n"])
        cell = MeanSd(float(found[2]), float(found[3]) if n > 1 else float("nan"), n, n)
    blocks[-1].modes[match["mode"].lower()] = cell


def _expecting(block: Block, trials: int) -> Block:
    """Return the block with `trials` expected per cell, the number of the fullest cell of the file."""
    modes = {
        name: None if mode is None else MeanSd(mode.mean, mode.sd, mode.n, trials)
        for name, mode in block.modes.items()
    }
    return Block(block.arch, block.parameters, modes)
