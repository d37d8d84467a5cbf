"""What was trained elsewhere comes home: a folder of a storage with models/ and results/ into a store."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from cloud.storage import Storage
from psa.errors import DamagedFile
from psa.estimate import loops_of
from psa.records import decode_record
from psa.state import decode
from psa.store import STATE_NAME, Store
from psa.trial import Trial

logger = logging.getLogger(__name__)


def bring_home(storage: Storage, folder: str, store: Store) -> None:
    """Take over what has got further there than here; records last, as everywhere.

    Every file is checked by its digest. One that is damaged is named and left: it is trained again.
    """
    files = list(storage.tree(folder))
    for file in files:
        if file.endswith(f"/{STATE_NAME}"):
            with _heeded():
                _take_state(storage, f"{folder}/{file}", store)
    for file in files:
        if file.startswith("results/") and not file.endswith(".machine.json"):
            with _heeded():
                _take_record(storage, f"{folder}/{file}", store)


def _take_state(storage: Storage, name: str, store: Store) -> None:
    content = storage.read(name) or b""
    state = decode(content, f"{storage.uri}: {name}")
    file = store.state_file(state.trial)
    if state.loops > loops_of(file.path):
        file.load()
        file.save(state)


def _take_record(storage: Storage, name: str, store: Store) -> None:
    record, sidecar = (
        decode_record(storage.read(each) or b"", f"{storage.uri}: {each}")
        for each in (name, f"{name.removesuffix('.json')}.machine.json")
    )
    trial = Trial.model_validate(record["spec"])
    if not store.done(trial, record["loops"]):
        store.write(trial, record, sidecar)


@contextlib.contextmanager
def _heeded() -> Iterator[None]:
    """What has not arrived whole is trained again; that is said, and no reason to leave the rest there."""
    try:
        yield
    except DamagedFile as damage:
        logger.warning("%s; it is trained again from what is here", damage.what)
