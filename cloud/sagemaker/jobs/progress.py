"""Files that a running job writes beside its checkpoints: progress of packs, and failed trials."""

from __future__ import annotations

from typing import (
    Annotated,
    Final,
    NotRequired,  # pydantic requires these below Python 3.12
)

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from psa.experiments.grid_file import MAX_LOOPS


class LastLoop(TypedDict):
    """The last loop of a pack: its number, the trials in it, and their best and mean accuracy."""

    loop: Annotated[int, Field(ge=0, le=MAX_LOOPS)]
    trained: Annotated[int, Field(ge=0, le=100_000)]
    best: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]  # below 0: no loss was finite
    mean: NotRequired[Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]]  # not of an earlier psa
    trial: Annotated[str, Field(max_length=1_000)]


class Failures(BaseModel):
    """Failed trials. job: the writer, since a later job may not get that far; trials: id -> error."""

    job: str = ""
    trials: dict[str, str] = {}


_LAST_LOOPS: Final = TypeAdapter(dict[str, LastLoop])


def parse_progress(content: bytes | None) -> dict[str, LastLoop]:
    """Return the last loop of each pack, by the pack's name; empty for invalid content, since a copy may be
    made while the file is written.
    """
    try:
        return _LAST_LOOPS.validate_json(content or b"{}")
    except ValidationError:
        return {}


def parse_failures(content: bytes | None, job: str) -> dict[str, str]:
    """Return the errors of a job's failed trials, by id; empty if the file is another job's or invalid."""
    try:
        found = Failures.model_validate_json(content or b"{}")
    except ValidationError:
        return {}
    return {trial: error for trial, error in found.trials.items() if error} if found.job == job else {}
