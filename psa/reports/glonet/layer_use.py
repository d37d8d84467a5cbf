"""The use of layers in the depth study: as numbers, and as a listing of every network."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psa.analysis.stats import Values
from psa.reports.glonet.networks import GlonetResults, Network, Trained, mean

_LAYER_COLUMNS: Final = (
    "model", "features", "layers", "layer", "place", "mean_output_start", "mean_output", "share",
    "active_share", "parameters_l1_start", "parameters_l1", "exit_accuracy",
)  # fmt: skip


def _layers(use: Use) -> Iterator[dict[str, Any]]:
    columns = {
        "mean_output_start": mean(use.start, axis=0),
        "mean_output": mean(use.end, axis=0),
        "share": use.shares,
        "active_share": mean(use.active, axis=0),
        "parameters_l1_start": mean(use.norms[:, 0], axis=0),
        "parameters_l1": mean(use.norms[:, -1], axis=0),
        "exit_accuracy": mean(use.exits, axis=0),
    }
    for at in range(max(len(values) for values in columns.values())):
        numbers = {name: float(values[at]) for name, values in columns.items() if at < len(values)}
        yield {
            "model": use.network.model,
            "features": use.network.features,
            "layers": use.network.layers,
            "layer": at + 1,
            "place": use.places[at] if at < len(use.places) else "",
            **{name: value for name, value in numbers.items() if not np.isnan(value)},
        }


def layers_csv(uses: Iterable[Use]) -> bytes:
    """Return the CSV with a row for each layer, in the order of the networks."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _LAYER_COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for use in sorted(uses, key=lambda each: each.network):
        writer.writerows(_layers(use))
    return text.getvalue().encode()


NEAR: Final = 1.0  # points below the whole network within which an early exit is as good
MOST: Final = 0.9  # of the total mean output
_ROUNDING: Final = 1e-9
FIRST: Final = (4, 8)  # layers that an earlier document says are the only ones in use
_EVEN: Final = 0.1  # how far a share may be from that of equal use
_TIMES: Final = 2.0  # and by which factor, since in a deep network the first layers have few percent

_OF_SEEDS: Final = ("start", "end", "active", "norms", "exits")  # the arrays of a Use

LayerVerdict = Literal[
    "concentrated", "even", "uneven", "leaning to the first layers", "leaning to later layers", "short"
]
# The verdicts and their conditions: the first that holds counts. share: of the first layers in the total
# mean output; equal: their share if all layers were used equally; holding: layers that hold MOST of the
# total, as a share of all layers (MOST if they are used equally).
LAYER_VERDICTS: Final[tuple[tuple[LayerVerdict, Callable[[float, float, float], bool]], ...]] = (
    ("short", lambda share, equal, holding: math.isnan(share)),
    ("concentrated", lambda share, equal, holding: share >= MOST),
    (
        "leaning to the first layers",
        lambda share, equal, holding: share > min(equal + _EVEN, equal * _TIMES) + _ROUNDING,
    ),
    (
        "leaning to later layers",
        lambda share, equal, holding: share < max(equal - _EVEN, equal / _TIMES) - _ROUNDING,
    ),
    ("uneven", lambda share, equal, holding: holding < MOST / _TIMES),
    ("even", lambda share, equal, holding: True),
)


@dataclass(frozen=True)
class Use:
    """The use of the layers of one network, over the seeds that have probe results.

    start, end: [seeds, hidden layers] mean |h| over the validation split before training and of the final
    weights; active: share of outputs that are not 0, of the final weights; norms: [seeds, epochs + 1, layers]
    entrywise L1 norm of weights and biases, first before training; places: names of the layers, the last
    being the head; exits: [seeds, hidden layers] accuracy in percent when the head reads the first k layers.
    Each is NaN for a missing seed, and has no columns if the probe was not requested.
    """

    network: Network
    places: tuple[str, ...]
    start: Values
    end: Values
    active: Values
    norms: Values
    exits: Values

    @property
    def observed(self) -> NDArray[np.bool_]:
        """True [seeds] for a seed of which a probe has a number."""
        there = [~np.isnan(getattr(self, name)) for name in _OF_SEEDS]
        seen = [any(each[seed].any() for each in there) for seed in range(len(self.end))]
        return np.array(seen, dtype=bool)

    def of_seeds(self, chosen: NDArray[np.bool_]) -> Use:
        """Return the use in the chosen seeds [seeds]; the others count as missing."""
        kept = {name: getattr(self, name).copy() for name in _OF_SEEDS}
        for values in kept.values():
            values[~chosen] = np.nan
        return replace(self, **kept)

    @property
    def shares(self) -> Values:
        """The shares [hidden layers] of the total mean output after training, mean over seeds; sum 1."""
        return _shares(self.end)

    @property
    def shares_at_start(self) -> Values:
        """The shares [hidden layers] before training."""
        return _shares(self.start)

    def first(self, count: int) -> float:
        """Return the share of the first `count` hidden layers; NaN unless there are more than that."""
        shares = self.shares
        return float(shares[:count].sum()) if len(shares) > count else float("nan")

    @property
    def holding(self) -> int | None:
        """The least number of layers, at any position, that hold MOST of the total mean output."""
        shares = np.sort(self.shares)[::-1]
        if not len(shares) or np.isnan(shares).any():
            return None
        return int(np.searchsorted(shares.cumsum(), MOST - 1e-12) + 1)

    @property
    def exit(self) -> Values:
        """The smallest k [seeds] from which on the answers of the first k layers are within NEAR points of
        those of the whole network; NaN without a probe.
        """
        if not self.exits.shape[1]:
            return np.full(len(self.exits), np.nan)
        far = self.exits < self.exits[:, -1:] - NEAR - _ROUNDING
        # the layer after the last one that is far from the whole network
        first = np.where(far.any(axis=1), far.shape[1] - far[:, ::-1].argmax(axis=1), 0) + 1.0
        return np.where(np.isnan(self.exits[:, -1]), np.nan, first)

    @property
    def verdict(self) -> LayerVerdict:
        """The verdict on the first 8 layers (4, of a network of fewer than 16 hidden ones), by
        LAYER_VERDICTS.
        """
        count, hidden = telling(len(self.shares)), len(self.shares)
        share = self.first(count) if count else float("nan")
        equal, holding = count / max(hidden, 1), (self.holding or 0) / max(hidden, 1)
        return next(name for name, holds in LAYER_VERDICTS if holds(share, equal, holding))


def telling(hidden: int) -> int:
    """Return the number of first layers that a verdict is about; 0 if equal use would look concentrated."""
    return next((count for count in reversed(FIRST) if hidden >= 2 * count), 0)


def _shares(outputs: Values) -> Values:
    with np.errstate(invalid="ignore", divide="ignore"):
        each = outputs / outputs.sum(axis=1, keepdims=True)
    return mean(each, axis=0)


def uses_of(results: GlonetResults, observed: pd.DataFrame | None) -> dict[Network, Use]:
    """Return the use of every observed network. observed: the result of psa.analysis.probe_frame."""
    if observed is None or not len(observed):
        return {}
    by_trial = {str(name): rows for name, rows in observed.groupby("id", observed=True)}
    return {
        network: _use(trained, by_trial, results.samples)
        for network, trained in results.trained.items()
        if any(each in by_trial for each in trained.done_ids)
    }


def _use(trained: Trained, by_trial: Mapping[str, pd.DataFrame], samples: int) -> Use:
    seen = [by_trial.get(each) for each in trained.done_ids]

    def stacked(probe: str, quantity: str, when: Literal["first", "last", "all"]) -> Values:
        return _stacked([_matrix(rows, probe, quantity, when) for rows in seen])

    usage = "layer_usage"
    norms = stacked(usage, "parameters_l1", "all")
    return Use(
        trained.network,
        next((found for found in map(_places, seen) if found), ()),
        stacked(usage, "mean_output", "first")[:, 0],
        stacked(usage, "mean_output", "last")[:, 0],
        stacked(usage, "active_share", "last")[:, 0],
        norms,
        100 * stacked("early_exit", "correct", "last")[:, 0] / max(samples, 1),
    )


def _places(rows: pd.DataFrame | None) -> tuple[str, ...]:
    if rows is None:
        return ()
    some = rows[(rows["quantity"] == "parameters_l1") & rows["loop"].isna()]
    return tuple(map(str, some.sort_values("index")["place"]))


def _matrix(
    rows: pd.DataFrame | None, probe: str, quantity: str, when: Literal["first", "last", "all"]
) -> Values | None:
    """Return the numbers [times, places] of one trial, None without any."""
    if rows is None:
        return None
    rows = rows[(rows["probe"] == probe) & (rows["quantity"] == quantity)]
    asked = {"first": rows["loop"] == 0, "last": rows["loop"].isna(), "all": rows["loop"].notna()}[when]
    rows = rows[asked.fillna(value=False).astype(bool)]
    if not len(rows):
        return None
    wide = rows.assign(loop=rows["loop"].fillna(0).astype("int64"))
    table = wide.pivot(index="loop", columns="index", values="value").sort_index()
    return np.asarray(table, dtype=np.float64)


def _stacked(found: list[Values | None]) -> Values:
    """Stack to [trials, times, places]; NaN where a trial has none, or was trained for fewer epochs."""
    there = [each for each in found if each is not None]
    times = max((len(each) for each in there), default=1)
    places = max((each.shape[1] for each in there), default=0)
    stacked = np.full((len(found), times, places), np.nan)
    for at, each in enumerate(found):
        if each is not None:
            stacked[at, : len(each), : each.shape[1]] = each
    return stacked
