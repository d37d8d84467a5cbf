"""Arrays that probes store: every NumPy type comes back as it was, or is refused with its name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from psa.core.errors import UserError
from psa.storage.array_file import read_arrays, write_arrays

KINDS = sorted({np.dtype(kind).str for kind in np.typecodes["All"] if np.dtype(kind).itemsize})
STORED = {"|b1", *(f"|{sign}1" for sign in "iu"), *(f"<{sign}{size}" for sign in "iu" for size in (2, 4, 8))}
STORED |= {"<f2", "<f4", "<f8"}


@pytest.mark.parametrize("ranks", range(5))
@pytest.mark.parametrize("kind", [*KINDS, ">f4", ">i8"])
def test_an_array_of_any_type_is_stored_or_refused(kind: str, ranks: int, tmp_path: Path) -> None:
    """Bytes are stored as little-endian ones; nothing is left of a refused file."""
    path, shape = tmp_path / "lkg.mine-3.arrays.safetensors", (2, 3, 1, 2)[:ranks]
    array = np.ones(shape, kind)
    if np.dtype(kind).newbyteorder("<").str not in STORED:
        with pytest.raises(UserError, match=r"lkg\.mine-3\.arrays.*: seen must be a NumPy array"):
            write_arrays(path, {"seen": array}, {})
        assert not path.exists()
        return
    write_arrays(path, {"seen": array, "one": np.zeros(3)}, {})
    found = read_arrays(path).arrays["seen"]
    assert (found.shape, found.dtype) == (shape, np.dtype(kind).newbyteorder("<"))
    assert (found == array).all()


@pytest.mark.parametrize("value", [[1.0, 2.0], 3.0, None, "text"])
def test_what_is_no_array_is_refused(value: object, tmp_path: Path) -> None:
    """The error names the value's type."""
    with pytest.raises(UserError, match=f"seen must be a NumPy array .* got {type(value).__name__}"):
        write_arrays(tmp_path / "a.arrays.safetensors", {"seen": value}, {})  # type: ignore[dict-item]
