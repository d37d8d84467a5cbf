"""Finished trials as runs of Weights & Biases: a project of the user's, a group for each study.

Offline (WANDB_MODE=offline) runs are folders below wandb/, which `wandb sync` uploads later.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import wandb

from psa.core.errors import UserError, named_error
from psa.experiments.tracking.base import LoopLedger, curves, masked
from psa.specs.trial import Trial
from psa.storage.records.record import Record

_START_SECONDS: Final = 30.0  # to reach the server; W&B's own limit of 90 s would hold the sweep up


class WeightsAndBiases:
    """A tracker that logs to a project of Weights & Biases.

    project: its name, or ENTITY/NAME. study: the group of its runs. folder: holds what has been logged.
    Raises UserError if no run can be started, for example without a login.
    """

    name = "Weights & Biases"

    def __init__(self, project: str, study: str, folder: Path) -> None:
        self.entity, _, self.project = project.rpartition("/")
        self.study, self.ledger = study, LoopLedger(folder / project.replace("/", "-"))
        self._curves: set[str] = set()
        try:
            self._live = self._run(name=f"{study} live", job_type="live")
        except (wandb.errors.Error, OSError, ValueError) as error:
            raise UserError(
                f"--wandb {project} cannot start a run: {masked(named_error(error))[:300]}",
                "Run `wandb login` first, or set WANDB_MODE=offline and `wandb sync` later",
            ) from error

    def log_loop(self, pack: str, loop: int, values: Mapping[str, float]) -> None:
        """See psa.experiments.tracking.base.LiveTracker. All packs are metrics of one run of this sweep."""
        if pack not in self._curves:
            self._curves.add(pack)
            self._live.define_metric(f"{pack}/loop", hidden=True)
            self._live.define_metric(f"{pack}/*", step_metric=f"{pack}/loop")
        self._live.log({f"{pack}/loop": loop, **{f"{pack}/{key}": each for key, each in values.items()}})

    def logged_loops(self, trial: Trial) -> int:
        """See psa.experiments.tracking.base.Tracker."""
        return self.ledger.loops(trial)

    def log_trial(self, trial: Trial, record: Record) -> None:
        """See psa.experiments.tracking.base.Tracker. Further loops continue a run; offline it starts anew."""
        shown = curves(record)
        digest = hashlib.sha256(f"{self.study}/{trial.id}".encode()).hexdigest()[:24]
        with self._run(
            name=trial.id, id=digest, resume="allow", job_type="trial", config=shown.settings
        ) as run:
            known = self.logged_loops(trial) if run.resumed else 0
            for loop, values in shown.points:
                if loop > known:
                    run.log(values, step=loop)
            run.summary.update(shown.finals)
        self.ledger.store(trial, record["loops"])

    def close(self) -> None:
        """See psa.experiments.tracking.base.LiveTracker."""
        self._live.finish()

    def _run(self, **facts: Any) -> Any:
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            x_disable_stats=True,  # of the machine of the sweep, which may train nothing itself
            init_timeout=_START_SECONDS,
        )
        return wandb.init(
            project=self.project,
            entity=self.entity or None,
            group=self.study,
            dir=os.environ.get("WANDB_DIR") or ".",
            reinit="create_new",
            settings=settings,
            **facts,
        )
