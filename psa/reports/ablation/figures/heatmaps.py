"""Heat maps of a few or many architectures by mode: means, differences from mode none, spreads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize, SymLogNorm
from matplotlib.figure import Figure

from psa.analysis.stats import LEAST_N, TIE, Values
from psa.reports.ablation.architectures import by_size
from psa.reports.ablation.cells import Cells
from psa.reports.ablation.numbers import effect, notes_of, strategy
from psa.reports.plotting.panels import panel_grid
from psa.reports.plotting.scales import label_bar
from psa.reports.plotting.style import PALE, WIDTH, add_axes, footnote, plot_style

_LETTER: Final = 0.062  # inches of a letter of a row's name
_GAP: Final = 0.2  # inches between panels
_ROW: Final = (0.2, 0.102)  # inches of a row: of a few architectures, of many
_NARROWEST: Final = 1.1  # inches of a panel; below that the numbers and the name of its scale overlap
_MANY: Final = 45
_DARK: Final = 0.45  # luminance below which text in a cell is white
_LINEAR: Final = 0.1  # points up to which differences are shown on a linear scale
_HOW: Final = "The panels share their rows, sorted by depth, then width; each has a scale of its own."
_HIGHEST: Final = (
    f"Mean bounty: bold are the highest mean and those within {TIE:g} points of it, of modes with {LEAST_N} "
    "or more trials and only where it is above ZeroR."
)
_NOT_ZERO: Final = (
    "Minus mode none: bold are differences whose 95 % interval excludes 0 (not corrected for their number), "
    "of architectures with a trial above ZeroR."
)
_OF_SAMPLES: Final = "Standard deviations are sample standard deviations over seeds."


@dataclass(frozen=True)
class HeatPanel:
    """A panel of a heat map: values [architectures, modes], NaN where missing, their format and scale. note:
    how to read it, "" if that is plain.
    """

    name: str
    modes: tuple[str, ...]
    values: Values
    bold: np.ndarray[Any, Any]
    form: Callable[[float], str]
    norm: Normalize
    colours: str
    note: str


def heat_panels(cells: Cells, archs: Sequence[str]) -> list[HeatPanel]:
    """Return the panels of these architectures: mean bounty, difference from none, standard deviation."""
    modes = cells.modes
    others = tuple(mode for mode in modes if mode != "none")
    means = _filled(archs, modes, lambda arch, mode: cells.cell(arch, mode).summary.mean)
    best = {arch: strategy(cells, arch) for arch in archs}
    winners = np.array([[mode in best[arch].best for mode in modes] for arch in archs])
    panels = [
        HeatPanel(
            "mean bounty (%)", modes, means, winners, "{:.2f}".format, _range(means), "viridis",
            _HIGHEST * bool(winners.any()),
        )
    ]  # fmt: skip
    if others != modes and others:
        found = {(arch, mode): effect(cells, arch, mode) for arch in archs for mode in others}
        differences = _filled(archs, others, lambda arch, mode: found[arch, mode].difference)
        clear = np.array(
            [[found[arch, mode].verdict in ("gain", "loss") for mode in others] for arch in archs]
        )
        panels.append(
            HeatPanel(
                "minus mode none (points)", others, differences, clear, _signed,
                difference_norm(differences), "RdBu", _NOT_ZERO * bool(clear.any()),
            )
        )  # fmt: skip
    spreads = _filled(archs, modes, lambda arch, mode: cells.cell(arch, mode).summary.sd)
    if np.isfinite(spreads).any():
        none = np.zeros(spreads.shape, dtype=bool)
        norm = Normalize(0, max(float(np.nanmax(spreads)), 1e-2))
        panels.append(
            HeatPanel(
                "standard deviation (points)", modes, spreads, none, "{:.2f}".format, norm, "cividis",
                _OF_SAMPLES,
            )
        )  # fmt: skip
    return panels


def _filled(archs: Sequence[str], modes: Sequence[str], value: Callable[[str, str], float]) -> Values:
    return np.array([[value(arch, mode) for mode in modes] for arch in archs], dtype=np.float64)


def _signed(value: float) -> str:
    return "0.00" if abs(value) < 5e-3 else f"{value:+.2f}".replace("-", "−")


def _range(values: Values) -> Normalize:
    """Return a linear scale over the values, never narrower than a tenth of a point."""
    found = values[np.isfinite(values)]
    low, high = (float(found.min()), float(found.max())) if len(found) else (0.0, 100.0)
    middle, half = (low + high) / 2, max((high - low) / 2, 0.05)
    return Normalize(middle - half, middle + half)


def difference_norm(values: Values) -> Normalize:
    """Return a scale for differences that is as long below 0 as above: logarithmic beyond a tenth."""
    finite = np.abs(values[np.isfinite(values)])
    most = max(float(finite.max(initial=0.0)), 10 * _LINEAR)
    return SymLogNorm(_LINEAR, linscale=0.5, vmin=-most, vmax=most)


def plot_heat_map(ax: Axes, panel: HeatPanel, size: float) -> Axes:
    """Draw a cell per architecture and mode with its value in it; `size`: of the text, in points."""
    colours = mpl.colormaps[panel.colours]
    high, wide = panel.values.shape
    ax.imshow(np.ma.masked_invalid(panel.values), cmap=colours, norm=panel.norm, aspect="auto")
    for (row, column), value in np.ndenumerate(panel.values):
        if np.isnan(value):
            _write(ax, column, row, "·", fontsize=size, color="#808080")
            continue
        red, green, blue, _ = colours(panel.norm(value))
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < _DARK
        _write(
            ax, column, row, panel.form(value), fontsize=size, color="white" if dark else "black",
            fontweight="bold" if panel.bold[row, column] else "normal",
        )  # fmt: skip
    ax.set_facecolor("#F4F4F4")
    ax.set_xticks(range(wide), panel.modes, rotation=40, ha="left", rotation_mode="anchor", fontsize=6)
    ax.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0, pad=2)
    ax.set_yticks([])
    ax.set_xticks(np.arange(wide - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(high - 1) + 0.5, minor=True)
    ax.grid(which="minor", color="white", linewidth=0.5)
    ax.tick_params(which="minor", length=0)
    ax.spines[:].set_visible(False)
    return ax


def _write(ax: Axes, column: int, row: int, text: str, **how: Any) -> None:
    """Write a text into a cell. It needs no part in the layout, which would take as long as drawing."""
    ax.text(column, row, text, ha="center", va="center", **how).set_in_layout(False)


def heat_map_figure(cells: Cells, archs: Sequence[str]) -> Figure:
    """Return a figure of all panels side by side, a row per architecture, smallest depth first."""
    rows = by_size(archs)
    with plot_style():
        panels = heat_panels(cells, rows)
        many = len(rows) > _MANY
        row = _ROW[many]
        left = 0.2 + _LETTER * max(map(len, rows)) * (0.85 if many else 1)
        columns = sum(len(panel.modes) for panel in panels)
        fewest = min(len(panel.modes) for panel in panels)
        room = (WIDTH - left - 0.12 - _GAP * (len(panels) - 1)) / columns
        cell = min(max(0.45, _NARROWEST / fewest), room)
        figure, _ = panel_grid(
            "Every architecture and mode", 0, 1, 0.0, left=left, bottom=0.55, top=0.78 + row * len(rows)
        )
        for at, panel in enumerate(panels):
            wide, high = cell * len(panel.modes), row * len(rows)
            ax = plot_heat_map(add_axes(figure, left, 0.55, wide, high), panel, 5.0 if many else 5.6)
            if at == 0:
                ax.set_yticks(range(len(rows)), rows, fontsize=5 if many else 6.5)
                ax.tick_params(axis="y", length=0)
            _bar(figure, panel, left, wide)
            left += wide + _GAP
        footnote(figure, [*notes_of(cells), _how(panels)])
    return figure


def _how(panels: Sequence[HeatPanel]) -> str:
    """Return how to read these panels: what is bold or dotted is explained if something is."""
    dotted = any(np.isnan(panel.values).any() for panel in panels)
    notes = [panel.note for panel in panels if panel.note]
    return " ".join([_HOW, *notes, *["Dotted: too few trials."] * dotted])


def _bar(figure: Figure, panel: HeatPanel, left: float, wide: float) -> None:
    """Draw the scale of a panel below it."""
    ax = add_axes(figure, left, 0.42, wide, 0.07)
    shown = mpl.cm.ScalarMappable(panel.norm, mpl.colormaps[panel.colours])
    bar = figure.colorbar(shown, cax=ax, orientation="horizontal")
    label_bar(bar, panel.norm, panel.name, most=5 if wide > _NARROWEST else 3)
    bar.ax.tick_params(labelsize=5.5, length=1.5, pad=1, color=PALE)
