"""A task under watch: its place in Slurm, its events, and the comparison of its leases between hosts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.slurm.array_job import ArrayJob
from cloud.slurm.event_log import EventLogReader
from psa.core.errors import UserError
from psa.specs.trial import Pack
from psa.storage import locks
from psa.storage.store import Store

PENDING: Final = "PENDING"  # Slurm's state of a task that waits for a node
# What tasks report beside the facts of the contract (psa.execution.backend.Backend.launch).
_OWN_FACTS: Final = defaultdict(
    frozenset[str],
    begun=frozenset({"node", "task"}),
    loop=frozenset({"held"}),
    died=frozenset({"trained", "signal"}),
)
_LOCKS_HINT: Final = (
    "Mount it so that file locks hold between nodes (NFS version 4; Lustre with -o flock, not localflock), "
    "or choose --model-dir on a file system that does"
)


class LocksNotSharedError(UserError):
    """File locks do not hold between the hosts: two processes could train the same trial."""


class LeaseView:
    """The comparison of the leases of a task as its node and as this host sees them.

    If leases that the node held are free here, file locks do not hold between hosts. The proof needs no
    clock: an event that was written after the leases were seen as free, and with them held, in one attempt.
    """

    def __init__(self) -> None:
        self._seen_free = False
        self._reads_since = 0

    def restart(self, store: Store, pack: Pack) -> None:
        """Look at the leases after the `begun` of an attempt, which holds them to its end."""
        self._seen_free = bool(locks.unlocked_trials(store, pack.trials))
        self._reads_since = 0

    def count_read(self) -> None:
        """Record that the events of the task are about to be read."""
        self._reads_since += 1

    def contradicts(self, event: Mapping[str, Any]) -> bool:
        """Return whether a `loop` event proves that leases do not hold between the hosts."""
        # the events of the first read may have been written before this host looked
        return self._seen_free and self._reads_since > 1 and event.get("held") is True


@dataclass(eq=False)
class WatchedTask:
    """An array task under watch, and the pack object of its job.

    array_id: Slurm's id of the array, "" before it is submitted. deaths: attempts in a row that ended
    without a result and without progress. left: trial-loops that were left when the last attempt began.
    unusable: why the program of the last attempt could not train, "" if it could. missing: calls of squeue
    in a row that did not list the task.
    """

    pack: Pack
    array: ArrayJob
    index: int
    array_id: str
    deaths: int = 0
    over: bool = False
    begun: bool = False
    state: str = ""
    left: int | None = None
    unusable: str = ""
    missing: int = 0
    lease_view: LeaseView = field(default_factory=LeaseView)
    _log: EventLogReader | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The name of the job and the index."""
        return self.array.name, self.index

    @property
    def task_id(self) -> str:
        """The id of the task in Slurm's commands."""
        return f"{self.array_id}_{self.index}"

    @property
    def trains(self) -> bool:
        """True from the start of an attempt until it reports its end or a stop."""
        return self.begun and not self.over

    @property
    def may_have_events(self) -> bool:
        """True unless the task is over or, by the last answer of Slurm, waits for a node."""
        return not self.over and self.state != PENDING

    def read(self) -> list[dict[str, Any]]:
        """Return new events; at first those of the present attempt."""
        if self._log is None:
            self._log = EventLogReader(self.array.events_path(self.index))
            return self._log.read_last_attempt()
        return self._log.read()

    def begin(self, store: Store, left: int) -> None:
        """Record the start of an attempt; earlier deaths do not count if it has less to train than the last.

        Checkpoints are what counts: loops that were trained and not saved are trained again.
        """
        if self.left is not None and left < self.left:
            self.deaths = 0
        self.begun, self.left, self.unusable = True, left, ""
        self.lease_view.restart(store, self.pack)

    def check_leases(self, store: Store, event: Mapping[str, Any]) -> None:
        """Raise LocksNotSharedError if a `loop` event proves that file locks do not hold between hosts."""
        if self.lease_view.contradicts(event):
            raise LocksNotSharedError(
                f"file locks in {store.models} must hold between nodes, but trials that a node trains "
                f"(job {self.task_id}) are free on this host",
                _LOCKS_HINT,
            )

    def move_to(self, other: WatchedTask) -> None:
        """Watch the task that trains the pack from now on."""
        self.array, self.index, self.array_id = other.array, other.index, other.array_id
        self.begun, self.state, self.missing, self.unusable, self._log = False, other.state, 0, "", None


def shown_facts(kind: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts of an event that belong to the contract of backends."""
    return {name: value for name, value in event.items() if name not in _OWN_FACTS[kind]}
