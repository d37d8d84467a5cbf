"""Ray Tune's callbacks, converted to events: of this process, or from the cluster through a mailbox."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import ray
from ray import tune

from cloud.ray.driver_process import find_cause
from cloud.ray.protocol import FACTS_KEY

POLL_SECONDS: Final = 0.2
_Emit = Callable[[dict[str, Any]], None]
emit: _Emit = print  # a module-level function, since Tune pickles its callbacks and functions by name


class EventCallback(tune.Callback):
    """A Tune callback that emits events.

    mailbox: the name of the actor that receives them if Tune runs on the cluster (ray://), else "".
    """

    def __init__(self, mailbox: str) -> None:
        self.mailbox = mailbox

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Report that a process has started the trial, for the first time or again."""
        self._emit(trial, "begun", left=_last(trial).get("left"))

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        """Report the end of a meta-loop."""
        facts = {key: value for key, value in result.get(FACTS_KEY, {}).items() if key != "final"}
        if "loop" in facts:
            self._emit(trial, "loop", **facts)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Report that the trial's process or node has died, and that the trial is retried."""
        self._emit(trial, "died", error=_reason(trial))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Report the trial's end: success, failure, or a stop by the scheduler."""
        final = _last(trial).get("final")
        if final is None:
            self._emit(trial, "stopped")
        else:
            self._emit(trial, "failed" if "error" in final else "done", **final)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Report that the trial's process or node has died too often."""
        self._emit(trial, "failed", error=_reason(trial))

    def _emit(self, one: Any, kind: str, /, **facts: Any) -> None:
        if "space" in one.config:
            facts["space"] = one.config["space"]
        event = {**facts, "event": kind, "pack": trial_folder_name(one)}
        if self.mailbox:
            ray.get_actor(self.mailbox).put.remote(event)
        else:
            emit(event)


def emit_result(name: str, config: dict[str, Any] | None, metrics: dict[str, Any] | None) -> None:
    """Report the result that Tune has stored of a configuration of a search, if it has ended."""
    facts = dict((metrics or {}).get(FACTS_KEY, {}))
    final = facts.pop("final", None)
    if not facts or (final is None and not (metrics or {}).get("done")):
        return
    about = {"pack": name, "space": (config or {}).get("space", {})}
    emit({**facts, "event": "loop", **about})
    kind = "stopped" if final is None else "failed" if "error" in final else "done"
    emit({**(final or {}), "event": kind, **about})


class EventQueue:
    """An actor on the cluster that holds Tune's events until the driver takes them."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []

    def put(self, event: dict[str, Any]) -> None:
        """Append an event."""
        self.waiting.append(event)

    def drain(self) -> list[dict[str, Any]]:
        """Return the events and empty the queue."""
        waiting, self.waiting = self.waiting, []
        return waiting


@contextlib.contextmanager
def forward_events(name: str) -> Iterator[None]:
    """Forward the events of a mailbox until the block ends; do nothing if the name is ""."""
    if not name:
        yield
        return
    box: Any = ray.remote(num_cpus=0)(EventQueue).options(name=name).remote()
    over = threading.Event()

    def listen() -> None:
        while not over.wait(POLL_SECONDS):
            for event in ray.get(box.drain.remote()):
                emit(event)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    yield
    over.set()
    listener.join()
    for event in ray.get(box.drain.remote()):
        emit(event)


def trial_folder_name(trial: Any) -> str:
    """Return the name of the trial's folder: the pack's, or the number of the configuration."""
    return str(trial.config.get("pack") or f"c{trial.trial_id.rpartition('_')[2]}")


def _last(trial: Any) -> dict[str, Any]:
    """Return the facts of a trial's last result."""
    return dict((trial.last_result or {}).get(FACTS_KEY, {}))


def _reason(trial: Any) -> str:
    """Return the cause of the trial's failure in Ray's words."""
    try:
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    except OSError:
        text = ""
    return find_cause(text) or "its process or node has gone"
