"""Sheets of A4 paper that fill from the top: lines of text, rules and pictures, and their PDF."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from psa.reports.plotting.style import plot_style
from psa.reports.rendering.pdf_letters import broken

# In typographic points, from the lower left corner of a sheet.
_WIDE: Final = 595.3
_HIGH: Final = 841.9
_MARGIN: Final = 42.0
FOOT: Final = 48.0  # the page number stands below
ROOM: Final = _WIDE - 2 * _MARGIN
TOP: Final = _HIGH - _MARGIN
LEADING: Final = 1.38  # from line to line, in sizes
INK: Final = "#1B1F24"
SOFT: Final = "#57606A"
RULE: Final = "#B8C0C8"

Draw = Callable[[Figure], None]


class Sheets:
    """`y` is how far down the last sheet is filled; whatever does not fit below it goes to the next."""

    def __init__(self) -> None:
        self.sheets: list[list[Draw]] = [[]]
        self.y = TOP

    def need(self, height: float) -> bool:
        """Begin a new sheet where less than that is left; whether one was begun."""
        if self.y - height >= FOOT or self.y == TOP:
            return False
        self.sheets.append([])
        self.y = TOP
        return True

    def line(
        self, text: str, size: float, x: float = 0.0, *, bold: bool = False, colour: str = INK,
        right: bool = False, down: float = 0.0,
    ) -> None:  # fmt: skip
        """One line, x points from the margin (with `right`, ending there) and `down` below y, which stays."""
        draw = partial(
            _text, x=_MARGIN + x, y=self.y - size - down, text=text, size=size, bold=bold, colour=colour,
            right=right,
        )  # fmt: skip
        self.sheets[-1].append(draw)

    def paragraph(
        self, text: str, size: float, *, bold: bool = False, colour: str = INK, after: float = 4.0,
        indent: float = 0.0,
    ) -> None:  # fmt: skip
        """Lines as wide as the sheet, and `after` points of room."""
        for each in broken(text, ROOM - indent, size, bold):
            self.need(size * LEADING)
            self.line(each, size, indent, bold=bold, colour=colour)
            self.y -= size * LEADING
        self.y -= after

    def rule(self, colour: str = RULE, thick: float = 0.5, wide: float = ROOM) -> None:
        """A line from the margin, all across the sheet unless it is told how wide."""
        self.sheets[-1].append(partial(_rule, y=self.y, colour=colour, thick=thick, wide=wide))

    def bar(self, high: float, colour: str) -> None:
        """At the margin, beside what comes next."""
        self.sheets[-1].append(partial(_bar, y=self.y - high, high=high, colour=colour))

    def image(self, path: Path, wide: float, high: float) -> None:
        """A stored picture, scaled."""
        self.sheets[-1].append(partial(_image, path=path, y=self.y - high, wide=wide, high=high))
        self.y -= high

    def pdf(self, title: str) -> bytes:
        """The document, its title and the page numbers at the foot; no date, no version. Raises OSError."""
        content = io.BytesIO()
        nothing = {"CreationDate": None, "Producer": None, "Creator": None}
        with plot_style(), PdfPages(content, metadata={"Title": title, **nothing}) as pages:
            for number, draws in enumerate(self.sheets, start=1):
                figure = Figure(figsize=(_WIDE / 72, _HIGH / 72))
                for draw in draws:
                    draw(figure)
                _text(figure, _MARGIN, FOOT - 20, title, 6.5, colour=SOFT)
                count = f"{number} of {len(self.sheets)}"
                _text(figure, _WIDE - _MARGIN, FOOT - 20, count, 6.5, colour=SOFT, right=True)
                pages.savefig(figure)
        return content.getvalue()


def _text(
    figure: Figure, x: float, y: float, text: str, size: float,
    bold: bool = False, colour: str = INK, right: bool = False,
) -> None:  # fmt: skip
    figure.text(
        x / _WIDE, y / _HIGH, text, fontsize=size, color=colour, ha="right" if right else "left",
        va="baseline", fontweight="bold" if bold else "normal", parse_math=False,
    )  # fmt: skip


def _rule(figure: Figure, y: float, colour: str, thick: float, wide: float) -> None:
    ends = (_MARGIN / _WIDE, (_MARGIN + wide) / _WIDE)
    across = Line2D(ends, (y / _HIGH, y / _HIGH), color=colour, linewidth=thick)
    across.set_transform(figure.transFigure)
    figure.add_artist(across)


def _bar(figure: Figure, y: float, high: float, colour: str) -> None:
    place = (_MARGIN / _WIDE, y / _HIGH)
    beside = Rectangle(place, 3 / _WIDE, high / _HIGH, facecolor=colour, linewidth=0)
    beside.set_transform(figure.transFigure)
    figure.add_artist(beside)


def _image(figure: Figure, path: Path, y: float, wide: float, high: float) -> None:
    """The pixels as they are, not drawn anew."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    ax = figure.add_axes((_MARGIN / _WIDE, y / _HIGH, wide / _WIDE, high / _HIGH))
    ax.set_axis_off()
    ax.imshow(pixels, interpolation="none", aspect="auto")
