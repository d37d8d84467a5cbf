"""Data sets of one's own: how they are written, what trials know of them, and where workers find them.

`file:data/wine.csv?label=class` names a file and how to read it. It is read once, where it is named; trials
hold its `DataContent`, and before they are trained its table is stored in the data folder, under its digest.
Only the digest counts from then on: the file may be moved, renamed or converted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

from psa.core.errors import UserError
from psa.core.files import write_atomically
from psa.core.parsing import check_choice
from psa.core.plugins.identity import plugin_code
from psa.core.plugins.registry import Registry
from psa.core.stored_files import read_stored
from psa.data.npz import split_numbers
from psa.data.readers import ReadOptions, frame_table, read_table
from psa.data.table import SampleTable, as_array, checked_table, decode_table
from psa.specs.base import parse_spec
from psa.specs.data import FILE, DataContent, DataSpec
from psa.specs.data.catalogue import CATALOGUE
from psa.specs.trial import Trial

NOTATION: Final = f"{FILE}PATH?label=COLUMN (NPZ, CSV or Parquet)"
TABLES_FOLDER: Final = "own"  # in the data folder
_DEPTH: Final = 3  # of settings in a grid: stages, a stage, its settings
_OPTIONS: Final = {"label", "split", "drop", "name"}
_HINT: Final = "Write file:PATH?label=COLUMN, with &split=COLUMN, &drop=A,B and &name=NAME as needed"

_tables: dict[str, SampleTable] = {}  # read by this process, by digest


# What a data source returns: samples and labels, and the split of each sample where it gives one.
LoadArrays = Callable[[], Sequence[Any]]
SOURCE: Final = "source:"  # what the name of a data source of a plugin begins with
DATA_SOURCE_PLUGINS: Final = Registry[LoadArrays]("data source", lambda: (), tuple(CATALOGUE))


def register_data_source(name: str, load: LoadArrays) -> None:
    """Register a data source: a function that makes or reads a data set, named `source:NAME` in grids.

    It is called once, where a command reads the name. Trials know its data by their content, as they know
    those of a file: neither the function nor its plugin is needed by workers.

    Args:
        name: The name, of a-z, 0-9, - and _; also that of the data set in tables.
        load: Returns samples and labels, and optionally the split of each sample, as
            `psa.data.own.content_of_arrays` takes them. It must return the same data each time.

    Raises:
        PluginError: The name is invalid, that of a data set of psa, or registered already.

    Example:
        >>> def xor():
        ...     draws = np.random.Generator(np.random.Philox(1)).random((1000, 2))
        ...     return draws, (draws > 0.5).sum(axis=1) % 2
        >>> def register():
        ...     register_data_source("xor", xor)

    """
    DATA_SOURCE_PLUGINS.add(name, load, function=True)


def is_own(text: object) -> bool:
    """Return True for a text that names a file, or a data source of a plugin."""
    return is_file(text) or (isinstance(text, str) and text.startswith(SOURCE))


def _content_of_source(name: str) -> DataContent:
    DATA_SOURCE_PLUGINS.check_choice(name, "dataset")
    return _loaded_from(name, DATA_SOURCE_PLUGINS.get(name))


@functools.lru_cache(maxsize=64)
def _loaded_from(name: str, load: LoadArrays) -> DataContent:
    plugin = DATA_SOURCE_PLUGINS.origin(name)
    where = f"dataset {SOURCE}{name} of plugin {plugin}"
    with plugin_code(f"data source {name!r}", plugin):
        found = tuple(load())
    if len(found) not in (2, 3):
        raise UserError(f"{where} must return samples, labels and optionally splits, got {len(found)} values")
    try:
        return content_of_arrays(
            found[0], found[1], found[2] if len(found) > 2 else None, name.replace("_", "-")
        )
    except UserError as error:
        raise UserError(f"{where}: {error.message}", error.hint) from None


def is_file(text: object) -> bool:
    """Return True for a text that names a file."""
    return isinstance(text, str) and text.startswith(FILE)


def relative_to(folder: Path, text: Any) -> Any:
    """Return a text that names a file relative to `folder` with that path; any other value as it is."""
    if not is_file(text):
        return text
    path, question, options = text.removeprefix(FILE).partition("?")
    return f"{FILE}{folder / _expanded(path)}{question}{options}"


def _expanded(path: str) -> Path:
    """Return a path with `~` replaced by a home folder. Raises UserError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(
            f"dataset must name a file after {FILE}, got {path!r}, whose user has no home folder",
            "Write the path of the folder",
        ) from None


def with_paths(body: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return the content of a grid file with the paths of data sets relative to its folder, as those of files
    of values are.
    """

    def placed(table: Any, depth: int) -> Any:
        if isinstance(table, list) and depth:
            return [placed(each, depth - 1) for each in table]
        if not isinstance(table, dict) or not depth:
            return table
        found = {key: placed(value, depth - 1) for key, value in table.items()}
        if "dataset" in found:
            value = found["dataset"]
            listed = isinstance(value, list)
            paths = [relative_to(folder, each) for each in (value if listed else [value])]
            found["dataset"] = paths if listed else paths[0]
        return found

    return {key: placed(value, _DEPTH) for key, value in body.items()}


def content_of(text: str) -> DataContent:
    """Read the file that `file:PATH?label=COLUMN&split=COLUMN&drop=A,B&name=NAME` names, or the data source
    `source:NAME`, and return its content. In the name of a column %2C is a comma, %26 is & and %25 is %.

    Raises UserError and CorruptFileError.
    """
    if text.startswith(SOURCE):
        return _content_of_source(text.removeprefix(SOURCE))
    path, _, query = text.removeprefix(FILE).partition("?")
    if not path:
        raise UserError(f"dataset must name a file after {FILE}, got {text!r}", _HINT)
    found: dict[str, str] = {}
    for part in query.split("&") if query else ():
        key, equals, value = part.partition("=")
        check_choice(key, _OPTIONS, f"dataset {text}", "option")
        if not equals or not value or key in found:
            raise UserError(f"dataset {text}: {key} must be set once", _HINT)
        found[key] = value
    drop = tuple(unquote(name.strip()) for name in found.get("drop", "").split(",") if name.strip())
    options = ReadOptions(unquote(found.get("label", "label")), unquote(found.get("split", "")), drop)
    place = _expanded(path)
    try:
        facts = place.stat()
        stamp = (facts.st_mtime_ns, facts.st_size)
    except OSError:  # reading it says why
        stamp = (0, 0)
    return _content_of(place, stamp, options, found.get("name", ""))


@functools.lru_cache(maxsize=64)  # a grid asks for its data at each of its points
def _content_of(path: Path, _stamp: tuple[int, int], options: ReadOptions, name: str) -> DataContent:
    return _known(read_table(path, options), name, str(path))


def content_of_arrays(samples: Any, labels: Any, split: Any = None, name: str = "") -> DataContent:
    """Return the content of arrays, or of a data frame, for the trials of this process and its workers.

    Args:
        samples: Numbers [N, features], [N, height, width] or [N, height, width, channels]; or a pandas data
            frame, whose other columns are features.
        labels: One label per sample: whole numbers, booleans or texts; of a data frame also the name of the
            column that holds them.
        split: For each sample train, validation or test, or the name of a column; None to have it drawn.
        name: A name in tables and figures; by default that of its digest.

    Raises:
        UserError: The arrays do not fit each other, or hold values that cannot be trained on.

    """
    where = "data"
    if not hasattr(samples, "columns"):
        parts = None if split is None else split_numbers(as_array(split, "split", where).reshape(-1), where)
        return _known(_copied(checked_table(samples, labels, where, parts=parts)), name, where)
    if labels is None:
        raise UserError(
            f"{where}: y must be labels or the name of a column, got None", "Write data=(frame, NAME)"
        )
    columns = {"label": labels, "split": split}
    given = {key: value for key, value in columns.items() if value is not None and not isinstance(value, str)}
    if taken := [key for key in given if key in samples.columns]:
        raise UserError(
            f"{where}: {taken[0]} must be given once, got an array and a column", "Drop the column"
        )
    label, part = (key if key in given else columns[key] or "" for key in columns)
    frame = _with_columns(samples, given, where)
    table = frame_table(frame, ReadOptions(label, part, source="data frame"), where)
    return _known(_copied(table), name, where)


def _copied(table: SampleTable) -> SampleTable:
    """Return a table that does not share the caller's array, which may change before it is used."""
    return replace(table, samples=table.samples.copy())


def _with_columns(frame: Any, given: Mapping[str, Any], where: str) -> Any:
    """Return a data frame with arrays as further columns. Raises UserError."""
    if not hasattr(frame, "assign"):
        raise UserError(
            f"{where}: X must be an array or a pandas data frame, got {type(frame).__name__}", "Convert it"
        )
    arrays = {key: as_array(value, key, where) for key, value in given.items()}
    for key, array in arrays.items():
        if array.shape != (len(frame),):
            shape = list(array.shape)
            raise UserError(f"{where}: {key} must be one value per sample, {len(frame):,}, got shape {shape}")
    return frame.assign(**arrays)


def _known(table: SampleTable, name: str, where: str) -> DataContent:
    content = table.content()
    if name:
        content = parse_spec(DataContent, content.model_dump() | {"name": name}, where)
    _tables[content.sha256] = table
    return content


def table_file(sha256: str) -> str:
    """Return the name of the file of a table, in TABLES_FOLDER."""
    return f"{sha256}.safetensors"


def keep_tables(trials: Iterable[Trial], data_dir: Path) -> None:
    """Store the tables that trials need in the data folder, where their workers read them.

    Raises UserError for one that is neither there nor was read by this process.
    """
    contents = {trial.data.content.sha256: trial.data.content for trial in trials if trial.data.content}
    for sha256, content in contents.items():
        path = data_dir / TABLES_FOLDER / table_file(sha256)
        if not path.exists():
            write_atomically(path, _read_here(content, path).encoded())


def _read_here(content: DataContent, path: Path) -> SampleTable:
    if content.sha256 not in _tables:
        raise UserError(
            f"the data set {content.name} (SHA-256 {content.sha256}) is not in {path.parent}",
            "Run the command with the file it was made of, or copy its file there",
        )
    return _tables[content.sha256]


def own_table(spec: DataSpec, data_dir: Path) -> SampleTable:
    """Return the table of a data set of one's own, from this process or the data folder, digest checked.

    Raises UserError and CorruptFileError.
    """
    content = spec.content
    if content is None:
        raise ValueError(f"{spec.name} is not a data set of one's own")
    path = data_dir / TABLES_FOLDER / table_file(content.sha256)
    stored = None if content.sha256 in _tables else read_stored(path)
    return _read_here(content, path) if stored is None else decode_table(stored, str(path), content.sha256)
