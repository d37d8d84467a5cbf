"""The protocol between a worker and its parent: events as lines of JSON, and exit codes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from psa.core.plugins.registry import check_loaded
from psa.core.plugins.transfer import load_payloads, plugin_payloads
from psa.specs.base import canonical_json, parse_spec
from psa.specs.trial import Pack, Trial
from psa.storage.store import Store

_PLUGINS: Final = "plugins"


def pack_body(pack: Pack) -> dict[str, Any]:
    """Return a pack as JSON values, with the code of the plugins that its trials use.

    Raises PluginError for a plugin that is not loaded here.
    """
    body = pack.model_dump(mode="json")
    plugins = {use.id for trial in pack.trials for use in trial.plugins}
    return {**body, _PLUGINS: plugin_payloads(plugins)} if plugins else body


def stored_pack(body: Any, where: str) -> Pack:
    """Return the pack in JSON values without running its plugins. Raises UserError."""
    if isinstance(body, Mapping):
        body = {key: value for key, value in body.items() if key != _PLUGINS}
    return parse_spec(Pack, body, where)


def received_pack(body: Any, where: str) -> Pack:
    """Return the pack in JSON values, ready to be trained: its plugins are loaded. Raises UserError."""
    if isinstance(body, Mapping):
        load_payloads(body.get(_PLUGINS))
    pack = stored_pack(body, where)
    check_plugins(pack.trials)
    return pack


def check_plugins(trials: tuple[Trial, ...]) -> None:
    """Raise PluginError unless what trials use of plugins is loaded, in the versions that they name."""
    for trial in trials:
        check_loaded(trial.plugins, trial.id)


def failures_of(event: WorkerEvent) -> dict[str, str]:
    """Return the errors of failed trials by id: all trials of a failed pack, or some of one that is done."""
    if event.kind == "failed":
        return {trial.id: event.facts["error"] for trial in event.pack.trials}
    return dict(event.facts.get("failed", {}))


def store_failures(store: Store, event: WorkerEvent) -> None:
    """Store why trials of a pack that has ended failed, where `psa status` finds it."""
    errors = failures_of(event)
    failed = [trial for trial in event.pack.trials if trial.id in errors]
    # a worker that died over one trial may have stored the records of others: those are done, not failed
    for trial in store.progress(failed, event.pack.horizon).pending:
        store.write_failure(trial, errors[trial.id])


logger = logging.getLogger(__name__)

EXIT_INTERRUPTED: Final = 75  # EX_TEMPFAIL: nothing is lost, run it again
EVENT_KINDS: Final = frozenset(
    {
        "ready",
        "unusable",
        "begun",
        "loop",
        "done",
        "failed",
        "calibrated",
        "died",
        "taken",
        "stopped",
        "unrestorable",
    }
)


@dataclass(frozen=True)
class WorkerEvent:
    """An event of a worker or a backend. kind: ready, begun, loop, done, failed, calibrated, died, tick; or
    message, of the backend (see psa.execution.backend.Backend.launch).
    """

    kind: str
    pack: Pack
    facts: dict[str, Any] = field(default_factory=dict)


def parse_event(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line of a worker's output; None for any other line, such as a library prints."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict) and str(found.get("event")) in EVENT_KINDS:
        return found
    if line.strip():
        logger.warning("a worker printed %r", line[:200].decode(errors="replace"))
    return None


class EventWriter:
    """Standard output, reserved for events; all other output, of Python or C, goes to standard error."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)
        # end the line of whatever was printed before
        self._out.write("\n")

    def close(self) -> None:
        """Close the output, even if its reader has gone."""
        with contextlib.suppress(OSError):
            self._out.close()

    def emit(self, event: str, **facts: Any) -> None:
        """Send an event to the parent."""
        try:
            self._out.write(canonical_json({"event": event, **facts}) + "\n")
            self._out.flush()
        except BrokenPipeError:
            # The parent has gone. Standard input ends as well, and the reader there saves the current pack.
            self._out = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - lives on
