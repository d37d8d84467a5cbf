"""The live display of a sweep: a bar with rate and time left, the running packs, and the best trial."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from psa.core.formatting import format_pace, format_rate
from psa.specs.trial import Pack

_PACKS_SHOWN: Final = 12


@dataclass
class PackProgress:
    """The progress of a running pack. loop: meta-loops of its least trained trial; reached: those when it
    started; best: best validation accuracy of its trials so far, a share.
    """

    pack: Pack
    loop: int = 0
    reached: int = 0
    best: float = 0.0
    started: float = field(default_factory=time.time)  # Unix time, for `psa status`

    @classmethod
    def of(cls, pack: Pack, left: int) -> PackProgress:
        """Return the progress of a pack that starts with `left` trial-loops."""
        reached = max(0, pack.horizon - -(-left // len(pack.trials)))
        return cls(pack, reached, reached)

    def advance(self, facts: dict[str, Any]) -> None:
        """Take in the facts of a `loop` event."""
        self.loop, self.best = facts["loop"], max(self.best, facts["best"])

    @property
    def share(self) -> float:
        """Its trials times the share of meta-loops that are trained."""
        return len(self.pack.trials) * min(1.0, self.loop / self.pack.horizon)

    @property
    def loop_seconds(self) -> float | None:
        """The mean time of a meta-loop since the start; None before the first."""
        trained = self.loop - self.reached
        return max(0.0, time.time() - self.started) / trained if trained > 0 else None

    def status(self, label: str) -> dict[str, Any]:
        """Return its entry in the status of the sweep."""
        return {
            "label": label,
            "trials": len(self.pack.trials),
            "loop": self.loop,
            "horizon": self.pack.horizon,
            "reached": self.reached,
            "started": self.started,
        }


class Pace:
    """The rate of meta-loops since the first pack started, summed over trials."""

    def __init__(self) -> None:
        self.trained = 0
        self._since: float | None = None

    def start(self) -> None:
        """Record that a pack starts."""
        if self._since is None:
            self._since = time.monotonic()

    @property
    def started(self) -> bool:
        """True once a pack has started."""
        return self._since is not None

    @property
    def per_second(self) -> float:
        """Meta-loops per second; 0 before the first."""
        elapsed = 0.0 if self._since is None else time.monotonic() - self._since
        return self.trained / elapsed if elapsed > 0 else 0.0

    @property
    def text(self) -> str:
        """The rate as text; empty before the first meta-loop."""
        return format_rate(self.per_second) if self.trained and self._since is not None else ""


@dataclass(frozen=True)
class SweepFigures:
    """The figures of the first line. trials_done: with the trained shares of running trials."""

    name: str
    trials_done: float
    done: int
    total: int
    rate: str
    left: str


def sweep_display(
    figures: SweepFigures, packs: Sequence[tuple[str, PackProgress]], best: tuple[float, str]
) -> RenderableType:
    """Return the display: the bar, a table of the packs in training (labels and progress), and the best."""
    parts: list[RenderableType] = [_bar(figures)]
    if packs:
        parts.append(_table(packs))
    if best[1]:
        line = Text(f"best so far {100 * best[0]:.2f} % validation, {best[1]}")
        line.no_wrap, line.overflow = True, "ellipsis"
        parts.append(line)
    return Group(*parts)


def _bar(figures: SweepFigures) -> RenderableType:
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1, min_width=8)
    grid.add_column(no_wrap=True, justify="right")
    share = 100 * figures.trials_done / figures.total if figures.total else 100.0
    grid.add_row(
        Text(f"{figures.name} {figures.done:,}/{figures.total:,} trials"),
        ProgressBar(total=max(1, figures.total), completed=figures.trials_done),
        Text(f"{share:.0f} %"),
    )
    state = Text(", ".join(filter(None, [figures.rate, figures.left])))
    return Group(grid, state)


def _table(packs: Sequence[tuple[str, PackProgress]]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("running pack", overflow="ellipsis", no_wrap=True)
    for heading in ("trials", "meta-loop", "per loop"):
        table.add_column(heading, justify="right", no_wrap=True, min_width=len(heading))
    for label, pack in packs[:_PACKS_SHOWN]:
        pace = "" if pack.loop_seconds is None else format_pace(pack.loop_seconds)
        table.add_row(Text(label), f"{len(pack.pack.trials):,}", f"{pack.loop}/{pack.pack.horizon}", pace)
    if len(packs) > _PACKS_SHOWN:
        table.add_row(f"and {len(packs) - _PACKS_SHOWN:,} more", "", "", "")
    return table
