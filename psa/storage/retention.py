"""Retention policy for states of finished trials. Records are always kept, and a deleted state can be
reproduced bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from psa.specs.base import canonical_json
from psa.specs.trial import Trial
from psa.storage import locks
from psa.storage.records.divergence import diverged
from psa.storage.store import Store

KeepWeights = Literal["all", "best", "none"]


def delete_checkpoints(store: Store, finished: Sequence[Trial], keep: KeepWeights) -> None:
    """Remove the states of finished trials that are not to be kept, except those in training.

    best: the seed of highest bounty (the lowest seed among equals) of trials that differ in nothing else; one
    that diverged comes last.
    Raises UserError where a file cannot be removed.
    """
    if keep == "all":
        return
    kept = _best(store, finished) if keep == "best" else set()
    for trial in finished:
        if trial.id not in kept:
            with locks.lock_trials(store, [trial]) as ours:
                for mine in ours:
                    store.state_file(mine).remove()


def _best(store: Store, finished: Iterable[Trial]) -> set[str]:
    best: dict[str, tuple[bool, int, int, str]] = {}
    for trial in finished:
        record = store.read(trial)
        if record is not None:
            arm = canonical_json(trial.model_dump(mode="json", exclude={"seed"}))
            score = (not diverged(record), record["finals"]["bounty"]["correct"], -trial.seed, trial.id)
            best[arm] = max(best.get(arm, score), score)
    return {trial_id for *_, trial_id in best.values()}
