"""Adding records to a bundle, none of which may differ from what it holds already."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from psa.core.errors import CorruptFileError
from psa.core.file_locks import locked
from psa.core.files import remove_leftovers, write_atomically
from psa.storage.records.bundle import Bundle, BundleRow, encode_bundle, read_bundle
from psa.storage.records.record import Record, encode_record
from psa.storage.records.record_store import (
    RecordStore,
    StoredRecord,
    bundled_record,
    longer,
    sound_sidecar,
)

_PATIENCE_SECONDS: Final = 600.0  # for another process that adds to the same bundle
_PRIVATE: Final = frozenset({"code", "host"})  # of a sidecar: a folder and a computer may name a person


@dataclass
class Bundled:
    """The outcome of adding records to a bundle: how many it holds, and what became of those of the source.

    extended: trials of which the bundle held a shorter run. completed: those of which it held no machine.
    unwanted: records of trials that were not requested.
    refused: why a record was left out, a line each. bytes: the size of the file.
    """

    records: int = 0
    added: int = 0
    extended: int = 0
    completed: int = 0
    known: int = 0
    unwanted: int = 0
    refused: list[str] = field(default_factory=list)
    bytes: int = 0

    @property
    def from_source(self) -> int:
        """The number of requested records that the source held, damaged ones included."""
        return self.added + self.extended + self.completed + self.known + len(self.refused)


def add_to_bundle(path: Path, source: RecordStore, wanted: Container[str] | None = None) -> Bundled:
    """Add the records of a results folder to a bundle, which is created where it is missing.

    Bundles are made to be shared, so host names and folders of the machines are left out.

    Args:
        path: The bundle. It is replaced as a whole, or left as it is where nothing is added.
        source: Where the records are.
        wanted: The ids of the records to add; all, where it is None.

    Raises:
        CorruptFileError: The bundle is there, and is damaged or not a bundle.
        UserError: It cannot be read or written.

    """
    what = f"another `psa bundle` is at work on {path}"
    with locked(path.with_name(f".{path.name}.lock"), _PATIENCE_SECONDS, what=what, hint="Wait for its end"):
        remove_leftovers(path.parent, f"{path.name}.")  # of a killed one
        bundle = read_bundle(path) or Bundle(path, ())
        rows, outcome = {row.id: _without_private(row) for row in bundle}, Bundled()
        for stored in source.scan():
            if isinstance(stored, CorruptFileError):
                outcome.refused.append(str(stored))
            elif wanted is not None and stored.record["id"] not in wanted:
                outcome.unwanted += 1
            else:
                _add(stored, bundle, rows, outcome)
        outcome.records = len(rows)
        if list(rows.values()) != list(bundle):
            write_atomically(path, encode_bundle(rows.values()))
        outcome.bytes = path.stat().st_size if rows else 0
    return outcome


def _add(stored: StoredRecord, bundle: Bundle, rows: dict[str, BundleRow], outcome: Bundled) -> None:
    """Put a record into the rows, unless the bundle has it already or has one that differs."""
    name = str(stored.record["id"])
    try:
        before = bundled_record(bundle, name)
        known = before is not None and longer(before, stored) is before
    except CorruptFileError as damage:
        outcome.refused.append(str(damage))
        return
    row = BundleRow(name, str(stored.record["digest"]), stored.content, _shareable(stored.machine()))
    if known and (rows[name].machine is not None or row.machine is None or row.record != rows[name].record):
        outcome.known += 1
        return
    outcome.added += before is None
    outcome.completed += known
    outcome.extended += before is not None and not known
    rows[name] = row


def _without_private(row: BundleRow) -> BundleRow:
    """Return a row of a bundle of an earlier version without private facts; a damaged sidecar stays."""
    machine = sound_sidecar(row.machine)
    return row if machine is None else replace(row, machine=_shareable(machine))


def _shareable(machine: tuple[bytes, Record] | None) -> bytes | None:
    """Return the bytes of a sidecar without facts that are private, from its bytes and its content."""
    if machine is None or not _PRIVATE & machine[1].keys():
        return machine and machine[0]
    return encode_record({name: fact for name, fact in machine[1].items() if name not in _PRIVATE})
