"""What is run: a Trial and its parts, frozen and validated, with one identity on every machine.

A trial says everything that touches its numbers and nothing else. The horizon (how many meta-loops) and
the machine (device, threads, folders) are not part of it, so a longer run continues the same trial.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from psa.errors import UserError

MODES: Final = ("none", "decay", "dropout", "full", "hidden", "output")
Mode = Literal["none", "decay", "dropout", "full", "hidden", "output"]
Family = Literal["simplemlp", "resmlp"]

MAX_WIDTH: Final = 65_536
MAX_DEPTH: Final = 10_000
MAX_PARAMETERS: Final = 1_000_000_000
MAX_SEED: Final = 2**63 - 1
_MAX_ARCH_TEXT: Final = 4_000  # longer strings are refused unread: nobody types them
_SEGMENT: Final = re.compile(r"\s*([0-9]{1,9})\s*\*\s*([0-9]{1,9})\s*", re.ASCII)
_ARCH_HELP: Final = 'Write count*width segments in brackets, e.g. --arch "[4*4, 2*8, 1*16]"'


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, no NaN. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


@dataclass(frozen=True)
class Arch:
    """Hidden layers as stacks (depth, width), neighbours of equal width merged: `[1*8, 1*8]` is `[2*8]`."""

    stacks: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Arch:
        """Read `[4*4, 2*8]`: four hidden layers of width 4, then two of width 8.

        Raises UserError for anything else, and for sizes that no machine could hold.
        """
        if len(text) > _MAX_ARCH_TEXT:
            raise UserError(f"arch: the text is {len(text):,} characters long", _ARCH_HELP)
        inner = text.strip()
        if not (inner.startswith("[") and inner.endswith("]")) or len(inner) < 2:
            raise UserError(f"arch {text!r} is not in brackets", _ARCH_HELP)
        stacks = []
        for segment in inner[1:-1].split(","):
            match = _SEGMENT.fullmatch(segment)
            if match is None:
                raise UserError(f"arch {text!r}: segment {segment.strip()!r} is not count*width", _ARCH_HELP)
            stacks.append((int(match[1]), int(match[2])))
        return cls.of_stacks(stacks)

    @classmethod
    def of_stacks(cls, stacks: list[tuple[int, int]]) -> Arch:
        """Merge equal neighbours and check the sizes. Raises UserError."""
        merged: list[tuple[int, int]] = []
        for depth, width in stacks:
            if depth < 1 or width < 1:
                raise UserError(f"arch: {depth}*{width} has a size of zero", "Counts and widths start at 1")
            if merged and merged[-1][1] == width:
                merged[-1] = (merged[-1][0] + depth, width)
            else:
                merged.append((depth, width))
        widest, deepest = max(w for _, w in merged), sum(d for d, _ in merged)
        if widest > MAX_WIDTH or deepest > MAX_DEPTH:
            raise UserError(
                f"arch: {deepest:,} hidden layers, the widest {widest:,}",
                f"At most {MAX_DEPTH:,} layers of at most {MAX_WIDTH:,} units",
            )
        return cls(tuple(merged))

    @classmethod
    def coerce(cls, value: object) -> Arch:
        """An Arch from itself, from `[4*8]`, or from the short form `4*8` that grids and tables use."""
        if isinstance(value, Arch):
            return value
        if not isinstance(value, str):
            raise UserError(f"arch: {value!r} is not a text", _ARCH_HELP)
        return cls.parse(value if value.lstrip().startswith("[") else f"[{value}]")

    @property
    def widths(self) -> tuple[int, ...]:
        """One width per hidden layer, input side first."""
        return tuple(width for depth, width in self.stacks for _ in range(depth))

    @property
    def label(self) -> str:
        """The name used in tables: `4*4, 2*8`."""
        return ", ".join(f"{depth}*{width}" for depth, width in self.stacks)

    @property
    def slug(self) -> str:
        """The name used in paths: `4x4-2x8`, cut short where a file name would be too long."""
        text = "-".join(f"{depth}x{width}" for depth, width in self.stacks)
        return text if len(text) <= 80 else f"{text[:72]}-etc"

    def __str__(self) -> str:
        return f"[{self.label}]"


def _arch(value: object) -> Arch:
    try:
        return Arch.coerce(value)
    except UserError as error:  # pydantic reports ValueErrors with the key they belong to
        raise ValueError(str(error)) from error


ArchField = Annotated[Arch, BeforeValidator(_arch), PlainSerializer(str)]
Rate = Annotated[float, Field(gt=0, le=10, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
Probability = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
BatchSize = Annotated[int, Field(ge=1, le=60_000)]


class Spec(BaseModel):
    """A frozen value; a key it does not know is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, ignored_types=(cached_property,)
    )


class DataSpec(Spec):
    """A named data set, how it is split and scaled, and which digits stay."""

    name: Literal["mnist", "fashion-mnist"] = "mnist"
    scaling: Literal["standard", "unit"] = "standard"
    val_size: Annotated[int, Field(ge=1, le=59_999)] = 10_000
    split_seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 1337
    digits: tuple[Annotated[int, Field(ge=0, le=9)], ...] | None = None

    @model_validator(mode="after")
    def _digits_are_a_sorted_set(self) -> Self:
        if self.digits is not None and (
            len(self.digits) < 2 or tuple(sorted(set(self.digits))) != self.digits
        ):
            raise ValueError("digits are at least two, each once, in rising order")
        return self

    @property
    def classes(self) -> int:
        """How many outputs a network needs."""
        return 10 if self.digits is None else len(self.digits)


class ModelSpec(Spec):
    """A family of networks, its hidden layers, and the dropout that is really built in."""

    family: Family = "resmlp"
    arch: ArchField = Arch(((1, 1024),))
    dropout: Probability = 0.0


class Ratchet(Spec):
    """Keep a trained copy only where validation accuracy strictly improved; a fresh AdamW every loop."""

    policy: Literal["ratchet"] = "ratchet"
    lr: Rate = 1e-4
    batch_size: BatchSize = 256
    weight_decay: Decay = 0.0


class Keep(Spec):
    """Ordinary training: one optimiser for all epochs. With `patience` the state of least validation loss
    is kept and training stops after that many epochs without a better one; without it, the last state is.
    """

    policy: Literal["keep"] = "keep"
    optimizer: Literal["adam", "adamw"] = "adamw"
    lr: Rate = 1e-3
    batch_size: BatchSize = 256
    weight_decay: Decay = 0.0
    patience: Annotated[int, Field(ge=1, le=100_000)] | None = None


Method = Annotated[Ratchet | Keep, Field(discriminator="policy")]


class Ablation(Spec):
    """Which neuron may be damaged in the copy of the LKG before an epoch (see psa.ablation)."""

    mode: Mode = "none"


class Leg(Spec):
    """How a continued trial was trained up to and including loop `until`, before its present settings."""

    until: Annotated[int, Field(ge=1)]
    model: ModelSpec
    method: Method
    intervention: Ablation


class Trial(Spec):
    """One network trained once: the unit that is stored, resumed, paired by seed and counted."""

    study: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")] = "ablation"
    data: DataSpec = DataSpec()
    model: ModelSpec = ModelSpec()
    method: Method = Ratchet()
    intervention: Ablation = Ablation()
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    legs: tuple[Leg, ...] = ()

    @model_validator(mode="after")
    def _nothing_contaminates_the_arms(self) -> Self:
        """Under the ratchet decay belongs to mode decay and dropout to mode dropout, nowhere else: two
        published data sets had to be discarded because every arm silently had one or the other."""
        if isinstance(self.method, Ratchet):
            if self.method.weight_decay and self.intervention.mode != "decay":
                raise ValueError(f"weight_decay acts in mode decay only, not in {self.intervention.mode!r}")
            if self.model.dropout and self.intervention.mode != "dropout":
                raise ValueError(f"dropout acts in mode dropout only, not in {self.intervention.mode!r}")
        elif self.intervention.mode in ("full", "hidden", "output"):
            raise ValueError("ablation needs policy ratchet: it acts on a copy of the LKG")
        return self

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the full resolved spec, defaults included, as hexadecimal."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    @property
    def id(self) -> str:
        """Readable path and digest: `ablation/resmlp-4x8/hidden/s07-3fa9c1`."""
        network = f"{self.model.family}-{self.model.arch.slug}"
        return f"{self.study}/{network}/{self.intervention.mode}/s{self.seed:02d}-{self.digest[:6]}"

    def at_loop(self, loop: int) -> Trial:
        """The settings under which `loop` (from 1) was trained."""
        for leg in self.legs:
            if loop <= leg.until:
                return self.model_copy_of(leg)
        return self

    def model_copy_of(self, leg: Leg) -> Trial:
        """This trial with the settings of one of its earlier legs."""
        parts = {"model": leg.model, "method": leg.method, "intervention": leg.intervention}
        return Trial(**{**dict(self), **parts, "legs": ()})

    def continued_by(self, later: Trial, loops: int) -> Trial:
        """`later` as the continuation of this trial after `loops` finished loops.

        Only what is trained *with* may change (mode, rates, batch size); the network, its data and its seed
        are what is continued. Raises UserError naming the first difference.
        """
        for what, mine, asked in (
            ("--model", self.model.family, later.model.family),
            ("--arch", self.model.arch, later.model.arch),
            ("--dataset", self.data, later.data),
            ("--seed", self.seed, later.seed),
            ("--policy", self.method.policy, later.method.policy),
        ):
            if mine != asked:
                raise UserError(
                    f"{what}: the checkpoint holds {_shown(mine)}, you asked for {_shown(asked)}",
                    "Use another --model-dir, or remove the checkpoint with `clean`",
                )
        unchanged = (self.model, self.method, self.intervention) == (
            later.model,
            later.method,
            later.intervention,
        )
        if unchanged or loops == 0:
            return self if unchanged else later
        begun = self.legs[-1].until if self.legs else 0
        legs = self.legs
        if loops > begun:
            legs += (
                Leg(until=loops, model=self.model, method=self.method, intervention=self.intervention),
            )
        return Trial(**{**dict(later), "study": self.study, "legs": legs})


def _shown(value: object) -> str:
    return canonical_json(value.model_dump(mode="json")) if isinstance(value, Spec) else str(value)


class Pack(Spec):
    """Trials that can be trained as one tensor, and the loop up to which they are to be trained."""

    trials: Annotated[tuple[Trial, ...], Field(min_length=1, max_length=100_000)]
    horizon: Annotated[int, Field(ge=1, le=10_000_000)]

    @model_validator(mode="after")
    def _one_tensor(self) -> Self:
        if len({pack_key(trial) for trial in self.trials}) > 1:
            raise ValueError("the trials of a pack share data, network and batch size")
        if len({trial.id for trial in self.trials}) < len(self.trials):
            raise ValueError("a pack holds each trial once")
        return self


def pack_key(trial: Trial) -> str:
    """What trials must share to be trained as one tensor."""
    method = trial.method
    kind = method.optimizer if isinstance(method, Keep) else "ratchet"
    shape = [trial.model.family, str(trial.model.arch), kind, method.batch_size]
    return canonical_json([trial.data.model_dump(mode="json"), *shape])


S = TypeVar("S", bound="Spec")


def validated(kind: type[S], values: dict[str, Any], where: str) -> S:
    """Build a Spec, turning the first validation fault into one line that names key, value and place."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where}: {first_fault(error)}", "Correct that value and try again") from None


def first_fault(error: ValidationError) -> str:
    """`method.lr = -1.0: input should be greater than 0` for the first fault of a validation."""
    fault = error.errors()[0]
    key = ".".join(str(part) for part in fault["loc"] if part not in ("ratchet", "keep"))
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:]
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if not key:
        return message
    shown = repr(fault["input"])
    return f"{key} = {shown if len(shown) <= 60 else shown[:57] + '...'}: {message}"
