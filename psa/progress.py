"""Progress of a sweep: a live table on a terminal, a line per pack elsewhere, a file for `psa status`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from psa.backend import Event
from psa.files import read_bytes, write_atomically
from psa.store import Store
from psa.trial import Pack, canonical_json

STATUS_SECONDS: Final = 2.0


def duration(seconds: float) -> str:
    """`3 h 05 min`, `4 min 10 s`, `12 s`."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class SweepView:
    """What a sweep has said so far (done, running, failed, best), and how it is shown."""

    def __init__(
        self,
        out: Console,
        name: str,
        total: int,
        packs: Sequence[Pack],
        pending: int,
        seconds: float,
        store: Store,
    ) -> None:
        self.out, self.name, self.total, self.seconds = out, name, total, seconds
        self.running: dict[int, tuple[Pack, int]] = {}
        self.best: tuple[float, str] = (0.0, "")
        self.failures = 0
        self.done = total - pending
        self.begun = time.monotonic()
        self.work_done = 0.0
        self.work = sum(len(pack.trials) * pack.horizon for pack in packs) or 1
        self.path = store.models / ".sweeps" / f"{os.getpid()}.json"
        self._written = 0.0

    def heard(self, event: Event) -> None:
        """Take an event in."""
        key = id(event.pack)
        if event.kind == "loop":
            before = self.running.get(key, (event.pack, 0))[1]
            self.running[key] = (event.pack, event.facts["loop"])
            self.work_done += len(event.pack.trials) * max(0, event.facts["loop"] - before)
            self.best = max(self.best, (event.facts["best"], event.facts["trial"]))
            return
        if event.kind == "tick":
            self._write()
            return
        name = label(event.pack)
        if event.kind == "done":
            self.done += event.facts["trained"]
            if event.facts["trained"]:
                self._line(f"{self.done:,}/{self.total:,} trials | {name} done | {self._left()} left")
            elif event.facts["elsewhere"]:
                self._line(f"{name}: {event.facts['elsewhere']} of its trials are trained elsewhere; waiting")
        errors = failures_of(event)
        self.failures += len(errors)
        for error in dict.fromkeys(errors.values()):
            self._line(f"FAILED {name}: {error}")
        if event.kind != "died":
            self.running.pop(key, None)
        else:
            self._line(f"{name}: {event.facts['error']}; it is given out again")

    def _line(self, text: str) -> None:
        self.out.print(text, markup=False, soft_wrap=True)

    def _left(self) -> str:
        share = self.work_done / self.work
        if not 0 < share < 1:
            return duration(self.seconds)
        return duration((time.monotonic() - self.begun) * (1 - share) / share)

    def table(self) -> Table:
        """The live picture."""
        table = Table(
            title=f"{self.done:,} of {self.total:,} trials done, {self._left()} left", title_justify="left"
        )
        for heading in ("running pack", "trials", "meta-loop"):
            table.add_column(heading)
        for pack, loop in self.running.values():
            table.add_row(label(pack), f"{len(pack.trials)}", f"{loop}/{pack.horizon}")
        if self.best[1]:
            table.caption = f"best so far {100 * self.best[0]:.2f} % validation, {self.best[1]}"
        return table

    def _write(self) -> None:
        if time.monotonic() - self._written < STATUS_SECONDS:
            return
        self._written = time.monotonic()
        facts = {
            "pid": os.getpid(),
            "grid": self.name,
            "done": self.done,
            "total": self.total,
            "left": self._left(),
            "best": [100 * self.best[0], self.best[1]],
            "running": [f"{label(pack)} loop {loop}/{pack.horizon}" for pack, loop in self.running.values()],
        }
        write_atomically(self.path, canonical_json(facts).encode())

    def close(self) -> None:
        """The sweep is over: nothing is running any more."""
        self.path.unlink(missing_ok=True)


def failures_of(event: Event) -> dict[str, str]:
    """Why trials have failed, by id: all of a pack, or some of one that is otherwise done."""
    if event.kind == "failed":
        return {trial.id: event.facts["error"] for trial in event.pack.trials}
    return dict(event.facts.get("failed", {}))


def label(pack: Pack) -> str:
    """A pack in a few words: `simplemlp 1*16 seeds 0-9`."""
    trial = pack.trials[0]
    seeds = sorted({each.seed for each in pack.trials})
    shown = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]}-{seeds[-1]}"
    return f"{trial.model.family} {trial.model.arch.label} {shown}"


def running_sweep(path: Path) -> str | None:
    """What a live sweep says of itself; a file whose process has gone is not shown."""
    try:
        facts: dict[str, Any] = json.loads(read_bytes(path) or b"{}")
        os.kill(facts["pid"], 0)
    except (ValueError, KeyError, OSError, TypeError):
        return None
    best = f", best so far {facts['best'][0]:.2f} % {facts['best'][1]}" if facts["best"][1] else ""
    running = "; ".join(facts["running"]) or "starting"
    return (
        f"sweep {facts['pid']} ({facts['grid']}): {facts['done']:,} of {facts['total']:,}, "
        f"{facts['left']} left; running {running}{best}"
    )


class Refreshed:
    """A live table where there is a terminal; nothing elsewhere."""

    def __init__(self, view: SweepView) -> None:
        self.view = view
        self.display = (
            Live(console=view.out, refresh_per_second=2, transient=True) if view.out.is_terminal else None
        )

    def __enter__(self) -> Any:
        if self.display is not None:
            self.display.start()
        return self._refresh

    def __exit__(self, *_: object) -> None:
        if self.display is not None:
            self.display.stop()

    def _refresh(self) -> None:
        if self.display is not None:
            self.display.update(self.view.table())
