"""The training of a pack whose trials may fail alone: halves of it are tried until those that fail are alone.

Used by the worker processes and by Ray's.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from psa.core.errors import Interrupted, UserError, cut, named_error
from psa.execution.machine import Machine
from psa.execution.worker.run import RunHooks, run_unlocked
from psa.specs.trial import Pack, Trial
from psa.storage.store import Store
from psa.storage.trial_state import TrialState

logger = logging.getLogger(__name__)

MustRaise = Callable[[BaseException, Pack], bool]


@dataclass
class PackOutcome:
    """The outcome of a pack. trained: number of records; elsewhere: trials that other processes hold; failed:
    errors of the failed trials, by id.
    """

    trained: int = 0
    elsewhere: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def train_by_halves(
    pack: Pack,
    store: Store,
    machine: Machine,
    hooks: RunHooks,
    must_raise: MustRaise = lambda error, part: False,
    *,
    divide: bool = True,
) -> PackOutcome:
    """Train a pack. If training fails, train its halves, until the trials that fail are alone: the code of a
    plugin may fail for one of them, and a smaller pack may fit into memory.

    hooks: their `on_failure` is replaced. must_raise: called with the error of a part; it is raised for True.
    divide: False to raise the first error. Raises Interrupted, and the error of a pack of which no trial can
    be trained.
    """
    outcome, begun, waiting = PackOutcome(), list[bool](), [pack]
    watched = _watched(hooks, pack, outcome, begun, must_raise)
    while waiting:
        part = waiting.pop(0)
        try:
            records, held = run_unlocked(part, store, machine, watched)
        except Interrupted:
            raise
        except Exception as error:
            is_divisible = divide and begun and len(pack.trials) > 1  # else no trial of it can be trained
            if not is_divisible or must_raise(error, part):
                raise
            if len(part.trials) == 1:
                outcome.failed[part.trials[0].id] = describe_failure(error)
            waiting = [*_halves(part), *waiting]
        else:
            outcome.trained += len(records)
            outcome.elsewhere += held
    return outcome


def _watched(
    hooks: RunHooks, pack: Pack, outcome: PackOutcome, begun: list[bool], must_raise: MustRaise
) -> RunHooks:
    """Return the hooks of a part: the first start is passed on, and errors of single trials are collected."""

    def start(states: Sequence[TrialState]) -> None:
        if not begun:
            hooks.on_start(states)
        begun.append(True)

    def fail(trial: Trial, error: UserError) -> None:
        if must_raise(error, pack):
            raise error
        outcome.failed[trial.id] = str(error)

    return dataclasses.replace(hooks, on_start=start, on_failure=fail)


def _halves(pack: Pack) -> list[Pack]:
    """Return the two halves of a pack, none of a single trial."""
    middle = len(pack.trials) // 2
    parts = (pack.trials[:middle], pack.trials[middle:]) if middle else ()
    return [pack.model_copy(update={"trials": part}) for part in parts]


def describe_failure(error: Exception) -> str:
    """Return why a trial failed. The traceback of an error that is not the user's goes to the log."""
    if isinstance(error, UserError):
        return str(error)
    logger.error("a pack failed", exc_info=error)
    return cut(named_error(error), 500)
