"""Finished trials as runs of trackio, stored on this machine or where TRACKIO_SERVER_URL says.

trackio has one run at a time, so that the packs in training and the finished trials take turns.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import trackio

from psa.core.errors import UserError, named_error
from psa.experiments.tracking.base import LoopLedger, curves, masked
from psa.specs.trial import Trial
from psa.storage.records.record import Record


class Trackio:
    """A tracker that logs to a project of trackio.

    project: its name. study: the group of its runs. folder: holds what has been logged.
    Raises UserError if the project cannot be opened.
    """

    name = "trackio"

    def __init__(self, project: str, study: str, folder: Path) -> None:
        self.project, self.study, self.ledger = project, study, LoopLedger(folder / project)
        self._open = ""
        try:
            self._switch(f"{study} live")
        except Exception as error:  # trackio names no base of its errors
            raise UserError(
                f"--trackio {project} cannot be opened: {masked(named_error(error))[:300]}",
                "Set TRACKIO_DIR to a folder you may write to, or check TRACKIO_SERVER_URL",
            ) from error

    def log_loop(self, pack: str, loop: int, values: Mapping[str, float]) -> None:
        """See psa.experiments.tracking.base.LiveTracker. All packs are metrics of one run."""
        run = self._switch(f"{self.study} live")
        run.log({f"{pack}/{key}": value for key, value in values.items()}, step=loop)

    def logged_loops(self, trial: Trial) -> int:
        """See psa.experiments.tracking.base.Tracker."""
        return self.ledger.loops(trial)

    def log_trial(self, trial: Trial, record: Record) -> None:
        """See psa.experiments.tracking.base.Tracker. Further loops continue the run."""
        shown, known = curves(record), self.logged_loops(trial)
        run = self._switch(trial.id, shown.settings)
        for loop, values in shown.points:
            if loop > known:
                run.log(values, step=loop)
        run.log({f"final/{name}": value for name, value in shown.finals.items()}, step=record["loops"])
        self.close()  # what it buffers is stored before the trial counts as logged
        self.ledger.store(trial, record["loops"])

    def close(self) -> None:
        """See psa.experiments.tracking.base.LiveTracker."""
        if self._open:
            self._open = ""
            with contextlib.redirect_stdout(io.StringIO()):
                trackio.finish()

    def _switch(self, name: str, config: dict[str, str] | None = None) -> Any:
        """Return the run of that name as the current one."""
        if self._open != name:
            with contextlib.redirect_stdout(io.StringIO()):  # it prints advice for notebooks
                self._run = trackio.init(
                    self.project, name=name, group=self.study, config=config, resume="allow", embed=False,
                    auto_log_gpu=False, auto_log_cpu=False,
                )  # fmt: skip
            self._open = name
        return self._run
