"""The trackers of a sweep: those requested, and the trials that each of them has not logged yet."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from psa.core.errors import UserError, named_error
from psa.core.extras import how_to_install
from psa.experiments.tracking.base import Tracker, masked
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
