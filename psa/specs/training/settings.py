"""Settings of the ratchet and of an ablation that are off by default, their targets, and labels of arms.

A stored trial leaves out a setting that is off, so that trials from before it keep their digests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from pydantic import Field

from psa.specs.base import Probability, Spec
from psa.specs.shapes import Shape

ADAM_MOMENTS: Final = ("exp_avg", "exp_avg_sq")  # the state of Adam for each parameter
_RULE: Final = r"^(width|depth):[1-9][0-9]{0,5}$"
_Loops = Annotated[int, Field(strict=True, ge=1, le=100_000)]
_Horizon = Annotated[int, Field(strict=True, ge=2, le=10_000_000)]
_Share = Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)]


class RatchetSettings(Spec):
    """Settings of the ratchet that are off by default (see psa.engine.policies.RatchetPolicy)."""

    patience: Annotated[
        _Loops | None,
        Field(description="Rejected loops in a row after which the LKG is replaced by a worse copy."),
    ] = None
    stop_after: Annotated[
        _Loops | None, Field(description="Loops without a new bounty after which the trial ends.")
    ] = None
    optimizer_state: Annotated[
        Literal["fresh", "persistent"],
        Field(description="Moments with which a loop begins: zeros, or those kept with the LKG."),
    ] = "fresh"
    lr_rule: Annotated[
        Annotated[str, Field(pattern=_RULE)] | None,
        Field(
            description="Learning rate by size, as width:N or depth:N: lr is that of networks of mean "
            "width N or of N hidden layers; others have lr times sqrt(N / their own)."
        ),
    ] = None

    @property
    def carried(self) -> tuple[str, ...]:
        """The buffers in the state beside the best weights, the same in all trials of a pack: `lkg`, the LKG
        where patience may make it a worse one, and the moments of the LKG where they persist.
        """
        lkg = () if self.patience is None else ("lkg",)
        return lkg if self.optimizer_state == "fresh" else (*lkg, *ADAM_MOMENTS)


ABLATIVE: Final = ("full", "hidden", "output")
CHANGES_BY_AMOUNT: Final = ("noise", "scale", "shrink")  # those that need an amount
AblationTarget = Literal["unit", "layer", "block"]
AblationChange = Literal["zero", "reset", "noise", "scale", "shrink"]
AblationChoice = Literal[
    "random", "fixed", "least_weight", "most_weight", "least_activation", "most_activation",
    "least_gradient", "most_gradient", "least_contribution", "most_contribution",
]  # fmt: skip
RateSchedule = Literal["constant", "linear", "cosine", "adaptive"]
_SWITCH: Final = r"^[1-9][0-9]{0,6}:(none|full|hidden|output)$"


class AblationSettings(Spec):
    """Settings of an ablation that are off by default.

    For their definitions see psa.interventions.selection (units, share, target, choice), .change (change,
    amount) and .schedule (rate, schedule, schedule_loops, end_rate, switch).
    """

    units: Annotated[int, Field(strict=True, ge=1, le=1_000_000, description="Targets per loop.")] = 1
    share: Annotated[_Share | None, Field(description="Targets per loop, as a share of all.")] = None
    target: Annotated[AblationTarget, Field(description="What is ablated as a whole.")] = "unit"
    choice: Annotated[AblationChoice, Field(description="Rule that selects the targets.")] = "random"
    change: Annotated[AblationChange, Field(description="What is done to the weights of a target.")] = "zero"
    amount: Annotated[
        Annotated[float, Field(strict=True, gt=0, le=1000, allow_inf_nan=False)] | None,
        Field(description="Strength of the change. [change noise, scale, shrink]"),
    ] = None
    rate: Annotated[_Share, Field(description="Probability that a loop ablates.")] = 1.0
    schedule: Annotated[RateSchedule, Field(description="Course of the rate over the loops.")] = "constant"
    schedule_loops: Annotated[
        _Horizon | None,
        Field(description="Loops until the end rate; of the window with schedule adaptive."),
    ] = None
    end_rate: Annotated[Probability, Field(description="Rate at the end of the schedule.")] = 0.0
    switch: Annotated[
        tuple[Annotated[str, Field(pattern=_SWITCH)], ...],
        Field(max_length=1000, description="Later modes, each as LOOP:MODE, from that loop on."),
    ] = ()
    regularizer: Annotated[
        Literal["none", "decay", "dropout"],
        Field(description="Regularizer beside an ablating mode; the label of the arm names both."),
    ] = "none"

    @property
    def ranked(self) -> bool:
        """Return True if targets are chosen by a score of the LKG."""
        return self.choice not in ("random", "fixed")

    @property
    def several(self) -> bool:
        """Return True if a loop may ablate more than one unit."""
        return self.units > 1 or self.share is not None or self.target != "unit"


SETTING_DEFAULTS: Final = {name: field.default for name, field in AblationSettings.model_fields.items()}


def target_groups(shape: Shape, mode: str, target: str) -> list[tuple[int, ...]]:
    """Return the layers of each target of a mode: one layer, or the two of a residual block.

    Mode full has all linear layers, output the last, hidden those of its hidden set (see Shape.hidden). A
    block is a target if both of its layers are in the set.
    """
    last = len(shape.linears) - 1
    layers = {"full": range(last + 1), "hidden": shape.hidden, "output": (last,)}[mode]
    if target != "block":
        return [(layer,) for layer in layers]
    roles = [linear.role for linear in shape.linears]
    return [(at, at + 1) for at in layers if roles[at] == "enter" and at + 1 in layers]


def check_targets(
    shape: Shape, model: Spec, method: Spec, modes: Collection[str], ablation: AblationSettings
) -> None:
    """Raise ValueError for an ablation of more targets than the network has, of weights that cannot be 0, or
    under another policy than the ratchet.
    """
    setting = "switch" if ablation.switch else "several units"
    if not isinstance(method, RatchetSettings):
        raise ValueError(f"policy must be ratchet with {setting}, got keep")  # noqa: TRY004  # pydantic's
    if getattr(model, "simplex", "none") != "none":
        raise ValueError(f"simplex must be none with {setting}: its weights cannot be set to 0")
    for mode in {*modes} & {*ABLATIVE}:
        groups = target_groups(shape, mode, ablation.target)
        count = len(groups)
        if ablation.target == "unit":
            count = sum(shape.linears[layer].outputs for (layer,) in groups)
        if not count:
            raise ValueError(f"target block must have residual blocks to ablate in mode {mode}, got none")
        if ablation.units > count:
            raise ValueError(f"units must be at most {count:,} in mode {mode}, got {ablation.units:,}")


def lr_of_rule(rule: str | None, lr: float, widths: Sequence[int]) -> float:
    """Return the learning rate of a network of these hidden widths by a rule such as `width:64`.

    Both rules are inverse square roots; that of the width is the scale of initial weights (Glorot and Bengio
    2010), that of the depth keeps the sum of residual updates (as the branches of Bachlechner et al. 2021).
    """
    if rule is None:
        return lr
    kind, _, reference = rule.partition(":")
    size = sum(widths) / len(widths) if kind == "width" else len(widths)
    return lr * math.sqrt(int(reference) / size)


def arm_slug(label: str) -> str:
    """Return the label of an arm as a part of a path, cut short where a file name would be too long."""
    return re.sub("[^a-z0-9.-]+", "-", label)[:80].rstrip("-.")


def arm_label(intervention: Mapping[str, Any], method: Mapping[str, Any]) -> str:
    """Return the label of an arm, from parts of a stored spec: its mode, and each setting that is on.

    `hidden` is an arm of the published study; `hidden, units 4, patience 10` is another arm.
    """
    settings = switched_on(intervention, method)
    shown = [f"{name.replace('_', ' ')} {_shown(value)}" for name, value in settings]
    return ", ".join([intervention["mode"], *shown])


def switched_on(intervention: Mapping[str, Any], method: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return the settings of an arm that are on, beside its mode, with their exact values."""
    found = [(name, intervention[name]) for name in AblationSettings.model_fields if name in intervention]
    if method["policy"] == "ratchet":
        found += [(name, method[name]) for name in RatchetSettings.model_fields if name in method]
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")
