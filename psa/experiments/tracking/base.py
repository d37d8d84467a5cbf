"""The protocol of a tracker, and the curves that trackers show of a record."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from psa.core.files import write_atomically
from psa.specs.trial import Trial
from psa.storage.helper_files import TRACKER_PROGRESS, read_helper
from psa.storage.records.divergence import diverged, diverged_loops
from psa.storage.records.history import accepted_loops
from psa.storage.records.record import Record


class Tracker(Protocol):
    """A tracker of finished trials, such as a server of experiments.

    For every finished trial the sweep calls `logged_loops`, and `log_trial` where the record has more loops.
    What a tracker missed, it receives from the next sweep. An exception of any type switches the tracker off
    until the end of the sweep; the training goes on. A tracker with the methods of `LiveTracker` is also
    shown the packs in training.

    Attributes:
        name: The name of the tracker in warnings.

    Example:
        >>> class Scores:
        ...     name = "Scores"
        ...
        ...     def __init__(self):
        ...         self.scores = {}
        ...
        ...     def logged_loops(self, trial):
        ...         loops, _ = self.scores.get(trial.id, (-1, None))
        ...         return loops
        ...
        ...     def log_trial(self, trial, record):
        ...         self.scores[trial.id] = record["loops"], curves(record).finals

    """

    name: str

    def logged_loops(self, trial: Trial) -> int:
        """Return the number of loops of a trial that the tracker has stored.

        Args:
            trial: A finished trial.

        Returns:
            The number of loops; -1 for a trial that is unknown or was stored only in part.

        Raises:
            Exception: Any error of the tracker's library.

        """

    def log_trial(self, trial: Trial, record: Record) -> None:
        """Store a record, or those of its loops that are not stored yet.

        Args:
            trial: The trial.
            record: Its record; `curves` extracts what is worth showing.

        Raises:
            Exception: Any error of the tracker's library.

        """


@runtime_checkable
class LiveTracker(Tracker, Protocol):
    """A tracker that also shows packs in training."""

    def log_loop(self, pack: str, loop: int, values: Mapping[str, float]) -> None:
        """Show a point of the curves of a pack in training. Loops may be left out, or repeated by a retry.

        Args:
            pack: A name of the pack, the same in every sweep.
            loop: The meta-loop of its least trained trial.
            values: `validation/best` and `validation/mean` of its trials, accuracies in percent.

        Raises:
            Exception: Any error of the tracker's library.

        """

    def close(self) -> None:
        """Store what is still in memory, at the end of the sweep.

        Raises:
            Exception: Any error of the tracker's library.

        """


@dataclass(frozen=True)
class Curves:
    """The content of a record that trackers show: the settings of the trial, a point per loop, the results.

    Accuracies in percent; missing and non-finite values are left out. The finals of a diverged trial are
    `diverged` (1) and `diverged_loops`; another trial with diverged loops has the latter beside its results.
    """

    settings: dict[str, str]
    points: list[tuple[int, dict[str, float]]]
    finals: dict[str, float]


def curves(record: Record) -> Curves:
    """Return the curves of a record."""
    history, samples, finals = record["history"], record["samples"], record["finals"]
    share, lkg, lost = 100 / samples["validation"], None, set(diverged_loops(history))
    points = []
    for at, loop in enumerate(history["loop"]):
        accuracy = share * history["correct"][at]
        taken = accepted_loops(history)[at]
        lkg = accuracy if taken and loop not in lost else lkg
        shown = {
            "validation/accuracy": accuracy,
            "validation/lkg": lkg,
            "validation/loss": history["loss"][at],
            "train/loss": history["train_loss"][at],
        }
        points.append((loop, _there(shown)))
    results = {
        "bounty": share * finals["bounty"]["correct"],
        "bounty_loop": finals["bounty"]["loop"],
        "test_accuracy": 100 * finals["test"]["correct"] / samples["test"],
        "test_loss": finals["test"]["loss"],
    }
    if diverged(record):
        results = {"diverged": 1.0}
    counts = {"diverged_loops": float(len(lost))} if lost else {}
    return Curves(dict(_settings(record["spec"])), points, _there(results | counts))


class LoopLedger:
    """The loops of each trial that a tracker has stored, for libraries that cannot be asked for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def loops(self, trial: Trial) -> int:
        """Return the number of loops, -1 for a trial that is unknown."""
        known = read_helper(self._path(trial), TRACKER_PROGRESS, "the trial is logged again")
        return -1 if known is None else known["loops"]

    def store(self, trial: Trial, loops: int) -> None:
        """Store the number of loops, after the tracker has stored them. Raises UserError."""
        write_atomically(self._path(trial), json.dumps({"loops": loops}).encode())

    def _path(self, trial: Trial) -> Path:
        return self.folder / f"{trial.id}.json"


def masked(text: str) -> str:
    """Return a message of a library without the passwords of addresses in it."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _there(values: dict[str, float | None]) -> dict[str, float]:
    return {name: float(value) for name, value in values.items() if value is not None}


def _settings(spec: dict[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names and values of the settings in a spec: `model.arch`, `method.lr` and so on."""
    for key, value in spec.items():
        if isinstance(value, dict):
            yield from _settings(value, f"{before}{key}.")
        elif value is not None and value not in ([], ""):
            yield f"{before}{key}", str(value)
