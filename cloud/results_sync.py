"""Download results that were trained elsewhere: from a folder with models/ and results/ into a store."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from psa.core.errors import CorruptFileError, UserError
from psa.core.files import write_atomically
from psa.specs.trial import Pack, Trial
from psa.storage.array_file import sha256_of
from psa.storage.checkpoint import CheckpointFile, arrays_beside, loops_in_header
from psa.storage.layout import BESIDE
from psa.storage.records.record import Record, decode_record
from psa.storage.records.trial_record import decode_trial_record
from psa.storage.store import STATE_NAME, Store
from psa.storage.trial_state import TrialState, decode_state

logger = logging.getLogger(__name__)

_PREVIOUS: Final = CheckpointFile(Path(STATE_NAME)).previous.name
START_BYTES: Final = 2**16  # read of a state before all of it: the header, unless its history is very long
_PART: Final = re.compile(r"[a-z0-9_.+-]{1,200}")
ReadFile = Callable[[str], bytes | None]


class FileTree(Protocol):
    """Files by name in a remote tree: cloud.object_store.ObjectStore or cloud.aws.bucket.Bucket."""

    @property
    def uri(self) -> str:
        """The address of the tree."""

    def read(self, name: str) -> bytes | None:
        """Return the content of a file, or None if it does not exist."""

    def read_start(self, name: str, count: int) -> bytes | None:
        """Return the first `count` bytes of a file, or None if it does not exist."""

    def tree(self, name: str) -> Iterator[str]:
        """Yield every file below a folder, by its name relative to that folder."""


def sync_results(
    storage: FileTree, folder: str, store: Store, only: Collection[str] | None = None
) -> dict[str, str]:
    """Download states and records that are further trained than the local ones; records come last.

    only: ids of the trials to download. Every file is checked by its digest; a damaged one is logged, and its
    trial is trained again. Returns why some records, by trial id, contradict the local ones.
    """
    files = list(storage.tree(folder))

    def read(name: str) -> bytes | None:
        return storage.read(f"{folder}/{name}")

    def read_start(name: str) -> bytes | None:
        return storage.read_start(f"{folder}/{name}", START_BYTES)

    return _taken(files, read, storage.uri, store, only, read_start)


def import_records(
    files: Mapping[str, bytes], where: str, store: Store, only: Collection[str] | None = None
) -> dict[str, str]:
    """Import files in memory, by their names in a root folder, in the same way as sync_results."""
    return _taken(files, files.get, where, store, only)


def pending_trials(store: Store, packs: Iterable[Pack]) -> list[Trial]:
    """Return the trials that are not finished here. A trial with a damaged local record is logged and left
    out: no result from elsewhere could replace it, and it may belong to another sweep.
    """
    surveys = [store.progress(pack.trials, pack.horizon) for pack in packs]
    for survey in surveys:
        for reason in survey.damaged.values():
            _warn(reason)
    return [trial for survey in surveys for trial in survey.pending]


@functools.lru_cache(maxsize=10_000)
def _warn(reason: str) -> None:
    """Log a reason once, however often the record is read."""
    logger.warning("%s; left out", reason)


def _taken(
    names: Collection[str],
    read: ReadFile,
    where: str,
    store: Store,
    only: Collection[str] | None,
    read_start: ReadFile | None = None,
) -> dict[str, str]:
    refused: dict[str, str] = {}
    for name in sorted(names):
        if name.startswith("models/") and name.endswith(f"/{STATE_NAME}"):
            trial = name.removeprefix("models/").removesuffix(f"/{STATE_NAME}")
            if _is_wanted(trial, only) and not (read_start and _is_known(trial, read_start(name), store)):
                _take_state(trial, names, read, where, store)
    for name in sorted(names):
        if name.startswith("results/") and name.endswith(".json") and not name.endswith(BESIDE):
            trial = name.removeprefix("results/").removesuffix(".json")
            if _is_wanted(trial, only):
                refused |= _take_record(trial, read, where, store)
    return refused


def _is_wanted(trial: str, only: Collection[str] | None) -> bool:
    """Return whether `trial` is a valid trial id, which becomes a part of paths, and is one of `only`."""
    parts = trial.split("/")
    plain = all(_PART.fullmatch(part) and part not in (".", "..") for part in parts)
    return plain and (only is None or trial in only)


def _take_arrays(read: ReadFile, folder: str, trial: Trial, files: Mapping[str, Any], store: Store) -> None:
    """Download the intact arrays that a state or a record names and that the store does not have yet."""
    for name, entry in files.items():
        here = store.state_file(trial).arrays_path(name)
        if sha256_of(here) == entry["sha256"]:
            continue
        there = arrays_beside(Path(folder) / STATE_NAME, name).as_posix()
        content = read(there)
        if content is None:
            continue
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            logger.warning("%s was not downloaded: its digest differs", there)
            continue
        write_atomically(here, content)


def _take_state(trial: str, names: Collection[str], read: ReadFile, where: str, store: Store) -> None:
    """Download the current generation of a state, or the previous one if the current one is damaged."""
    for name in (f"models/{trial}/{STATE_NAME}", f"models/{trial}/{_PREVIOUS}"):
        if name not in names:
            continue
        state = _state(trial, read, name, where)
        if state is None:
            continue
        file = store.state_file(state.trial)
        if state.loops > _usable_loops(file):
            # the arrays first, then the state that names them
            _take_arrays(read, f"models/{trial}", state.trial, state.files, store)
            file.save(state)
        return


def _is_known(trial: str, start: bytes | None, store: Store) -> bool:
    """Return whether the local state is as far trained as a remote one. start: the beginning of that."""
    loops = loops_in_header(io.BytesIO(start or b""))
    return loops is not None and loops <= _usable_loops(CheckpointFile(store.models / trial / STATE_NAME))


def _usable_loops(file: CheckpointFile) -> int:
    """Return the loops of a local state, 0 if there is none. One that is damaged is replaced, whatever loop
    it had reached: -1 for it, or the loops of its earlier version.
    """
    try:
        state = file.load()
    except CorruptFileError:
        return -1
    return 0 if state is None else state.loops


def _state(trial: str, read: ReadFile, name: str, where: str) -> TrialState | None:
    content = _content(read, name, where)
    if content is None:
        return None
    with _heeded():
        state = decode_state(content, f"{where}: {name}")
        if state.trial.id == trial:
            return state
        raise CorruptFileError(f"{where}: {name} holds another trial, {state.trial.id}")
    return None


def _take_record(trial: str, read: ReadFile, where: str, store: Store) -> dict[str, str]:
    arrived = _arrived(trial, read, where)
    if arrived is None:
        return {}
    record, sidecar = arrived
    found = Trial.model_validate(record["spec"])
    try:
        if not store.done(found, record["loops"]):
            _take_arrays(read, f"models/{trial}", found, record.get("files", {}), store)
            store.write(found, record, sidecar)
    except UserError as disagreement:
        logger.warning("%s", disagreement.message)
        return {trial: disagreement.message}
    return {}


def _arrived(trial: str, read: ReadFile, where: str) -> tuple[Record, Record] | None:
    """Return a record and its machine sidecar, or None if either is missing or damaged."""
    record, beside = f"results/{trial}.json", f"results/{trial}.machine.json"
    content = _content(read, record, where)
    sidecar = None if content is None else _content(read, beside, where)
    if content is None or sidecar is None:
        return None
    with _heeded():
        return (
            _record_of(trial, content, f"{where}: {record}"),
            decode_record(sidecar, f"{where}: {beside}"),
        )
    return None


def _record_of(trial: str, content: bytes, name: str) -> Record:
    """Parse the record of a trial. Raises UserError, also if it belongs to another trial."""
    record = decode_trial_record(content, name)
    found = Trial.model_validate(record["spec"])
    if (found.id, found.digest) != (trial, record["digest"]):
        raise CorruptFileError(f"{name} holds another trial, {found.id}")
    return record


def _content(read: ReadFile, name: str, where: str) -> bytes | None:
    """Return the content of a listed file, or None if it has been removed since. Errors here are errors of
    the storage, not of the file, so they are raised and nothing is trained again.
    """
    content = read(name)
    if content is None:
        logger.warning("%s: %s is missing; training resumes from the local state", where, name)
    return content


@contextlib.contextmanager
def _heeded() -> Iterator[None]:
    """Log a damaged file, whose trial is trained again, and continue with the rest."""
    try:
        yield
    except UserError as damage:
        logger.warning("%s; training resumes from the local state", damage.message)
