"""The results of a search: its configurations as a table, their curves and settings as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter

from psa.analysis.frame_columns import LABELS
from psa.analysis.stats import Interval, share_summary
from psa.core.formatting import pluralize
from psa.experiments.search import RANGES, Range, Search, WholeRange
from psa.experiments.search_log import Configuration, SearchLog
from psa.reports.plotting.panels import draw_legend, panel_grid
from psa.reports.plotting.scales import linear_ticks, log_axis, number_text
from psa.reports.plotting.style import GREY, GRID, footnote, plot_style
from psa.reports.rendering.tables import Cell, Column, Table

_ONE_PAGE: Final = 40  # rows
_BEST: Final = "#D55E00"
_FINISHED: Final = "#0072B2"
_ACROSS: Final = 3  # panels beside each other


def search_table(log: SearchLog) -> Table:
    """Return every configuration: its settings, its mean accuracy over the seeds with the 95 % t interval,
    how far it was trained, and how it ended.
    """
    search, ended = log.search, log.ended
    keys = list(search.space)
    rows = [(at, *_settings(search, each), *_result(each)) for at, each in enumerate(ended, 1)]
    columns = (
        Column("Rank", "count"),
        *(Column(key) for key in keys),
        Column("Seeds", "count"),
        Column("Validation accuracy (%)", "interval"),
        Column("Meta-loops", "count"),
        Column("Ended"),
    )
    label = f"tab:{search.template.name}_search"
    return Table("Configurations searched", label, columns, tuple(rows), _note(log), len(rows) > _ONE_PAGE)


def _settings(search: Search, each: Configuration) -> tuple[Cell, ...]:
    """Return the settings that have an effect, None for the others."""
    return tuple(
        format_configuration(each.settings[key]) if search.acts(each.settings, key) else None
        for key in search.space
    )


def format_configuration(value: Any) -> str | None:
    """Format a setting for reading: 0.000312 rather than 0.00031174234."""
    return None if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _result(each: Configuration) -> tuple[Cell, ...]:
    found = each.finite
    of = share_summary(found)
    accuracy = Interval(of.mean, of.low, of.high) if found else None
    return len(found), accuracy, each.loops, each.outcome


def _note(log: SearchLog) -> str:
    search, ended = log.search, log.ended
    strategy = search.strategy
    counts = {status: sum(each.status == status for each in ended) for status in ("stopped early", "failed")}
    lost = sum(any(each.diverged) for each in ended)
    diverged = f" In {lost} of them seeds diverged, which have no accuracy and rank as 0 %." if lost else ""
    how = {
        "asha": f"successive halving (ASHA) from {pluralize(strategy.grace, 'meta-loop')} on, reduction "
        f"{strategy.reduction}",
        "pbt": f"population-based training every {pluralize(strategy.grace, 'meta-loop')}",
        "none": "no early stopping",
    }[strategy.scheduler]
    return (
        f"{len(ended)} of {pluralize(strategy.samples, 'configuration')} ended, {counts['stopped early']} of "
        f"them stopped early and {counts['failed']} failed; {strategy.sampler} sampling, {how}. Ranked by "
        "validation accuracy, those trained to the end first; the accuracy of the best of many is "
        f"optimistic, and the test split was not looked at to choose.{diverged}"
    )


def search_figure(log: SearchLog) -> Figure:
    """Plot the mean accuracy of each configuration over the meta-loops, and a panel per setting.

    Raises ValueError if no configuration that has ended has an accuracy.
    """
    keys = list(log.search.space)
    ended = [each for each in log.ended if each.finite]
    if not ended:
        raise ValueError("a figure of a search must have a configuration with an accuracy")
    count = 1 + len(keys)
    with plot_style():
        figure, axes = panel_grid(
            f"Search {log.search.template.name}", count, _ACROSS, 1.5,
            left=0.55, bottom=0.85, top=0.5, gap=(0.6, 0.6), width=1.75,
        )  # fmt: skip
        for at, ax in enumerate(axes):
            if at == 0:
                plot_search_curves(ax, ended)
            else:
                acting = [each for each in ended if log.search.acts(each.settings, keys[at - 1])]
                plot_setting(ax, acting, keys[at - 1], log.search.space[keys[at - 1]], ended[0])
            if at % _ACROSS:
                ax.set_ylabel("")
        _share_accuracy(axes, ended)
        _legend(figure)
        footnote(figure, [_note(log), "The panels share the axis of accuracy."])
    return figure


def _share_accuracy(axes: Sequence[Axes], ended: Sequence[Configuration]) -> None:
    """Give all panels the range of all accuracies, so that the effects of settings can be compared."""
    values = [value for each in ended for value in (*each.curve.values(), fmean(each.finite))]
    room = 0.05 * max(max(values) - min(values), 0.5)
    low, high = min(values) - room, max(values) + room
    for ax in axes:
        ax.set_ylim(low, high)
        ax.yaxis.set_major_locator(FixedLocator(linear_ticks(low, high)))
        ax.yaxis.set_major_formatter(FuncFormatter(number_text))
        ax.grid(axis="y", **GRID)


def plot_search_curves(ax: Axes, ended: Sequence[Configuration]) -> Axes:
    """Draw a line per configuration, the mean of the seeds that have not diverged. The best one is coloured,
    and a cross ends each that was stopped early.
    """
    for rank, each in reversed(list(enumerate(ended))):
        loops, means = list(each.curve), list(each.curve.values())
        best = rank == 0 and each.status == "finished"
        ax.plot(
            loops, means, color=_colour(each, best), linewidth=1.3 if best else 0.6, zorder=3 if best else 2
        )
        if each.status != "finished":
            ax.plot(loops[-1], means[-1], marker="x", color=GREY, markersize=3.5, markeredgewidth=0.8)
    ax.set(xlabel="meta-loop", ylabel="validation accuracy (%)")
    return ax


def plot_setting(
    ax: Axes,
    ended: Sequence[Configuration],
    key: str,
    values: Range | WholeRange | tuple[Any, ...],
    winner: Configuration | None = None,
) -> Axes:
    """Draw the final accuracy of each configuration against one of its settings."""
    names = None if isinstance(values, RANGES) else [format_configuration(value) for value in values]
    for each in reversed(ended):
        setting = each.settings[key]
        place = setting if names is None else names.index(format_configuration(setting))
        best = each is winner and each.status == "finished"
        look = {"marker": "o"} if each.status == "finished" else {"marker": "x", "markeredgewidth": 0.8}
        ax.plot(
            place, fmean(each.finite), color=_colour(each, best), markersize=5 if best else 3.5, linestyle="",
            zorder=3 if best else 2, clip_on=False, **look,
        )  # fmt: skip
    if names is not None:
        ax.set_xticks(range(len(names)), map(str, names))
        ax.set_xlim(-0.5, len(names) - 0.5)
    elif isinstance(values, RANGES):
        ax.set_xlim(values.low, values.high)
        if values.log:
            ax.set_xscale("log")
            log_axis(ax.xaxis, values.low, values.high, 5)
    ax.set(xlabel=LABELS.get(key, key).lower(), ylabel="validation accuracy (%)")
    return ax


def _colour(each: Configuration, best: bool) -> str:
    return _BEST if best else _FINISHED if each.status == "finished" else GREY


def _legend(figure: Figure) -> None:
    looks = [("best", _BEST, "o"), ("trained to the end", _FINISHED, "o"), ("stopped early", GREY, "x")]
    handles = [
        Line2D([], [], color=colour, marker=marker, markersize=4, linewidth=0.8, label=name)
        for name, colour, marker in looks
    ]
    draw_legend(figure, handles, 0.5, 0.3, 3)


def best_lines(log: SearchLog, most: int) -> list[str]:
    """Return the best few configurations as lines for a terminal."""
    lines, search = [], log.search
    for rank, each in enumerate(log.ended[:most], 1):
        acting = [key for key in search.space if search.acts(each.settings, key)]
        settings = ", ".join(f"{key} = {format_configuration(each.settings[key])}" for key in acting)
        accuracy = f"{fmean(each.finite):6.2f} %" if each.finite else f"{'-':>8}"
        lines.append(f"{rank:>3}. {accuracy} after {each.loops:>3} ({each.outcome}): {settings}")
    return lines
