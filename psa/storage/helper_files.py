"""Helper files: JSON that can be made again (step times, progress), read without trusting what it holds."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any, Final, NotRequired, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # below Python 3.12 pydantic takes this one alone

from psa.core.errors import UserError
from psa.core.stored_files import read_stored

logger = logging.getLogger(__name__)

_MAX_BYTES: Final = 10_000_000
_Text = Annotated[str, Field(max_length=1_000)]
_Whole = Annotated[int, Field(strict=True, ge=0, le=10**12)]
# Limits of what can have been measured: pack sizes, and steps from a tick of the clock to a day.
_PackSize = Annotated[int, Field(ge=1, le=100_000)]
_Seconds = Annotated[float, Field(strict=True, ge=1e-9, le=1e5, allow_inf_nan=False)]
_Time = Annotated[float, Field(strict=True, ge=0, le=1e11, allow_inf_nan=False)]
_Rate = Annotated[float, Field(strict=True, ge=0, le=1e12, allow_inf_nan=False)]

_Content = TypeVar("_Content")
# The key of a workload (see psa.execution.cost_model) -> pack size -> seconds of a training step.
STEP_TIMES: Final = TypeAdapter(dict[str, Annotated[dict[_PackSize, _Seconds], Field(min_length=1)]])


class PackStatus(TypedDict):
    """The progress of a pack in training. started: Unix time; reached: meta-loops when it started."""

    label: _Text
    trials: _Whole
    loop: _Whole
    horizon: _Whole
    reached: _Whole
    started: _Time


class SweepStatus(TypedDict):
    """The progress of a running sweep. best: validation accuracy in percent, and the id of its trial.

    started, written: Unix times; rate: meta-loops per second, summed over trials. An earlier psa writes none
    of the last four.
    """

    __pydantic_config__ = ConfigDict(extra="ignore")  # type: ignore[misc]  # of a TypedDict
    host: _Text
    grid: _Text
    done: _Whole
    total: _Whole
    left: _Text
    best: tuple[Annotated[float, Field(strict=True, ge=0, le=100, allow_inf_nan=False)], _Text]
    running: Annotated[list[_Text], Field(max_length=10_000)]
    started: NotRequired[_Time]
    written: NotRequired[_Time]
    rate: NotRequired[_Rate]
    packs: NotRequired[Annotated[list[PackStatus], Field(max_length=10_000)]]


class TrackerProgress(TypedDict):
    """The number of meta-loops of a trial that a tracker has stored."""

    loops: _Whole


SWEEP_PROGRESS: Final = TypeAdapter(SweepStatus)
TRACKER_PROGRESS: Final = TypeAdapter(TrackerProgress)


def read_helper(path: Path, shape: TypeAdapter[_Content], consequence: str = "") -> _Content | None:
    """Return the content of a helper file, or None where it is missing or cannot be used.

    A file that cannot be used costs one warning that names it and the consequence, where one is given.
    """
    try:
        content = read_stored(path, _MAX_BYTES)
        return None if content is None else shape.validate_json(content)
    except ValidationError as error:
        reason = _reason(error)
    except UserError as error:
        reason = error.message.removeprefix(f"{path} ")
    if consequence:
        logger.warning("%s cannot be used (%s); %s", path, reason, consequence)
    return None


def _reason(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part)[:80] for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])
