"""A worker process that trains one pack after another: tasks as JSON lines in, events as JSON lines out.

The importing of torch and the reading of the data are then paid once a process and not once a pack. When
its standard input ends (its parent has gone, however), it saves and leaves.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from psa import leases
from psa.calibrate import step_seconds
from psa.engine import LoopReport
from psa.errors import Interrupted, UserError
from psa.machine import Machine
from psa.signals import StopRequest
from psa.store import Store
from psa.trial import Pack, canonical_json
from psa.worker import EXIT_INTERRUPTED, run_pack

logger = logging.getLogger(__name__)


class Orphaned(StopRequest):
    """A stop request that also comes true when standard input ends."""

    def __init__(self) -> None:
        super().__init__()
        self.orphaned = threading.Event()

    def __call__(self) -> bool:
        """Whether a stop was asked for, or nobody is left to work for."""
        return self.orphaned.is_set() or super().__call__()


def serve(machine: Machine) -> int:
    """Work until standard input ends. 0 when idle then, 75 when a pack was interrupted (and saved)."""
    stop, tasks = Orphaned(), queue.SimpleQueue[str | None]()

    def listen() -> None:
        for line in sys.stdin:
            tasks.put(line)
        stop.orphaned.set()
        tasks.put(None)

    threading.Thread(target=listen, daemon=True).start()
    device = machine.prepare()
    _say("ready", device=str(device))
    while (line := tasks.get()) is not None:
        task = json.loads(line)
        pack = Pack.model_validate(task["pack"])
        try:
            if task["task"] == "calibrate":
                _say("calibrated", steps=step_seconds(pack.trials, device))
            else:
                _train(pack, Store(Path(task["models"]), Path(task["results"])), machine, stop)
        except Interrupted:
            return EXIT_INTERRUPTED
        except UserError as error:
            _say("failed", error=str(error))
        except Exception as error:
            # one pack must not take the others down with it; where it happened goes to the terminal
            logger.exception("a pack failed")
            _say("failed", error=f"{type(error).__name__}: {' '.join(str(error).split())[:500]}")
        if stop():
            return EXIT_INTERRUPTED
    return 0


def _train(pack: Pack, store: Store, machine: Machine, stop: StopRequest) -> None:
    """Train those trials of a pack that are still to be done and that nobody else is training."""
    errors: dict[str, str] = {}
    with leases.held(store, pack.trials) as got:
        todo = store.survey(got, pack.horizon).pending
        records = []
        if todo:
            part = pack.model_copy(update={"trials": tuple(todo)})
            records = run_pack(
                part,
                store,
                machine,
                listen=_loops,
                stop=stop,
                failed=lambda trial, error: errors.__setitem__(trial.id, str(error)),
            )
    _say("done", trained=len(records), elsewhere=len(pack.trials) - len(got), failed=errors)


def _loops(reports: Sequence[LoopReport]) -> None:
    best = max(reports, key=lambda report: report.state.best_correct / report.total)
    _say(
        "loop",
        loop=min(report.state.loops for report in reports),
        best=best.state.best_correct / best.total,
        trial=best.state.trial.id,
    )


def _say(event: str, **facts: Any) -> None:
    try:
        sys.stdout.write(canonical_json({"event": event, **facts}) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The parent has gone; standard input says so too, and the pack in hand is saved there.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - lives as long as the process
