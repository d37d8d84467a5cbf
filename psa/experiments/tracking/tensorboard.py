"""Finished trials as runs of TensorBoard: a folder each, with curves and settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

from torch.utils.tensorboard import SummaryWriter

from psa.core.files import check_writable, write_atomically
from psa.experiments.tracking.base import curves
from psa.specs.trial import Trial
from psa.storage.helper_files import TRACKER_PROGRESS, read_helper
from psa.storage.records.record import Record

_KNOWN: Final = "psa.json"  # written last: a folder without it was not finished, and is rewritten


class TensorBoard:
    """A tracker that writes DIR/<trial id>/. A run with more loops is rewritten from its record.

    Raises UserError if the folder cannot be written to.
    """

    name = "TensorBoard"

    def __init__(self, folder: Path) -> None:
        check_writable(folder)
        self.folder = folder

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
