"""The trackers of a sweep: those requested, and the trials that each of them has not logged yet."""

from __future__ import annotations

import functools
import hashlib
import importlib
import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psa.core.errors import UserError, named_error
from psa.core.extras import how_to_install
from psa.core.plugins.registry import Registry
from psa.execution.packing import label
from psa.execution.worker.protocol import WorkerEvent
from psa.experiments.tracking.base import LiveTracker, Tracker, masked
from psa.specs.trial import Pack, Trial
from psa.storage.records.record import Record
from psa.storage.store import Store

logger = logging.getLogger(__name__)


_OTHER_CHARACTERS: Final = re.compile(r"[^\w\-. ]")  # than every tracker allows in the name of a metric
# Its present version requires Pillow 12, and figures are compared with those of Pillow 13 (poetry.lock).
_BY_HAND: Final = {"trackio": "Install it into the environment of psa with pip"}
LIVE_SECONDS: Final = 2.0  # between two points of a pack in training
LEDGER_FOLDER: Final = ".trackers"  # in the folder of states


class TrackerGroup:
    """The trackers of one sweep. One that fails is not used again in this sweep."""

    def __init__(self, trackers: Sequence[Tracker], store: Store) -> None:
        self.trackers, self.store = list(trackers), store
        self._shown: dict[int, float] = {}  # time of the last point of a pack, by the id of its object

    def log_event(self, event: WorkerEvent) -> None:
        """Log the progress of a pack in training, and its trials when they are done."""
        if event.kind == "done":
            self.log_finished(event.pack.trials, event.pack.horizon)
        elif event.kind == "loop" and self.trackers:
            self._log_loop(event)

    def _log_loop(self, event: WorkerEvent) -> None:
        now = time.monotonic()
        if now - self._shown.get(id(event.pack), -math.inf) < LIVE_SECONDS:
            return
        self._shown[id(event.pack)] = now
        shares = {"best": event.facts["best"], "mean": event.facts.get("mean")}
        values = {f"validation/{key}": 100 * share for key, share in shares.items() if share is not None}
        name = _name(event.pack)
        for tracker in tuple(self.trackers):
            if isinstance(tracker, LiveTracker):
                self._guarded(tracker, functools.partial(tracker.log_loop, name, event.facts["loop"], values))

    def log_finished(self, trials: Sequence[Trial], horizon: int) -> None:
        """Log the finished ones of these trials with every tracker that does not have them yet."""
        for trial in self.store.progress(trials, horizon).done if self.trackers else ():
            record = self.store.read(trial)
            for tracker in tuple(self.trackers if record is not None else ()):
                self._guarded(tracker, functools.partial(_log, tracker, trial, record or {}))

    def close(self) -> None:
        """End the trackers."""
        for tracker in tuple(self.trackers):
            if isinstance(tracker, LiveTracker):
                self._guarded(tracker, tracker.close)

    def _guarded(self, tracker: Tracker, action: Callable[[], None]) -> None:
        """Run an action of a tracker; drop the tracker if that fails."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - no error of a tracker may stop the training
            reason = masked(named_error(error))[:300]
            logger.warning(
                "%s is disabled for the rest of this sweep (%s); the next sweep logs the missing trials",
                tracker.name,
                reason,
            )
            self.trackers.remove(tracker)


def _log(tracker: Tracker, trial: Trial, record: Record) -> None:
    if tracker.logged_loops(trial) < record["loops"]:
        tracker.log_trial(trial, record)


# What makes a tracker of a plugin: of the name under which runs are stored, and of what follows its own name.
MakeTracker = Callable[[str, str], Tracker]
TRACKER_EXTRAS: Final = ("tensorboard", "mlflow", "wandb", "trackio")
TRACKER_PLUGINS: Final = Registry[MakeTracker]("tracker", lambda: TRACKER_EXTRAS)


def register_tracker(name: str, make: MakeTracker) -> None:
    """Register a tracker of finished trials. See `psa.experiments.tracking.base.Tracker`.

    Args:
        name: The name of the tracker: `--tracker NAME` or `--tracker NAME=TARGET` selects it.
        make: Returns the tracker, of the name of the grid and of TARGET ("" where none is given). It should
            raise UserError for a target that it cannot use.

    Raises:
        PluginError: The name is invalid, that of a tracker of psa, or registered already.

    Example:
        >>> class Log:
        ...     name = "log"
        ...     def logged_loops(self, trial):
        ...         return -1
        ...     def log_trial(self, trial, record):
        ...         print(trial.id, record["loops"])
        >>> def register():
        ...     register_tracker("log", lambda study, target: Log())

    """
    TRACKER_PLUGINS.add(name, make, function=True)


def plugin_trackers(study: str, selected: Sequence[str]) -> list[Tracker]:
    """Return the trackers of plugins that `NAME` or `NAME=TARGET` select. Raises UserError."""
    found = []
    for text in selected:
        name, _, target = text.partition("=")
        if name in TRACKER_EXTRAS:
            raise UserError(f"--tracker must name the tracker of a plugin, got {name}", f"Use --{name}")
        TRACKER_PLUGINS.check_choice(name, "--tracker")
        found.append(TRACKER_PLUGINS.get(name)(study, target))
    return found


def _name(pack: Pack) -> str:
    """Return the name of a pack in curves: its label, and a digest to tell it from others of that label."""
    digest = hashlib.sha256(" ".join(trial.id for trial in pack.trials).encode()).hexdigest()[:6]
    return f"{_OTHER_CHARACTERS.sub('x', label(pack))} {digest}"


@dataclass(frozen=True)
class TrackerOptions:
    """The trackers that a sweep is asked to use, each with the place where it stores."""

    tensorboard: Path | None = None
    mlflow: str | None = None
    wandb: str | None = None
    trackio: str | None = None


def trackers_for(study: str, asked: TrackerOptions, store: Store) -> list[Tracker]:
    """Return the requested trackers. study: the name under which runs are stored. Raises UserError."""
    ledger = store.models / LEDGER_FOLDER
    makers: dict[str, Callable[[], Tracker]] = {
        "tensorboard": lambda: _imported("tensorboard").TensorBoard(asked.tensorboard),
        "mlflow": lambda: _imported("mlflow").MLflow(asked.mlflow, study),
        "wandb": lambda: _imported("wandb").WeightsAndBiases(asked.wandb, study, ledger / "wandb"),
        "trackio": lambda: _imported("trackio").Trackio(asked.trackio, study, ledger / "trackio"),
    }
    found = []
    for extra, make in makers.items():
        if getattr(asked, extra) is None:
            continue
        try:
            found.append(make())
        except ModuleNotFoundError as error:
            hint = _BY_HAND.get(extra) or how_to_install(extra)
            raise UserError(f"--{extra} needs {error.name}, which is not installed", hint) from error
    return found


def _imported(tracker: str) -> Any:
    return importlib.import_module(f"psa.experiments.tracking.{tracker}")
