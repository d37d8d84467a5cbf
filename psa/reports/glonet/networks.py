"""The trials of the depth study as numbers: networks by model, layers and width, seed by seed. No drawing."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pandas as pd

from psa.analysis.frame_schema import trials_of
from psa.analysis.stats import Values
from psa.core.errors import UserError
from psa.specs.arch import Arch
from psa.storage.store import Store

MODEL_NAMES: Final = {"glonet": "GloNet", "mlp": "MLP", "residual": "ResMLP"}
# What trials that are compared with each other must share.
SHARED_SETTINGS: Final = (
    "study", "mode", "policy", "optimizer", "lr", "momentum", "batch_size", "weight_decay", "patience",
    "dropout", "activation", "init", "simplex", "dataset", "scaling", "digits", "val_size", "split_seed",
)  # fmt: skip


@dataclass(frozen=True, order=True)
class Network:
    """layers counts the head, as the study's num_layers does; of a ResMLP it counts blocks of two layers."""

    features: int
    layers: int
    model: str

    @property
    def label(self) -> str:
        """`GloNet, 50 layers of 256`."""
        return f"{self.model}, {self.layers} layers of {self.features}"


def network_label(family: str, arch: str) -> Network:
    """The network of a row. Raises ValueError where its hidden layers differ in width."""
    widths = Arch.coerce(arch).widths
    if len(set(widths)) > 1:
        raise ValueError(f"{arch} has layers of several widths")
    return Network(widths[0], len(widths) + 1, MODEL_NAMES[family])


@dataclass(frozen=True)
class Trained:
    """The trials of one network, one place per seed of the study, NaN (or "missing") where there is none.

    validation, test: accuracy in percent; loss: on the validation split after the last epoch; epochs: how
    many were trained; curves: [seeds, epochs] of validation accuracy, and of both losses, NaN behind the end.
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
        """How many are done."""
        return self.statuses.count("done")

    @property
    def done_ids(self) -> tuple[str, ...]:
        """One per seed, empty where its trial is not done: what is stored of others takes part in nothing."""
        pairs = zip(self.ids, self.statuses, strict=True)
        return tuple(each if status == "done" else "" for each, status in pairs)

    def reaching(self, target: Values | float) -> Values:
        """[seeds] the first epoch after which validation accuracy is at least `target` percent (one number,
        or one per seed); NaN where that never was.
        """
        enough = (
            self.accuracies >= np.broadcast_to(np.asarray(target, dtype=np.float64), len(self.ids))[:, None]
        )
        if not enough.shape[1]:
            return np.full(len(self.ids), np.nan)
        return np.where(enough.any(axis=1), enough.argmax(axis=1) + 1.0, np.nan)


@dataclass(frozen=True)
class GlonetResults:
    """Every network of one frame. zero_r: percent of the validation split that the majority class makes.

    samples: of the validation split. epochs: every length that a finished trial has.
    """

    seeds: tuple[int, ...]
    trained: Mapping[Network, Trained]
    zero_r: float
    samples: int
    epochs: tuple[int, ...]
    statuses: Mapping[str, int]

    @cached_property
    def features(self) -> tuple[int, ...]:
        """Widths, in rising order."""
        return tuple(sorted({network.features for network in self.trained}))

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """Depths of any model, in rising order."""
        return tuple(sorted({network.layers for network in self.trained}))

    @cached_property
    def models(self) -> tuple[str, ...]:
        """GloNet first."""
        there = {network.model for network in self.trained}
        return tuple(model for model in MODEL_NAMES.values() if model in there)

    @property
    def zero_r_shown(self) -> str:
        """In words; without a finished trial nobody knows it."""
        return "unknown" if np.isnan(self.zero_r) else f"{self.zero_r:.2f} %"

    def of(self, model: str, features: int) -> list[Trained]:
        """The networks of one model and width, from few layers to many."""
        return [
            found
            for network, found in sorted(self.trained.items())
            if (network.model, network.features) == (model, features)
        ]

    def get(self, model: str, layers: int, features: int) -> Trained | None:
        """One network, None where the frame does not know it."""
        return self.trained.get(Network(features, layers, model))


def mean(values: Values, axis: int | None = None) -> Values:
    """Over what is there; NaN, and no warning, where nothing is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return np.asarray(np.nanmean(values, axis=axis), dtype=np.float64)


def depths_of(frame: pd.DataFrame) -> GlonetResults:
    """The networks of one experiment. Raises UserError where the frame holds several."""
    trials = trials_of(frame)
    known = trials[trials["status"].isin(["done", "unfinished", "diverged"])]
    for column in SHARED_SETTINGS:
        if known[column].astype(str).nunique() > 1:
            values = ", ".join(sorted(set(known[column].astype(str))))
            raise UserError(f"these trials differ in {column} ({values})", "Name one grid with --grid")
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
    """[seeds, epochs], NaN where there is nothing."""
    longest = max((len(each) for each in rows if each is not None), default=0)
    found = np.full((len(rows), longest), np.nan)
    for at, each in enumerate(rows):
        if each is not None:
            found[at, : len(each)] = each[column].to_numpy(dtype=np.float64)
    return found


def seconds_of(depths: GlonetResults, store: Store | None) -> dict[Network, Values]:
    """Seconds per epoch and trial, seed by seed, as the sidecars of the records tell; NaN where none does.

    What it is: the time of the pack in which the trial was trained, with its evaluations, probes and
    checkpoints, shared out among all epochs of all its trials.
    """
    if store is None:
        return {}
    found = {
        network: np.array([_seconds(store, each) for each in trained.done_ids], dtype=np.float64)
        for network, trained in depths.trained.items()
    }
    return {network: values for network, values in found.items() if not np.isnan(values).all()}


def _seconds(store: Store, trial: str) -> float:
    sidecar = store.sidecar(trial) if trial else None
    if not sidecar or not sidecar.get("pack_epochs"):
        return float("nan")
    return float(sidecar["pack_seconds"]) / int(sidecar["pack_epochs"])
