"""Growth: the schedule by which a network grows, and the size of each growth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from psa.specs.base import Spec

Schedule = Literal["epoch", "plateau", "performance", "fixed_step"]

GrowthCount = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]
Added = Annotated[int, Field(strict=True, ge=0, le=65_536)]
After = Annotated[int, Field(strict=True, ge=0)]
Threshold = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]
Delta = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
_NO_GAIN: Final = 1e-4


class Growth(Spec):
    """The schedule by which a network grows, and the size of each growth.

    schedule: `epoch`, every `interval` epochs; `plateau`, after `interval` epochs without a validation
    accuracy better than the best by more than min_delta, counted anew after each growth; `performance`, at
    an accuracy of at least `threshold`, and `interval` epochs after the last; `fixed_step`, `interval` steps
    after the last or at the end of the epoch in which they are done. width: units added to every hidden
    layer. depth: layers added behind the last, as wide as it. max_width, max_depth: upper limits.
    warmup_epochs: the number of first epochs without growth. stop_epoch: the first epoch from which there
    is no growth. Epochs count from 1; a network grows after an epoch's validation.
    """

    schedule: Schedule = "epoch"
    interval: GrowthCount = 1
    width: Added = 16
    depth: Added = 0
    max_width: GrowthCount | None = None
    max_depth: GrowthCount | None = None
    warmup_epochs: After = 0
    stop_epoch: GrowthCount | None = None
    threshold: Threshold | None = None
    min_delta: Delta = _NO_GAIN

    @model_validator(mode="after")
    def _every_option_acts(self) -> Self:
        if not (self.width or self.depth):
            raise ValueError("grow_width or grow_depth must be above 0, got 0 for both")
        if not self.width and self.max_width is not None:
            raise ValueError("max_width must be left out unless grow_width is above 0")
        if not self.depth and self.max_depth is not None:
            raise ValueError("max_depth must be left out unless grow_depth is above 0")
        if (self.schedule == "performance") != (self.threshold is not None):
            raise ValueError("grow_threshold must be set with grow_schedule performance, and only then")
        if self.schedule != "plateau" and self.min_delta != _NO_GAIN:
            raise ValueError("grow_min_delta must be left out unless grow_schedule is plateau")
        if self.stop_epoch is not None and self.stop_epoch <= self.warmup_epochs + 1:
            raise ValueError("stop_epoch must be above grow_after + 1, or nothing would grow")
        return self

    def grown(self, widths: tuple[int, ...]) -> tuple[int, ...]:
        """Return the hidden widths after one growth, limited by the caps; a cap never shrinks a network."""
        most = math.inf if self.max_width is None else self.max_width
        wider = tuple(max(width, int(min(width + self.width, most))) for width in widths)
        deepest = len(wider) + self.depth if self.max_depth is None else self.max_depth
        added = max(min(self.depth, deepest - len(wider)), 0)
        return wider + wider[-1:] * added


@dataclass(frozen=True)
class EpochResult:
    """The end of an epoch, after which a network may grow: the epoch (from 1), all steps so far, and the
    validation accuracy (0 to 1).
    """

    epoch: int
    step: int
    accuracy: float


@dataclass(frozen=True)
class GrowthEvent:
    """A growth due by the schedule; `grew` is False if the caps left no room."""

    epoch: int
    global_step: int
    trigger_reason: str
    val_accuracy_at_trigger: float
    grew: bool
    old_hidden_sizes: tuple[int, ...]
    new_hidden_sizes: tuple[int, ...]
    param_count_before: int
    param_count_after: int

    @property
    def old_depth(self) -> int:
        """Hidden layers before."""
        return len(self.old_hidden_sizes)

    @property
    def new_depth(self) -> int:
        """Hidden layers after."""
        return len(self.new_hidden_sizes)

    @property
    def old_width(self) -> int:
        """The widest hidden layer before."""
        return max(self.old_hidden_sizes)

    @property
    def new_width(self) -> int:
        """The widest hidden layer after."""
        return max(self.new_hidden_sizes)


def parameters(widths: Sequence[int], inputs: int, classes: int) -> int:
    """Return the number of weights and biases of a plain MLP with these hidden widths."""
    sizes = [inputs, *widths, classes]
    return sum((one + 1) * other for one, other in pairwise(sizes))


@dataclass(frozen=True)
class _Counters:
    """The state of a schedule: its last growth, the best accuracy, and the epochs without a better one."""

    epoch: int
    step: int
    best: float = -math.inf
    waited: int = 0

    def seen(self, moment: EpochResult, min_delta: float) -> _Counters:
        if moment.accuracy > self.best + min_delta:
            return replace(self, best=moment.accuracy, waited=0)
        return replace(self, waited=self.waited + 1)

    def fired(self, moment: EpochResult) -> _Counters:
        return replace(self, epoch=moment.epoch, step=moment.step, waited=0)


def _reason(spec: Growth, counters: _Counters, moment: EpochResult) -> str | None:
    if spec.schedule == "fixed_step":
        steps = moment.step - counters.step
        return f"{steps} steps since the last" if steps >= spec.interval else None
    if spec.schedule == "plateau":
        due = counters.waited >= spec.interval
        return f"no gain in {counters.waited} epochs" if due else None
    epochs = moment.epoch - counters.epoch
    if epochs < spec.interval:
        return None
    if spec.schedule == "epoch":
        return f"{epochs} epochs since the last"
    due = spec.threshold is not None and moment.accuracy >= spec.threshold
    return f"accuracy at least {spec.threshold}" if due else None


def growth_events(
    spec: Growth, widths: Sequence[int], history: Sequence[EpochResult], inputs: int = 784, classes: int = 10
) -> list[GrowthEvent]:
    """Return every growth of a network that started with these hidden widths, up to the end of its history.

    A growth after the last epoch of the history is due now. Raises ValueError for epochs out of order.
    """
    counters, sizes = _Counters(0, 0), tuple(widths)
    found: list[GrowthEvent] = []
    for at, moment in enumerate(history):
        if at and (moment.epoch, moment.step) <= (history[at - 1].epoch, history[at - 1].step):
            raise ValueError(f"growth: moment {moment} does not come after {history[at - 1]}")
        counters = counters.seen(moment, spec.min_delta)
        reason = _reason(spec, counters, moment) if _allowed(spec, moment.epoch) else None
        if reason is None:
            continue
        new = spec.grown(sizes)
        counts = [parameters(each, inputs, classes) for each in (sizes, new)]
        found.append(
            GrowthEvent(moment.epoch, moment.step, reason, moment.accuracy, new != sizes, sizes, new, *counts)
        )
        counters, sizes = counters.fired(moment), new
    return found


def _allowed(spec: Growth, epoch: int) -> bool:
    return epoch > spec.warmup_epochs and (spec.stop_epoch is None or epoch < spec.stop_epoch)
