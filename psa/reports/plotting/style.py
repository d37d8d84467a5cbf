"""The style and the encoding of figures: sizes, fonts, colours, marks, notes; equal bytes for equal rows."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.transforms import Bbox

from psa.analysis.regimes import REGIMES
from psa.core.files import write_atomically
from psa.specs.training import MODES

WIDTH: Final = 7.2  # inches, the text width of two columns: fonts are as large in print as they say
LABEL_SIZE: Final = 6.0  # the least that journals accept is 5
DPI: Final = 300
_SCREEN_DPI: Final = 150  # in a notebook
_EDGE: Final = 0.06  # inches around the content of a saved figure
GREY: Final = "#767676"  # the lightest grey that reads well on white
PALE: Final = "#D0D0D0"
GRID: Final[dict[str, Any]] = {"color": "#E8E8E8", "linewidth": 0.5}
# Letters over curves, which stay in sight.
OUTLINED: Final[list[AbstractPathEffect]] = [withStroke(linewidth=2, foreground="white")]

STYLE: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine draws the same letters
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "figure.titlesize": 10,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.2,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # journals refuse Type 3
    "ps.fonttype": 42,
    "svg.hashsalt": "psa",
    "savefig.dpi": DPI,
}


class LineStyle(NamedTuple):
    """The style of one item in all figures; marker and line distinguish it without colours."""

    colour: str
    marker: str
    line: Literal["-"] | tuple[int, tuple[float, ...]] = "-"


# Okabe and Ito's colours: distinguishable with the usual colour deficiencies. Baselines black and blue.
_LOOKS: Final = {
    "none": LineStyle("#000000", "o"),
    "decay": LineStyle("#0072B2", "s", (0, (5, 1.5))),
    "dropout": LineStyle("#56B4E9", "D", (0, (5, 1.5, 1, 1.5))),
    "full": LineStyle("#D55E00", "^", (0, (3, 1))),
    "hidden": LineStyle("#009E73", "v", (0, (3, 1, 1, 1, 1, 1))),
    "output": LineStyle("#E69F00", "P", (0, (1.2, 0.8))),
}
# For modes added to those of the study.
_FURTHER: Final = (
    LineStyle("#CC79A7", "*"),
    LineStyle("#F0E442", "X", (0, (6, 1))),
    LineStyle("#7F7F7F", "h", (0, (2, 2))),
)
MODE_LOOKS: Final = {
    mode: _LOOKS.get(mode, _FURTHER[number % len(_FURTHER)]) for number, mode in enumerate(MODES)
}
REGIME_LOOKS: Final = {
    "beneficial-regularization": LineStyle("#009E73", "o"),
    "optimally-sized": LineStyle("#D55E00", "s"),
    "chaotic-optimization": LineStyle("#0072B2", "^"),
    "untrainable": LineStyle("#000000", "X"),
    "unknown": LineStyle("#FFFFFF", "h"),
}
_NUMERALS: Final = ("I ", "II ", "III ", "IV ", "")
REGIME_NAMES: Final = {regime: numeral + regime for regime, numeral in zip(REGIMES, _NUMERALS, strict=True)}


@contextlib.contextmanager
def plot_style() -> Iterator[None]:
    """Apply the style of all figures, whatever the user's matplotlibrc sets; draw and save within it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


class NotebookFigure(Figure):
    """A figure that a notebook shows, although it belongs to no pyplot."""

    def _repr_png_(self) -> bytes:
        """Return the picture that a notebook shows as the value of a cell."""
        return encoded(self, "png", _SCREEN_DPI)


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """Return an empty figure, in inches. It belongs to no pyplot, so that nothing has to be closed."""
    return NotebookFigure(figsize=(width, height))


def add_axes(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Add axes at a place given in inches."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, bottom / high, width / wide, height / high))


def title(figure: Figure, text: str) -> None:
    """Write the figure's title at the top left."""
    wide, high = figure.get_size_inches()
    figure.text(0.1 / wide, 1 - 0.08 / high, text, ha="left", va="top", fontsize=10.5)


def footnote(figure: Figure, lines: Sequence[str]) -> None:
    """Set the notes of a figure: n, what is missing, how it was computed.

    They are not drawn, since they would be too small to read on a narrow screen: a page shows them in the
    caption of the figure, and `save` writes them into a text file beside it. See `notes_in`.
    """
    figure.set_label("\n".join(line for line in lines if line))


def notes_in(figure: Figure) -> tuple[str, ...]:
    """Return the notes of a figure, one per line of `footnote`."""
    return tuple(str(figure.get_label() or "").splitlines())


def empty(ax: Axes, why: str) -> Axes:
    """Write the reason for a missing picture into its axes."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, why, ha="center", va="center", color=GREY, transform=ax.transAxes, wrap=True)
    return ax


def mode_handle(mode: str) -> Line2D:
    """Return the line of a mode, for a legend."""
    return styled_handle(MODE_LOOKS[mode], mode)


def styled_handle(look: LineStyle, label: str) -> Line2D:
    """Return a line in a style, for a legend."""
    return Line2D(
        [], [],
        color=look.colour, linestyle=look.line, marker=look.marker, markersize=4.5,
        markeredgecolor="white", markeredgewidth=0.4, label=label,
    )  # fmt: skip


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write the figure as PNG (300 dpi) and PDF (fonts embedded), and its notes as text.

    Return their paths, the PNG first. None of them holds a date or a version: the same rows give the same
    bytes. Raises UserError.
    """
    written = []
    with plot_style():
        box = content_box(figure)  # one layout for both files
    for kind in _METADATA:
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomically(path, encoded(figure, kind, box=box))
        written.append(path)
    if notes := notes_in(figure):
        written.append(stem.with_name(f"{stem.name}.txt"))
        write_atomically(written[-1], "".join(f"{line}\n" for line in notes).encode())
    return written


# Metadata that would make the bytes of a figure differ from day to day.
_METADATA: Final[dict[str, dict[str, None]]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


def encoded(figure: Figure, kind: str, dpi: float = DPI, box: Bbox | None = None) -> bytes:
    """Return the bytes of a figure as `png` or `pdf`, without empty strips above and below its content.

    box: the result of `content_box`, where it is known.
    """
    content = io.BytesIO()
    with plot_style():
        figure.savefig(
            content,
            format=kind,
            metadata=_METADATA[kind],
            dpi=dpi,
            bbox_inches=content_box(figure) if box is None else box,
        )
    return content.getvalue()


def content_box(figure: Figure) -> Bbox:
    """Return the part of a figure to save, in inches: all of its content and all of its width.

    A text that is wider than was planned makes the picture wider. It is never cut.
    """
    drawn = figure.get_tightbbox()
    wide = float(figure.get_size_inches()[0])
    left, right = min(0.0, drawn.x0 - _EDGE), max(wide, drawn.x1 + _EDGE)
    # whole pixels, or the picture would be a pixel wider on one machine than on another
    sides = [round(side * DPI) / DPI for side in (left, drawn.y0 - _EDGE, right, drawn.y1 + _EDGE)]
    return Bbox.from_extents(*sides)
