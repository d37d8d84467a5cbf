"""Finished trials as runs of TensorBoard: a folder each, with curves and settings."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from torch.utils.tensorboard import SummaryWriter

from psa.core.files import check_writable, write_atomically
from psa.experiments.tracking.base import curves
from psa.specs.trial import Trial
from psa.storage.helper_files import TRACKER_PROGRESS, read_helper
from psa.storage.records.record import Record

LIVE_RUN: Final = "live"  # name of the run with the packs in training
_FLUSH_SECONDS: Final = 5
_KNOWN: Final = "psa.json"  # written last: a folder without it was not finished, and is rewritten


class TensorBoard:
    """A tracker that writes DIR/<trial id>/, and DIR/live/ with the packs in training.

    A run with more loops is rewritten from its record.

    Raises UserError if the folder cannot be written to.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        check_writable(folder)
        self.folder = folder
        self._live: SummaryWriter | None = None

    def log_loop(self, pack: str, loop: int, values: Mapping[str, float]) -> None:
        """See psa.experiments.tracking.base.LiveTracker."""
        if self._live is None:
            self._live = SummaryWriter(str(self.folder / LIVE_RUN), flush_secs=_FLUSH_SECONDS)
        for name, value in values.items():
            self._live.add_scalar(f"{pack}/{name}", value, loop)

    def logged_loops(self, trial: Trial) -> int:
        """See psa.experiments.tracking.base.Tracker."""
        path = self.folder / trial.id / _KNOWN
        known = read_helper(path, TRACKER_PROGRESS, "the run is written anew")
        return -1 if known is None else known["loops"]

    def log_trial(self, trial: Trial, record: Record) -> None:
        """See psa.experiments.tracking.base.Tracker."""
        run, shown = self.folder / trial.id, curves(record)
        shutil.rmtree(run, ignore_errors=True)
        with SummaryWriter(str(run)) as writer:
            for loop, values in shown.points:
                for name, value in values.items():
                    writer.add_scalar(name, value, loop)
            finals = {f"final/{name}": value for name, value in shown.finals.items()}
            writer.add_hparams(shown.settings, finals, run_name=".", global_step=record["loops"])
        write_atomically(run / _KNOWN, json.dumps({"loops": record["loops"]}).encode())

    def close(self) -> None:
        """See psa.experiments.tracking.base.LiveTracker."""
        if self._live is not None:
            self._live.close()
