"""The only reader of records for reports: records in, one tidy DataFrame out.

One row per trial and meta-loop, in a fixed order. Values of the trial are repeated in each of its rows. A
trial that is expected but missing has one row without a loop, so that missing trials can be counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pandas as pd

from psa.analysis.csv_text import csv_parts
from psa.analysis.frame_columns import SPEC_FIELDS, TRIAL_FIELDS, spec_columns
from psa.analysis.frame_schema import as_arrays, build_frame
from psa.analysis.probe_frame import build_probe_frame, probe_parts
from psa.core.errors import UserError
from psa.core.files import write_atomically, write_parts
from psa.core.formatting import join_names
from psa.core.parsing import as_names
from psa.specs.base import canonical_json
from psa.specs.trial import Trial
from psa.storage.records.divergence import diverged, diverged_loops
from psa.storage.records.record import Record, reaches
from psa.storage.records.record_store import StoredRecord
from psa.storage.store import Store

# What the holes of a study are known to share with the other trials of their network.
_OF_NETWORK: Final = (
    "study", "kind", "family", "arch", "activation", "simplex", "temperature", "init", "parameters",
)  # fmt: skip


def load_records_frame(
    store: Store | Path | str,
    names: Sequence[str] = (),
    expected: Iterable[Trial] = (),
    horizons: Mapping[str, int] | None = None,
    observe: Callable[[StoredRecord], object] = lambda stored: None,
) -> pd.DataFrame:
    """Return the stored records of the studies called `names` (of all, if none is named) as one frame.

    store: a store, or the path of its results folder. expected: trials that should be there, those of a grid;
    where none is given, every arch, mode and seed that occurs in a study is expected in all combinations, and
    of trials that differ in nothing but what was observed of them the longest is taken, of equally long ones
    that with the most probes. horizons: meta-loops that a trial (by id) must have to be done; with fewer it
    is `unfinished`, and its numbers are left out, as those of one that `diverged` (see
    psa.storage.records.divergence). observe: called with each record that is read. Raises UserError without a
    record, without any of those expected, and where those are of another study.

    Example:
        The rows of a results folder, one per loop:

        >>> from psa import load_records_frame
        >>> rows = load_records_frame("results")  # doctest: +SKIP

    """
    store = store if isinstance(store, Store) else Store("models", store)
    wanted = {trial.id: trial for trial in expected}
    names = as_names(names, "names")
    _check_names(names, {trial.study for trial in wanted.values()})
    # only the row of each record is kept: thousands of records as JSON is read would take much memory
    read = []
    for stored in store.records.sound(names):
        observe(stored)
        record = stored.record
        row = _row_of(record, (horizons or {}).get(record["id"], 0))
        read.append((record["spec"], record["loops"], row))
    rows = [row for _, _, row in read if row["id"] in wanted] if wanted else _fullest(read)
    if read and not rows:
        raise UserError(
            f"{store.results} holds {len(read):,} records, and none of them is of this grid",
            "Name the grid they were made by with --grid, or leave it out",
        )
    there = {row["id"] for row in rows}
    rows += [_absent(store, trial) for trial in wanted.values() if trial.id not in there]
    if not rows:
        raise UserError(
            f"{store.results.absolute()} holds no record{' of ' + ', '.join(names) if names else ''}",
            "Run `psa sweep GRID` first, or name the folder with --results-dir",
        )
    if not wanted:
        rows += list(_holes(store, rows))
    return build_frame(rows)


def _check_names(names: Sequence[str], expected: set[str]) -> None:
    """Raise UserError where trials are expected of a study that is not read: all would count as damaged."""
    if names and not expected <= set(names):
        grids = join_names(sorted(expected))
        raise UserError(
            f"the study must be {grids}, the name of the grid, got {join_names(names)}",
            "Write that name, or all",
        )


def load_frames(
    store: Store,
    names: Sequence[str] = (),
    expected: Iterable[Trial] = (),
    horizons: Mapping[str, int] | None = None,
    observe: Callable[[StoredRecord], object] = lambda stored: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return load_records_frame, and load_probe_frame of the same records, which are read once."""
    parts: list[dict[str, Any]] = []

    def keep(stored: StoredRecord) -> None:
        parts.extend(probe_parts(stored.record))
        observe(stored)

    frame = load_records_frame(store, names, expected, horizons, keep)
    return frame, build_probe_frame(parts)


def stored_records(store: Store, trials: Iterable[str]) -> Iterator[tuple[Record, Record]]:
    """Yield the records of some trials (by id) that a frame of records names, each with its sidecar (empty
    where there is none), for values that no column holds: parts of a memory, files, lists of a probe.
    """
    for stored in map(store.records.locate, trials):
        if stored is not None:
            machine = stored.machine()
            yield stored.record, {} if machine is None else machine[1]


def _fullest(read: Sequence[tuple[dict[str, Any], int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the rows without those of which another one has the same numbers and more of them: of more loops
    or, of as many, more probes. read: the spec, the loops and the row of each record.
    """
    same = [canonical_json(_without_observation(spec)) for spec, _, _ in read]
    size = [(loops, len(spec.get("probes", ()))) for spec, loops, _ in read]
    most: dict[str, tuple[int, int]] = {}
    for key, each in zip(same, size, strict=True):
        most[key] = max(most.get(key, each), each)
    return [row for (_, _, row), key, each in zip(read, same, size, strict=True) if each == most[key]]


def _without_observation(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that a trial's numbers depend on. In the memory study the vote of embeddings is an
    arm of its own, as it replaces the network's answers; it is not just another probe of the arm without it.
    """
    votes = spec.get("kind") == "memory" and "embedding_knn" in spec.get("probes", ())
    return {key: value for key, value in spec.items() if key != "probes"} | {"votes": votes}


def _without_results(row: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Return the settings of a trial without results: the mean of longer and shorter trials would be of
    neither, and a trial that diverged has none.
    """
    kept = ["id", "source", "parameters", "diverged_loops", "arm"]
    kept += [field.name for field in SPEC_FIELDS]
    return {**{name: row[name] for name in kept}, "status": status}


def write_frame(frame: pd.DataFrame, folder: Path) -> list[Path]:
    """Store the frame as Parquet (types kept) and CSV. Return their paths."""
    paths = [folder / "rows.parquet", folder / "rows.csv"]
    write_atomically(paths[0], frame.to_parquet(index=False))
    write_parts(paths[1], csv_parts(frame))
    return paths


def _row_of(record: Record, horizon: int) -> dict[str, Any]:
    """Return the row of a record: its settings, and its results if they may be used in means."""
    row = _with_results(record)
    if not reaches(record, horizon):
        return _without_results(row, "unfinished")
    return _without_results(row, "diverged") if diverged(record) else row


def _with_results(record: Record) -> dict[str, Any]:
    """Return the trial columns of a record and its history."""
    samples, finals = record["samples"], record["finals"]
    stored = {field.name: field.read(record) for field in TRIAL_FIELDS if field.path and not field.is_setting}
    return {
        **spec_columns(record["spec"]),
        **stored,
        "status": "done",
        "diverged_loops": len(diverged_loops(record["history"])),
        "bounty": 100 * finals["bounty"]["correct"] / samples["validation"],
        "test": 100 * finals["test"]["correct"] / samples["test"],
        "zero_r": 100 * samples["zero_r_validation"] / samples["validation"],
        "source": "psa",
        "history": as_arrays(record["history"]),
    }


def _absent(store: Store, trial: Trial) -> dict[str, Any]:
    """Return the row of a trial without a record: its settings, and why there is no result."""
    parameters = trial.shape.parameters
    return {
        **spec_columns(trial.model_dump(mode="json")),
        "id": trial.id,
        "status": store.records.absence_reason(trial.id),
        "parameters": parameters,
        "source": "psa",
    }


def _holes(store: Store, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield a row for each arch, mode and seed of a study and family that has no sound record."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["arm"] == row["mode"]:  # which of the others a grid has, only the grid knows
            groups.setdefault((row["study"], row["family"]), []).append(row)
    for group in groups.values():
        there = {(_network(row), row["mode"], row["seed"]) for row in group}
        networks = {_network(row): row for row in group}
        modes, seeds = ({row[key] for row in group} for key in ("mode", "seed"))
        for network, mode, seed in itertools.product(networks, sorted(modes), sorted(seeds)):
            if (network, mode, seed) not in there:
                place = f"{network}/{mode}/s{seed:02d}"
                yield {
                    **{name: networks[network][name] for name in _OF_NETWORK},
                    "id": place,
                    "mode": mode,
                    "seed": seed,
                    "status": store.records.absence_reason(f"{place}-"),
                    "source": "psa",
                }


def _network(row: Mapping[str, Any]) -> str:
    """Return the study and the network in a trial's path."""
    return str(row["id"]).rsplit("/", 2)[0]
