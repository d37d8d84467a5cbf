"""The table of the use of layers in the depth study, of the trials that learned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from psa.analysis.stats import LEAST_N, Values, present
from psa.core.formatting import pluralize
from psa.reports.glonet.layer_use import FIRST, MOST, NEAR, Use
from psa.reports.glonet.networks import GlonetResults, Network, Trained, learned_trials, mean
from psa.reports.glonet.tables import NETWORK_COLUMNS, mean_sd, network_cells, network_order, table_of
from psa.reports.rendering.tables import Cell, Column, Table


def use_of_learned(results: GlonetResults, use: Use) -> Use:
    """Return the use of layers in the trials that learned, or in all of them where none did: the outputs of a
    trial that learned nothing say nothing of the others.
    """
    learned = learned_trials(results, results.trained[use.network]) & use.observed
    return use.of_seeds(learned) if learned.any() else use


def learned_count(results: GlonetResults, use: Use) -> tuple[int, int]:
    """Return the number of observed trials of a network that learned, and of all that were observed."""
    learned = learned_trials(results, results.trained[use.network]) & use.observed
    return int(learned.sum()), int(use.observed.sum())


def partly_learned_note(results: GlonetResults, uses: Mapping[Network, Use]) -> str:
    """Return a sentence, after a space, on the networks of which not all trials learned; "" without any."""
    counts = {network: learned_count(results, use) for network, use in sorted(uses.items())}
    parts = [
        f"{network.model} with {network.layers} layers in {learned} of {pluralize(total, 'trial')}"
        for network, (learned, total) in counts.items()
        if learned < total
    ]
    return f" Learned: {', '.join(parts)}; the other networks in all trials." if parts else ""


def usage_table(results: GlonetResults, uses: Mapping[Network, Use]) -> Table:
    """Return the share of the first layers in the mean output, and the first exit that is as good."""
    columns = (
        *NETWORK_COLUMNS,
        Column("Learned"),
        Column("Hidden layers", "count"),
        *(Column(f"First {count} (%)", "number", 1) for count in FIRST),
        *(Column(f"First {count}, if equal (%)", "number", 1) for count in FIRST),
        Column(f"Layers that hold {100 * MOST:g} %", "count"),
        Column("Mean |h|, least layer", "number", 4),  # a layer out of use has some ten-thousandths
        Column("Mean |h|, greatest layer", "number", 3),
        Column("Exit after layer", "mean_sd", 1),
        Column("Use"),
    )
    return table_of(
        "What each network uses its layers for", "usage", columns,
        (_used(results, uses[each.network], each) for each in network_order(results) if each.network in uses),
        "Of the trials that learned alone, and of all where none did (Learned: their number among those "
        "observed). Shares of the mean |h| over the validation split, added up over hidden layers, of final "
        "weights; a share of the first 4 or 8 is missing where no layers follow. Layers that hold "
        f"{100 * MOST:g} %: the fewest, wherever they stand. Exit after layer: the smallest k from which "
        f"on the head, reading the first k hidden layers, answers within {NEAR:g} point of the whole "
        "network; missing for trials that learned nothing. Use, by the first 8 layers (4 of fewer than 16). "
        f"Concentrated: they hold {100 * MOST:g} %. Even or uneven: their share is that of equal use within "
        f"ten points and a factor of two; uneven if half of the layers hold {100 * MOST:g} %. Leaning: any "
        "other share. Later layers: all those after the first 8 (4), which may be in the middle. Too few "
        f"layers: fewer than {2 * FIRST[0]} hidden layers.",
    )  # fmt: skip


def _used(results: GlonetResults, observed: Use, trained: Trained) -> tuple[Cell, ...]:
    use, (learned, total) = use_of_learned(results, observed), learned_count(results, observed)
    hidden = len(use.shares)
    outputs = present(mean(use.end, axis=0))
    return (
        *network_cells(use.network),
        f"{learned} of {total}",
        hidden or None,
        *(100 * use.first(count) for count in FIRST),
        *(100 * count / hidden if hidden > count else None for count in FIRST),
        use.holding,
        float(outputs.min()) if len(outputs) else None,
        float(outputs.max()) if len(outputs) else None,
        mean_sd(exits_of(results, use, trained)),
        _verdict_text(use, learned),
    )


def _verdict_text(use: Use, learned: int) -> str:
    if learned < LEAST_N:
        return f"fewer than {LEAST_N} learned" if learned else "learned nothing"
    return "too few layers" if use.verdict == "short" else use.verdict


def exits_of(results: GlonetResults, use: Use, trained: Trained) -> Values:
    """Return [seeds] the number of layers after which one may leave; NaN for trials that learned nothing."""
    return np.where(learned_trials(results, trained), use.exit, np.nan)
