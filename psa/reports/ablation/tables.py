"""The tables of the architectures and accuracies of the ablation study."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import pandas as pd

from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import equal_budgets
from psa.analysis.regimes import PUBLISHED_ZERO_R
from psa.analysis.stats import ALPHA, EXACT_PAIRS, LEAST_N, TIE, least_sign_flip_p, summary, winners
from psa.reports.ablation.architectures import MATCHED, Match, matches, sizes
from psa.reports.ablation.cells import Cells, cells_of, mode_order
from psa.reports.ablation.markdown import Block
from psa.reports.ablation.numbers import cells_note, winning_modes
from psa.reports.rendering.tables import Bold, Cell, Column, MeanSd, Table
from psa.specs.training import MODES

_ONE_PAGE: Final = 40  # rows
_NAMED: Final = 8  # most empty cells that a note lists
ARCHITECTURES: Final = "Parameters for Network Architectures"
ARCHITECTURES_LABEL: Final = "tab:architecture_parameters"
ACCURACIES: Final = "Best validation accuracy (percent, mean ± sd over trials)"
ACCURACIES_LABEL: Final = "tab:trial_accuracy"
TEST_ACCURACIES: Final = "Test accuracy of the last known good state (percent, mean ± sd over trials)"


def architecture_table(
    frame: pd.DataFrame,
    *,
    order: Sequence[str] = (),
    asymmetric: Collection[str] = (),
    published: bool = False,
    tolerance: float = MATCHED,
    caption: str = ARCHITECTURES,
    label: str = ARCHITECTURES_LABEL,
) -> Table:
    """Return the table of the architectures of a frame of one family; see architectures."""
    cells = cells_of(frame)
    return architectures(
        mode_order(cells.archs, order),
        sizes(cells),
        order=order,
        asymmetric=asymmetric,
        published=published,
        tolerance=tolerance,
        caption=caption,
        label=label,
    )


def architectures(
    archs: Sequence[str],
    parameters: Callable[[str], int],
    *,
    order: Sequence[str] = (),
    asymmetric: Collection[str] = (),
    published: bool = False,
    tolerance: float = MATCHED,
    caption: str = ARCHITECTURES,
    label: str = ARCHITECTURES_LABEL,
) -> Table:
    """Return a table of architectures, their parameters, and whether these meet a budget.

    published: show only the label that the study gave, Asymmetric for those in the list `asymmetric`.
    Otherwise show the computed values, too: the partner (see partners; `order` is the list of the whole
    study, without which there is none), and whether the parameters lie within `tolerance` of the partner's.
    Without either list, as for other data than the study's, the table shows only the parameters.
    """
    columns = [Column("Architecture"), Column("Parameters", "count"), Column("Label of the study")]
    if not (order or asymmetric or published):
        counted = tuple((arch, parameters(arch)) for arch in archs)
        return Table(caption, label, tuple(columns[:2]), counted, long=len(counted) > _ONE_PAGE)
    if not published:
        within = f"Within {100 * tolerance:g}%"
        columns += [Column("Partner"), Column("Difference", "percent", 1, signed=True), Column(within)]
    found = matches(archs, parameters, asymmetric, order)
    rows = [
        (*_label_cells(arch, match, asymmetric), *(() if published else _met(match, tolerance)))
        for arch, match in found.items()
    ]
    note = "" if published else _PARTNERS if order else _NO_LIST
    if any(match.labelled is None for match in found.values()):
        note = f"{note} {_UNLISTED}".strip()
    met = [] if published else [row[-1] for row in rows if row[-1] is not None]
    if met:
        note += f" {_meeting(met.count('yes'), len(met))} within {100 * tolerance:g}% of it."
    return Table(caption, label, tuple(columns), tuple(rows), note, len(rows) > _ONE_PAGE)


def _meeting(near: int, networks: int) -> str:
    """Return how many of the networks with a partner are near it, up to the verb."""
    if networks == 1:
        return f"The only network with a partner is{'' if near else ' not'}"
    return f"{near} of the {networks:,} networks with a partner {'is' if near == 1 else 'are'}"


_PARTNERS: Final = (
    "Label of the study: from its own list. Partner and difference are computed from the list of all "
    "architectures of the study, with or without trials here: the networks with one layer of several units "
    "are the budgets; each group of equal depth that is wider than deep, and the squares without a neighbour "
    "in size, were meant to meet them, the widest of a group that of the widest with one layer, and so on. "
    "The other squares and the networks that are deeper than wide were meant to meet none."
)


_UNLISTED: Final = "An architecture without a label is not in the list of the study."
_NO_LIST: Final = "Partners are found in the list of all architectures of the study, which was not given."


def _label_cells(arch: str, match: Match, asymmetric: Collection[str]) -> tuple[Cell, ...]:
    label = "Matched" if match.labelled else "Asymmetric"
    return arch, match.parameters, label if asymmetric and match.labelled is not None else None


def _met(match: Match, tolerance: float) -> tuple[Cell, ...]:
    """Return the partner, the difference in percent, and whether it is within the tolerance."""
    if not match.partner:
        return None if match.labelled is None else match.role, None, None
    within = match.within(tolerance)
    return match.partner, 100 * match.deviation, None if within is None else "yes" if within else "no"


def accuracy_table(
    frame: pd.DataFrame,
    *,
    order: Sequence[str] = (),
    tolerance: float = TIE,
    alpha: float = ALPHA,
    modes: Sequence[str] = MODES,
    caption: str = ACCURACIES,
    label: str = ACCURACIES_LABEL,
) -> Table:
    """Return the mean, standard deviation and n of every cell of a frame of one family, and the winning
    modes. modes: those with a column.

    Winners are bold: those whose unrounded mean is within `tolerance` of the best. If trials are paired, a
    column lists the modes that a paired test, with Bonferroni's correction over all pairs of modes, cannot
    separate from the best at `alpha`.
    """
    cells = cells_of(frame)
    means = {arch: {mode: cells.mean_sd(arch, mode) for mode in MODES} for arch in cells.archs}
    best = {arch: winning_modes(cells, arch, tolerance) for arch in cells.archs}
    by_test = {arch: _by_test(cells, arch, alpha) for arch in cells.archs}
    absent = len(set(order) - set(cells.archs))
    listed = f" {absent:,} of the {len(order):,} listed architectures have not been run." if absent else ""
    rule = f"{_tie(tolerance, 'unrounded')} {_no_winner(cells.zero_r if cells.any_finished else None)}"
    note = f"{cells_note(cells)}{listed} {_SPREAD} {rule} {_how(cells, alpha)}"
    return accuracies(means, best, by_test, order=order, modes=modes, note=note, caption=caption, label=label)


_SPREAD: Final = "sd: of the population, as the study has it."
_ONCE: Final = "The LKG is evaluated once, after the last loop, and nothing is selected by it."


def final_test_table(
    frame: pd.DataFrame, *, order: Sequence[str] = (), modes: Sequence[str] = MODES
) -> Table:
    """Return the mean test accuracy of every cell of a frame of one family, its standard deviation and n.

    No mode is a winner: the test split is for no selection.
    """
    cells, trials = cells_of(frame), trials_of(equal_budgets(frame))
    done = trials[trials["status"] == "done"].groupby(["arch", "mode"], observed=True)["test"]
    found = {(str(arch), str(mode)): summary(values) for (arch, mode), values in done}
    nothing = summary([])

    def cell(arch: str, mode: str) -> MeanSd | None:
        of = found.get((arch, mode), nothing)
        sd = of.sd * math.sqrt((of.n - 1) / of.n) if of.n > 1 else math.nan
        return MeanSd(of.mean, sd, of.n, cells.expected) if of.n else None

    columns = (Column("Architecture"), *(Column(mode.capitalize(), "mean_sd") for mode in modes))
    rows = [(arch, *(cell(arch, mode) for mode in modes)) for arch in mode_order(cells.archs, order)]
    note = f"{cells_note(cells)} {_SPREAD} {_ONCE}"
    return Table(
        TEST_ACCURACIES, "tab:test_accuracy", columns, tuple(rows), note, len(rows) > _ONE_PAGE, True
    )


def _tie(tolerance: float, means: str) -> str:
    return f"Winner, bold: {means} mean within {tolerance:g} of the best."


def _no_winner(zero_r: float | None) -> str:
    """Return the conditions under which an architecture has no winner."""
    known = "" if zero_r is None else f" ({zero_r:.2f}%)"
    return (
        f"No winner is named where no mean is above ZeroR{known}, which a constant prediction "
        f"reaches; modes with fewer than {LEAST_N} trials take no part."
    )


def _how(cells: Cells, alpha: float) -> str:
    """Return a note on the test of the winners, with the least p that few pairs allow."""
    if not cells.paired:
        return "Winner (test): not computed, because trials with the same number do not share a seed."
    pairs = max((len(cell.found) for cell in cells.trials.values()), default=0)
    few = LEAST_N <= pairs <= EXACT_PAIRS
    least = f", before which {pairs} pairs give at least {least_sign_flip_p(pairs):.3g}" if few else ""
    return (
        "Winner (test): the best mode and those that do not differ significantly from it (paired sign-flip "
        f"test, p < {alpha:g} after Bonferroni's correction over all pairs of modes{least})."
    )


def _by_test(cells: Cells, arch: str, alpha: float) -> str | None:
    if not cells.paired or not winning_modes(cells, arch):
        return None
    # counts, so that equal differences are equal; the tolerance plays no part in the test
    arms = {mode: cells.cell(arch, mode).correct for mode in cells.judged(arch)}
    return _named(winners(arms, alpha=alpha).by_test, cells.judged(arch))


def accuracies(
    means: Mapping[str, Mapping[str, MeanSd | None]],
    best: Mapping[str, Sequence[str]],
    by_test: Mapping[str, str | None],
    *,
    order: Sequence[str] = (),
    modes: Sequence[str] = MODES,
    note: str = "",
    caption: str = ACCURACIES,
    label: str = ACCURACIES_LABEL,
) -> Table:
    """Return the table of accuracy_table from given means, by architecture, then by mode, and the winning
    modes of each architecture.
    """
    columns = [Column("Architecture"), *(Column(mode.capitalize(), "mean_sd") for mode in modes)]
    columns += [Column("Winner", breaks=2.7), Column("Winner (test)", breaks=3.2)]
    rows = [
        (arch, *_marked(means[arch], best.get(arch, ()), modes), by_test.get(arch))
        for arch in mode_order(means, order)
    ]
    return Table(caption, label, tuple(columns), tuple(rows), note, len(rows) > _ONE_PAGE, wide=True)


def accuracies_of(
    blocks: Sequence[Block],
    order: Sequence[str] = (),
    tolerance: float = TIE,
    caption: str = ACCURACIES,
    label: str = ACCURACIES_LABEL,
) -> Table:
    """Return the table of accuracy_table from a summary file: its means are rounded, its trials unknown."""
    cells = [(block.arch, mode, block.modes.get(mode)) for block in blocks for mode in MODES]
    empty = [f"{arch} {mode}" for arch, mode, cell in cells if cell is None]
    absent = f"{len(empty):,} of {len(cells):,} cells are empty: {', '.join(empty[:_NAMED])}" if empty else ""
    absent += f" and {len(empty) - _NAMED:,} more. " if len(empty) > _NAMED else ". " if empty else ""
    rule = f"{_tie(tolerance, 'printed')} {_no_winner(PUBLISHED_ZERO_R)}"
    note = f"{absent}{_SPREAD} {rule} Winner (test): not computed without the trials."
    means = {block.arch: block.modes for block in blocks}
    best = {arch: _best_of(modes, tolerance) for arch, modes in means.items()}
    return accuracies(means, best, {}, order=order, note=note, caption=caption, label=label)


def _best_of(means: Mapping[str, MeanSd | None], tolerance: float) -> tuple[str, ...]:
    """Return the winning modes by means alone, among those with LEAST_N trials or more; none at or below the
    published ZeroR, since a summary does not have its own.
    """
    judged = _judged(means)
    if max((cell.mean for cell in judged.values()), default=0.0) <= PUBLISHED_ZERO_R:
        return ()
    return winners({mode: [cell.mean] for mode, cell in judged.items()}, tolerance).by_tolerance


def _judged(means: Mapping[str, MeanSd | None]) -> dict[str, MeanSd]:
    """Return the modes with LEAST_N trials or more."""
    return {mode: cell for mode in MODES if (cell := means.get(mode)) is not None and cell.n >= LEAST_N}


def _marked(
    means: Mapping[str, MeanSd | None], best: Sequence[str], modes: Sequence[str]
) -> tuple[Cell, ...]:
    """Return the cells of a row with the winners in bold, and the winners' names."""
    cells = [Bold(means.get(mode)) if mode in best else means.get(mode) for mode in modes]
    return (*cells, _named(best, _judged(means)))


def _named(best: Sequence[str], there: Collection[str]) -> str | None:
    """Return the winners as `full`, `Tie: decay/full` or `Tie: all but full`, with the number of modes if
    some are missing. None without a winner.
    """
    if not best:
        return None
    names, others = "/".join(best), [mode for mode in there if mode not in best]
    if len(best) > max(2, len(others)):
        names = f"all but {'/'.join(others)}" if others else "all"
    verdict = f"Tie: {names}" if len(best) > 1 else names
    return verdict if len(there) == len(MODES) else f"{verdict} (of {len(there)} modes)"
