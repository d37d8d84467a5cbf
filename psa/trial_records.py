"""What a trial's record holds: its shape, which is checked wherever one is read.

A digest says that a file is what was written; this says that it is what this psa understands.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from psa.errors import DamagedFile
from psa.records import REMOVE, Record, decode_record
from psa.trial import Trial

_STRICT: Final = ConfigDict(extra="forbid", strict=True)
_Count = Annotated[int, Field(ge=0)]
_Some = Annotated[int, Field(ge=1)]
_Numbers = list[float | None]


class _Samples(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]  # pydantic's own way to configure a TypedDict
    train: _Count
    validation: _Some
    test: _Some
    zero_r_validation: _Count


class _History(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    loop: list[int]
    mode: list[str]
    layer: list[int | None]
    unit: list[int | None]
    correct: list[int]
    loss: _Numbers
    train_loss: _Numbers
    kept: list[bool]


class _Bounty(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    correct: int
    loop: int


class _Test(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    correct: int
    loss: float | None


class _Finals(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    bounty: _Bounty
    test: _Test
    stopped_early: bool


class _Seen(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    places: dict[str, list[str]]
    loops: list[dict[str, _Numbers]]
    last: dict[str, _Numbers]


class _File(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    sha256: str
    bytes: _Count


class _TrialRecord(TypedDict):
    __pydantic_config__ = _STRICT  # type: ignore[misc]
    id: str
    digest: str
    spec: dict[str, Any]
    built: dict[str, Any]
    device: str
    samples: _Samples
    loops: _Count
    history: _History
    events: list[dict[str, Any]]
    finals: _Finals
    probes: NotRequired[dict[str, _Seen]]
    files: NotRequired[dict[str, _File]]


_RECORD: Final = TypeAdapter(_TrialRecord)


def decode_trial_record(content: bytes, where: str) -> Record:
    """The record of a trial, from a file's bytes.

    Raises DamagedFile where a bit differs from what was written, or where it is no record of a trial as this
    psa writes them; UserError where a newer psa wrote it.
    """
    record = decode_record(content, where)
    try:
        _RECORD.validate_python(record)
        trial = Trial.model_validate(record["spec"])
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "its spec"
        raise DamagedFile(f"{where} is no record of a trial ({place}: {fault['msg']})", REMOVE) from error
    if (trial.id, trial.digest) != (record["id"], record["digest"]):
        raise DamagedFile(f"{where} is no record of a trial (spec: that of another, {trial.id})", REMOVE)
    lengths = {name: len(values) for name, values in record["history"].items()}
    if len(set(lengths.values())) > 1:
        raise DamagedFile(f"{where} is no record of a trial (history: columns differ in length)", REMOVE)
    return record
