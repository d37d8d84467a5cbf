"""Sentences on the training of arms that limit what their accuracies mean: early stops, falls, schedules."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import pandas as pd

from psa.core.formatting import format_number, format_range, pluralize
from psa.reports.activations.arms import Arm
from psa.reports.activations.curves import curves_of
from psa.reports.wording import FALL
from psa.specs.activation import ACTIVATIONS, Activation

_NAMED: Final = 8


def listed(names: Sequence[str]) -> str:
    """Join with semicolons, since the name of an arm has commas; of many names, only the first."""
    more = f"; and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def early_stops_text(arms: Sequence[Arm], keys: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on the trials that learned nothing and were ended by early stopping."""
    parts, count, total, patience = [], 0, 0, set()
    for arm in arms:
        lost = arm.dead_rows()
        stopped = lost[lost["stopped_early"].fillna(value=False).astype(bool)]
        total, count = total + len(lost), count + len(stopped)
        if len(stopped):
            patience |= set(stopped["patience"].dropna())
            parts.append(f"{arm.label(keys)} after {format_range(stopped['loops'])} epochs")
    if parts:
        of = f" (patience {format_range(patience)})" if patience else ""
        yield (
            f"Early stopping{of} ended {count} of the {pluralize(total, 'trial')} that learned nothing: "
            f"{listed(parts)}. This does not show that they would have learned nothing in more epochs."
        )


def last_epoch_text(arms: Sequence[Arm], keys: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on the trials whose tested weights are those of the last epoch."""
    parts, count, total = [], 0, 0
    for arm in arms:
        done = arm.rows[arm.rows["status"] == "done"]
        late = int((done["bounty_loop"] == done["loops"]).sum())
        total, count = total + len(done), count + late
        if late:
            parts.append(f"{arm.label(keys)} ({late} of {len(done)})")
    if parts:
        yield (
            f"{count:,} of {pluralize(total, 'trial')} were best in their last epoch, and may become better "
            f"with more epochs: {listed(parts)}."
        )


def fall_text(arms: Sequence[Arm], keys: Sequence[str], frame: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence on the trials whose validation accuracy fell by FALL points or more from their best
    epoch to the last one. frame: the rows of every epoch.
    """
    parts, count = [], 0
    done = frame[frame["status"] == "done"]
    for arm in arms:
        curves = curves_of(arm, done, "accuracy")
        ends = [float(curve[-1]) for curve in curves if curve.max() - curve[-1] >= FALL]
        count += len(ends)
        if ends:
            to = f"{min(ends):.2f} %" if len(ends) == 1 else f"{min(ends):.2f} to {max(ends):.2f} %"
            parts.append(f"{arm.label(keys)} ({len(ends)} of {pluralize(len(curves), 'trial')}, to {to})")
    if parts:
        yield (
            f"In {pluralize(count, 'trial')} the validation accuracy fell by {FALL:g} points or more from "
            f"the best epoch to the last one: {listed(parts)}."
        )


def schedule_text(arms: Sequence[Arm], keys: Sequence[str]) -> Iterator[str]:
    """Yield a sentence on the arms whose scale was still changing in the epoch whose weights were tested."""
    parts = []
    for arm in arms:
        kind = _with_schedule(arm)
        done = arm.rows[arm.rows["status"] == "done"]
        if kind is None or not len(done):
            continue
        end = int(kind.number("decay_epochs")) + 1
        early = sorted(int(loop) for loop in done["bounty_loop"] if loop < end)
        if early:
            scales = sorted(kind.scale_at(loop) for loop in (early[0], early[-1]))
            shown = " to ".join(dict.fromkeys(f"{scale:.1f}" for scale in scales))
            epochs = f"epoch{'s' * (early[0] < early[-1])} {format_range(early)}"
            final = format_number(kind.scale_at(end))
            parts.append(
                f"{arm.label(keys)} ({len(early)} of {pluralize(len(done), 'trial')}, in {epochs} with scale "
                f"{shown}, instead of {final} from epoch {end} on)"
            )
    if parts:
        yield (
            f"Tested before the schedule of their scale ended: {listed(parts)}. Their accuracies say nothing "
            "of the final scale."
        )


def _with_schedule(arm: Arm) -> Activation | None:
    """Return the activation of an arm if its scale depends on the epoch."""
    name = str(arm.settings.get("activation"))
    if name.partition("(")[0] not in ACTIVATIONS:
        return None
    kind = Activation.coerce(name)
    return kind if kind.decays else None
