"""Progress of a sweep: a live table on a terminal, a line per pack elsewhere, a status for `psa status`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from psa.cli.console import print_first, print_line
from psa.core.formatting import format_duration, pluralize
from psa.execution.eta import EtaEstimator
from psa.execution.packing import label
from psa.execution.worker.protocol import WorkerEvent, failures_of
from psa.experiments.promotion import StageStatus
from psa.experiments.sweep import RefreshCallback, StageProgress
from psa.specs.trial import Pack
from psa.storage.sweep_registry import Describe

STATUS_SECONDS: Final = 2.0


class SweepView:
    """The progress of a sweep (done, running, failed, best), and its display."""

    def __init__(
        self, out: Console, name: str, total: int, time_left: EtaEstimator, report: Describe
    ) -> None:
        self.out, self.name, self.total, self.time_left, self.report = out, name, total, time_left, report
        self.running: dict[int, tuple[Pack, int]] = {}
        self.best: tuple[float, str] = (0.0, "")
        self.done = 0
        self.doing = ""  # something else than training
        self._reported_at = 0.0

    def handle_event(self, event: WorkerEvent) -> None:
        """Process an event."""
        pack = event.pack
        match event.kind:
            case "tick":
                self._report()
            case "message":  # a message of the backend
                self._line(event.facts["message"])
            case "ready":  # a cluster has been counted
                self.time_left.workers = event.facts["workers"]
            case "begun":
                self.time_left.start(pack, event.facts["left"])
            case "loop":
                self.time_left.advance(pack, event.facts["trained"])
                self.running[id(pack)] = (pack, event.facts["loop"])
                self.best = max(self.best, (event.facts["best"], event.facts["trial"]))
            case "died":
                self.running.pop(id(pack), None)
                self._line(f"{label(pack)}: {event.facts['error']}; retrying its pack")
            case "done" | "failed":
                self._over(event)

    def _over(self, event: WorkerEvent) -> None:
        """Count and print a pack that is done or has failed."""
        self.running.pop(id(event.pack), None)
        self.time_left.finish(event.pack)
        name, trained = label(event.pack), event.facts.get("trained", 0)
        self.done += trained
        if trained:
            self._line(f"{self.done:,}/{self.total:,} trials | {name} done | {self._left()}")
        for error in dict.fromkeys(failures_of(event).values()):
            self._line(f"FAILED {name}: {error}")

    def show_measuring(self, networks: int) -> None:
        """Show that `networks` networks are to be measured before the training starts."""
        self.doing = f"measuring {pluralize(networks, 'network')} on this machine"
        self._report()

    def show_waiting(self, trials: int) -> None:
        """Show that the sweep waits for `trials` trials that other processes hold."""
        before, self.doing = self.doing, f"waiting for {pluralize(trials, 'trial')} of other processes"
        if self.doing != before:
            self._line(f"{self.done:,}/{self.total:,} trials | {self.doing}")
        self._report()

    def show_training(self) -> None:
        """Show that packs are being trained."""
        self.doing = ""

    def _line(self, text: str) -> None:
        print_line(self.out, text)

    def _left(self) -> str:
        return self.doing or f"{format_duration(self.time_left.remaining())} left"

    def table(self) -> Table:
        """Return the table of the live display."""
        title = f"{self.done:,} of {self.total:,} trials done, {self._left()}"
        table = Table(title=title, title_justify="left", min_width=min(len(title), self.out.width))
        for heading in ("running pack", "trials", "meta-loop"):
            table.add_column(heading)
        for pack, loop in self.running.values():
            table.add_row(label(pack), f"{len(pack.trials)}", f"{loop}/{pack.horizon}")
        if self.best[1]:
            table.caption = f"best so far {100 * self.best[0]:.2f} % validation, {self.best[1]}"
        return table

    def _report(self) -> None:
        if time.monotonic() - self._reported_at < STATUS_SECONDS:
            return
        self._reported_at = time.monotonic()
        self.report(
            {
                "grid": self.name,
                "done": self.done,
                "total": self.total,
                "left": self._left(),
                "best": [100 * self.best[0], self.best[1]],
                "running": [
                    f"{label(pack)} loop {loop}/{pack.horizon}" for pack, loop in self.running.values()
                ],
            }
        )


class Refreshed:
    """A live table where there is a terminal; nothing elsewhere."""

    def __init__(self, view: SweepView) -> None:
        self.view = view
        self.display = (
            Live(console=view.out, refresh_per_second=2, transient=True) if view.out.is_terminal else None
        )

    def __enter__(self) -> RefreshCallback:
        if self.display is not None:
            self.display.start()
        return self._refresh

    def __exit__(self, *_: object) -> None:
        if self.display is not None:
            self.display.stop()

    def _refresh(self) -> None:
        if self.display is not None:
            self.display.update(self.view.table())


def waiting(stage: StageStatus) -> str:
    """Describe a stage that cannot start yet: its number of trials and the stage before it."""
    before = stage.grid.stages[stage.number - 1].name
    return f"{stage.title}up to {pluralize(stage.seats, 'trial')}, chosen when stage {before} is complete"


def say_damaged(out: Console, damaged: Mapping[str, str]) -> None:
    """Name the records that cannot be read."""
    print_first(out, list(damaged.values()), "damaged records: see `psa verify`")


class ConsoleProgress:
    """The messages of a sweep on a console, and a view of each of its stages."""

    def __init__(self, out: Console) -> None:
        self.out = out

    def say(self, text: str) -> None:
        """Show a line."""
        print_line(self.out, text)

    def damaged(self, reasons: Mapping[str, str]) -> None:
        """Name the records that cannot be read."""
        say_damaged(self.out, reasons)

    def waiting(self, stage: StageStatus) -> None:
        """Show what a stage that cannot start yet waits for."""
        self.say(waiting(stage))

    @contextlib.contextmanager
    def stage(
        self, name: str, total: int, time_left: EtaEstimator, report: Describe
    ) -> Iterator[tuple[StageProgress, RefreshCallback]]:
        """Show a live table of a stage while the block lasts."""
        view = SweepView(self.out, name, total, time_left, report)
        with Refreshed(view) as refresh:
            yield view, refresh
