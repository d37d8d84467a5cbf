"""The options of a hidden-state memory, and the combinations of them that are invalid.

An option that has no effect in a spec must keep its default, so two specs that compute the same
numbers are one spec and an experiment cannot report a difference between them. Four equivalences are left
to their users, since they are points of a sweep: with k = 1 every weighting gives the one entry all weight;
mode gated with a constant alpha and no uncertainty is residual (delta values) or overwrite (absolute ones)
at strength alpha x strength; a strength, alpha or clip of 0 is a memory that changes nothing; and a site has
two names or more, such as early and hidden_0 (see psa.specs.memory_sites).
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from psa.core.errors import UserError
from psa.specs.base import Spec
from psa.specs.training import LearningRate, WeightDecay

Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
OpenShare = Annotated[float, Field(strict=True, gt=0, lt=1, allow_inf_nan=False)]
Positive = Annotated[float, Field(strict=True, gt=0, le=1e6, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, le=1e6, allow_inf_nan=False)]
EntryCount = Annotated[int, Field(strict=True, ge=1, le=10_000_000)]
Neighbours = Annotated[int, Field(strict=True, ge=1, le=1000)]
Bias = Annotated[float, Field(strict=True, ge=-1, le=1, allow_inf_nan=False)]
Epochs = Annotated[int, Field(strict=True, ge=0, le=10_000_000)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.]{0,79}$")]

FIELDS_BYTES: Final = 8 + 8 + 4 + 4 + 4  # label, insert step, retrieval count, usefulness, fresh step


def _idle(spec: Spec, option: str, where: str, setting: str = "") -> None:
    """Raise ValueError unless an option without effect has its default. setting: its name in a grid."""
    if getattr(spec, option) != type(spec).model_fields[option].default:
        raise ValueError(f"{setting or option} must be left out unless {where}")


class Retrieval(Spec):
    """The search for the entries nearest to a query, and the weight of each.

    metric: euclidean is ||q - k||, cosine 1 - cos(q, k). weighting: uniform, the same for all;
    inverse_distance, 1 / (d + 1e-8); softmax, softmax(-d / temperature). normalize_*: scale to length 1;
    keys and values are scaled when they are stored.
    """

    k: Neighbours = 8
    metric: Literal["euclidean", "cosine"] = "euclidean"
    weighting: Literal["uniform", "inverse_distance", "softmax"] = "softmax"
    temperature: Positive = 0.1
    normalize_keys: bool = True
    normalize_queries: bool = True
    normalize_values: bool = False

    @model_validator(mode="after")
    def _every_option_acts(self) -> Self:
        if self.weighting != "softmax":
            _idle(self, "temperature", "weighting is softmax")
        if self.metric == "cosine" and not (self.normalize_keys and self.normalize_queries):
            raise ValueError("normalize_keys and normalize_queries must be on with metric cosine")
        return self


class Query(Spec):
    """The dimensions that are compared: all, those that the memory leaves alone, or a fixed random subset."""

    source: Literal["full", "untouched", "projection"] = "full"
    dims: EntryCount = 64

    @model_validator(mode="after")
    def _dims_are_of_a_projection(self) -> Self:
        if self.source != "projection":
            _idle(self, "dims", "query is projection", "projection_dims")
        return self


class Target(Spec):
    """The value of an entry, made after the backward pass from h, g = d(its own loss)/dh and class means c.

    delta: -step_size g (grad_delta), or c - h (class_centroid). absolute: h (current_hidden),
    h - step_size g (grad_target), or c (class_centroid).
    """

    value: Literal["delta", "absolute"] = "delta"
    construction: Literal["current_hidden", "grad_delta", "grad_target", "class_centroid"] = "grad_delta"
    step_size: LearningRate = 0.1
    centroid_momentum: OpenShare = 0.95

    @model_validator(mode="after")
    def _the_value_is_of_its_kind(self) -> Self:
        pair = (self.construction, self.value)
        if pair == ("current_hidden", "delta"):
            raise ValueError(
                "target current_hidden must have absolute values: its difference from the hidden state is 0"
            )
        if pair == ("grad_delta", "absolute"):
            raise ValueError(
                "target grad_delta must have delta values, being a step: choose them or grad_target"
            )
        if pair == ("grad_target", "delta"):
            raise ValueError(
                "target grad_target must have absolute values: its difference is grad_delta, choose that"
            )
        if not self.construction.startswith("grad"):
            _idle(self, "step_size", "target is grad_delta or grad_target")
        if self.construction != "class_centroid":
            _idle(self, "centroid_momentum", "target is class_centroid")
        return self


class Gate(Spec):
    """The share of the change that is applied: clip(a g + bias, 0, 1).

    a: alpha, or with linear_warmup alpha x min(e / (rise_epochs + 1), 1) in the e-th active epoch, so that
    rise_epochs epochs stay below alpha. g: 1, or with uncertainty sigmoid(-mean distance / temperature).
    """

    alpha: Share = 0.4
    schedule: Literal["constant", "linear_warmup"] = "constant"
    rise_epochs: EntryCount = 1
    uncertainty: bool = False
    temperature: Positive = 1.0
    bias: Bias = 0.0

    @model_validator(mode="after")
    def _every_option_acts(self) -> Self:
        if self.schedule != "linear_warmup":
            _idle(self, "rise_epochs", "gate_schedule is linear_warmup")
        if not self.uncertainty:
            _idle(self, "temperature", "uncertainty is on", "gate_temperature")
            if self.schedule == "constant" and self.bias:
                raise ValueError(
                    "gate_bias must be 0 with a constant gate without uncertainty: add it to alpha"
                )
        return self


class Affected(Spec):
    """The dimensions of the hidden vector that may be changed; all if it has at most `dims`."""

    dims: EntryCount = 64
    selection: Literal["first", "random"] = "first"


class Refresh(Spec):
    """With probability `rate` an arrival updates its nearest entry, if within `distance`, and is not stored.

    key, value: the share of the old one that stays.
    """

    rate: Annotated[float, Field(strict=True, gt=0, le=1, allow_inf_nan=False)] = 0.2
    distance: NotNegative = 0.5
    key: Share = 0.9
    value: Share = 0.9


class EvictionPolicy(Spec):
    """The choice of entries to replace in a full memory (see psa.interventions.memory.eviction). none: a
    further entry is an error.
    """

    policy: Literal["none", "ttl", "fifo", "reservoir", "usage", "helpfulness", "helpfulness_age"] = "fifo"
    ttl_steps: EntryCount | None = None
    age_weight: OpenShare = 0.5

    @model_validator(mode="after")
    def _every_option_acts(self) -> Self:
        if (self.policy == "ttl") != (self.ttl_steps is not None):
            raise ValueError("ttl_steps must be set with forgetting ttl, and only then")
        if self.policy != "helpfulness_age":
            _idle(self, "age_weight", "forgetting is helpfulness_age")
        return self


class Memory(Spec):
    """One hidden-state memory of one network.

    site: early, middle, late, penultimate or the name of a site. clip: the most that any dimension is
    changed by. train, inference: the passes in which it acts. warmup_epochs: the number of first epochs in
    which it only fills, or without fill_during_warmup does nothing. control: inactive fills and never acts;
    random uses k entries drawn with replacement, equal weights, distance 0. A control keeps all options of
    the arm that it is compared with, even those that have no effect.
    """

    site: Name = "penultimate"
    capacity: EntryCount = 20_000
    retrieval: Retrieval = Retrieval()
    query: Query = Query()
    target: Target = Target()
    mode: Literal["overwrite", "residual", "gated"] = "gated"
    gate: Gate = Gate()
    strength: WeightDecay = 1.0
    clip: NotNegative | None = None
    affected: Affected = Affected()
    train: bool = True
    inference: bool = True
    warmup_epochs: Epochs = 0
    fill_during_warmup: bool = True
    insertion: Literal["always", "loss_above_mean"] = "always"
    refresh: Refresh | None = None
    forgetting: EvictionPolicy = EvictionPolicy()
    control: Literal["none", "inactive", "random"] = "none"

    @model_validator(mode="after")
    def _the_change_is_one(self) -> Self:
        if self.mode == "overwrite" and self.target.value == "delta":
            raise ValueError(
                "memory_mode overwrite must have absolute values: with delta values choose residual"
            )
        if self.mode == "residual" and self.target.value == "absolute":
            raise ValueError("memory_mode residual must have delta values: choose overwrite or gated")
        if self.mode != "gated" and self.gate != Gate():
            raise ValueError("alpha, gate_* and uncertainty must be left out unless memory_mode is gated")
        cut = self.mode == "overwrite" and self.strength == 1 and self.clip is None
        if cut and self.train and self.control != "inactive" and self.target.construction == "grad_target":
            raise ValueError(
                "overwrite at strength 1 lets no gradient through, so grad_target would be the hidden state: "
                "choose current_hidden, a smaller strength, or train_use false"
            )
        return self

    @model_validator(mode="after")
    def _every_option_acts(self) -> Self:
        if not (self.train or self.inference):
            raise ValueError(
                "train_use or inference_use must be on: to have neither, choose method hybrid_inactive"
            )
        if self.control == "inactive" and not (self.train and self.inference):
            raise ValueError(
                "train_use and inference_use must be on with method hybrid_inactive, which ignores them"
            )
        if not self.warmup_epochs:
            _idle(self, "fill_during_warmup", "warmup_epochs is above 0")
        if self.retrieval.k > self.capacity:
            raise ValueError(f"k must be at most memory_size ({self.capacity}), got {self.retrieval.k}")
        if self.retrieval.normalize_values and self.target.construction == "grad_delta":
            _idle(self.target, "step_size", "normalize_values is off")
        return self

    @property
    def slug(self) -> str:
        """The memory in a trial's readable path."""
        kind = {"none": "memory", "inactive": "inactive", "random": "random"}[self.control]
        return f"{kind}-{self.mode}-{self.site.replace('_', '')}"

    def acts(self, epoch: int, training: bool) -> bool:
        """Return True if the memory changes hidden vectors in this epoch (from 1)."""
        wanted = self.train if training else self.inference
        return wanted and self.control != "inactive" and epoch > self.warmup_epochs

    def fills(self, epoch: int) -> bool:
        """Return True if the memory stores entries in this epoch (from 1)."""
        return self.fill_during_warmup or epoch > self.warmup_epochs

    def alpha(self, epoch: int) -> float:
        """Return the gate's a in this epoch (from 1). Active epochs count from the end of the warm-up."""
        if self.gate.schedule == "constant":
            return self.gate.alpha
        risen = max(epoch - self.warmup_epochs, 0) / (self.gate.rise_epochs + 1)
        return self.gate.alpha * min(risen, 1.0)


def check_query(spec: Memory, width: int) -> None:
    """Raise UserError if a query has no dimensions to compare at a site of this width, or projects to all."""
    if spec.query.source == "untouched" and spec.affected.dims >= width:
        raise UserError(
            f"query untouched must leave dimensions, got affected_dims for all {width} of the site",
            f"Lower affected_dims below {width}",
        )
    if spec.query.source == "projection" and spec.query.dims >= width:
        raise UserError(
            f"projection_dims must be below the {width} dimensions of the site, got {spec.query.dims}",
            "Lower it, or choose query full",
        )


def check_room(spec: Memory, samples: int, epochs: int) -> None:
    """Refuse policy `none` if a training of that length has more arrivals than capacity. Raises UserError."""
    arrivals = samples * sum(spec.fills(epoch) for epoch in range(1, epochs + 1))
    if spec.forgetting.policy == "none" and arrivals > spec.capacity:
        raise UserError(
            f"memory_size must be at least {arrivals:,} with forgetting none, got {spec.capacity:,}",
            "Raise it or choose another forgetting",
        )


def footprint_bytes(entries: int, key_dims: int, value_dims: int) -> int:
    """Return the bytes of entries: float32 keys and values, and five fields of 8, 8, 4, 4 and 4 bytes."""
    return entries * ((key_dims + value_dims) * 4 + FIELDS_BYTES)
