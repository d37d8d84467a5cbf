"""The trials of the depth study as numbers: networks by model, layers and width, seed by seed."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from psa.analysis.frame_schema import trials_of
from psa.analysis.pooling import differing_settings, equal_budgets
from psa.analysis.stats import Values
from psa.core.errors import UserError
from psa.core.formatting import join_names
from psa.specs.arch import Arch

MODEL_NAMES: Final = {"glonet": "GloNet", "mlp": "MLP", "residual": "ResMLP"}
_OTHER_KIND: Final = "Name another study, or give these trials a kind of their own"
COMPARED_NETWORKS: Final = ("family", "arch")  # all other settings must be equal on a page
CHANCE: Final = 1.0  # points above ZeroR up to which a trial has learned nothing


@dataclass(frozen=True, order=True)
class Network:
    """A network. layers includes the head, as the study's num_layers; a ResMLP counts two-layer blocks."""

    features: int
    layers: int
    model: str

    @property
    def label(self) -> str:
        """The label, such as `GloNet, 50 layers of 256`."""
        return f"{self.model}, {self.layers} layers of {self.features}"


def network_label(family: str, arch: str) -> Network:
    """Return the network of a row. Raises UserError for a family that the depth study does not have, and for
    hidden layers of several widths: trials of a plugin may be of this kind.
    """
    if family not in MODEL_NAMES:
        raise UserError(
            f"the networks of a depth report must be of {join_names(list(MODEL_NAMES))}, got {family} {arch}",
            _OTHER_KIND,
        )
    widths = Arch.coerce(arch).widths
    if len(set(widths)) > 1:
        raise UserError(
            f"the networks of a depth report must have hidden layers of one width, got several widths: "
            f"{family} {arch}",
            _OTHER_KIND,
        )
    return Network(widths[0], len(widths) + 1, MODEL_NAMES[family])


@dataclass(frozen=True)
class Trained:
    """The trials of one network, one entry per seed of the study, NaN (or "missing") if there is none.

    validation, test: accuracy in percent; loss: on the validation split after the last epoch; epochs: number
    trained; curves: [seeds, epochs] of validation accuracy, and of both losses, NaN after the end.
    """

    network: Network
    ids: tuple[str, ...]
    statuses: tuple[str, ...]
    parameters: int | None
    validation: Values
    test: Values
    accuracies: Values
    losses: Values
    train_losses: Values

    @property
    def n(self) -> int:
        """The number of finished trials."""
        return self.statuses.count("done")

    @property
    def done_ids(self) -> tuple[str, ...]:
        """The ids, one per seed, empty if its trial is not done: results of other trials are never used."""
        pairs = zip(self.ids, self.statuses, strict=True)
        return tuple(each if status == "done" else "" for each, status in pairs)

    @property
    def best(self) -> Values:
        """The greatest validation accuracy [seeds] after any epoch, in percent; NaN for no finished trial."""
        found = np.fmax.reduce(self.accuracies, axis=1, initial=np.nan)
        return np.where(np.isnan(found) | np.isnan(self.validation), self.validation, found)

    def reaching(self, target: Values | float) -> Values:
        """Return [seeds] the first epoch after which validation accuracy is at least `target` percent (one
        number, or one per seed); NaN if it is never reached.
        """
        enough = (
            self.accuracies >= np.broadcast_to(np.asarray(target, dtype=np.float64), len(self.ids))[:, None]
        )
        if not enough.shape[1]:
            return np.full(len(self.ids), np.nan)
        return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1.0, np.nan)


@dataclass(frozen=True)
class GlonetResults:
    """All networks of one frame. zero_r: percent of the validation split in the majority class.

    samples: size of the validation split. epochs: every length of a finished trial.
    """

    seeds: tuple[int, ...]
    trained: Mapping[Network, Trained]
    zero_r: float
    samples: int
    epochs: tuple[int, ...]
    statuses: Mapping[str, int]

    @cached_property
    def features(self) -> tuple[int, ...]:
        """The widths, ascending."""
        return tuple(sorted({network.features for network in self.trained}))

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The depths of all models, ascending."""
        return tuple(sorted({network.layers for network in self.trained}))

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models, GloNet first."""
        there = {network.model for network in self.trained}
        return tuple(model for model in MODEL_NAMES.values() if model in there)

    @property
    def zero_r_shown(self) -> str:
        """The accuracy of ZeroR as text; unknown without a finished trial."""
        return "unknown" if np.isnan(self.zero_r) else f"{self.zero_r:.2f} %"

    def of(self, model: str, features: int) -> list[Trained]:
        """Return the networks of one model and width, ascending by layers."""
        return [
            found
            for network, found in sorted(self.trained.items())
            if (network.model, network.features) == (model, features)
        ]

    def get(self, model: str, layers: int, features: int) -> Trained | None:
        """Return one network, None if the frame does not have it."""
        return self.trained.get(Network(features, layers, model))


def learned_trials(results: GlonetResults, trained: Trained) -> NDArray[np.bool_]:
    """Return [seeds] whether a trial is more than CHANCE points above ZeroR; False if it is missing."""
    return np.asarray(trained.validation > results.zero_r + CHANCE)


def mean(values: Values, axis: int | None = None) -> Values:
    """Return the mean of the numbers present; NaN, without a warning, if there are none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis), dtype=np.float64)


def glonet_results(frame: pd.DataFrame) -> GlonetResults:
    """Return the networks of one experiment. Raises UserError if the frame holds several."""
    frame = equal_budgets(frame)
    trials = trials_of(frame)
    for column, values in differing_settings(trials, COMPARED_NETWORKS).items():
        raise UserError(f"these trials differ in {column} ({', '.join(values)})", "Name one grid with --grid")
    done = trials[trials["status"] == "done"]
    samples = done["validation_size"].max()
    return GlonetResults(
        tuple(sorted(set(map(int, trials["seed"])))),
        dict(_networks(frame, trials)),
        float(done["zero_r"].max()) if len(done) else float("nan"),
        int(samples) if len(done) else 0,
        tuple(sorted(set(map(int, done["loops"])))),
        Counter(map(str, trials["status"])),
    )


def _networks(frame: pd.DataFrame, trials: pd.DataFrame) -> Iterator[tuple[Network, Trained]]:
    seeds = sorted(set(map(int, trials["seed"])))
    loops = {str(name): rows for name, rows in frame[frame["loop"].notna()].groupby("id", observed=True)}
    for (family, arch), rows in trials.groupby(["family", "arch"], observed=True, sort=False):
        network = network_label(str(family), str(arch))
        by_seed = {int(row.seed): row for row in rows.itertuples()}
        if len(by_seed) < len(rows):
            raise UserError(
                f"there are two trials of one seed of {network.label}, which differ in their settings",
                "Name one grid with --grid",
            )
        ordered = [by_seed.get(seed) for seed in seeds]
        ids = tuple("" if row is None else str(row.id) for row in ordered)
        curves = {
            name: _curves([loops.get(each) for each in ids], name)
            for name in ("accuracy", "loss", "train_loss")
        }
        sizes = rows["parameters"].dropna()
        yield (
            network,
            Trained(
                network,
                ids,
                tuple("missing" if row is None else str(row.status) for row in ordered),
                int(sizes.iloc[0]) if len(sizes) else None,
                np.array([np.nan if row is None else row.bounty for row in ordered], dtype=np.float64),
                np.array([np.nan if row is None else row.test for row in ordered], dtype=np.float64),
                curves["accuracy"],
                curves["loss"],
                curves["train_loss"],
            ),
        )


def _curves(rows: list[pd.DataFrame | None], column: str) -> Values:
    """Return [seeds, epochs], NaN where there is no number."""
    longest = max((len(each) for each in rows if each is not None), default=0)
    found = np.full((len(rows), longest), np.nan)
    for at, each in enumerate(rows):
        if each is not None:
            found[at, : len(each)] = each[column].to_numpy(dtype=np.float64)
    return found
