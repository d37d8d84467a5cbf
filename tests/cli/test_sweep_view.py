"""The display of a sweep: a bar with rate and time left, lines with the time, and no table without packs."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import pytest
from helpers import trial
from rich.console import Console

from psa.cli.output.sweep_display import Pace, PackProgress, SweepFigures, sweep_display
from psa.cli.output.sweep_view import SweepView, label
from psa.core.formatting import format_pace, format_rate
from psa.execution.cost_model import CostModel
from psa.execution.eta import EtaEstimator
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage.helper_files import SWEEP_PROGRESS
from psa.storage.store import Store

PACK = Pack(
    trials=tuple(trial("1*4", mode, seed) for seed in (0, 1) for mode in ("none", "hidden")), horizon=10
)


def shown(width: int, figures: SweepFigures, packs: list[tuple[str, PackProgress]], best: Any) -> list[str]:
    """The lines of the display on a terminal of some width."""
    out = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    out.print(sweep_display(figures, packs, best))
    assert isinstance(out.file, io.StringIO)
    return [line.rstrip() for line in out.file.getvalue().splitlines()]


def view_of(folder: Path, facts: list[dict[str, Any]]) -> tuple[SweepView, io.StringIO]:
    """A view of a sweep of four trials, its output, and a list that takes what it reports."""
    file = io.StringIO()
    estimator = EtaEstimator(CostModel(folder / "costs.json"), 1)
    estimator.plan([PACK], Store(folder / "models", folder / "results"))
    return SweepView(Console(file=file, width=200), "tiny", 4, estimator, facts.append), file


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_display_fits_its_terminal(width: int) -> None:
    """One line for the bar, one for rate and time left, and one for each pack."""
    progress = PackProgress(PACK, loop=4, best=0.91, started=time.time() - 8)
    figures = SweepFigures("tiny", 1.6, 0, 4, "2.0 loops/s", "12 s left")
    lines = shown(width, figures, [(label(PACK), progress)], (0.91, "tiny/simplemlp-1x4/none/s00-0a1b2c"))
    assert len(lines) == 5
    assert all(len(line) <= width for line in lines)
    assert lines[0].startswith("tiny 0/4 trials ")
    assert lines[0].endswith("40 %")
    assert lines[1] == "2.0 loops/s, 12 s left"
    assert "4/10" in lines[3]
    assert lines[4].startswith("best so far 91.00 % validation")


def test_there_is_no_table_before_the_first_pack() -> None:
    """The bar and the time left are there from the first second."""
    lines = shown(80, SweepFigures("tiny", 0.0, 0, 4, "", "starting workers, 9 s left"), [], (0.0, ""))
    assert lines[1:] == ["starting workers, 9 s left"]


def test_lines_carry_time_counts_accuracy_and_rate(tmp_path: Path) -> None:
    """Without a terminal. The time left includes the start of the workers."""
    view, file = view_of(tmp_path, [])
    view.time_left.launch(startup=30.0)
    view.show_training()
    view.handle_event(WorkerEvent("begun", PACK, {"left": 40}))
    view.handle_event(WorkerEvent("loop", PACK, {"loop": 1, "trained": 4, "best": 0.925, "trial": "x"}))
    view.handle_event(WorkerEvent("done", PACK, {"trained": 4, "failed": {}}))
    first, last = file.getvalue().splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d \| 0/4 trials \| starting workers, (29|3\d) s left", first)
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d \| 4/4 trials \| simplemlp 1\*4 2 modes seeds 0-1: 4 trials done, best 92.50 % \| "
        r"[\d,.]+ loops/s \| 0 s left",
        last,
    )


def test_the_last_loop_is_not_the_end(tmp_path: Path) -> None:
    """While the records are written, no time is claimed to be left."""
    view, _ = view_of(tmp_path, [])
    view.show_training()
    view.handle_event(WorkerEvent("begun", PACK, {"left": 4}))
    view.handle_event(WorkerEvent("loop", PACK, {"loop": 10, "trained": 4, "best": 0.9, "trial": "x"}))
    assert view.left == "finishing"


def test_the_status_of_a_sweep_has_its_times(tmp_path: Path) -> None:
    """What it writes for `psa status` is what that command reads."""
    facts: list[dict[str, Any]] = []
    view, _ = view_of(tmp_path, facts)
    view.handle_event(WorkerEvent("begun", PACK, {"left": 20}))
    view.handle_event(WorkerEvent("tick", PACK))
    (body,) = facts
    read = SWEEP_PROGRESS.validate_python({"host": "here", **body})
    assert read["started"] <= read["written"]
    assert [(pack["label"], pack["reached"]) for pack in read["packs"]] == [(label(PACK), 5)]


def test_a_pace_is_of_the_time_since_the_first_pack() -> None:
    """Nothing is said before the first meta-loop."""
    pace = Pace()
    assert pace.text == ""
    pace.start()
    assert pace.text == ""
    pace.trained += 1
    assert pace.per_second > 0
    assert pace.text.endswith(("loops/s", "loops/min"))


@pytest.mark.parametrize(
    ("per_second", "text"),
    [(1234.5, "1,234 loops/s"), (9.96, "10 loops/s"), (3.21, "3.2 loops/s"), (0.5, "30 loops/min"),
     (0.02, "1.2 loops/min"), (0.001, "3.6 loops/h"), (0, "0.0 loops/h")],
)  # fmt: skip
def test_rates(per_second: float, text: str) -> None:
    """In the unit that fits."""
    assert format_rate(per_second) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0123, "0.012 s"), (0.35, "0.35 s"), (4.21, "4.2 s"), (12.3, "12 s"), (250, "4 min 10 s")],
)
def test_paces(seconds: float, text: str) -> None:
    """Never less than a second for every small network."""
    assert format_pace(seconds) == text


def test_measuring_shows_what_follows(tmp_path: Path) -> None:
    """The time of the training with the start of its workers, once as a line without a terminal."""
    view, file = view_of(tmp_path, [])
    view.time_left.costs.startup_seconds = 100.0
    view.show_measuring(2)
    view.show_measuring(1)
    (line,) = file.getvalue().splitlines()
    assert " | 0/4 trials | measuring 2 networks on this machine, then about 1 min 4" in line
    assert view.left.startswith("measuring 1 network on this machine (")
