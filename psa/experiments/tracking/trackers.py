"""The trackers of a sweep: those requested, and the trials that each of them has not logged yet."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from psa.core.errors import UserError, named_error
from psa.core.extras import how_to_install
from psa.experiments.tracking.base import Tracker, masked
from psa.plugins.registry import Registry
from psa.specs.trial import Trial
from psa.storage.records.record import Record
from psa.storage.store import Store

logger = logging.getLogger(__name__)


class TrackerGroup:
    """The trackers of one sweep."""

    def __init__(self, trackers: Sequence[Tracker], store: Store) -> None:
        self.trackers, self.store = list(trackers), store

    def log_finished(self, trials: Sequence[Trial], horizon: int) -> None:
        """Log the finished ones of these trials with every tracker that does not have them yet.

        A tracker that fails is not used again in this sweep.
        """
        for trial in self.store.progress(trials, horizon).done if self.trackers else ():
            record = self.store.read(trial)
            for tracker in tuple(self.trackers if record is not None else ()):
                self._log(tracker, trial, record or {})

    def _log(self, tracker: Tracker, trial: Trial, record: Record) -> None:
        try:
            if tracker.logged_loops(trial) < record["loops"]:
                tracker.log_trial(trial, record)
        except Exception as error:  # noqa: BLE001 - no error of a tracker may stop the training
            reason = masked(named_error(error))[:300]
            logger.warning(
                "%s is disabled for the rest of this sweep (%s); the next sweep logs the missing trials",
                tracker.name,
                reason,
            )
            self.trackers.remove(tracker)


TRACKER_EXTRAS: Final = {"tensorboard": "--tensorboard", "mlflow": "--mlflow"}

# What makes a tracker of a plugin: of the name under which runs are stored, and of what follows its own name.
MakeTracker = Callable[[str, str], Tracker]
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
    TRACKER_PLUGINS.add(name, make)


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


def trackers_for(study: str, tensorboard: Path | None, mlflow: str | None) -> list[Tracker]:
    """Return the requested trackers. study: the name under which runs are stored. Raises UserError."""
    found: list[Tracker] = []
    try:
        if tensorboard is not None:
            from psa.experiments.tracking.tensorboard import TensorBoard

            found.append(TensorBoard(tensorboard))
        if mlflow is not None:
            from psa.experiments.tracking.mlflow import MLflow

            found.append(MLflow(mlflow, study))
    except ModuleNotFoundError as error:
        extra = next((name for name in TRACKER_EXTRAS if name in str(error.name)), "mlflow")
        raise UserError(
            f"{TRACKER_EXTRAS[extra]} needs {error.name}, which is not installed", how_to_install(extra)
        ) from error
    return found
