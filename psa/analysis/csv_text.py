"""A frame as CSV, the bytes that pandas writes, with every distinct value formatted once.

pandas formats every cell, most of which repeat the settings of a trial: 14 s of processor time for the
588,000 loops of the published grid, where this takes 4 to 5 (2026-11, beside other work). Arrow's own writer
takes 1.5 s, but writes 0.0 as 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

_ROWS: Final = 1 << 16  # written at once: the text of all cells would take gigabytes


def csv_bytes(frame: pd.DataFrame) -> bytes:
    """Return `frame.to_csv(index=False)` in UTF-8, for columns of numbers, booleans and text."""
    return b"".join(csv_parts(frame))


def csv_parts(frame: pd.DataFrame) -> Iterator[bytes]:
    """Yield `csv_bytes` in pieces: the rows of the published grid are 150 MB of text."""
    yield ",".join(_cell(name) for name in frame.columns).encode() + b"\n"
    for start in range(0, len(frame), _ROWS):
        rows = frame.iloc[start : start + _ROWS]
        *columns, last = (_column(rows[name]) for name in frame.columns)
        ended = pc.binary_join_element_wise(last, "", "\n")
        yield _text_of(pc.binary_join_element_wise(*columns, ended, ","))


def _text_of(lines: pa.StringArray) -> bytes:
    """Return strings one after the other: Arrow stores them like that."""
    _, offsets, text = lines.buffers()
    places = np.frombuffer(offsets, np.int32)[lines.offset : lines.offset + len(lines) + 1]
    return bytes(memoryview(text)[places[0] : places[-1]])


def _column(values: pd.Series[Any]) -> pa.Array:
    """Return the cells of a column as text; a missing value is empty."""
    encoded = pa.array(values, from_pandas=True)
    if isinstance(encoded, pa.ChunkedArray):  # text of a frame that was concatenated
        encoded = encoded.combine_chunks()
    if not pa.types.is_dictionary(encoded.type):
        encoded = encoded.dictionary_encode()
    write = str if pa.types.is_primitive(encoded.type.value_type) else _cell  # numbers need no quotes
    texts = list(map(write, encoded.dictionary.to_pylist()))
    places = encoded.indices.cast(pa.int32()).fill_null(len(texts))
    return pa.array([*texts, ""], pa.string()).take(places)


def _cell(value: object) -> str:
    """Return a value as a cell, in quotes where it holds a separator."""
    text = str(value)
    return '"' + text.replace('"', '""') + '"' if any(mark in text for mark in ',"\r\n') else text
