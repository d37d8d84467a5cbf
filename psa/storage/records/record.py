"""A record as bytes: canonical JSON that carries its own digest, and what a longer run may change in it."""

from __future__ import annotations

import hashlib
import json
import math
from fractions import Fraction
from typing import Any, Final

from psa.core.errors import CorruptFileError, UserError
from psa.specs.base import canonical_json
from psa.storage.records.divergence import diverged_after

RECORD_FORMAT: Final = 1
REMOVE: Final = "Remove it, and the next sweep trains its trial again"
# The keys that a longer run of the same trial may change.
_GROWING: Final = frozenset({"loops", "history", "finals", "events", "device", "probes", "files"})

Record = dict[str, Any]


def encode_record(record: Record) -> bytes:
    """Return canonical JSON with its own SHA-256, non-finite numbers as null. Equal records, equal bytes."""
    body = {**storable(record), "format": RECORD_FORMAT}
    digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    return canonical_json({**body, "sha256": digest}).encode() + b"\n"


def storable(value: Any) -> Any:
    """Return a value with None (missing) in place of every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {key: storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [storable(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode_record(content: bytes, where: str) -> Record:
    """Return the record in the bytes of a file.

    Raises CorruptFileError where a bit differs from what was written, UserError where a newer psa wrote it.
    """
    try:
        record: Record = json.loads(content)
        newer = record.pop("format") > RECORD_FORMAT
        sound = newer or _is_of_the_rest(record.pop("sha256"), content)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CorruptFileError(f"{where} is damaged ({type(error).__name__})", REMOVE) from error
    if newer:
        raise UserError(f"{where} was written by a newer psa", "Update psa")
    if not sound:
        raise CorruptFileError(f"{where} is damaged (its digest differs)", REMOVE)
    return record


def _is_of_the_rest(digest: str, content: bytes) -> bool:
    """Return True if a digest is that of the text without it. Removing it from the text is five times as
    fast as encoding the whole record anew.
    """
    own = f'"sha256":"{digest}"'.encode()
    part = own + b"," if own + b"," in content else b"," + own
    rest = content.replace(part, b"", 1)
    return content[-1:] == b"\n" and hashlib.sha256(rest[:-1]).hexdigest() == digest


def difference(shorter: Record, longer: Record) -> str | None:
    """Return the first key by which `longer` differs from the trial of `shorter` trained at least as far."""
    if longer["loops"] == shorter["loops"]:
        keys = [key for key in sorted(longer.keys() | shorter.keys()) if longer.get(key) != shorter.get(key)]
    else:
        growing = _GROWING | ({"built"} if longer["events"] else set())
        keys = [key for key in sorted(shorter) if key not in growing and longer.get(key) != shorter[key]]
        keys += ["events"] if longer["events"][: len(shorter["events"])] != shorter["events"] else []
    if keys:
        return keys[0]
    for column, values in shorter["history"].items():
        if longer["history"].get(column, [])[: shorter["loops"]] != values:
            return f"history, column {column}"
    return None


def reaches(record: Record, horizon: int) -> bool:
    """Return True if a record has at least `horizon` loops or its trial stopped early."""
    return bool(record["loops"] >= horizon or record["finals"]["stopped_early"])


def bounty_after(record: Record, loops: int) -> Fraction:
    """Return the bounty after `loops` meta-loops, however far the trial went on: the best validation accuracy
    up to there, in ordinary training that of the last epoch. 0 where the trial had diverged by then.
    """
    if diverged_after(record, loops):
        return Fraction(0)
    history = record["history"]
    kept = [
        correct
        for loop, correct, keep in zip(history["loop"], history["correct"], history["kept"], strict=True)
        if keep and loop <= loops
    ]
    return Fraction(kept[-1] if kept else 0, record["samples"]["validation"])
