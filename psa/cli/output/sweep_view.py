"""Progress of a sweep: a live table on a terminal, a line per pack elsewhere, a status for `psa status`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live

from psa.cli.console import print_first, print_line
from psa.cli.output.status_view import waiting_text
from psa.cli.output.sweep_display import Pace, PackProgress, SweepFigures, sweep_display
from psa.core.formatting import format_duration, join_names, pluralize
from psa.execution.eta import EtaEstimator
from psa.execution.packing import label
from psa.execution.worker.protocol import WorkerEvent, failures_of
from psa.experiments.promotion import StageStatus
from psa.experiments.sweep_progress import RefreshCallback, StageProgress
from psa.storage.sweep_registry import Describe

STATUS_SECONDS: Final = 2.0  # between two reports for `psa status`
LINE_SECONDS: Final = 60.0  # between two lines where there is no terminal and no pack ends
_NAMED: Final = 4  # packs that such a line names


class SweepView:
    """The progress of a sweep (done, running, failed, best), and its display."""

    def __init__(
        self, out: Console, name: str, total: int, time_left: EtaEstimator, report: Describe
    ) -> None:
        self.out, self.name, self.total, self.time_left, self.report = out, name, total, time_left, report
        self.running: dict[int, PackProgress] = {}
        self.best: tuple[float, str] = (0.0, "")
        self.done = 0
        self.doing = "preparing"  # something else than training
        self.pace = Pace()
        self._started, self._reported_at, self._printed_at = time.time(), 0.0, time.monotonic()

    def handle_event(self, event: WorkerEvent) -> None:
        """Process an event."""
        pack, facts = event.pack, event.facts
        match event.kind:
            case "tick":
                self._tick()
            case "message":  # a message of the backend
                self._line(facts["message"])
            case "ready":  # a cluster has been counted
                self.time_left.workers = facts["workers"]
            case "begun":
                self.time_left.start(pack, facts["left"])
                self.pace.start()
                self.running[id(pack)] = PackProgress.of(pack, facts["left"])
            case "loop":
                self.time_left.advance(pack, facts["trained"])
                self.pace.trained += facts["trained"]
                self.running.setdefault(id(pack), PackProgress(pack, facts["loop"])).advance(facts)
                self.best = max(self.best, (facts["best"], facts["trial"]))
            case "died":
                self.running.pop(id(pack), None)
                self._line(f"{label(pack)}: {facts['error']}; retrying its pack")
            case "done" | "failed":
                self._over(event)

    def _over(self, event: WorkerEvent) -> None:
        """Count and print a pack that is done or has failed."""
        pack = self.running.pop(id(event.pack), None)
        self.time_left.finish(event.pack)
        name, trained = label(event.pack), event.facts.get("trained", 0)
        self.done += trained
        if trained:
            best = "" if pack is None or not pack.best else f", best {100 * pack.best:.2f} %"
            self._progress_line(f"{name}: {pluralize(trained, 'trial')} done{best}")
        for error in dict.fromkeys(failures_of(event).values()):
            self._line(f"FAILED {name}: {error}")

    def show_measuring(self, networks: int) -> None:
        """Show that `networks` networks are to be measured before the training starts."""
        first = not self.doing.startswith("measuring")
        elapsed = "" if first else f" ({format_duration(time.time() - self._started)})"
        training = format_duration(self.time_left.remaining() + self.time_left.costs.startup_seconds)
        self.doing = (
            f"measuring {pluralize(networks, 'network')} on this machine{elapsed}, then about {training}"
        )
        self._announce(first)

    def show_waiting(self, trials: int) -> None:
        """Show that the sweep waits for `trials` trials that other processes hold."""
        before, self.doing = self.doing, f"waiting for {pluralize(trials, 'trial')} of other processes"
        if self.doing != before:
            self._progress_line()
        self._report()

    def show_training(self) -> None:
        """Show that packs are being trained."""
        first, self.doing = not self.pace.started, ""
        self._announce(first)

    def _announce(self, first: bool) -> None:
        """Update the display. Without a terminal, print a line the first time and later at intervals."""
        if first and not self.out.is_terminal:
            self._progress_line()
        self._tick()

    def _tick(self) -> None:
        self._report()
        if not self.out.is_terminal and time.monotonic() - self._printed_at >= LINE_SECONDS:
            loops = [f"{each.loop}/{each.pack.horizon}" for each in self.running.values()]
            self._progress_line(f"training, meta-loop {join_names(loops, _NAMED)}" if loops else "")

    def _line(self, text: str) -> None:
        self._printed_at = time.monotonic()
        print_line(self.out, text)

    def _progress_line(self, text: str = "") -> None:
        """Print a line with the time, the counts, what has happened, the rate and the time left."""
        clock = time.strftime("%H:%M:%S")
        parts = [clock, f"{self.done:,}/{self.total:,} trials", text, self.pace.text, self.left]
        self._line(" | ".join(filter(None, parts)))

    @property
    def left(self) -> str:
        """The time left, or what else the sweep does."""
        if self.doing:
            return self.doing
        seconds = self.time_left.remaining()
        if self.running and not seconds:
            return "finishing"
        left = f"{format_duration(seconds)} left"
        return left if self.time_left.startup_taken is not None else f"starting workers, {left}"

    @property
    def trials_done(self) -> float:
        """The number of trials that are done, and of the running ones the share of their meta-loops."""
        return self.done + sum(each.share for each in self.running.values())

    def _report(self) -> None:
        if time.monotonic() - self._reported_at < STATUS_SECONDS:
            return
        self._reported_at = time.monotonic()
        self.report(
            {
                "grid": self.name,
                "done": self.done,
                "total": self.total,
                "left": self.left,
                "best": [100 * self.best[0], self.best[1]],
                "running": [
                    f"{label(each.pack)} loop {each.loop}/{each.pack.horizon}"
                    for each in self.running.values()
                ],
                "started": self._started,
                "written": time.time(),
                "rate": self.pace.per_second,
                "packs": [each.status(label(each.pack)) for each in self.running.values()],
            }
        )


class Refreshed:
    """A live display where there is a terminal; nothing elsewhere."""

    def __init__(self, view: SweepView) -> None:
        self.view = view
        self.display = (
            Live(console=view.out, refresh_per_second=2, transient=True, get_renderable=self._shown)
            if view.out.is_terminal
            else None
        )

    def __enter__(self) -> RefreshCallback:
        if self.display is not None:
            self.display.start()
        return self._refresh

    def __exit__(self, *_: object) -> None:
        if self.display is not None:
            self.display.stop()

    def _shown(self) -> RenderableType:
        view = self.view
        return sweep_display(
            SweepFigures(view.name, view.trials_done, view.done, view.total, view.pace.text, view.left),
            [(label(each.pack), each) for each in list(view.running.values())],
            view.best,
        )

    def _refresh(self) -> None:
        """Do nothing: the display draws itself twice a second."""


def waiting(stage: StageStatus) -> str:
    """Describe a stage that cannot start yet: its number of trials and the stage before it."""
    before = f"stage {stage.grid.stages[stage.number - 1].name}"
    return stage.title + waiting_text(stage.seats, before, stage.left_out)


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
