"""History columns of a trial: the loops that became the LKG, its score, and the loops since it changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Columns = Mapping[str, Sequence[Any]]


def accepted_loops(history: Columns) -> Sequence[Any]:
    """Return True for each loop that became the LKG: without patience those that are the best so far."""
    return history.get("accepted", history["kept"])


def lkg_correct(history: Columns) -> int | None:
    """Return the validation samples that the LKG classifies correctly, None before there is any.

    With patience the LKG is the copy that was accepted last, which may be worse than the best.
    """
    accepted = accepted_loops(history)
    last = next((at for at in reversed(range(len(accepted))) if accepted[at]), None)
    return None if last is None else int(history["correct"][last])


def loops_since_accepted(history: Columns) -> int:
    """Return the number of loops since the LKG changed."""
    accepted = accepted_loops(history)
    return next((back for back, took in enumerate(reversed(accepted)) if took), len(accepted))
