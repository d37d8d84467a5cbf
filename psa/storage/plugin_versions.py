"""A check that a plugin has not changed since the stored trials that use it were trained.

The version of a plugin is part of the identity of a trial, so a changed plugin makes other trials. Without
this check a sweep would train them from the start beside those that are stored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from psa.core.errors import UserError
from psa.core.plugins.registry import changed_plugin
from psa.core.stored_files import read_stored
from psa.specs.trial import Trial
from psa.storage import layout
from psa.storage.store import Store
from psa.storage.trial_state import decode_state


def check_versions(trials: Iterable[Trial], store: Store) -> None:
    """Raise PluginError for a trial of which another version is stored: it differs in a plugin's version.

    Trials without plugins are not looked up, and neither are those that are stored themselves.
    """
    for trial in trials:
        if not trial.plugins or trial.id in (stored := set(_stored_ids(trial, store))):
            continue
        for name in sorted(stored):
            other = _read(name, store)
            if other is not None and _without_versions(other) == _without_versions(trial):
                for mine, theirs in zip(trial.plugins, other.plugins, strict=True):
                    if mine != theirs:
                        raise changed_plugin(f"{name}: {mine.kind} {mine.name!r}", theirs.id, mine.id)


def _stored_ids(trial: Trial, store: Store) -> Iterator[str]:
    """Yield the ids of stored trials of the same study, network, mode and seed."""
    folder, _, name = trial.id.rpartition("/")
    begin = name.rpartition("-")[0] + "-"
    for path in (store.models / folder).glob(f"{begin}*"):
        yield f"{folder}/{path.name}"
    for path in (store.results / folder).glob(f"{begin}*.json"):
        if layout.is_record_name(path.name):
            yield f"{folder}/{path.stem}"
    for bundle in store.records.bundles():
        if bundle.has_prefix(f"{folder}/{begin}"):
            yield from (row.id for row in bundle if row.id.startswith(f"{folder}/{begin}"))


def _read(name: str, store: Store) -> Trial | None:
    """Return the stored trial of an id, None where it cannot be read: what reads it later says why."""
    try:
        stored = store.records.locate(name)
        if stored is not None:
            return Trial.model_validate(stored.record["spec"])
        path = store.models / name / layout.STATE_NAME
        content = read_stored(path)
        return None if content is None else decode_state(content, str(path)).trial
    except UserError:
        return None


def _without_versions(trial: Trial) -> dict[str, Any]:
    body = trial.model_dump(mode="json")
    return {**body, "plugins": [{**use, "version": ""} for use in body["plugins"]]} if trial.plugins else body
