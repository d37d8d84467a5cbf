"""Bundles: one Parquet file that holds many records, each as the bytes that its own file would have.

A row per record, sorted by id, with four columns: `id`, `digest`, `record` (canonical JSON, see
psa.storage.records.record) and `machine` (the sidecar of the record without host name and code folder,
missing where it has none). Equal rows give equal bytes with one version of pyarrow. The file's metadata hold
the SHA-256 of all rows, so that a bundle is either sound or damaged as a whole; each record carries a digest
of its own besides.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from psa.core.errors import CorruptFileError, UserError
from psa.core.stored_files import most_bytes, read_stored
from psa.storage.layout import is_like_record

if TYPE_CHECKING:  # pyarrow takes a moment to import, and most results folders hold no bundle
    import pyarrow as pa

BUNDLE_SUFFIX: Final = ".parquet"
BUNDLE_FORMAT: Final = 1
_COLUMNS: Final = ("id", "digest", "record", "machine")
_METADATA: Final = "psa.bundle"
_LEVEL: Final = 9  # of zstd: 19 saves 17 % and takes twenty times as long
_MISSING: Final = b"-"  # a value that is missing, in the digest
_ROWS: Final = 2_000  # of a row group, which is compressed as one
_PAGE_BYTES: Final = 2**24
_RESTORE: Final = "Restore it from a copy, or move it away and make it again with `psa bundle`"


def is_bundle_name(name: str) -> bool:
    """Return whether a name is one of a bundle: with the suffix, and not hidden."""
    return name.endswith(BUNDLE_SUFFIX) and not name.startswith(".")


def is_record_file(name: str) -> bool:
    """Return whether a name is that of a record, of what lies beside one, or of a bundle of records."""
    return is_like_record(name) or is_bundle_name(name)


@dataclass(frozen=True)
class BundleRow:
    """A record as its file holds it, and the file beside it."""

    id: str
    digest: str
    record: bytes
    machine: bytes | None


class Bundle:
    """The rows of a bundle, by id."""

    def __init__(self, path: Path, rows: Iterable[BundleRow]) -> None:
        self.path = path
        self._rows = {row.id: row for row in rows}
        self._ids = sorted(self._rows)

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self._rows)

    def __iter__(self) -> Iterator[BundleRow]:
        """Yield the rows in the order of their ids."""
        return iter(self._rows.values())

    def get(self, trial: str) -> BundleRow | None:
        """Return the row of a trial, by id."""
        return self._rows.get(trial)

    def with_prefix(self, start: str) -> list[str]:
        """Return the ids that begin like this, sorted. The time depends on their number alone."""
        first = last = bisect.bisect_left(self._ids, start)
        while last < len(self._ids) and self._ids[last].startswith(start):
            last += 1
        return self._ids[first:last]

    def where(self, trial: str) -> str:
        """Return how messages name the record of a trial (by id) in this bundle."""
        return f"{self.path}, record {trial}"


def encode_bundle(rows: Iterable[BundleRow]) -> bytes:
    """Return the file of some rows, in any order. Raises ValueError where two have one id."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    ordered = sorted(rows, key=lambda row: row.id)
    if len({row.id for row in ordered}) != len(ordered):
        raise ValueError("the ids of the rows must differ")
    facts = {"format": BUNDLE_FORMAT, "records": len(ordered), "sha256": _digest(ordered)}
    schema = _schema()
    columns = [
        pa.array([getattr(row, name) for row in ordered], schema.field(name).type) for name in _COLUMNS
    ]
    out = io.BytesIO()
    with pq.ParquetWriter(
        out,
        schema,
        data_page_size=_PAGE_BYTES,
        compression="zstd",
        compression_level=_LEVEL,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
        store_schema=False,
    ) as writer:
        writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=_ROWS)
        writer.add_key_value_metadata({_METADATA: json.dumps(facts, sort_keys=True)})
    return out.getvalue()


def read_bundle(path: Path) -> Bundle | None:
    """Return the bundle in a file, None where there is none.

    Raises CorruptFileError for a file that is damaged or not a bundle, UserError where a newer psa wrote it
    or it cannot be read.
    """
    content = read_stored(path)
    if content is None:
        return None
    try:
        table, facts = _table(content, path)
        rows = [
            BundleRow(*values) for values in zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True)
        ]
    except MemoryError:  # of pyarrow, too: the bundle may be sound
        raise
    except _arrow_errors() as error:
        raise CorruptFileError(
            f"{path} is damaged, or not a Parquet file ({type(error).__name__})", _RESTORE
        ) from error
    _check_rows(rows, facts, path)
    return Bundle(path, rows)


def _table(content: bytes, path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """Return the columns of a bundle and what its metadata say. Raises CorruptFileError, UserError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Read by this thread alone, and not through a Python object: pyarrow's own threads would still need the
    # interpreter where the program ends soon after, and abort it (1 of 40 short commands, pyarrow 25).
    file = pq.ParquetFile(pa.BufferReader(content), page_checksum_verification=True, pre_buffer=False)
    facts = _facts(file.metadata.metadata, file.schema_arrow.names, path)
    groups = (file.metadata.row_group(number) for number in range(file.metadata.num_row_groups))
    size = sum(group.total_byte_size for group in groups)
    if not 0 <= size <= most_bytes():
        raise CorruptFileError(
            f"{path} must hold at most {most_bytes():,} bytes of records, got {size:,}", _RESTORE
        )
    table = file.read(use_threads=False)
    if not table.schema.equals(_schema()):
        raise _foreign(path, table.schema.names)
    return table, facts


def _facts(metadata: dict[bytes, bytes] | None, names: Sequence[str], path: Path) -> dict[str, Any]:
    """Return what the metadata say of the rows. Raises CorruptFileError, UserError for a newer format."""
    text = (metadata or {}).get(_METADATA.encode())
    if text is None:
        raise _foreign(path, names)
    try:
        facts: dict[str, Any] = json.loads(text)
        newer = facts["format"] > BUNDLE_FORMAT
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFileError(f"{path} is damaged (its metadata)", _RESTORE) from error
    if newer:
        raise UserError(f"{path} was written by a newer psa", "Update psa")
    if tuple(names) != _COLUMNS:
        raise _foreign(path, names)
    return facts


def _foreign(path: Path, names: Sequence[str]) -> CorruptFileError:
    return CorruptFileError(
        f"{path} must be a bundle of records (columns {', '.join(_COLUMNS)}), got a Parquet file with "
        f"columns {', '.join(names)}",
        "Move it out of the folder of records",
    )


def _check_rows(rows: Sequence[BundleRow], facts: dict[str, Any], path: Path) -> None:
    """Raise CorruptFileError unless the rows are those that were written: each id once, in order."""
    for before, after in itertools.pairwise(rows):
        if before.id == after.id:
            raise CorruptFileError(f"{path} must hold each record once, got {after.id} twice", _RESTORE)
        if before.id > after.id:
            raise CorruptFileError(f"{path} must be sorted by id, got {after.id} after {before.id}", _RESTORE)
    if (len(rows), _digest(rows)) != (facts.get("records"), facts.get("sha256")):
        raise CorruptFileError(f"{path} is damaged (the digest of its records differs)", _RESTORE)


def _digest(rows: Iterable[BundleRow]) -> str:
    """Return the SHA-256 of all columns of all rows, each value preceded by its length."""
    whole = hashlib.sha256()
    for row in rows:
        for value in (row.id.encode(), row.digest.encode(), row.record, row.machine):
            whole.update(_MISSING if value is None else b"%d:" % len(value))
            whole.update(value or b"")
    return whole.hexdigest()


def _schema() -> pa.Schema:
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("digest", pa.string(), nullable=False),
            pa.field("record", pa.binary(), nullable=False),
            pa.field("machine", pa.binary()),
        ]
    )


def _arrow_errors() -> tuple[type[Exception], ...]:
    """Return the errors of reading bytes that are not a sound Parquet file."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, UnicodeDecodeError)
