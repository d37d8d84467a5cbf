"""How long a sweep still takes: the trial-loops that are really left, at the speed they really have.

The cost model says how trial-loops compare (one of a wide network outweighs many of a narrow one) and how
long they take as long as nothing is measured. Imports no torch.
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

_TRUST_SECONDS: Final = 10.0  # of work after which what is measured counts as much as what was estimated


def loops_left(store: Store, pack: Pack) -> int:
    """Trial-loops to train for a pack, by what its states say on their first page; no digest is checked."""
    if not store.has_states_of(pack.trials[0]):
        return pack.horizon * len(pack.trials)
    return sum(max(0, pack.horizon - trained_loops(store.state_file(trial).path)) for trial in pack.trials)


@dataclass
class _Share:
    """What is left of one pack. seconds: of one trial-loop, estimated; since: when its present loop began."""

    seconds: float
    loops: int
    since: float | None = None

    @property
    def work(self) -> float:
        return self.seconds * self.loops


class EtaEstimator:
    """The time that some packs still take on so many workers, as their events come in.

    A pack counts from where its worker really begins: what is stored already was not done in this time, and
    what a dead worker had not saved is to be done again.
    """

    def __init__(self, costs: CostModel, workers: int) -> None:
        self.costs, self.workers = costs, workers
        self.shares: dict[int, _Share] = {}
        self.spent = self.done = 0.0  # seconds of workers, and the seconds estimated for the same work

    def plan(self, packs: Sequence[Pack], store: Store) -> None:
        """These packs are to be trained, and no others."""
        self.shares = {
            id(pack): _Share(self.costs.loop_seconds(pack.trials) / len(pack.trials), loops_left(store, pack))
            for pack in packs
        }

    def start(self, pack: Pack, loops: int) -> None:
        """A worker has taken a pack in hand, and so many trial-loops are left of it."""
        share = self.shares.get(id(pack))
        if share is not None:
            share.loops, share.since = loops, time.monotonic()

    def advance(self, pack: Pack, loops: int) -> None:
        """So many trials of a pack have finished a loop."""
        share = self.shares.get(id(pack))
        if share is None or share.since is None:
            return
        now = time.monotonic()
        self.spent += now - share.since
        self.done += share.seconds * loops
        share.loops, share.since = max(0, share.loops - loops), now

    def finish(self, pack: Pack) -> None:
        """Nothing more is done for a pack."""
        self.shares.pop(id(pack), None)

    def remaining(self) -> float:
        """What is left; no schedule ends before its longest pack."""
        work = [share.work for share in self.shares.values()]
        slowness = (_TRUST_SECONDS + self.spent) / (_TRUST_SECONDS + self.done)
        return slowness * max([sum(work) / self.workers, *work], default=0.0)
