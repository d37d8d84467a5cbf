"""Files of data sets of one's own: NPZ, CSV and Parquet, read into tables, however they were made.

Nothing in a file is run or unpickled, and nothing is unpacked before its declared size is known to be
bounded. Every fault of a file is one UserError that begins with its path.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from psa.core.errors import CorruptFileError, UserError, one_line
from psa.core.parsing import nearest
from psa.core.stored_files import read_stored
from psa.data.npz import check_columns, check_size, most_numbers, npz_table, split_numbers
from psa.data.table import AnyArray, SampleTable, checked_table

SUFFIXES: Final = (".npz", ".csv", ".parquet")
_TEXTS: Final = ("string", "large_string")  # types of pyarrow
_NO_NUMBER: Final = re.compile(
    r"column #([0-9]+): (?:Row #[0-9]+: )?CSV conversion error to double: invalid value ('.{0,60})"
)
_DECIMAL: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?")
_COUNTED_AS_MISSING: Final = ["", "nan", "NaN", "NA", "N/A", "null", "NULL", "None", "-nan", "-NaN", "#N/A"]


@dataclass(frozen=True)
class ReadOptions:
    """Options of reading a file.

    label: the column of the labels. split: the column that names the split of each row (train, validation or
    test), "" for none. drop: columns that are left out. source: what has the columns, a file or a data frame.
    """

    label: str = "label"
    split: str = ""
    drop: tuple[str, ...] = ()
    source: Literal["file", "data frame"] = "file"

    def named(self, option: str, name: str, path: str) -> str:
        """Return how the name of a column is written as an option, beside those that are given."""
        if self.source == "file":
            given = {
                "label": [self.label] * (self.label != "label"),
                "split": [self.split],
                "drop": self.drop,
            }
            given[option] = [*self.drop, name] if option == "drop" else [name]
            shown = {key: ",".join(map(_escaped, names)) for key, names in given.items()}
            return (
                f"file:{Path(path).name}?{'&'.join(f'{key}={text}' for key, text in shown.items() if text)}"
            )
        if option == "drop":
            return f"frame.drop(columns={name!r})"
        return f"data=(frame, {name})" if option == "label" else f"data=(frame, {self.label!r}, {name})"


def _escaped(name: str) -> str:
    """Return the name of a column without the signs that separate names and options."""
    return name.replace("%", "%25").replace(",", "%2C").replace("&", "%26")


def read_table(path: Path, options: ReadOptions) -> SampleTable:
    """Read a file by its suffix. Raises UserError and CorruptFileError."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"dataset {path} must be a file named {', '.join(f'*{suffix}' for suffix in SUFFIXES)}",
            "Convert it, or give its arrays to Experiment(data=(X, y))",
        )
    content = read_stored(path, most_numbers())
    if content is None:
        raise UserError(
            f"dataset {path} does not exist", "Paths in a grid are relative to the folder of the grid"
        )
    try:
        return reader(content, options, str(path))
    except UserError:
        raise
    except (MemoryError, RecursionError) as error:
        raise UserError(f"{path}: does not fit into memory", "Use a part of it") from error
    except _FAULTS as error:
        kind = path.suffix.lower().removeprefix(".").upper().replace("PARQUET", "Parquet")
        reason = one_line(str(error))[:200] or type(error).__name__
        raise CorruptFileError(
            f"{path} is not a {kind} file that can be read ({reason})", "Write it again"
        ) from error


# What zipfile, numpy, pandas and pyarrow raise for bytes that are not theirs. ArrowException is one of them.
_FAULTS: Final = (
    ValueError, OSError, EOFError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError,
    zipfile.BadZipFile, zlib.error, csv.Error,
)  # fmt: skip


def _from_npz(content: bytes, options: ReadOptions, where: str) -> SampleTable:
    """Read an NPZ file, whose arrays have names of their own. Raises UserError for options of columns."""
    if options != ReadOptions():
        raise UserError(
            f"{where}: label, split and drop must be left out for an NPZ file, which has no columns",
            "Its arrays are named X, y and split",
        )
    return npz_table(content, where)


def _from_csv(content: bytes, options: ReadOptions, where: str) -> SampleTable:
    """Read a CSV file with a header; labels are read as texts, everything else must be numbers.

    With pyarrow, which rounds decimal numbers to the nearest float64 in every version.
    """
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    columns = next(csv.reader(io.TextIOWrapper(io.BytesIO(content), "utf-8-sig", newline="")), [])
    if not columns:
        raise UserError(f"{where} must have a line of names and lines of samples, got none", "Write it again")
    kept = _kept_columns(columns, options, where)
    text = [name for name in (options.label, options.split) if name]
    convert = arrow_csv.ConvertOptions(
        column_types=dict.fromkeys(kept, pa.float64()) | dict.fromkeys(text, pa.string()),
        include_columns=[*kept, *dict.fromkeys(text)],
        null_values=_COUNTED_AS_MISSING,
        strings_can_be_null=False,
    )
    try:
        table = arrow_csv.read_csv(
            io.BytesIO(content),
            arrow_csv.ReadOptions(use_threads=False, block_size=max(1 << 20, min(len(content) + 1, 1 << 30))),
            arrow_csv.ParseOptions(newlines_in_values=True),
            convert,
        )
    except pa.ArrowInvalid as error:
        if wrong := _NO_NUMBER.search(str(error)):
            raise _not_numbers(where, columns[int(wrong[1])], wrong[2], options) from None
        raise
    return frame_table(table.to_pandas(), replace(options, drop=()), where)


def _from_parquet(content: bytes, options: ReadOptions, where: str) -> SampleTable:
    """Read a Parquet file. Columns of text other than label and split are refused before any is unpacked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = pq.ParquetFile(
        pa.BufferReader(content), thrift_string_size_limit=2**24, thrift_container_size_limit=2**20
    )
    schema = file.schema_arrow
    kept = _kept_columns(list(schema.names), options, where)
    check_size(8 * file.metadata.num_rows * (len(kept) + 2), where)
    for name in kept:
        kind = schema.field(name).type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise _not_numbers(where, name, str(kind).removeprefix("large_"), options)
    wanted = [*kept, *(name for name in (options.label, options.split) if name in schema.names)]
    text = [name for name in wanted if str(schema.field(name).type) in _TEXTS]
    reader = pq.ParquetFile(pa.BufferReader(content), read_dictionary=text)
    frame = reader.read(columns=wanted, use_threads=False).to_pandas()
    return frame_table(frame, replace(options, drop=()), where)


def _kept_columns(columns: Sequence[str], options: ReadOptions, where: str) -> list[str]:
    """Return the columns that are features, in their order. Raises UserError."""
    if len(set(columns)) < len(columns):
        double = next(name for name in columns if columns.count(name) > 1)
        raise UserError(f"{where}: columns must differ in name, got {double!r} twice", "Rename one")
    check_columns(tuple(columns), where)
    for what, name in (
        ("label", options.label),
        ("split", options.split),
        *(("drop", one) for one in options.drop),
    ):
        if name and name not in columns:
            near = nearest(name, columns)
            shown = ", ".join(columns[:8]) + ", ..." * (len(columns) > 8)
            raise UserError(
                f"{where}: {what} must be a column of the {options.source}, got {name!r}",
                f"Did you mean {near}?"
                if near
                else f"Write {options.named(what, 'NAME', where)} with one of {shown}",
            )
    _check_apart(options, where)
    kept = [name for name in columns if name not in {options.label, options.split, *options.drop}]
    if not kept:
        raise UserError(
            f"{where}: a {options.source} must have a column beside {options.label!r}, got none",
            "Add features",
        )
    return kept


def _check_apart(options: ReadOptions, where: str) -> None:
    """Raise UserError for a column with two uses: one of them would be ignored."""
    uses = [("label", options.label), ("split", options.split), *(("drop", name) for name in options.drop)]
    for place, (what, name) in enumerate(uses):
        for other, same in uses[:place]:
            if name and name == same and what != other:
                raise UserError(
                    f"{where}: {other} and {what} must be different columns, got {name!r} for both",
                    f"Leave it out of {what}",
                )


def _not_numbers(where: str, column: str, found: str, options: ReadOptions) -> UserError:
    return UserError(
        f"{where}: column {column!r} must hold numbers, got {found}",
        f"Encode it as numbers, or leave it out: {options.named('drop', column, where)}",
    )


def frame_table(frame: Any, options: ReadOptions, where: str) -> SampleTable:
    """Return the table of a pandas data frame: its columns but label, split and dropped ones are features.

    Raises UserError.
    """
    import pandas as pd

    kept = _kept_columns([str(name) for name in frame.columns], options, where)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    if not len(frame):
        lines = "a line of names and lines of " * (options.source == "file")
        raise UserError(f"{where} must have {lines}samples, got none", "Add samples")
    for name in kept:
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            words = frame[name].dropna()
            found = repr(str(words.iloc[0]))[:60] if len(words) else "no value at all"
            raise _not_numbers(where, name, found, options)
    features = frame[kept]
    single = all(kind == np.float32 for kind in features.dtypes)
    samples = features.to_numpy(np.float32 if single else np.float64, na_value=np.nan)
    split = frame[options.split].astype(str).to_numpy() if options.split else None
    labels = _frame_labels(frame[options.label], where)
    parts = split_numbers(split, where)
    return checked_table(samples, labels, where, columns=tuple(kept), parts=parts)


def _frame_labels(column: Any, where: str) -> AnyArray:
    """Return the labels of a column. Numbers with a decimal point that were read as texts from CSV become
    numbers, as they are in Parquet: pandas writes class 1 as 1.0 into a column that lacked a label once.
    """
    import pandas as pd

    gone = int((column.isna() | (column.astype(str).str.strip() == "")).sum())
    if gone:
        raise UserError(
            f"{where}: {column.name!r} must have a label for each sample, got {gone:,} without", "Fill it in"
        )
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
        return np.asarray(column.to_numpy())
    texts = column.astype(str).str.strip()
    if texts.str.fullmatch(_DECIMAL).all() and texts.str.contains(".", regex=False).any():
        return np.asarray(texts.astype(np.float64).to_numpy())
    return np.asarray(column.astype(str).to_numpy(), dtype=str)


_READERS: Final[dict[str, Callable[[bytes, ReadOptions, str], SampleTable]]] = {
    ".npz": _from_npz,
    ".csv": _from_csv,
    ".parquet": _from_parquet,
}
