"""An activation and its parameters as people write them: `JumpReLU(initial=0.5)`. Imports no torch.

Every parameter is part of the value, given or not, so that none can be dropped on the way: the name of a
trial shows the given text, and its digest the resolved parameters. The functions are in psa.nn.activations.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from psa.core.errors import UserError
from psa.core.formatting import format_number, quote
from psa.core.parsing import check_choice, split_top_level

Number = float | int | bool | str

_EPS: Final[dict[str, Number]] = {"eps": 1e-10}
_POWER: Final[dict[str, Number]] = {"alpha": 0.5, "eps": 1e-6}
_JUMP: Final[dict[str, Number]] = {"initial": 0.1, "min": 0.0, "max": 5.0}
_SCALE: Final[dict[str, Number]] = {"scale": 1.0}
_DECAY: Final[dict[str, Number]] = {
    "initial_scale": 100.0, "final_scale": 1.0, "decay_epochs": 10, "schedule": "linear", "decay_rate": 0.4,
}  # fmt: skip
_WINDOW: Final[dict[str, Number]] = {"window": 0.1}
SCHEDULES: Final = ("linear", "exponential", "cosine")

# name -> its parameters and their defaults, in the order in which they may be given without a name
ACTIVATIONS: Final[Mapping[str, Mapping[str, Number]]] = {
    "ReLU": {},
    "Identity": {},
    "Tanh": {},
    "Sigmoid": {},
    "SiLU": {},
    "ELU": {"alpha": 1.0},
    "LeakyReLU": {"slope": 0.01},
    "RescaledReLU": _EPS | _SCALE,
    "LayerwiseSoftmax": {"temperature": 1.0} | _SCALE,
    "PowerNormalization": _POWER | _SCALE,
    "TemperaturePowerNorm": {"alpha": 0.5, "temperature": 1.0, "eps": 1e-6} | _SCALE,
    "SparseMax": _SCALE,
    "Threshold": {"initial": 0.5, "min": 0.0, "max": 100.0, "sharpness": 10.0, "hard": True},
    "FixedThreshold": {"threshold": 10.0, "scale": 100.0},
    "JumpReLU": {"initial": 0.0, "min": -5.0, "max": 5.0} | _WINDOW,
    "RescaledJumpReLU": _JUMP | _EPS | _WINDOW | _SCALE,
    "FixedRescaledJumpReLU": {"threshold": 0.1} | _EPS | _SCALE,
    "DecayingRescaledReLU": _DECAY | _EPS,
    "DecayingRescaledJumpReLU": _DECAY | _JUMP | _EPS | _WINDOW,
    "DecayingFixedRescaledJumpReLU": _DECAY | {"threshold": 0.1} | _EPS,
}
# Other names that users know. Hecto is a hundredfold: what sums to 1 then sums to 100.
_ALIASES: Final = {
    "ThresholdActivation": "Threshold", "FixedThresholdActivation": "FixedThreshold", "None": "Identity",
}  # fmt: skip
_HECTO: Final = {f"Hecto{name}": name for name, known in ACTIVATIONS.items() if known.get("scale") == 1.0}
_POSITIVE: Final = frozenset(
    {
        "eps",
        "temperature",
        "alpha",
        "scale",
        "sharpness",
        "threshold",
        "window",
        "initial_scale",
        "final_scale",
        "decay_rate",
    }
)
# Beyond these, single precision gives only 0, infinity or NaN.
_BOUNDS: Final = (("eps", 1e-20, 1.0), ("temperature", 1e-6, 1e6), ("alpha", 1e-3, 100.0))
_TEXT: Final = re.compile(r"\s*([A-Za-z]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
_LARGEST: Final = 1e9  # of a parameter's value
_HELP: Final = 'Write a name and what differs from its defaults, e.g. "LayerwiseSoftmax(temperature=0.5)"'
_MAX_TEXT: Final = 400


@dataclass(frozen=True)
class Activation:
    """name: one of ACTIVATIONS; parameters: every one of them, in that order."""

    name: str
    parameters: tuple[tuple[str, Number], ...] = ()

    @classmethod
    def coerce(cls, value: object) -> Activation:
        """Return an Activation unchanged, or parse its text. Raises UserError."""
        if isinstance(value, Activation):
            return value
        if not isinstance(value, str) or len(value) > _MAX_TEXT:
            raise UserError(f"activation must be a string, got {quote(value)}", _HELP)
        match = _TEXT.fullmatch(value)
        if match is None:
            raise UserError(f"activation must be NAME or NAME(key=value), got {quote(value)}", _HELP)
        given = match[1]
        name = _ALIASES.get(given, given)
        hecto = name in _HECTO
        name = _HECTO.get(name, name)
        check_choice(name, set(ACTIVATIONS) | set(_HECTO) | set(_ALIASES), "activation", "name")
        defaults = dict(ACTIVATIONS[name]) | ({"scale": 100.0} if hecto else {})
        chosen = defaults | _given(given, match[2] or "", defaults)
        _check(given, chosen)
        return cls(name, tuple(chosen.items()))

    def __getitem__(self, key: str) -> Number:
        return dict(self.parameters)[key]

    def number(self, key: str, otherwise: float = 0.0) -> float:
        """Return a parameter as a number, or `otherwise` if the activation has none of that name."""
        return float(dict(self.parameters).get(key, otherwise))

    @property
    def is_relu(self) -> bool:
        """True for ReLU, which the layers compute themselves."""
        return self.name == "ReLU"

    @property
    def learns(self) -> bool:
        """True if each layer has a learned threshold of its own."""
        return "initial" in dict(self.parameters)

    @property
    def decays(self) -> bool:
        """True if the scale depends on the epoch."""
        return "decay_epochs" in dict(self.parameters)

    def scale_at(self, epoch: int) -> float:
        """Return the factor of the output in an epoch (from 1): the first has the initial scale, and those
        after `decay_epochs` epochs the final one.
        """
        if not self.decays:
            return self.number("scale", 1.0)
        first, last, length = (self.number(key) for key in ("initial_scale", "final_scale", "decay_epochs"))
        passed = min(epoch - 1, length)
        if passed >= length:
            return last
        share = passed / length
        match self["schedule"]:
            case "cosine":
                kept = 0.5 * (1 + math.cos(math.pi * share))
            case "exponential":
                end = self.number("decay_rate") ** length
                kept = (self.number("decay_rate") ** passed - end) / (1 - end)
            case _:
                kept = 1 - share
        return last + (first - last) * kept

    @property
    def label(self) -> str:
        """The name used in tables, with what differs from its defaults."""
        differing = [f"{key}={_shown(value)}" for key, value in self._differing()]
        return f"{self.name}({', '.join(differing)})" if differing else self.name

    @property
    def slug(self) -> str:
        """The name used in paths."""
        parts = [self.name, *(f"{key}{_shown(value)}" for key, value in self._differing())]
        return re.sub(r"[^a-z0-9.-]", "-", "-".join(parts).lower())[:80]

    def __str__(self) -> str:
        """Return the full text: every parameter, defaults included."""
        shown = ", ".join(f"{key}={_shown(value)}" for key, value in self.parameters)
        return f"{self.name}({shown})" if shown else self.name

    def _differing(self) -> list[tuple[str, Number]]:
        defaults = ACTIVATIONS[self.name]
        return [(key, value) for key, value in self.parameters if value != defaults[key]]


def _given(name: str, text: str, defaults: Mapping[str, Number]) -> dict[str, Number]:
    """Return the parameters in brackets: by name, or in their order."""
    found: dict[str, Number] = {}
    for place, part in enumerate(split_top_level(text, ",")):
        key, equals, value = (each.strip() for each in part.partition("="))
        if not equals:
            if place >= len(defaults):
                raise UserError(
                    f"activation {name} must have at most {len(defaults)} parameters, got more", _HELP
                )
            key, value = list(defaults)[place], key
        check_choice(key, set(defaults), f"activation {name}", "parameter")
        if key in found:
            raise UserError(f"activation {name}: {key} must be given once, got it twice", _HELP)
        found[key] = _typed(f"activation {name}: {key}", value, defaults[key])
    return found


def _typed(where: str, text: str, default: Number) -> Number:
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise UserError(f"{where} must be true or false, got {quote(text)}", _HELP)
        return text.lower() == "true"
    if isinstance(default, str):
        return text.strip("'\"")
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{where} must be a number, got {quote(text)}", _HELP) from None
    if not abs(value) <= _LARGEST:
        raise UserError(f"{where} must be from {-_LARGEST:g} to {_LARGEST:g}, got {quote(text)}")
    if isinstance(default, int):
        if value != int(value):
            raise UserError(f"{where} must be a whole number, got {quote(text)}", _HELP)
        return int(value)
    return value + 0.0


def _check(name: str, chosen: Mapping[str, Number]) -> None:
    """Raise UserError for parameters that give no numbers, or change none."""
    for key, value in chosen.items():
        if key in _POSITIVE and not float(value) > 0:
            raise UserError(f"activation {name}: {key} must be above 0, got {value}")
    for key, least, most in _BOUNDS:
        if key in chosen and not least <= float(chosen[key]) <= most:
            raise UserError(f"activation {name}: {key} must be from {least:g} to {most:g}, got {chosen[key]}")
    if "schedule" in chosen:
        _check_schedule(name, chosen)
    low, high = chosen.get("min"), chosen.get("max")
    if low is not None and high is not None and not float(low) <= float(chosen["initial"]) <= float(high):
        raise UserError(
            f"activation {name}: initial must be from min ({low}) to max ({high}), got {chosen['initial']}"
        )


def _check_schedule(name: str, chosen: Mapping[str, Number]) -> None:
    schedule, rate = chosen["schedule"], chosen["decay_rate"]
    if schedule not in SCHEDULES:
        raise UserError(
            f"activation {name}: schedule must be one of {', '.join(SCHEDULES)}, got {quote(schedule)}"
        )
    if not 1 <= float(chosen["decay_epochs"]) <= 1e6:
        raise UserError(
            f"activation {name}: decay_epochs must be from 1 to 1,000,000, got {chosen['decay_epochs']}"
        )
    if not float(rate) < 1:
        raise UserError(f"activation {name}: decay_rate must be below 1, got {rate}")
    if schedule != "exponential" and rate != _DECAY["decay_rate"]:
        raise UserError(
            f"activation {name}: decay_rate must be left out with schedule {schedule}, got {rate}",
            "Only schedule exponential uses it",
        )


def _shown(value: Number) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return format_number(value) if isinstance(value, float) else str(value)
