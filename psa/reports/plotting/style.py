"""The style and the encoding of figures: sizes, fonts, colours, marks, notes; the same bytes each time."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any, Final, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from psa.analysis.regimes import REGIMES
from psa.core.files import write_atomically
from psa.specs.training import MODES

WIDTH: Final = 7.2  # inches, the text width of two columns: fonts are as large in print as they say
NOTE_SIZE: Final = 6.0
LABEL_SIZE: Final = 6.0  # the least that journals accept is 5
DPI: Final = 300
_SCREEN_DPI: Final = 150  # in a notebook
GREY: Final = "#767676"  # the lightest grey that reads well on white
PALE: Final = "#D0D0D0"
GRID: Final[dict[str, Any]] = {"color": "#E8E8E8", "linewidth": 0.5}

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
REGIME_NUMERALS: Final = dict(zip(REGIMES, ("I", "II", "III", "IV", "?"), strict=True))


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
    """Write notes (n, what is missing, how it was computed) at the foot of a figure."""
    wide, high = figure.get_size_inches()
    # DejaVu Sans is about 0.54 of its size wide on average
    columns = int((wide - 0.2) * 72 / (0.54 * NOTE_SIZE))
    text = "\n".join(fill(line, columns) for line in lines if line)
    figure.text(
        0.1 / wide, 0.06 / high, text,
        ha="left", va="bottom", fontsize=NOTE_SIZE, color="#404040", gid="note", linespacing=1.25,
    )  # fmt: skip


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
    """Write the figure as PNG (300 dpi) and PDF (fonts embedded). Return their paths. Raises UserError.

    Neither holds a date or a version: the same rows give the same bytes.
    """
    written = []
    for kind in _METADATA:
        path = stem.with_name(f"{stem.name}.{kind}")
        write_atomically(path, encoded(figure, kind))
        written.append(path)
    return written


# Metadata that would make the bytes of a figure differ from day to day.
_METADATA: Final[dict[str, dict[str, None]]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Producer": None, "Creator": None},
}


def encoded(figure: Figure, kind: str, dpi: float = DPI) -> bytes:
    """Return the bytes of a figure as `png` or `pdf`."""
    content = io.BytesIO()
    with plot_style():
        figure.savefig(content, format=kind, metadata=_METADATA[kind], dpi=dpi)
    return content.getvalue()
