"""A check that plugins and own data have not changed since the stored trials that use them were trained.

The version of a plugin and the content of the data are parts of the identity of a trial, so a change makes
other trials. Without this check a sweep would train them from the start beside those that are stored, and
nothing would say why.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from psa.core.errors import UserError
from psa.core.formatting import join_names, pluralize
from psa.core.plugins.registry import changed_plugin
from psa.core.stored_files import read_stored
from psa.specs.trial import Trial
from psa.storage import layout
from psa.storage.store import Store
from psa.storage.trial_state import decode_state

logger = logging.getLogger(__name__)


def check_versions(trials: Sequence[Trial], store: Store) -> None:
    """Raise PluginError for a trial of which another version is stored: it differs in a plugin's version.

    Warn of trials that are stored with other data: data are corrected more often than code. Warn likewise of
    trials that failed and have no record: their plugin was mended. Trials without plugins and own data are
    not looked up, and neither are those that are stored themselves.
    """
    _warn_of_other_data([trial for trial in trials if trial.data.content is not None], store)
    mended = set[str]()
    for trial in trials:
        for other in _of_other_plugins(trial, store):
            if store.failure(other) is None or store.read(other) is not None:
                mine, theirs = next(
                    pair for pair in zip(trial.plugins, other.plugins, strict=True) if pair[0] != pair[1]
                )
                raise changed_plugin(f"{other.id}: {mine.kind} {mine.name!r}", theirs.id, mine.id)
            mended.add(trial.id)  # once, however many earlier versions failed
    if mended:
        logger.warning(
            "%s of this grid failed with another version of a plugin, and %s trained from the start",
            pluralize(len(mended), "trial"),
            "is" if len(mended) == 1 else "are",
        )


def _of_other_plugins(trial: Trial, store: Store) -> Iterator[Trial]:
    """Yield the stored trials that differ in versions of plugins alone; none if the trial is stored."""
    if not trial.plugins or trial.id in (stored := set(_stored_ids(trial, store))):
        return
    same = _without_versions(trial)
    others = (_read(name, store) for name in sorted(stored))
    yield from (other for other in others if other is not None and _without_versions(other) == same)


def _warn_of_other_data(trials: Sequence[Trial], store: Store) -> None:
    wanted = {trial.id for trial in trials}
    found = {trial.id: other for trial in trials if (other := _of_other_data(trial, wanted, store))}
    if found:
        logger.warning(
            "%s of this grid %s stored with other data (%s). With those of the grid (%s) they are other "
            "trials, which are trained; what is stored is kept",
            pluralize(len(found), "trial"),
            "is" if len(found) == 1 else "are",
            join_names(sorted({other.data.name for other in found.values()})),
            join_names(sorted({trial.data.name for trial in trials if trial.id in found})),
        )


def _of_other_data(trial: Trial, wanted: Collection[str], store: Store) -> Trial | None:
    """Return a stored trial that differs in the content of its data alone, None if the trial is stored."""
    stored = set(_stored_ids(trial, store))
    if trial.id in stored:
        return None
    others = (_read(name, store) for name in sorted(stored - set(wanted)))
    same = _without_content(trial)
    return next(
        (
            other
            for other in others
            if other is not None
            and other.data.content != trial.data.content
            and _without_content(other) == same
        ),
        None,
    )


def _without_content(trial: Trial) -> dict[str, Any]:
    body = trial.model_dump(mode="json")
    of_content = ("name", "content", "train_size", "val_size", "test_size")  # sizes follow from the samples
    return body | {"data": {key: value for key, value in body["data"].items() if key not in of_content}}


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
        yield from bundle.with_prefix(f"{folder}/{begin}")


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
