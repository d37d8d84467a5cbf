"""Adding records to a bundle, none of which may differ from what it holds already."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from psa.core.errors import DamagedFile
from psa.core.file_locks import locked
from psa.core.files import write_atomically
from psa.storage.records.bundle import Bundle, Row, encode_bundle, read_bundle
from psa.storage.records.record_store import RecordStore, StoredRecord, bundled_record, longer

_PATIENCE_SECONDS: Final = 600.0  # for another process that adds to the same bundle


@dataclass
class Bundled:
    """The outcome of adding records to a bundle: how many it holds, and what became of those of the source.

    extended: trials of which the bundle held a shorter run. others: records of trials that were not wanted.
    refused: why a record was left out, a line each. bytes: the size of the file.
    """

    records: int = 0
    added: int = 0
    extended: int = 0
    known: int = 0
    others: int = 0
    refused: list[str] = field(default_factory=list)
    bytes: int = 0


def add_to_bundle(path: Path, source: RecordStore, wanted: Container[str] | None = None) -> Bundled:
    """Add the records of a results folder to a bundle, which is created where it is missing.

    Args:
        path: The bundle. It is replaced as a whole, or left as it is where nothing is added.
        source: Where the records are.
        wanted: The ids of the records to add; all, where it is None.

    Raises:
        DamagedFile: The bundle is there, and is damaged or not a bundle.
        UserError: It cannot be read or written.

    """
    with locked(path.with_name(f".{path.name}.lock"), _PATIENCE_SECONDS):
        bundle = read_bundle(path) or Bundle(path, ())
        rows, outcome = {row.id: row for row in bundle}, Bundled()
        for stored in source.scan():
            if isinstance(stored, DamagedFile):
                outcome.refused.append(str(stored))
            elif wanted is not None and stored.record["id"] not in wanted:
                outcome.others += 1
            else:
                _add(stored, bundle, source, rows, outcome)
        outcome.records = len(rows)
        if outcome.added or outcome.extended:
            write_atomically(path, encode_bundle(rows.values()))
        outcome.bytes = path.stat().st_size if rows else 0
    return outcome


def _add(
    stored: StoredRecord, bundle: Bundle, source: RecordStore, rows: dict[str, Row], outcome: Bundled
) -> None:
    """Put a record into the rows, unless the bundle has it already or has one that differs."""
    name = str(stored.record["id"])
    try:
        before = bundled_record(bundle, name)
        if before is not None and longer(before, stored) is before:
            outcome.known += 1
            return
    except DamagedFile as damage:
        outcome.refused.append(str(damage))
        return
    outcome.added += before is None
    outcome.extended += before is not None
    rows[name] = Row(name, str(stored.record["digest"]), stored.content, source.sidecar(name))
