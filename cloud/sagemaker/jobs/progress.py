"""What a running job tells through its checkpoints: how far its packs are, and which trials have failed."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # of Python below 3.12 pydantic takes this one alone

from psa.experiments.grid_file import MAX_LOOPS


class LastLoop(TypedDict):
    """Of a pack: its loop, the trials in it, and the best so far."""

    loop: Annotated[int, Field(ge=0, le=MAX_LOOPS)]
    trained: Annotated[int, Field(ge=0, le=100_000)]
    best: Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]  # below 0: no loss was finite
    trial: Annotated[str, Field(max_length=1_000)]


class Failures(BaseModel):
    """job: which wrote it, since a later job of the same line may never get so far; trials: id -> why."""

    job: str = ""
    trials: dict[str, str] = {}


_LAST_LOOPS: Final = TypeAdapter(dict[str, LastLoop])


def parse_progress(content: bytes | None) -> dict[str, LastLoop]:
    """What the last loop of each pack said, by the pack's name; nothing where it is not of its form: a copy
    may be taken while it is written.
    """
    try:
        return _LAST_LOOPS.validate_json(content or b"{}")
    except ValidationError:
        return {}


def parse_failures(content: bytes | None, job: str) -> dict[str, str]:
    """Why trials of a job have failed, by id; nothing where the file is another job's, or not of its form."""
    try:
        found = Failures.model_validate_json(content or b"{}")
    except ValidationError:
        return {}
    return {trial: error for trial, error in found.trials.items() if error} if found.job == job else {}
