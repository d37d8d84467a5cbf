"""Trial: one run of a study, frozen and validated, with the same identity on every machine.

A trial holds everything that affects its results and nothing else. The horizon (number of meta-loops) and
the machine (device, threads, folders) are not part of it, so a longer run continues the same trial.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Annotated, Any, Final, Self

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from psa.core.errors import UserError
from psa.core.parsing import NAME_PATTERN
from psa.core.plugins.identity import PluginUse
from psa.core.plugins.registry import claimed, joined_uses, uses_among
from psa.specs.base import Seed, Spec, canonical_json, describe_difference
from psa.specs.data import DataSpec
from psa.specs.growth import Growth
from psa.specs.memory import Memory
from psa.specs.memory_sites import check_changes
from psa.specs.model import Model, NetworkSpec, PublishedModelSpec
from psa.specs.probes import ProbeName, follows_training
from psa.specs.shapes import Shape, shape_of
from psa.specs.training import (
    PLAIN_MODES,
    Ablation,
    Method,
    RatchetTraining,
    StandardTraining,
    check_contamination,
    effective_weight_decay,
    mode_rank,
)
from psa.specs.training.settings import arm_label, arm_slug, check_targets, switched_on


def _sorted(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sort the names: their order has no effect, so it must not change the digest."""
    return tuple(sorted(names))


_LATER: Final = dict[str, Any](kind="ablation", probes=[], memory=None, growth=None, plugins=[])


class Leg(Spec):
    """The settings of a continued trial up to and including loop `until`, before its present ones."""

    until: Annotated[int, Field(ge=1)]
    model: Model
    method: Method
    intervention: Ablation


class Trial(Spec):
    """One network trained once: the unit that is stored, resumed, paired by seed and counted.

    study: the name under which it is stored; kind: the study whose report covers it. probes: observations
    beside its scores (see psa.probes). memory, growth: further interventions on a plain network under
    standard training, in the forward pass and between epochs. plugins: what it uses of plugins, found by its
    names; of a stored trial, what it used when it was made.
    """

    study: Annotated[str, Field(pattern=NAME_PATTERN)] = "ablation"
    kind: Annotated[str, Field(pattern=NAME_PATTERN)] = "ablation"
    data: DataSpec = DataSpec()
    model: Model = PublishedModelSpec()
    method: Method = RatchetTraining()
    intervention: Ablation = Ablation()
    memory: Memory | None = None
    growth: Growth | None = None
    probes: Annotated[tuple[ProbeName, ...], AfterValidator(_sorted)] = ()
    seed: Seed = 0
    legs: tuple[Leg, ...] = ()
    plugins: tuple[PluginUse, ...] = ()

    @model_validator(mode="wrap")
    @classmethod
    def _names_are_known(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Accept the names that a stored trial has from plugins, and note what this one uses of them."""
        stored = values.get("plugins", ()) if isinstance(values, dict) else ()
        with claimed(stored):
            trial = handler(values)
        if not isinstance(values, Trial):
            trial.__dict__["plugins"] = uses_among(trial._names, trial.plugins)
        return trial

    @property
    def _names(self) -> Iterator[tuple[str, str]]:
        """The names that may come from plugins, each with its kind. A study or a report trains nothing."""
        parts: list[Leg | Trial] = [*self.legs, self]
        for part in parts:
            yield "mode", part.intervention.mode
            yield "family", part.model.family
        yield from (("probe", probe.partition("(")[0]) for probe in self.probes)

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields at their defaults, so that the digests of earlier trials stay the same."""
        body: dict[str, Any] = handler(self)
        return {key: value for key, value in body.items() if value != _LATER.get(key, _LATER)}

    @model_validator(mode="after")
    def _nothing_contaminates_the_arms(self) -> Self:
        """Refuse weight decay outside mode decay and dropout outside mode dropout, under the ratchet.

        Two published data sets had to be discarded because every arm silently had one or the other.
        """
        check_contamination(self.method, self.model, self.intervention)
        return self

    @model_validator(mode="after")
    def _what_is_zeroed_is_gone(self) -> Self:
        mode = self.intervention.mode
        if isinstance(self.model, NetworkSpec) and self.model.simplex != "none" and mode not in PLAIN_MODES:
            raise ValueError(f"simplex must be none in mode {mode}: its weights cannot be set to 0")
        if (
            isinstance(self.model, NetworkSpec)
            and self.model.simplex == "all"
            and self.data.scaling != "simplex"
        ):
            raise ValueError(f"scaling must be simplex with simplex all, got {self.data.scaling}")
        if self.model.family == "cnn" and not isinstance(self.method, StandardTraining):
            raise ValueError("policy must be keep with family cnn")
        if len({probe.partition("(")[0] for probe in self.probes}) < len(self.probes):
            raise ValueError(f"probes must be named once each, got {', '.join(self.probes)}")
        return self

    @model_validator(mode="after")
    def _interventions_fit(self) -> Self:
        if self.intervention.switch or self.intervention.several:
            check_targets(self.shape, self.model, self.method, self.intervention.modes, self.intervention)
        if self.memory is not None or self.growth is not None:
            check_changes(self.model, self.method, self.memory, self.growth, self.data.shape[0])
        return self

    @cached_property
    def shape(self) -> Shape:
        """The shape of the network as it begins. Raises UserError (see `shape_of`)."""
        return shape_of(self.model, self.data.classes, self.data.shape)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the full resolved spec, defaults included, as hexadecimal."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    @cached_property
    def id(self) -> str:
        """Readable path and digest: `ablation/resmlp-4x8/hidden/s07-3fa9c1`."""
        parts = [self.model.slug]
        parts += ["growing"] if self.growth is not None else []
        parts += [self.memory.slug] if self.memory is not None else []
        return f"{self.study}/{'-'.join(parts)}/{arm_slug(self.arm)}/s{self.seed:02d}-{self.digest[:6]}"

    @property
    def arm(self) -> str:
        """The label of its arm: its mode, and the settings of the ablation and the ratchet that are on."""
        return arm_label(self.intervention.model_dump(), self.method.model_dump())

    @property
    def further_columns(self) -> tuple[str, ...]:
        """The columns that only its history has: `units`, all that a loop ablated; `accepted` as LKG."""
        return ("units",) * self.intervention.several + ("accepted",) * ("lkg" in self.method.carried)

    def at_loop(self, loop: int) -> Trial:
        """Return the settings under which `loop` (from 1) was trained."""
        for leg in self.legs:
            if loop <= leg.until:
                return self.changed(
                    model=leg.model, method=leg.method, intervention=leg.intervention, legs=()
                )
        return self

    def changed(self, **changes: object) -> Trial:
        """Return this trial, validated anew, with some fields changed; dict() would include the digest."""
        # what later settings no longer use is left out of `plugins` by validation
        return Trial.model_validate({name: getattr(self, name) for name in Trial.model_fields} | changes)

    @property
    def _settings(self) -> tuple[PublishedModelSpec | NetworkSpec, Method, Ablation]:
        """The settings that a continuation may change."""
        return self.model, self.method, self.intervention

    def continued_by(self, later: Trial, loops: int) -> Trial:
        """Return `later` as the continuation of this trial after `loops` finished loops.

        Only what is trained *with* may change (mode, rates, batch size); the network, its data and its seed
        are what is continued. Raises UserError naming the first difference.
        """
        for what, mine, asked in (
            ("--model", self.model.family, later.model.family),
            ("--arch", self.model.arch, later.model.arch),
            ("network", self.model.shape_key, later.model.shape_key),
            ("--dataset", self.data.name, later.data.name),
            ("data", self.data, later.data),
            ("--seed", self.seed, later.seed),
            ("--policy", self.method.policy, later.method.policy),
            ("memory", self.memory, later.memory),
            ("growth", self.growth, later.growth),
            ("buffers", self.method.carried, later.method.carried),
            ("history", self.further_columns, later.further_columns),
        ):
            if mine != asked:
                raise UserError(
                    describe_difference(what, mine, asked),
                    "Use another --model-dir, or remove the checkpoint with `clean`",
                )
        plugins = joined_uses(self.plugins, later.plugins)
        if later._settings == self._settings:
            return self
        if loops == 0:
            return later
        # A setting under which no loop was trained leaves no leg, and equal neighbours are one leg.
        legs = self.legs
        if loops > (legs[-1].until if legs else 0):
            model, method, intervention = self._settings
            legs += (Leg(until=loops, model=model, method=method, intervention=intervention),)
        if legs and (legs[-1].model, legs[-1].method, legs[-1].intervention) == later._settings:
            legs = legs[:-1]
        return later.changed(study=self.study, legs=legs, plugins=plugins)


class Pack(Spec):
    """Trials that can be trained as one tensor, and the loop up to which they are to be trained."""

    trials: Annotated[tuple[Trial, ...], Field(min_length=1, max_length=100_000)]
    horizon: Annotated[int, Field(ge=1, le=10_000_000)]

    @model_validator(mode="after")
    def _one_tensor(self) -> Self:
        if len({pack_key(trial) for trial in self.trials}) > 1:
            raise ValueError("the trials of a pack must share data, network and batch size")
        if len({trial.id for trial in self.trials}) < len(self.trials):
            raise ValueError("a pack must hold each trial once")
        return self


def pack_key(trial: Trial) -> str:
    """Return the values, as JSON, that trials must share to be trained as one tensor."""
    method = trial.method
    kind = method.optimizer if isinstance(method, StandardTraining) else method.policy
    shape = [*trial.model.shape_key, kind, method.batch_size, *trial.probes, *method.carried]
    spec = [trial.data, *(each for each in (trial.memory, trial.growth) if each is not None)]
    return canonical_json([*(each.model_dump(mode="json") for each in spec), *shape])


def training_key(trial: Trial) -> tuple[object, ...]:
    """Return values that trials of one pack share if every loop trains them alike, so that one result serves
    them all (see psa.engine.deduplication). A memory, and a probe that follows training, are of one trial.
    """
    alone = trial.memory is not None or any(follows_training(name.partition("(")[0]) for name in trial.probes)
    method, mode = trial.method, trial.intervention.mode
    return (
        trial.seed,
        (0, "") if mode in PLAIN_MODES else mode_rank(mode),
        trial.model.dropout,
        method.lr,
        effective_weight_decay(method),
        method.momentum if isinstance(method, StandardTraining) else 0.0,
        tuple(leg.model_dump_json() for leg in trial.legs),
        trial.digest if alone else "",
        repr(switched_on(trial.intervention.model_dump(), method.model_dump())),
    )


def check_sizes(trial: Trial) -> None:
    """Raise UserError where the splits need more samples than the data set has.

    With some digits alone there are fewer; how many is known once the data are loaded.
    """
    data = trial.data
    most = data.facts.test or data.facts.train - 2
    if (data.test_size or 0) > most:
        raise UserError(
            f"test_size must be at most {most:,}, got {data.test_size:,}", "Choose a smaller test_size"
        )
    train, validation = data.train_size or 1, data.val_size
    if train + validation > data.pool:
        raise UserError(
            f"train_size and val_size must be at most {data.pool:,} together, got {train:,} "
            f"and {validation:,}",
            "Choose fewer of one of them",
        )


def check_shape(trial: Trial) -> None:
    """Raise UserError where a network cannot be built, or has no neurons for the mode of the trial."""
    if not trial.shape.hidden and "hidden" in trial.intervention.modes:
        raise UserError(f"mode hidden needs hidden layers, and family {trial.model.family!r} names none")
