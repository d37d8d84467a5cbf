"""`psa bundle`: put many records into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from psa.cli.console import console, print_line
from psa.cli.options import Only, Override, declared_grid
from psa.cli.output.activity import activity
from psa.core.errors import UserError
from psa.core.files import check_writable
from psa.core.formatting import format_bytes, pluralize
from psa.storage.records.bundle import BUNDLE_SUFFIX, is_bundle_name
from psa.storage.records.bundling import Bundled, add_to_bundle
from psa.storage.records.record_store import RecordStore


def bundle(
    file: Annotated[Path, Parameter(help=f"Bundle to write or to extend: NAME{BUNDLE_SUFFIX}.")],
    /,
    *overrides: Override,
    source: Annotated[Path, Parameter(name="--from", help="Folder or bundle with the records to add.")],
    grid: Annotated[Path | None, Parameter(help="Add only the records of this grid.")] = None,
    only: Only = "",
) -> int:
    """Pack records into one Parquet file.

    A bundle can be committed and shared. All commands read a bundle in a results folder like the records in
    it, and read-only commands also accept a bundle as --results-dir. Records are copied, not moved; their
    sidecars are stored without the host name and the folder of the code. With --grid, and the overrides of
    the sweep, only the records of these trials are added.

    A record that differs from that of the same trial in the bundle is refused; a longer run of a trial
    replaces a shorter one. Exit code 2 if a record was left out because it is damaged or differs.

    Example: psa bundle mine.parquet --from results
    """
    _check(file, source)
    declared = declared_grid(grid, overrides, only)
    wanted = None if declared is None else {trial.id for trial in declared.trials}
    check_writable(file.parent)
    out = console()
    with activity(out, f"reading {source}"):
        outcome = add_to_bundle(file, RecordStore(source), wanted)
    for line in outcome.refused:
        print_line(out, f"LEFT OUT {line}")
    if not outcome.from_source:
        raise UserError(
            f"{source} must hold records{' of this grid' if grid else ''} to put into {file}, got none",
            "Run `psa sweep GRID` first, or name another folder with --from",
        )
    print_line(out, f"{file}: {_summary(outcome)}")
    return 2 if outcome.refused else 0


def _check(file: Path, source: Path) -> None:
    """Raise UserError for a name that is not of a bundle, and for a source that does not exist."""
    if not is_bundle_name(file.name):
        raise UserError(
            f"a bundle must be called NAME{BUNDLE_SUFFIX}, got {file.name}", "Give it such a name"
        )
    if not source.is_dir() and not (is_bundle_name(source.name) and source.exists()):
        what = f"the file {source}" if source.exists() else source
        raise UserError(f"--from must be a folder or a bundle, got {what}", "Name one that exists")


def _summary(outcome: Bundled) -> str:
    """Return a line such as `600 records, 0.7 MB: 40 added, 560 there already`."""
    parts = {
        "added": outcome.added,
        "extended by a longer run": outcome.extended,
        "completed by their machine": outcome.completed,
        "there already": outcome.known,
        "not of this grid": outcome.unwanted,
        "left out": len(outcome.refused),
    }
    shown = [f"{count:,} {what}" for what, count in parts.items() if count]
    return f"{pluralize(outcome.records, 'record')}, {format_bytes(outcome.bytes)}: {', '.join(shown)}"
