"""Figures of one run of the memory study: its epochs, its samples, and the entries of its memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from psa.probes.memory import NEUTRAL, PARTS
from psa.reports.plotting.panels import draw_legend, panel, panel_grid
from psa.reports.plotting.style import GREY, GRID, footnote, plot_style

_BLUE: Final = "#0072B2"
_HELP, _HARM = "#009E73", "#D55E00"
_DASHED: Final = (0, (3, 1.2))
_BINS: Final = 60
_ROOM: Final = 1.15  # of the greatest distance
# A title of a panel, and its lines: the column of the log of epochs, its label, and its style.
_PANELS: Final = (
    ("loss (nats)", (("val_loss", "validation"), ("train_loss", "training (mean over the epoch)"))),
    ("accuracy (%)", (("val_accuracy", "validation"), ("train_accuracy", "training"))),
    ("retrieval on validation", (("retrieval_purity", "purity"), ("retrieval_top1", "top-1 agreement"))),
)


def training_figure(epochs: pd.DataFrame, name: str) -> Figure:
    """Plot loss, accuracy and, of a memory, the purity of its retrieval, over the epochs of one run.

    epochs: psa.reports.memory.listings.epoch_logs of the run.
    """
    there = [(what, lines) for what, lines in _PANELS if any(column in epochs for column, _ in lines)]
    wide = 7.2 / len(there) - 0.72
    grown = epochs.loc[epochs["growth_triggered"].astype(bool), "epoch"]
    with plot_style():
        figure, axes = panel_grid(
            name, len(there), len(there), 1.7, left=0.5, bottom=0.95, top=0.45, gap=(0.65, 0), width=wide
        )
        for at, (ax, (what, lines)) in enumerate(zip(axes, there, strict=True)):
            for style, (column, label) in zip(("-", _DASHED), lines, strict=True):
                if column in epochs:
                    ax.plot(
                        epochs["epoch"], epochs[column].astype("float64"), linestyle=style, marker="o",
                        markersize=2, color=_BLUE if style == "-" else GREY, label=label,
                    )  # fmt: skip
            for epoch in grown:
                ax.axvline(epoch + 0.5, color=GREY, linewidth=0.7, linestyle=":", label="growth")
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.set(xlabel="epoch", ylabel=what)
            ax.grid(axis="y", **GRID)
            by_label = dict(zip(*reversed(ax.get_legend_handles_labels()), strict=True))
            draw_legend(figure, list(by_label.values()), 0.5 + at * (wide + 0.65), 0.5, 1)
        footnote(figure, ["Validation numbers are of the weights after an epoch."])
    return figure


def detail_figures(details: pd.DataFrame, name: str) -> Iterator[tuple[str, Figure]]:
    """Yield the change of loss of test samples, and its dependence on the distance of the entries found.

    details: psa.analysis.sample_details.load_sample_details; nothing is drawn of a run without a memory.
    """
    test = details[details["split"] == "test"]
    if "loss_change" not in test or not np.isfinite(test["loss_change"]).any():
        return
    with plot_style():
        yield "loss_delta_histogram", _changes(test, name)
        found = test[np.isfinite(test["distance"]) & np.isfinite(test["loss_change"])]
        if len(found):
            yield "retrieval_distance_vs_benefit", _by_distance(found, name)


def _changes(test: pd.DataFrame, name: str) -> Figure:
    figure, ax = panel(f"{name}: change of loss", 4.2, 2.0, 0.7, 0.85, 0.4)
    values = test["loss_change"].to_numpy(np.float64)
    values = values[np.isfinite(values)]
    changed = values[np.abs(values) > NEUTRAL]  # the others are neither helped nor harmed
    reach = float(np.quantile(np.abs(changed), 0.995)) if len(changed) else NEUTRAL
    edges = np.linspace(-reach, reach, _BINS + 1)
    edges[_BINS // 2] = 0.0  # linspace may miss it by a rounding, and a bin would have the other colour
    counts, _ = np.histogram(np.clip(changed, -reach, reach), edges)
    ax.bar(
        edges[:-1], counts, np.diff(edges), align="edge",
        color=[_HELP if edge < 0 else _HARM for edge in edges[:-1]],
    )  # fmt: skip
    ax.set_yscale("symlog", linthresh=1)
    ax.set_ylim(bottom=0)
    ax.axvline(0, color=GREY, linewidth=0.6)
    ax.set(xlabel="loss with the memory minus without it (nats)", ylabel="test samples")
    handles = [Patch(color=_HELP, label="helped"), Patch(color=_HARM, label="harmed")]
    draw_legend(figure, handles, 0.7, 0.2, 2)
    beyond = int((np.abs(values) > reach).sum())
    notes = (
        f"{len(values):,} test samples, mean change {values.mean():+.3g} nats; {beyond:,} beyond the axis "
        "are in the outermost bins.",
        f"{len(values) - len(changed):,} that change by at most {NEUTRAL:g} nats are not drawn.",
    )
    footnote(figure, notes)
    return figure


def _by_distance(found: pd.DataFrame, name: str) -> Figure:
    figure, ax = panel(f"{name}: distance and change of loss", 4.2, 2.0, 0.75, 0.75, 0.4)
    distance = found["distance"].to_numpy(np.float64)
    change = found["loss_change"].to_numpy(np.float64)
    ax.plot(distance, change, ".", color=_BLUE, markersize=1.5, alpha=0.25, rasterized=True)
    middle = [
        (distance[part].mean(), change[part].mean())
        for part in np.array_split(np.argsort(distance, kind="stable"), PARTS)
        if len(part)
    ]
    ax.plot(*zip(*middle, strict=True), "-o", color="#000000", markersize=3, linewidth=1.1)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set_xlim(0, _ROOM * float(distance.max()) or 1)
    ax.set(xlabel="mean distance of the retrieved entries", ylabel="change of loss (nats)")
    footnote(figure, [f"A point per test sample ({len(found):,}); black: means of {PARTS} parts of equal "
                      "size, from near to far. Below 0 the memory helped."])  # fmt: skip
    return figure


def bank_figures(bank: Mapping[str, NDArray[Any]], name: str) -> Iterator[tuple[str, Figure]]:
    """Yield when the entries of a memory came, and their usefulness by how often they were retrieved.

    bank: the memory of a state (psa.interventions.memory.bank): a value per entry; nothing if it is empty.
    """
    if not int(bank["size"]):
        return
    with plot_style():
        yield "memory_insert_step_hist", _arrivals(bank, name)
        yield "memory_usefulness_vs_usage", _usefulness(bank, name)


def _arrivals(bank: Mapping[str, NDArray[Any]], name: str) -> Figure:
    figure, ax = panel(f"{name}: age of the entries", 4.2, 1.8, 0.7, 0.7, 0.4)
    ax.hist(bank["insert_step"], bins=_BINS, range=(0, max(1, int(bank["now"]))), color=_BLUE)
    ax.set(xlabel="training step in which an entry was inserted", ylabel="entries")
    footnote(figure, [_entries(bank)])
    return figure


def _entries(bank: Mapping[str, NDArray[Any]]) -> str:
    size, arrived, now = (int(bank[name]) for name in ("size", "arrived", "now"))
    return f"{size:,} entries after {now:,} training steps, of {arrived:,} that arrived."


def _usefulness(bank: Mapping[str, NDArray[Any]], name: str) -> Figure:
    figure, ax = panel(f"{name}: usefulness and use", 4.2, 2.0, 0.75, 0.75, 0.4)
    _scatter(ax, bank["retrieved"], bank["usefulness"])
    ax.set(xlabel="times that an entry was retrieved in training", ylabel="usefulness")
    footnote(figure, [f"{_entries(bank)} Usefulness: right minus wrong predictions that an entry took part "
                      "in. Between the lines, which are all right and all wrong."])  # fmt: skip
    return figure


def _scatter(ax: Axes, used: NDArray[Any], useful: NDArray[Any]) -> None:
    most = max(1.0, float(used.max()))
    ax.plot(used, useful, ".", color=_BLUE, markersize=2, alpha=0.3, rasterized=True)
    for sign in (1, -1):
        ax.plot([0, most], [0, sign * most], color=GREY, linewidth=0.6, linestyle=_DASHED)
    ax.set_xlim(-0.02 * most, 1.02 * most)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
