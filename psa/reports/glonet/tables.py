"""The tables of the depth study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from psa.analysis.stats import (
    EXACT_PAIRS,
    LEAST_N,
    Interval,
    Values,
    least_sign_flip_p,
    paired,
    present,
    share_summary,
    summary,
)
from psa.core.formatting import format_range, pluralize
from psa.reports.glonet.networks import CHANCE, GlonetResults, Network, Trained
from psa.reports.glonet.training_accuracy import TrainingAccuracies, final_training_accuracy
from psa.reports.rendering.paired import CORRECTIONS, paired_cells, paired_columns, paired_notes
from psa.reports.rendering.tables import Cell, Column, MeanSd, Table
from psa.reports.wording import missing_trials

TARGETS: Final = (90.0, 95.0)  # percent of the validation split
BASELINE: Final = "MLP"  # the model that the others are compared with
_ONE_PAGE: Final = 40  # rows
NETWORK_COLUMNS: Final = (Column("Model"), Column("Features", "count"), Column("Layers", "count"))

# Claims of the document that came with the earlier program (test accuracy, width 256), by layers.
CLAIMED: Final[dict[int, dict[str, float]]] = {
    6: {"MLP": 97.5, "GloNet": 98.0},
    24: {"MLP": 97.0, "GloNet": 98.0},
    50: {"MLP": 95.0, "GloNet": 98.0},
    100: {"MLP": 92.0, "GloNet": 98.0},
    200: {"MLP": 85.0, "GloNet": 98.0},
}
CLAIMED_FEATURES: Final = 256
CLAIMED_OF: Final = "mnist"  # with all ten digits
CLAIMED_LEAST: Final = 50  # epochs
CLAIMED_EPOCHS: Final = "50 or 200 epochs (it does not say which)"


def network_order(results: GlonetResults) -> list[Trained]:
    """Return every network, sorted by model, width, then layers."""
    return [each for model in results.models for wide in results.features for each in results.of(model, wide)]


def mean_sd(values: Values) -> MeanSd | None:
    """Return mean and sample standard deviation of the seeds present; None without any."""
    found = summary(values)
    return MeanSd(found.mean, found.sd, found.n, len(values)) if found.n else None


def with_interval(values: Values) -> Interval | None:
    """Return the mean of percentages and its 95 % t interval, restricted to 0..100."""
    found = share_summary(values)
    return Interval(found.mean, found.low, found.high) if found.n else None


def network_cells(network: Network) -> tuple[str, int, int]:
    """Return the cells of NETWORK_COLUMNS."""
    return network.model, network.features, network.layers


def table_of(
    caption: str, label: str, columns: tuple[Column, ...], rows: Iterator[tuple[Cell, ...]], note: str
) -> Table:
    """Return a table of these rows, of several pages if it has many."""
    made = tuple(rows)
    return Table(caption, f"tab:{label}", columns, made, note, len(made) > _ONE_PAGE)


def seeds_note(results: GlonetResults) -> str:
    """Return a note on the number of seeds and on missing trials."""
    done, asked = results.statuses.get("done", 0), sum(results.statuses.values())
    text = f"{pluralize(done, 'trial')} of {asked:,}, {pluralize(len(results.seeds), 'seed')} per network"
    text += f", {trained_for(results)}." if results.epochs else "."
    missing = missing_trials(results.statuses)
    return f"{text} {missing} (n=...) marks cells with fewer trials." if missing else text


def trained_for(results: GlonetResults) -> str:
    """Return the number of epochs: `50 epochs`, `1 epoch`, `2 to 50 epochs`."""
    if len(results.epochs) > 1:
        return f"{format_range(results.epochs)} epochs"
    return pluralize(results.epochs[0], "epoch") if results.epochs else "no epoch"


def accuracy_table(results: GlonetResults, training: TrainingAccuracies | None = None) -> Table:
    """Return the accuracy of every network on both splits, its sd and its interval; with `training` (see
    psa.reports.glonet.training_accuracy) also that on the training split after the last epoch.
    """
    columns = (
        *NETWORK_COLUMNS,
        Column("Parameters", "count"),
        Column("n", "count"),
        Column("Test (%)", "mean_sd"),
        Column("Test, mean and interval", "interval"),
        Column("Validation (%)", "mean_sd"),
        Column("Validation, mean and interval", "interval"),
        Column("Best validation (%)", "mean_sd"),
        *([Column("Training (%)", "mean_sd")] if training else []),
    )
    rows = (
        (
            *network_cells(each.network), each.parameters, each.n,
            mean_sd(each.test), with_interval(each.test),
            mean_sd(each.validation), with_interval(each.validation), mean_sd(each.best),
            *([_training_accuracy(training, each)] if training else []),
        )
        for each in network_order(results)
    )  # fmt: skip
    note = (
        f"{seeds_note(results)} Mean ± standard deviation over seeds; intervals: 95 % t intervals of the "
        f"mean, restricted to 0 to 100, from {LEAST_N} seeds on. Test and validation are of the tested "
        "weights; best validation is the greatest accuracy after any epoch, a little too high as every "
        f"maximum. Layers count the head. ZeroR: {results.zero_r_shown} of validation."
    )
    return table_of("Accuracy by model, width and depth", "accuracy", columns, rows, note)


def _training_accuracy(training: TrainingAccuracies, each: Trained) -> MeanSd | None:
    return mean_sd(final_training_accuracy(training[each.network])) if each.network in training else None


def paired_table(results: GlonetResults, against: str = BASELINE) -> Table:
    """Return every other model minus `against`, seed by seed, on the test split."""
    pairs = [
        (each, other)
        for each in network_order(results)
        if each.network.model != against
        and (other := results.get(against, each.network.layers, each.network.features)) is not None
    ]
    found = [paired(one.test, other.test) for one, other in pairs]
    rows = (
        (*network_cells(one.network), *cells)
        for (one, _), cells in zip(pairs, paired_cells(found), strict=True)
    )
    columns = (*NETWORK_COLUMNS, *paired_columns("Difference (points)"))
    most = max((each.n for each in found), default=0)
    exact = LEAST_N <= most <= EXACT_PAIRS
    least = f", with {most} pairs at least {least_sign_flip_p(most):.3g}" if exact else ""
    note = (
        "Test accuracy; the arms of a seed share batches and, where shapes allow, initial weights. "
        f"p: two-sided sign-flip test{least}. {CORRECTIONS} Intervals: 95 % t intervals."
        f"{paired_notes(found, sign_flip=True)} {seeds_note(results)}"
    )
    return table_of(f"The model minus {against}, seed by seed", "paired", columns, rows, note)


def convergence_table(results: GlonetResults) -> Table:
    """Return the first epoch at which a trial was good enough, by several criteria."""
    columns = (
        *NETWORK_COLUMNS,
        Column("Trained (epochs)", "count"),
        *(
            column
            for target in TARGETS
            for column in (Column(f"Epochs to {target:g} %", "mean_sd", 1), Column(f"Reached {target:g} %"))
        ),
        Column("Epochs to 1 point below its own best", "mean_sd", 1),
    )

    def row(each: Trained) -> tuple[Cell, ...]:
        firsts = [each.reaching(target) for target in TARGETS]
        cells = [
            cell
            for first in firsts
            for cell in (mean_sd(first), f"{len(present(first))} of {each.n}" if each.n else None)
        ]
        return (
            *network_cells(each.network),
            each.accuracies.shape[1] or None,
            *cells,
            mean_sd(own_columns(each, results)),
        )

    note = (
        f"Validation accuracy after an epoch. Means are of the trials that reached it. Trials within "
        f"{CHANCE:g} point of ZeroR have no best to converge to. {seeds_note(results)}"
    )
    return table_of(
        "Epochs until an accuracy was reached", "convergence", columns, map(row, network_order(results)), note
    )


def own_columns(each: Trained, results: GlonetResults) -> Values:
    """Return [seeds] the first epoch within a point of the trial's own best; NaN if it learned nothing."""
    if not each.accuracies.shape[1]:
        return np.full(len(each.ids), np.nan)
    return np.where(each.best > results.zero_r + CHANCE, each.reaching(each.best - 1.0), np.nan)


def claims_table(results: GlonetResults) -> Table:
    """Return the claims of an earlier document beside measured values, at its width."""
    features = CLAIMED_FEATURES
    columns = (
        Column("Layers", "count"),
        Column("Model"),
        Column("Claimed (%)", "number", 1),
        Column("Measured (%)", "interval"),
        Column("n", "count"),
        Column("Difference (points)", "number", signed=True),
    )

    def row(layers: int, model: str) -> tuple[Cell, ...]:
        found = results.get(model, layers, features)
        cell = None if found is None else with_interval(found.test)
        claimed = CLAIMED[layers][model]
        difference = None if cell is None else cell.value - claimed
        return layers, model, claimed, cell, 0 if found is None else found.n, difference

    note = (
        f"Claimed: the document of the earlier program, after {CLAIMED_EPOCHS}, about the accuracy on the "
        "split that it also validated on. Measured: on the test split, evaluated once; "
        f"width {features}. {seeds_note(results)}"
    )
    rows = (row(layers, model) for layers in CLAIMED for model in ("GloNet", "MLP"))
    return table_of("Claimed and measured", "claims", columns, rows, note)
