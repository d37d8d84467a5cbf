"""Finished trials as runs of MLflow: an experiment for each study, a run for each trial."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any, Final

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException

from psa.core.errors import UserError, one_line
from psa.experiments.tracking.base import curves, masked
from psa.specs.trial import Trial
from psa.storage.records.record import Record

_ID, _LOOPS, _LIVE = "psa.id", "psa.loops", "psa.live"
_AT_ONCE: Final = 1_000  # metrics that a server accepts in one request
_PARAMS_AT_ONCE: Final = 100
# A server that does not answer must not hold a sweep up for MLflow's own ten minutes.
_PATIENCE: Final = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class MLflow:
    """A tracker that logs to an MLflow server (http://..., sqlite:///runs.db).

    An existing run is continued with further loops. Raises UserError if the server does not answer.
    """

    name = "MLflow"

    def __init__(self, uri: str, study: str) -> None:
        for key, value in _PATIENCE.items():
            os.environ.setdefault(key, value)
        self._live = ""  # id of the run with the packs in training
        try:
            self.client = MlflowClient(uri)
            there = self.client.get_experiment_by_name(study)
            self.experiment = self.client.create_experiment(study) if there is None else there.experiment_id
        except (MlflowException, ValueError, OSError) as error:
            shown = masked(one_line(f"--mlflow {uri}: {error}"))
            raise UserError(shown[:400], "Name a server that runs, or sqlite:///runs.db") from error

    def log_loop(self, pack: str, loop: int, values: Mapping[str, float]) -> None:
        """See psa.experiments.tracking.base.LiveTracker. All packs are metrics of one run of this sweep."""
        if not self._live:
            run = self.client.create_run(self.experiment, run_name="live", tags={_LIVE: "true"})
            self._live = run.info.run_id
        now = int(1000 * time.time())
        metrics = [Metric(f"{pack}/{key}", value, now, loop) for key, value in values.items()]
        self.client.log_batch(self._live, metrics=metrics)

    def close(self) -> None:
        """See psa.experiments.tracking.base.LiveTracker."""
        if self._live:
            self.client.set_terminated(self._live)

    def logged_loops(self, trial: Trial) -> int:
        """See psa.experiments.tracking.base.Tracker."""
        run = self._run(trial)
        return -1 if run is None else int(run.data.tags.get(_LOOPS, 0))

    def log_trial(self, trial: Trial, record: Record) -> None:
        """See psa.experiments.tracking.base.Tracker."""
        shown, now = curves(record), int(1000 * time.time())
        run = self._run(trial) or self.client.create_run(
            self.experiment, run_name=trial.id, tags={_ID: trial.id, _LOOPS: "0"}
        )
        known = int(run.data.tags.get(_LOOPS, 0))
        name = run.info.run_id
        params = [Param(key, value[:500]) for key, value in shown.settings.items()]
        metrics = [
            Metric(key, value, now, loop)
            for loop, values in shown.points
            if loop > known
            for key, value in values.items()
        ]
        metrics += [Metric(key, value, now, record["loops"]) for key, value in shown.finals.items()]
        for start in range(0, len(params), _PARAMS_AT_ONCE):
            self.client.log_batch(name, params=params[start : start + _PARAMS_AT_ONCE])
        for start in range(0, len(metrics), _AT_ONCE):
            self.client.log_batch(name, metrics=metrics[start : start + _AT_ONCE])
        # last: a run without it was not finished, and is logged again
        self.client.log_batch(name, tags=[RunTag(_LOOPS, str(record["loops"]))])
        self.client.set_terminated(name)

    def _run(self, trial: Trial) -> Any:
        found = self.client.search_runs([self.experiment], f"tags.`{_ID}` = '{trial.id}'", max_results=1)
        return found[0] if found else None
