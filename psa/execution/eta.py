"""The remaining time of a sweep: the trial-loops that are left, at the measured speed.

The cost model gives the relative cost of trial-loops (one of a wide network outweighs many of a narrow one),
and their time until something is measured. Imports no torch.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psa.execution.cost_model import CostModel
from psa.specs.trial import Pack
from psa.storage.checkpoint import trained_loops
from psa.storage.store import Store

_LATE_SHARE: Final = 0.25  # of the time that a late start has taken: expected to follow
# of work, by the clock or by the estimate, after which the measurement counts as much as the estimate
_TRUST_SECONDS: Final = 10.0


def loops_left(store: Store, pack: Pack) -> int:
    """Return the trial-loops left for a pack, from the first page of its states; no digest is checked."""
    if not store.has_states_of(pack.trials[0]):
        return pack.horizon * len(pack.trials)
    return sum(max(0, pack.horizon - trained_loops(store.state_file(trial).path)) for trial in pack.trials)


@dataclass
class _Share:
    """The rest of one pack. seconds: estimate for one trial-loop; trials: of the pack; since: start time of
    its present loop.
    """

    seconds: float
    loops: int
    trials: int
    since: float | None = None

    @property
    def work(self) -> float:
        return self.seconds * self.loops

    @property
    def loop_seconds(self) -> float:
        return self.seconds * self.trials

    @property
    def elapsed(self) -> float:
        return 0.0 if self.since is None else time.monotonic() - self.since

    @property
    def is_late(self) -> bool:
        return self.loops > 0 and self.elapsed > self.loop_seconds


class EtaEstimator:
    """An estimator of the time that packs still take on a number of workers, updated by their events.

    A pack counts from the loop at which its worker starts: loops stored before took none of this time, and
    loops that a dead worker had not saved are trained again.
    """

    def __init__(self, costs: CostModel, workers: int) -> None:
        self.costs, self.workers = costs, workers
        self.shares: dict[int, _Share] = {}
        self.spent = self.done = 0.0  # seconds of workers, and the seconds estimated for the same work
        self._launched, self._startup = 0.0, 0.0
        self.startup_taken: float | None = 0.0  # seconds until the first pack started; None before that

    def plan(self, packs: Sequence[Pack], store: Store) -> None:
        """Set the packs that are to be trained."""
        self.shares = {
            id(pack): _Share(
                self.costs.loop_seconds(pack.trials) / len(pack.trials),
                loops_left(store, pack),
                len(pack.trials),
            )
            for pack in packs
        }

    def start(self, pack: Pack, loops: int) -> None:
        """Record that a worker has started a pack with `loops` trial-loops left."""
        if self.startup_taken is None:
            self.startup_taken = time.monotonic() - self._launched
        share = self.shares.get(id(pack))
        if share is not None:
            share.loops, share.since = loops, time.monotonic()

    def advance(self, pack: Pack, loops: int) -> None:
        """Record that `loops` trials of a pack have finished a loop each."""
        share = self.shares.get(id(pack))
        if share is None or share.since is None:
            return
        now = time.monotonic()
        self.spent += now - share.since
        self.done += share.seconds * loops
        share.loops, share.since = max(0, share.loops - loops), now

    def launch(self, startup: float) -> None:
        """Record that workers are being started now, which is expected to take `startup` seconds."""
        self._launched, self._startup, self.startup_taken = time.monotonic(), startup, None

    def finish(self, pack: Pack) -> None:
        """Remove a pack that has ended."""
        self.shares.pop(id(pack), None)

    def remaining(self) -> float:
        """Return the seconds left; at least those of the longest pack.

        The start of the workers counts until the first pack has started. A loop that already takes longer
        than estimated counts as measured before it ends.
        """
        work = [share.work for share in self.shares.values()]
        late = [share for share in self.shares.values() if share.is_late]
        spent = self.spent + sum(share.elapsed for share in late)
        done = self.done + sum(share.loop_seconds for share in late)
        trust = max(spent, done) / (_TRUST_SECONDS + max(spent, done))
        slowness = 1 - trust + trust * spent / done if done else 1.0
        return self._startup_left() + slowness * max([sum(work) / self.workers, *work], default=0.0)

    def _startup_left(self) -> float:
        """Return the seconds until the first pack starts; past the expected time a share of that elapsed."""
        if self.startup_taken is not None or not self.shares:
            return 0.0
        elapsed = time.monotonic() - self._launched
        return max(self._startup - elapsed, _LATE_SHARE * elapsed)
