"""Arms of a study: trials that differ only in their seed, and the settings that distinguish arms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pandas as pd

from psa.analysis.frame_columns import CONTENT_FACTS
from psa.analysis.frame_schema import trials_of
from psa.analysis.stats import Summary, Values, share_summary, summary
from psa.core.errors import UserError
from psa.reports.wording import SETTINGS, format_setting
from psa.specs.activation import ACTIVATIONS

_BARE: Final = ("activation", "arch", "family", "variant")  # settings shown without their name
_PERCENTAGES: Final = ("test", "train", "bounty")
_READ: Final = (*SETTINGS, *CONTENT_FACTS)
NEAR_ZERO_R: Final = 1.0  # points above ZeroR up to which a network has learned nothing


@dataclass(frozen=True)
class Arm:
    """The settings that the trials of an arm share; its rows, in the order of seeds; seeds: of all arms."""

    settings: Mapping[str, Any]
    rows: pd.DataFrame = field(repr=False)
    seeds: tuple[int, ...]

    @property
    def ids(self) -> list[str]:
        """The ids of its trials, including missing ones."""
        return [str(each) for each in self.rows["id"]]

    @property
    def expected(self) -> int:
        """The number of requested trials."""
        return len(self.rows)

    @cached_property
    def n(self) -> int:
        """The number of finished trials."""
        return int((self.rows["status"] == "done").sum())

    def values(self, column: str) -> Values:
        """Return one number per seed, in the order of `seeds`; NaN for a seed without a finished trial."""
        if column not in self.rows:
            return np.full(len(self.seeds), np.nan)
        numbers = self.rows[column].where(self.rows["status"] == "done").astype("float64").to_numpy()
        found = dict(zip(map(int, self.rows["seed"]), numbers, strict=True))
        return np.array([found.get(seed, np.nan) for seed in self.seeds], dtype=np.float64)

    def summary(self, column: str) -> Summary:
        """Return the summary of a column over the trials that have a number; of percentages with an interval
        within 0 and 100.
        """
        values = self.values(column)
        return share_summary(values) if column in _PERCENTAGES else summary(values)

    def label(self, keys: Iterable[str]) -> str:
        """Format these settings as text: `ReLU, 1*512, dropout 0.1`."""
        return ", ".join(
            format_setting(self.settings[key])
            if key in _BARE
            else f"{key.removeprefix('subset_').replace('_', ' ')} {format_setting(self.settings[key])}"
            for key in keys
            if self.settings[key] is not None
        )

    def dead(self) -> int:
        """Count its trials that scored at most NEAR_ZERO_R points above ZeroR on validation."""
        return len(self.dead_rows())

    def dead_rows(self) -> pd.DataFrame:
        """Return the rows of the trials that `dead` counts."""
        beyond = (self.rows["bounty"] - self.rows["zero_r"]).astype("float64")
        return self.rows[(self.rows["status"] == "done") & (beyond <= NEAR_ZERO_R)]


def rows_of(frame: pd.DataFrame) -> pd.DataFrame:
    """Return one row per trial; a missing one gets the settings of the others of its network."""
    rows = trials_of(frame)
    for name in _READ:
        rows[name] = rows[name].astype(object).where(rows[name].notna(), None)
    networks = rows["id"].astype(str).str.rsplit("/", n=2).str[0]
    known = rows[rows["policy"].notna()].groupby(networks, sort=False)[list(_READ)].first()
    for at in rows.index[rows["policy"].isna()]:
        for name in _READ:
            if rows.at[at, name] is None and networks[at] in known.index:
                found = known.at[networks[at], name]
                rows.at[at, name] = None if pd.isna(found) else found
    return rows.iloc[rows.index.to_series().map(_ranks(rows)).argsort(kind="stable")].reset_index(drop=True)


def _ranks(rows: pd.DataFrame) -> dict[int, tuple[Any, ...]]:
    """Return the sort key of each row: activations in the order of psa.specs.activation, architectures in the
    order of the rows, numbers ascending.
    """
    known, archs = list(ACTIVATIONS), list(dict.fromkeys(rows["arch"]))
    numbers = ("temperature", "dropout", "lr", "momentum", "batch_size", "weight_decay")
    found = {}
    for at, row in zip(rows.index, rows.to_dict("records"), strict=True):
        name = str(row["activation"])
        rank = known.index(name.partition("(")[0]) if name.partition("(")[0] in known else len(known)
        found[at] = (rank, name, archs.index(row["arch"]), *(float(row[each] or 0) for each in numbers))
    return found


def varying(rows: pd.DataFrame, always: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the settings in which trials differ, and those in `always`; of the facts about one's own data
    those in which trials of equal data sets differ.
    """
    shown = [name for name in SETTINGS if name in always or len(set(rows[name])) > 1]
    of_data = rows.groupby("sha256", dropna=False)
    return *shown, *(name for name in CONTENT_FACTS if (of_data[name].nunique(dropna=False) > 1).any())


def arms_of(rows: pd.DataFrame, keys: Sequence[str]) -> list[Arm]:
    """Group the trials by some columns, in the order in which their values appear in the rows.

    Raises UserError if an arm holds a seed twice: its trials differ in something else and must not be
    averaged.
    """
    seeds = tuple(sorted({int(seed) for seed in rows["seed"]}))
    found: dict[tuple[Any, ...], list[int]] = {}
    for at, values in enumerate(rows[list(keys)].itertuples(index=False, name=None)):
        found.setdefault(tuple(_plain(value) for value in values), []).append(at)
    arms = []
    for values, places in found.items():
        part = rows.iloc[places].sort_values("seed")
        arm = Arm(dict(zip(keys, values, strict=True)), part, seeds)
        if part["seed"].duplicated().any():
            raise UserError(
                f"the rows hold {arm.label(keys)} more than once with the same seed",
                "Name the grid with --grid, so that only its trials are taken",
            )
        arms.append(arm)
    return arms


def _plain(value: Any) -> Any:
    """Return a hashable value: None for a missing one, text for a list."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return None if pd.isna(value) else value


def of_done(observed: pd.DataFrame | None, rows: pd.DataFrame) -> pd.DataFrame | None:
    """Return the probe results of finished trials; those of other trials are never used."""
    if observed is None:
        return None
    return observed[observed["id"].isin(set(rows["id"][rows["status"] == "done"].astype(str)))]


def with_seen(rows: pd.DataFrame, observed: pd.DataFrame | None) -> pd.DataFrame:
    """Return the rows with the probe results of the LKG: `train`, its training accuracy in percent, and
    `thresholds`, a tuple with that of each layer, None if there is none or the trial is not done.
    """
    rows, observed = rows.copy(), of_done(observed, rows)
    rows["train"], rows["thresholds"] = np.nan, None
    if observed is None or not len(observed):
        return rows
    last = observed[observed["loop"].isna()]
    rows["train"] = rows["id"].astype(str).map(_shares(last, ["id"])).astype("float64")
    learned = last[last["probe"] == "thresholds"].sort_values("index")
    by_trial = {str(name): tuple(part) for name, part in learned.groupby("id", observed=True)["value"]}
    rows["thresholds"] = rows["id"].astype(str).map(by_trial).astype(object)
    return rows


def train_accuracies(observed: pd.DataFrame | None) -> pd.DataFrame:
    """Return the training accuracy after each epoch, in percent: id, loop, train."""
    if observed is None:
        return pd.DataFrame({"id": [], "loop": [], "train": []})
    loops = observed[observed["loop"].notna() & (observed["loop"] > 0)]
    return _shares(loops, ["id", "loop"]).rename("train").reset_index()


def _shares(seen: pd.DataFrame, keys: list[str]) -> pd.Series[Any]:
    """Return 100 * correct / total of the probe train_accuracy, by the columns `keys`."""
    of = seen[seen["probe"] == "train_accuracy"].copy()
    of["id"] = of["id"].astype(str)
    counts = {
        name: of[of["quantity"] == name].set_index(keys)["value"].astype("float64")
        for name in ("correct", "total")
    }
    return 100 * counts["correct"] / counts["total"]


def layers_of(observed: pd.DataFrame | None, ids: Sequence[str]) -> pd.DataFrame:
    """Return the learned thresholds of some trials: id, loop (missing for the LKG), index, place, value."""
    if observed is None:
        return pd.DataFrame({name: [] for name in ("id", "loop", "index", "place", "value")})
    of = observed[(observed["probe"] == "thresholds") & observed["id"].isin(list(ids))]
    return of[["id", "loop", "index", "place", "value"]]
