"""What was trained elsewhere comes home: a folder of a storage with models/ and results/ into a store."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from psa.arrayfile import sha256_of
from psa.errors import DamagedFile
from psa.estimate import loops_of
from psa.files import write_atomically
from psa.records import decode_record
from psa.state import decode
from psa.statefile import arrays_beside
from psa.store import STATE_NAME, Store
from psa.trial import Trial

logger = logging.getLogger(__name__)

_BESIDE: Final = (".machine.json", ".failed.json")


class Tree(Protocol):
    """Files by name, somewhere else: cloud.storage.Storage or cloud.bucket.Bucket."""

    @property
    def uri(self) -> str:
        """Its address."""

    def read(self, name: str) -> bytes | None:
        """The content of a file, None where there is none."""

    def tree(self, name: str) -> Iterator[str]:
        """Every file below a folder, by its name relative to that folder."""


def bring_home(storage: Tree, folder: str, store: Store) -> None:
    """Take over what has got further there than here; records last, as everywhere.

    Every file is checked by its digest. One that is damaged is named and left: it is trained again.
    """
    files = list(storage.tree(folder))
    for file in files:
        if file.endswith(f"/{STATE_NAME}"):
            with _heeded():
                _take_state(storage, f"{folder}/{file}", store)
    for file in files:
        if _is_record(file):
            with _heeded():
                _take_record(lambda each: storage.read(f"{folder}/{each}"), file, storage.uri, store)


def _take_state(storage: Tree, name: str, store: Store) -> None:
    content = storage.read(name) or b""
    state = decode(content, f"{storage.uri}: {name}")
    file = store.state_file(state.trial)
    if state.loops > loops_of(file.path):
        # first what the state names, then the state
        _take_arrays(storage.read, str(PurePosixPath(name).parent), state.trial, state.files, store)
        file.load()
        file.save(state)


def _take_arrays(
    read: Callable[[str], bytes | None], folder: str, trial: Trial, files: Mapping[str, Any], store: Store
) -> None:
    """The arrays that a state or a record names, where they are there, are not here and are whole."""
    for name, entry in files.items():
        here = store.state_file(trial).arrays_path(name)
        if sha256_of(here) == entry["sha256"]:
            continue
        there = arrays_beside(Path(folder) / STATE_NAME, name).as_posix()
        content = read(there)
        if content is None:
            continue
        if hashlib.sha256(content).hexdigest() != entry["sha256"]:
            logger.warning("%s has not arrived whole and is left there", there)
            continue
        write_atomically(here, content)


def records_from(files: Mapping[str, bytes], where: str, store: Store) -> None:
    """Take over the records among some files, by their names in a root folder."""
    for name in sorted(files):
        if _is_record(name):
            with _heeded():
                _take_record(files.get, name, where, store)


def _is_record(name: str) -> bool:
    return name.startswith("results/") and name.endswith(".json") and not name.endswith(_BESIDE)


def _take_record(read: Callable[[str], bytes | None], name: str, where: str, store: Store) -> None:
    record, sidecar = (
        decode_record(read(each) or b"", f"{where}: {each}")
        for each in (name, f"{name.removesuffix('.json')}.machine.json")
    )
    trial = Trial.model_validate(record["spec"])
    if not store.done(trial, record["loops"]):
        _take_arrays(read, f"models/{trial.id}", trial, record.get("files", {}), store)
        store.write(trial, record, sidecar)


@contextlib.contextmanager
def _heeded() -> Iterator[None]:
    """What has not arrived whole is trained again; that is said, and no reason to leave the rest there."""
    try:
        yield
    except DamagedFile as damage:
        logger.warning("%s; it is trained again from what is here", damage.what)
