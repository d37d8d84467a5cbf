"""The protocols by which a sweep shows its progress; psa.cli implements them for a console."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from typing import Protocol

from psa.execution.eta import EtaEstimator
from psa.execution.worker.protocol import WorkerEvent
from psa.experiments.promotion import StageStatus
from psa.storage.sweep_registry import Describe

RefreshCallback = Callable[[], None]


class StageProgress(Protocol):
    """The progress of one stage, updated by the events of its packs."""

    done: int
    time_left: EtaEstimator

    def handle_event(self, event: WorkerEvent) -> None:
        """Process an event."""

    def show_measuring(self, networks: int) -> None:
        """Show that `networks` networks are to be measured before the training starts."""

    def show_waiting(self, trials: int) -> None:
        """Show that the sweep waits for `trials` trials that other processes hold."""

    def show_training(self) -> None:
        """Show that packs are being trained."""


class SweepProgress(Protocol):
    """The messages of a sweep, and the progress of each of its stages."""

    def say(self, text: str) -> None:
        """Show a line."""

    def damaged(self, reasons: Mapping[str, str]) -> None:
        """Name the records that cannot be read."""

    def waiting(self, stage: StageStatus) -> None:
        """Show what a stage that cannot start yet waits for."""

    def stage(
        self, name: str, total: int, time_left: EtaEstimator, report_status: Describe
    ) -> contextlib.AbstractContextManager[tuple[StageProgress, RefreshCallback]]:
        """Show the progress of a stage of `total` trials within the block, updated at each refresh."""
