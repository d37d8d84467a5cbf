"""The base class of the parts of a trial, which are frozen and validated values, and how they are read.

A key that a part does not know is an error, and so is a value that would change nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
)

from psa.core.errors import UserError
from psa.core.formatting import quote

MAX_SEED: Final = 2**63 - 1


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of a value: sorted keys, no spaces, no NaN. Equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def _positive_zero(value: float) -> float:
    return value + 0.0  # -0.0 is the same setting, and must not be another digest


Probability = Annotated[
    float, Field(strict=True, ge=0, lt=1, allow_inf_nan=False), AfterValidator(_positive_zero)
]
Seed = Annotated[int, Field(strict=True, ge=0, le=MAX_SEED)]


class Spec(BaseModel):
    """A frozen value; a key it does not know is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", arbitrary_types_allowed=True, ignored_types=(cached_property,)
    )


def without_defaults(spec: Spec, body: dict[str, Any], optional: type[Spec]) -> dict[str, Any]:
    """Return the stored form of a spec without the fields of `optional` that have their defaults, so that
    trials from before those fields keep their digests.
    """
    defaults = {name: field.default for name, field in optional.model_fields.items()}
    return {
        key: value
        for key, value in body.items()
        if key not in defaults or getattr(spec, key) != defaults[key]
    }


# The tags by which pydantic distinguishes the members of a union; users do not write them.
_TAGS: Final = frozenset({"ratchet", "keep", "published", "named"})

S = TypeVar("S", bound="Spec")


def parse_spec(kind: type[S], values: dict[str, Any], where: str) -> S:
    """Build a Spec, turning the first validation fault into one line that names key, value and place."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = first_error(error)
        colon = ":" * (not fault.startswith("must "))  # of the values as a whole
        raise UserError(f"{where}{colon} {fault}", "Correct that value") from None


# How pydantic begins to say what a value must be, and the count with which it ends.
_MUST: Final = re.compile(r"^\w+ should (.*?)(?: after validation, not .*)?$")


def first_error(error: ValidationError, spell: Callable[[str], str] = str) -> str:
    """Return the first fault of a validation, as `method.lr must be greater than 0, got -1.0`.

    spell: how users write a key, such as an option. A message that begins with its key gets that spelling.
    """
    fault = error.errors()[0]
    key = spell(".".join(str(part) for part in fault["loc"] if part not in _TAGS))
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "missing":
        return f"{key} is missing"
    if fault["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if fault["type"] in ("model_type", "dict_type"):
        message = "Input should be a table"
    if must := _MUST.fullmatch(message):
        return f"{key} must {must[1]}, got {quote(fault['input'])}".lstrip()
    name = re.split("[ .]", key)[-1].lstrip("-").replace("-", "_")
    if key and re.match(rf"{name}\b", message):
        return key + message.removeprefix(name)
    spelled = re.sub(r"^[a-z_]+(?= must\b)", lambda match: spell(match[0]), message)
    return f"{key}: {message}" if key and spelled == message else spelled


def describe_difference(what: str, mine: object, asked: object) -> str:
    """Describe the first field in which two values differ; a part that only one of them has is `one`."""
    if isinstance(mine, Spec) and type(mine) is type(asked):
        name = next(key for key in type(mine).model_fields if getattr(mine, key) != getattr(asked, key))
        return describe_difference(f"{what} {name}", getattr(mine, name), getattr(asked, name))
    stored, given = ("one" if isinstance(value, Spec) else str(value).lower() for value in (mine, asked))
    return f"{what} must be that of the checkpoint, {stored}, got {given}"
