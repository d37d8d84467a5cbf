"""The schema of a trial's record, which is checked wherever one is read.

A digest proves that a file is unchanged; the schema proves that this version of psa can read it.
"""

from __future__ import annotations

from typing import Any, Final, NotRequired

from pydantic import ConfigDict, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from psa.core.errors import CorruptFileError
from psa.specs.trial import Trial
from psa.storage.records.record import REMOVE, Record, decode_record
from psa.storage.records.schema import (
    STRICT,
    FileEntry,
    FileName,
    FloatList,
    Grown,
    History,
    NonNegativeInt,
    Some,
    StrictInt,
)


class _Samples(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]  # pydantic's own way to configure a TypedDict
    train: NonNegativeInt
    validation: Some
    test: Some
    zero_r_validation: NonNegativeInt


class _Bounty(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    correct: StrictInt
    loop: NonNegativeInt


class _Test(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    correct: StrictInt
    loss: float | None


class _Finals(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    bounty: _Bounty
    test: _Test
    stopped_early: bool


class _Seen(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    places: dict[str, list[str]]
    loops: list[dict[str, FloatList]]
    last: dict[str, FloatList]


class _Built(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    family: str
    arch: str
    parameters: NonNegativeInt


class _TrialRecord(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]
    id: str
    digest: str
    spec: dict[str, Any]
    built: _Built
    device: str
    samples: _Samples
    loops: NonNegativeInt
    history: History
    events: list[Grown]
    finals: _Finals
    probes: NotRequired[dict[str, _Seen]]
    files: NotRequired[dict[FileName, FileEntry]]


_RECORD: Final = TypeAdapter(_TrialRecord)


def decode_trial_record(content: bytes, where: str) -> Record:
    """Return the record of a trial from the bytes of a file.

    Raises CorruptFileError if a bit differs from what was written or the record does not fit the schema, and
    UserError if a newer psa wrote it.
    """
    record = decode_record(content, where)
    try:
        _RECORD.validate_python(record)
        trial = Trial.model_validate(record["spec"])
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        place = ".".join(map(str, fault["loc"])) or "its spec"
        raise CorruptFileError(
            f"{where} must be a valid record of a trial ({place}: {fault['msg']})", REMOVE
        ) from error
    if (trial.id, trial.digest) != (record["id"], record["digest"]):
        raise CorruptFileError(
            f"{where} must be a valid record of a trial (spec: that of another, {trial.id})", REMOVE
        )
    lengths = {len(values) for values in record["history"].values()}
    if lengths != {record["loops"]}:
        why = "its length is not the number of loops" if len(lengths) == 1 else "columns differ in length"
        raise CorruptFileError(f"{where} must be a valid record of a trial (history: {why})", REMOVE)
    return record
