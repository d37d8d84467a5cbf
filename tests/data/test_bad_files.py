"""Files of data that are wrong, damaged or hostile: each is one clear line, and nothing in them is run."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from own_data import made, wine_frame, write_wine

from psa.core.errors import UserError
from psa.core.rng import generator
from psa.data.own import content_of, content_of_arrays

SAMPLES, LABELS = made(12, (3,), 2)
ROUNDS = 40  # damaged files of each kind


def saved(path: Path, **arrays: Any) -> str:
    """Write an NPZ file and return its name for a grid."""
    np.savez(path, **arrays)
    return f"file:{path}"


class Armed:
    """An object that would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (self.path,)


WRONG_ARRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "no y": ({"X": SAMPLES}, "must hold the arrays X and y, or X_train, y_train, X_test and y_test, got X"),
    "one axis": ({"X": LABELS, "y": LABELS}, r"X must be \[samples, features\].*got shape \[12\]"),
    "five axes": ({"X": np.zeros((2, 1, 1, 1, 1)), "y": [0, 1]}, r"got shape \[2, 1, 1, 1, 1\]"),
    "no samples": ({"X": np.zeros((0, 3)), "y": []}, r"got shape \[0, 3\]"),
    "one-hot": ({"X": SAMPLES, "y": np.eye(2)[LABELS]}, r"one label per sample, 12, got shape \[12, 2\]"),
    "fewer labels": ({"X": SAMPLES, "y": LABELS[:5]}, r"12, got shape \[5\]"),
    "text in X": ({"X": np.full((12, 3), "a"), "y": LABELS}, "X must hold numbers, got values of type <U1"),
    "complex": ({"X": SAMPLES * 1j, "y": LABELS}, "X must hold numbers, got values of type complex"),
    "NaN": (
        {"X": np.where(SAMPLES[3, 1] == SAMPLES, np.nan, SAMPLES), "y": LABELS},
        "X must be finite, got 1 missing or infinite values in column 1",
    ),
    "infinity": ({"X": np.full((12, 3), np.inf), "y": LABELS}, "36 missing or infinite .* columns 0, 1, 2"),
    "one class": ({"X": SAMPLES, "y": np.zeros(12, int)}, r"y must have 2 to 10,000 classes, got 1 \(0\)"),
    "fractions": ({"X": SAMPLES, "y": LABELS + 0.5}, "y must hold class labels, got numbers such as 0.5"),
    "labels missing": ({"X": SAMPLES, "y": np.full(12, np.nan)}, "a label for each sample, got 12 without"),
    "empty label": ({"X": SAMPLES, "y": np.full(12, " ")}, "must have a label for each sample, got ' '"),
    "dates": ({"X": SAMPLES, "y": np.zeros(12, "M8[s]")}, "hold class labels, got values of type datetime64"),
    "class without a sample": (
        {"X": SAMPLES, "y": LABELS, "classes": np.array(["a", "b", "c"])},
        "classes must be at least two with a sample each, got none of c",
    ),
    "label beyond the classes": (
        {"X": SAMPLES, "y": LABELS * 5, "classes": np.array(["a", "b"])},
        "y must be places among the 2 classes",
    ),
    "equal classes": (
        {"X": SAMPLES, "y": LABELS, "classes": np.array(["a", "a"])}, "classes must differ in name, got a, a",
    ),
    "columns for two": (
        {"X": SAMPLES, "y": LABELS, "columns": np.array(["a", "b"])},
        "columns must be a name for each feature of X, got 2",
    ),
    "unknown split": (
        {"X": SAMPLES, "y": LABELS, "split": np.array(["trian"] * 12)},
        "the split of a sample must be train, validation or test, got 'trian'",
    ),
    "nothing to train on": (
        {"X": SAMPLES, "y": LABELS, "split": np.array(["test"] * 12)}, "split must have samples, got none",
    ),
    "half a split": (
        {"X_train": SAMPLES, "y_train": LABELS, "X_test": SAMPLES}, "y_test must be there beside X_test",
    ),
    "array that is not read": (
        {"X": SAMPLES, "y": LABELS, "weights": LABELS},
        "an NPZ file with X must hold only X, y, split, classes, columns, got weights",
    ),
    "samples beside splits": (
        {"X_train": SAMPLES, "y_train": LABELS, "X": SAMPLES, "y": LABELS},
        "an NPZ file with X_train must hold only X_train, .*, columns, got X, y",
    ),
    "validation under two names": (
        {"X_train": SAMPLES, "y_train": LABELS, "X_val": SAMPLES, "X_valid": SAMPLES},
        "X_validation must be there once, got it under two names",
    ),
    "splits of two shapes": (
        {"X_train": SAMPLES, "y_train": LABELS, "X_test": SAMPLES[:, :2], "y_test": LABELS},
        "all splits must have samples of one shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG_ARRAYS)
def test_arrays_that_cannot_be_trained_on_are_named(what: str, tmp_path: Path) -> None:
    """With the file, what must hold and what is there."""
    arrays, said = WRONG_ARRAYS[what]
    with pytest.raises(UserError, match=said) as error:
        content_of(saved(tmp_path / "x.npz", **arrays))
    assert str(tmp_path / "x.npz") in str(error.value)


WRONG_TEXTS = {
    "a,b\n1,2\n3,4\n": r"be a column of the file, got 'label'. Write file:x.csv\?label=NAME with one of a, b",
    "a,lable\n1,x\n3,y\n": "Did you mean lable?",
    "a,a,label\n1,2,x\n3,4,y\n": "columns must differ in name, got 'a' twice",
    "colour,label\nred,x\nblue,y\n": r"column 'colour' must hold numbers, got 'red'.*\?drop=colour",
    "a,label\n1,x\n,y\n": "X must be finite, got 1 missing or infinite values in column a",
    "a,label\n1,x\n2,\n": "'label' must have a label for each sample, got 1 without",
    "a,label\n1,x\n2,x\n": r"y must have 2 to 10,000 classes, got 1 \(x\)",
    "a,label\n": "must have a line of names and lines of samples, got none",
    "": "must have a line of names and lines of samples, got none",
    "label\nx\ny\n": "a file must have a column beside 'label', got none",
    "a,label\n1,x\n2,y,3\n": "is not a CSV file that can be read .*Expected 2 columns, got 3",
    ",label\n1,x\n2,y\n": "columns must have names of 1 to 200 printable characters, got ''",
}


@pytest.mark.parametrize("text", WRONG_TEXTS)
def test_csv_files_that_cannot_be_trained_on_are_named(text: str, tmp_path: Path) -> None:
    """With the column and the way out."""
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=WRONG_TEXTS[text]):
        content_of(f"file:{path}")


@pytest.mark.parametrize(
    ("notation", "said"),
    [
        ("file:", "dataset must name a file after file:"),
        ("file:~nobody-of-this-name/x.csv", "whose user has no home folder"),
        ("file:nowhere.csv", "dataset nowhere.csv does not exist"),
        ("file:x.xlsx", r"must be a file named \*.npz, \*.csv, \*.parquet"),
        ("file:x.csv?lable=a", "unknown option 'lable'. Did you mean label?"),
        ("file:x.csv?label=", "label must be set once"),
        ("file:x.csv?label=a&label=b", "label must be set once"),
    ],
)
def test_mistakes_in_the_notation_are_named(notation: str, said: str) -> None:
    """Before any file is read."""
    with pytest.raises(UserError, match=said):
        content_of(notation)


def test_pickled_objects_are_refused_and_not_run(tmp_path: Path) -> None:
    """In any array of the file."""
    trap = tmp_path / "trap"
    for name in ("X", "y", "classes", "unused"):
        armed = np.empty(12, object)
        armed[:] = [Armed(trap)] * 12
        where = saved(tmp_path / f"{name}.npz", **{"X": SAMPLES, "y": LABELS} | {name: armed})
        with pytest.raises(UserError, match=f"{name}.npy must hold numbers or texts, got pickled objects"):
            content_of(where)
    (tmp_path / "p.npz").write_bytes(pickle.dumps(Armed(trap)))
    with pytest.raises(UserError, match="is not a NPZ file that can be read"):
        content_of(f"file:{tmp_path / 'p.npz'}")
    assert not trap.exists()


def zipped(path: Path, header: bytes, body: bytes) -> str:
    """Write an NPZ file whose X has that header."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("X.npy", header + body)
    return f"file:{path}"


def test_decompression_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files that would unpack to more than memory is for, and headers that claim what is not there."""
    monkeypatch.setattr("psa.data.npz.MOST_BYTES", 10**6)
    np.savez_compressed(tmp_path / "bomb.npz", X=np.zeros((10**6, 2)), y=np.zeros(10**6))
    assert (tmp_path / "bomb.npz").stat().st_size < 10**5
    with pytest.raises(UserError, match="must hold at most 1,000,000 bytes once unpacked, got 24,000,"):
        content_of(f"file:{tmp_path / 'bomb.npz'}")
    table = pa.table({"a": pa.array(np.zeros(10**6)), "label": pa.array(np.zeros(10**6, np.int64))})
    pq.write_table(table, tmp_path / "bomb.parquet", compression="zstd")
    with pytest.raises(UserError, match="must hold at most 1,000,000 bytes once unpacked, got 24,000,000"):
        content_of(f"file:{tmp_path / 'bomb.parquet'}")
    (tmp_path / "long.csv").write_text("a,label\n" * 200_000)
    with pytest.raises(UserError, match="must have at most 1,000,000 bytes"):
        content_of(f"file:{tmp_path / 'long.csv'}")
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        buffer, {"shape": (10**15, 3), "fortran_order": False, "descr": "<f8"}
    )
    with pytest.raises(UserError, match="has other bytes than its header says"):
        content_of(zipped(tmp_path / "claim.npz", buffer.getvalue(), b"\0" * 96))


def test_columns_of_text_are_not_unpacked(tmp_path: Path) -> None:
    """A Parquet file may hold a long text once and refer to it from every row."""
    rows = 1_000
    frame = pd.DataFrame({"a": np.arange(rows), "t": ["x" * 10**4] * rows, "label": np.arange(rows) % 2})
    frame.to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="column 't' must hold numbers, got string"):
        content_of(f"file:{tmp_path / 'x.parquet'}")
    assert content_of(f"file:{tmp_path / 'x.parquet'}?drop=t").train == rows


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_damaged_files_are_one_line(kind: str, tmp_path: Path) -> None:
    """Bytes cut off, changed, added and made up, 40 files of each kind: read, or refused with a path."""
    whole = write_wine(tmp_path)[kind].read_bytes()
    draws, lines = generator(0, "projection", len(kind)), []
    for number in range(ROUNDS):
        content = bytearray(whole)
        match number % 4:
            case 0:
                content = content[: int(draws.integers(len(content)))]
            case 1:
                for at in draws.integers(len(content), size=20):
                    content[at] = int(draws.integers(256))
            case 2:
                at = int(draws.integers(len(content)))
                content[at:at] = draws.bytes(64)
            case _:
                content = bytearray(draws.bytes(int(draws.integers(3_000))))
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(content)
        try:
            content_of(f"file:{path}?label=grape" if kind != "npz" else f"file:{path}")
        except UserError as error:
            lines.append((path, str(error)))
    assert len(lines) > ROUNDS // 3
    assert all(str(path) in line and "\n" not in line for path, line in lines), lines


def test_data_given_from_python_are_checked_in_the_same_way() -> None:
    """Before a trial is made of them."""
    frame = wine_frame()
    with pytest.raises(UserError, match="data: label must be a column of the data frame, got 'class'"):
        content_of_arrays(frame, "class")
    with pytest.raises(UserError, match="data: X must hold numbers"):
        content_of_arrays([["a"], ["b"]], [0, 1])
    with pytest.raises(UserError, match="label must be given once, got an array and a column"):
        content_of_arrays(frame.rename(columns={"grape": "label"}), np.zeros(178))
    with pytest.raises(UserError, match="split must be one name per sample, 2, got 1"):
        content_of_arrays([[1.0], [2.0]], [0, 1], ["train"])


def test_hints_name_what_has_the_columns(tmp_path: Path) -> None:
    """Options of the notation for a file, arguments of Python for a data frame."""
    frame = wine_frame().assign(note="dry")
    frame.to_csv(tmp_path / "x.csv", index=False)
    for text, hint in (
        ("label=zzz", r"Write file:x\.csv\?label=NAME with one of"),
        ("label=grape&split=zzz", r"Write file:x\.csv\?label=grape&split=NAME with one of"),
        ("label=grape", r"leave it out: file:x\.csv\?label=grape&drop=note"),
    ):
        with pytest.raises(UserError, match=hint):
            content_of(f"file:{tmp_path}/x.csv?{text}")
    wine_frame().assign(**{"height, cm & 5%": "tall"}).to_csv(tmp_path / "x.csv", index=False)
    drop = "label=grape&drop=height%2C cm %26 5%25"
    with pytest.raises(UserError, match=re.escape(f"leave it out: file:x.csv?{drop}")):
        content_of(f"file:{tmp_path}/x.csv?label=grape")
    assert content_of(f"file:{tmp_path}/x.csv?{drop}").shape == (13,)
    for columns, hint in (
        (("zzz",), r"data frame, got 'zzz'\. Write data=\(frame, NAME\) with one of"),
        (("grape", "zzz"), r"got 'zzz'\. Write data=\(frame, 'grape', NAME\) with one of"),
        (("grape",), r"leave it out: frame\.drop\(columns='note'\)"),
    ):
        with pytest.raises(UserError, match=hint):
            content_of_arrays(frame, *columns)
    with pytest.raises(UserError, match=r"data must have samples, got none"):
        content_of_arrays(wine_frame()[:0], "grape")


@pytest.mark.parametrize(
    "uses", ["label=grape&drop=grape", "label=grape&split=grape", "split=ash&drop=ash,hue"]
)
def test_a_column_has_one_use(uses: str, tmp_path: Path) -> None:
    """No option is silently ignored: a second use is refused, and so are columns of an NPZ file."""
    wine_frame().assign(label="x").to_csv(tmp_path / "x.csv", index=False)
    with pytest.raises(UserError, match=r"must be different columns, got '(grape|ash)' for both"):
        content_of(f"file:{tmp_path}/x.csv?{uses}")
    saved(tmp_path / "x.npz", X=np.eye(4), y=[0, 1, 0, 1])
    with pytest.raises(UserError, match="label, split and drop must be left out for an NPZ file"):
        content_of(f"file:{tmp_path}/x.npz?{uses}")


def test_a_split_that_names_only_training_samples_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """The other splits are drawn, as without it: it is probably a mistake, and trials of it are stored."""
    samples, labels = np.arange(8.0)[:, None], [0, 1] * 4
    content_of_arrays(samples, labels, ["train"] * 8)
    assert "data: all samples are named train; validation and test splits are drawn from them" in caplog.text
    caplog.clear()
    content_of_arrays(samples, labels, ["train"] * 7 + ["test"])
    assert not caplog.text
