"""Check every stored file: its digest, and that its place fits its content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from psa.core.errors import CorruptFileError, UserError
from psa.core.plugins.identity import PluginError
from psa.core.stored_files import files_below, read_stored
from psa.specs.trial import Trial
from psa.storage import array_file, layout
from psa.storage.checkpoint import arrays_beside
from psa.storage.layout import Misplaced
from psa.storage.records.bundle import Bundle, BundleRow, read_bundle
from psa.storage.records.record import decode_record
from psa.storage.records.record_store import RecordStore, StoredRecord, bundled_record, longer
from psa.storage.records.trial_record import decode_trial_record


@dataclass(frozen=True)
class Finding:
    """The result of checking one file. problem is None where it is sound and in its place.

    misplaced: the problem is where it lies, not what it holds. folder: the results or models folder of its
    own that it is in, inside of the one that is checked. bundled: it is a record in a bundle, not a file.
    """

    path: Path
    problem: str | None
    misplaced: bool = False
    folder: Path | None = None
    bundled: bool = False


class Check:
    """One pass over the two folders of a store.

    Arrays must be those that a state or a record names; of those that none names yet (a kill came between
    them and their state) it is only known that they are whole files.
    """

    def __init__(self, models: Path, results: Path) -> None:
        self.models, self.results = models, results
        self._named: dict[Path, set[str]] = {}

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each file (states, records, what lies beside records, bundles, arrays) and for
        each record in a bundle.
        """
        states = files_below(self.models, lambda name: name.endswith(".safetensors"))
        records = files_below(self.results, layout.is_like_record)
        yield from (Finding(self.models, fault) for fault in states.faults)
        yield from (Finding(self.results, fault) for fault in records.faults)
        for path in states.files:
            if layout.is_state(path.name) and not layout.is_set_aside(path.name):
                yield from self._finding(path, self._state)
        for path in records.files:
            yield from self._finding(path, self._record)
        published = self.results / layout.PUBLISHED
        yield from self._bundles(RecordStore(self.results), None)
        yield from self._bundles(RecordStore(published), published)
        for path in states.files:
            if not layout.is_state(path.name):
                yield from self._finding(path, self._arrays)

    def _finding(self, path: Path, check: Callable[[Path], Path | None]) -> Iterator[Finding]:
        """Yield the finding of a file, nothing if it was removed meanwhile."""
        try:
            folder = check(path)
        except FileNotFoundError:
            return
        except Misplaced as error:
            yield Finding(path, str(error), misplaced=True)
        except PluginError:  # not a fault of the file
            raise
        except UserError as error:
            yield Finding(path, error.message)
        else:
            yield Finding(path, None, folder=folder)

    def _bundles(self, store: RecordStore, folder: Path | None) -> Iterator[Finding]:
        """Yield a finding for each bundle of a results folder, and one for each record in it."""
        paths, before = list[Path](), list[Bundle]()
        with contextlib.suppress(UserError):  # a folder that cannot be listed has a finding of its own
            paths = store.bundle_paths()
        for path in paths:
            try:
                bundle = read_bundle(path)
            except UserError as error:
                yield Finding(path, error.message)
                continue
            if bundle is None:  # removed meanwhile
                continue
            yield Finding(path, None, folder=folder)
            for row in bundle:
                yield Finding(path, self._problem(bundle, row, store, before), folder=folder, bundled=True)
            before.append(bundle)

    def _problem(
        self, bundle: Bundle, row: BundleRow, store: RecordStore, before: Sequence[Bundle]
    ) -> str | None:
        """Return the problem of a record in a bundle, None where it is sound and agrees with those of its
        trial elsewhere: its loose record, and `before`, the other bundles.
        """
        try:
            stored = bundled_record(bundle, row.id)
            if row.machine is not None:
                decode_record(row.machine, f"{bundle.where(row.id)}, its machine")
            if stored is not None:
                files = stored.record.get("files", {})
                self._name(self.models / row.id / layout.STATE_NAME, files)
                for other in _others(row.id, store, before):
                    longer(other, stored)
        except UserError as error:
            return error.message
        return None

    def _state(self, path: Path) -> Path | None:
        from psa.storage.trial_state import decode_state

        state = decode_state(_content(path), str(path))
        self._name(path, state.files)
        try:
            layout.check_state(path, self.models, state.trial)
        except Misplaced as error:
            return _own_folder(error, path, self.models, self.models / state.trial.id / path.name)
        return None

    def _record(self, path: Path) -> Path | None:
        content = _content(path)
        if layout.is_beside(path.name):
            decode_record(content, str(path))
            return None
        try:
            record = decode_trial_record(content, str(path))
        except CorruptFileError as damage:
            if layout.is_record_name(path.name):
                raise
            raise Misplaced(
                f"{path} must have the name of a record, such as s00-0a1b2c.json", "Remove it"
            ) from damage
        self._name(self.models / str(record["id"]) / layout.STATE_NAME, record.get("files", {}))
        try:
            layout.check_record(path, self.results, record["id"])
        except Misplaced as error:
            return _own_folder(error, path, self.results, self.results / f"{record['id']}.json")
        return None

    def _arrays(self, path: Path) -> Path | None:
        if not path.exists() and not path.is_symlink():
            raise FileNotFoundError(path)
        facts, digests = array_file.read_arrays(path).facts, self._named.get(path)
        if digests is not None and array_file.sha256_of(path) not in digests:
            raise CorruptFileError(f"{path} is damaged (its SHA-256 is not the recorded one)")
        try:
            trial = Trial.model_validate(facts["spec"])
        except (KeyError, ValidationError):  # not arrays that a trial keeps
            return None
        try:
            layout.check_arrays(path, self.models, trial, str(facts.get("name")))
        except Misplaced as error:
            return _own_folder(error, path, self.models, self.models / trial.id / path.name)
        return None

    def _name(self, state: Path, files: dict[str, Any]) -> None:
        """Note the digests of the arrays beside a state file, whichever generation of it says so."""
        present = state.with_name(f"{state.stem.removesuffix('.previous')}{state.suffix}")
        for name, entry in files.items():
            self._named.setdefault(arrays_beside(present, name), set()).add(entry["sha256"])


def _others(trial: str, store: RecordStore, bundles: Sequence[Bundle]) -> Iterator[StoredRecord]:
    """Yield the sound records of a trial (by id) that are loose or in some bundles.

    A damaged one has a finding of its own.
    """
    with contextlib.suppress(UserError):
        yield from filter(None, [store.loose(trial)])
    for bundle in bundles:
        with contextlib.suppress(UserError):
            yield from filter(None, [bundled_record(bundle, trial)])


def _content(path: Path) -> bytes:
    """Return the content of a file. Raises FileNotFoundError where it was removed meanwhile."""
    content = read_stored(path)
    if content is None:
        raise FileNotFoundError(path)
    return content


def _own_folder(error: Misplaced, path: Path, root: Path, place: Path) -> Path:
    """Return the folder of its own that a misplaced file is in. Raises `error` where there is none."""
    folder = layout.trial_folder(path, root, place)
    if folder is None:
        raise error
    return folder
