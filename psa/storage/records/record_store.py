"""The records of a results folder: loose files, one per record, and bundles of many beside them.

A trial may have a record in several places, where a longer run has extended one that is bundled: the longest
counts. Two of them that differ otherwise count as damaged.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from psa.core.errors import CorruptFileError, UserError
from psa.core.files import unreadable
from psa.core.stored_files import Listing, dangling, dangling_part, files_below, read_stored
from psa.specs.trial import Trial
from psa.storage import layout
from psa.storage.layout import FAILURE_SUFFIX, SIDECAR_SUFFIX
from psa.storage.records.bundle import Bundle, is_bundle_name, read_bundle
from psa.storage.records.record import Record, decode_record, difference
from psa.storage.records.trial_record import decode_trial_record

logger = logging.getLogger(__name__)

_MAKE_AGAIN: Final = "Make the bundle again with `psa bundle`"
_COMPARE: Final = "Compare the two (`psa verify` checks each), and remove the wrong one"


@dataclass(frozen=True)
class StoredRecord:
    """A record, its bytes, how messages name the place where it is stored, and what its sidecar holds there:
    the bytes, or the file with them.
    """

    place: str
    content: bytes
    record: Record
    sidecar: Path | bytes | None

    def machine(self) -> tuple[bytes, Record] | None:
        """Return its sidecar: see sound_sidecar."""
        return sound_sidecar(self.sidecar)


def sound_sidecar(sidecar: Path | bytes | None) -> tuple[bytes, Record] | None:
    """Return the bytes of a sidecar and their content, None where there is none or it is damaged."""
    try:
        content = read_stored(sidecar) if isinstance(sidecar, Path) else sidecar
        return None if content is None else (content, decode_record(content, ""))
    except UserError:
        return None


class RecordStore:
    """Every record of a results folder. `root` may also be a bundle itself; then it holds no loose record."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._bundles: dict[Path, tuple[tuple[int, ...], Bundle]] = {}
        self._warned: set[str] = set()  # warnings, each of which is given once

    def path(self, trial: str) -> Path:
        """Return where the loose record of a trial (by id) lies."""
        return self.root / f"{trial}.json"

    def read(self, trial: Trial) -> Record | None:
        """Return a trial's record, None where it has none. Raises CorruptFileError, also for another
        trial's.
        """
        stored = self.locate(trial.id, trial)
        return None if stored is None else stored.record

    def locate(self, name: str, trial: Trial | None = None) -> StoredRecord | None:
        """Return the record of an id and where it is stored, None where there is none.

        Raises CorruptFileError, also where it is not the record of `trial`.
        """
        return self._longest(name, self.bundles(), trial)

    def reader(self) -> Callable[[Trial], Record | None]:
        """Return `read` for many trials: each folder is listed once, so that no file is tried in vain."""
        bundles, loose = self.bundles(), _Names(self.root)

        def read(trial: Trial) -> Record | None:
            if f"{trial.id}.json" in loose or any(bundle.get(trial.id) for bundle in bundles):
                stored = self._longest(trial.id, bundles, trial)
                return None if stored is None else stored.record
            return None

        return read

    def all(self, studies: Sequence[str] = ()) -> Iterator[Record]:
        """Yield the records that `sound` finds, without where they are stored."""
        return (stored.record for stored in self.sound(studies))

    def sound(self, studies: Sequence[str] = ()) -> Iterator[StoredRecord]:
        """Yield every sound record of some studies (of all, if none is named) in the order of their paths.

        One that is damaged or lies elsewhere is named in a warning and left out: its trial counts as missing.
        """
        for stored in self.scan(studies):
            if isinstance(stored, StoredRecord):
                yield stored
            else:
                self.warn_once(str(stored))

    def scan(self, studies: Sequence[str] = ()) -> Iterator[StoredRecord | CorruptFileError]:
        """Yield the records that `sound` yields, and an error in place of each that it leaves out."""
        bundles = list[Bundle]()
        for path in self.bundle_paths():
            try:
                bundles += filter(None, [self._bundle(path)])
            except CorruptFileError as damage:
                yield CorruptFileError(f"{damage.message}: none of its records counts", damage.hint)
        ids = {str(path.relative_to(self.root))[: -len(".json")] for path in self.loose_paths(studies)}
        ids |= {row.id for bundle in bundles for row in bundle if not studies or _study(row.id) in studies}
        for name in sorted(ids, key=lambda name: f"{name}.json".split("/")):
            try:
                stored = self._longest(name, bundles)
            except CorruptFileError as damage:
                yield damage
            else:
                if stored is not None:  # not removed meanwhile
                    yield stored

    def sidecar(self, trial: str) -> Record | None:
        """Return the sidecar of the record of a trial (by id): the machine, the time its pack took, and
        other things that differ from run to run. None where there is none, or it is damaged. A record that is
        damaged keeps its sidecar.
        """
        try:
            stored = self.locate(trial)
            machine = None if stored is None else stored.machine()
        except UserError:
            machine = sound_sidecar(self.root / f"{trial}{SIDECAR_SUFFIX}")
        return None if machine is None else machine[1]

    def absence_reason(self, start: str) -> Literal["missing", "failed", "damaged"]:
        """Return what there is of a trial without a sound record, by its id or the beginning of it."""
        found = self.root / start
        names = [path.name for path in found.parent.glob(f"{found.name}*.json")]
        if any(layout.is_record_name(name) for name in names):
            return "damaged"
        with contextlib.suppress(CorruptFileError):
            if any(bundle.with_prefix(start) for bundle in self.bundles()):
                return "damaged"
        return "failed" if any(name.endswith(FAILURE_SUFFIX) for name in names) else "missing"

    def bundle_paths(self) -> list[Path]:
        """Return the bundles of the folder: the files with their suffix in it, not in folders below it."""
        if is_bundle_name(self.root.name) and not self.root.is_dir():
            return [self.root]
        try:
            return sorted(path for path in self.root.iterdir() if is_bundle_name(path.name))
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise unreadable(error, f"the folder {self.root}") from error

    def bundles(self) -> list[Bundle]:
        """Return the bundles of the folder, each read again only where its file has changed.

        Raises CorruptFileError: without knowing what it holds, all of it would be trained again.
        """
        found = [self._bundle(path) for path in self.bundle_paths()]
        return [bundle for bundle in found if bundle is not None]

    def _bundle(self, path: Path) -> Bundle | None:
        try:
            facts = path.stat()
        except OSError:  # read_bundle says why, where it is more than removed meanwhile
            return read_bundle(path)
        version = (facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns)
        if path not in self._bundles or self._bundles[path][0] != version:
            bundle = read_bundle(path)
            if bundle is None:
                return None
            self._bundles[path] = version, bundle
        return self._bundles[path][1]

    def _longest(
        self, name: str, bundles: Sequence[Bundle], trial: Trial | None = None
    ) -> StoredRecord | None:
        """Return the longest record of an id, None where there is none.

        Raises CorruptFileError where one is damaged, is of another trial of the same id, or differs from
        another one in more than its length.
        """
        found = [self.loose(name), *(bundled_record(bundle, name) for bundle in bundles)]
        there = [stored for stored in found if stored is not None]
        for stored in there:
            held = stored.record["id"], stored.record["digest"]
            if trial is not None:
                layout.check_digest(stored.place, held, trial, "--results-dir")
        return functools.reduce(longer, there) if there else None

    def loose(self, name: str) -> StoredRecord | None:
        """Return the loose record of an id, None where there is none. Raises CorruptFileError."""
        path = self.path(name)
        content = read_stored(path)
        if content is None:
            return None
        record = decode_trial_record(content, str(path))
        layout.check_record(path, self.root, record["id"])
        return StoredRecord(str(path), content, record, self.root / f"{name}{SIDECAR_SUFFIX}")

    def loose_paths(self, studies: Sequence[str] = ()) -> list[Path]:
        """Return the paths of loose records of some studies (all, if none is named), in a fixed order.

        Files like records that lie elsewhere, and folders that cannot be read, are named in a warning.
        """
        listing = self._like_records(studies)
        places = [path for path in listing.files if layout.is_record_place(path, self.root)]
        self._warn_of(listing, set(places))
        return places

    def _like_records(self, studies: Sequence[str]) -> Listing:
        """List the files like records in the folders of some studies, and in folders that are of no study."""
        found = Listing()
        for folder in layout.searched(self.root, studies):
            part = files_below(folder, layout.is_copy_or_record)
            found.files += part.files
            found.faults += part.faults
            found.repeated += part.repeated
        return found

    def _warn_of(self, listing: Listing, places: set[Path]) -> None:
        strays = [path for path in listing.files if path not in places]
        strays = [path for path in strays if layout.is_stray(path, self.root)]
        lines = [*listing.faults, *listing.repeated]
        lines += [layout.strays_line(strays, self.root)] if strays else []
        for line in lines:
            self.warn_once(line)

    def warn_once(self, line: str) -> None:
        """Log a warning, however often the folders are read."""
        if line not in self._warned:
            logger.warning("%s", line)
        self._warned.add(line)


def bundled_record(bundle: Bundle, name: str) -> StoredRecord | None:
    """Return the record that a bundle holds of an id, None where it holds none. Raises CorruptFileError."""
    row, where = bundle.get(name), bundle.where(name)
    if row is None:
        return None
    record = decode_trial_record(row.record, where)
    if (record["id"], record["digest"]) != (row.id, row.digest):
        raise CorruptFileError(f"{where} must be of that trial, got a record of {record['id']}", _MAKE_AGAIN)
    return StoredRecord(where, row.record, record, row.machine)


def longer(one: StoredRecord, other: StoredRecord) -> StoredRecord:
    """Return the longer of two records of one id, the first of equally long ones.

    Raises CorruptFileError where they are not of one run, shorter and longer.
    """
    short, long = sorted((one, other), key=lambda each: int(each.record["loops"]))
    key = difference(short.record, long.record)
    if key is not None:
        raise CorruptFileError(
            f"{short.place} differs from the record of the same trial in {long.place} ({key})", _COMPARE
        )
    return long if long.record["loops"] > short.record["loops"] else one


def _study(trial: str) -> str:
    return trial.partition("/")[0]


class _Names:
    """The files in a tree, by relative name; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root, self._names = root, dict[str, frozenset[str]]()

    def __contains__(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(path.name for path in (self.root / folder).iterdir())
            except (FileNotFoundError, NotADirectoryError):
                self._names[folder] = frozenset()
                _check_link(self.root / folder, self.root)
            except OSError as error:
                raise unreadable(error, f"{self.root}/{folder}") from error
        return file in self._names[folder]


def _check_link(folder: Path, root: Path) -> None:
    """Raise UserError where a folder is missing because a link on the way to it leads to nothing."""
    link = dangling_part(folder, root)
    if link is not None:
        raise UserError(dangling(link), "Mount the disk that it is on, or remove the link")
