"""`psa verify`: check the digest of every stored state and record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from psa.commands.options import Count, DataDir, ModelDir, ResultsDir
from psa.console import console
from psa.errors import UserError
from psa.machine import Machine
from psa.store import Store


def verify(
    *,
    replay: Annotated[
        Count, Parameter(help="Also train so many stored loops again, drawn at random, and compare the bits.")
    ] = None,
    data_dir: DataDir = Path("dataset"),
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Check every stored file against its digest.

    Exit code 2 if one is damaged or differs.

    Example: psa verify --replay 5
    """
    if not model_dir.exists() and not results_dir.exists():
        raise UserError(
            f"there is neither a folder {model_dir} nor a folder {results_dir}",
            "Name those to check with --model-dir and --results-dir",
        )
    out = console()
    store = Store(model_dir, results_dir)
    checked = damaged = 0
    with out.status("checking") as shown:
        for finding in store.verify():
            checked += 1
            shown.update(f"checking: {checked:,} files")
            if finding.problem is not None:
                damaged += 1
                out.print(f"DAMAGED {finding.problem}", markup=False, soft_wrap=True)
    for path in store.set_aside_paths():
        out.print(f"set aside as damaged earlier, of no use to psa: {path}", markup=False, soft_wrap=True)
    said = f"{checked:,}, damaged: {damaged:,}" if checked else "none, nothing is stored there yet"
    out.print(f"Files checked in {model_dir} and {results_dir}: {said}", markup=False, soft_wrap=True)
    differing = _replayed(store, data_dir, replay, out) if replay else 0
    return 2 if damaged or differing else 0


def _replayed(store: Store, data_dir: Path, count: int, out: Console) -> int:
    """Train stored loops again; how many came out differently."""
    from psa.replay import replay  # torch is imported here, not while options are read

    done = differing = 0
    # bits are promised for one processor thread, so that is what they are compared on
    with out.status("training stored loops again") as shown:
        for found in replay(store, Machine(data_dir, "cpu"), count):
            done += 1
            shown.update(f"training stored loops again: {done:,} of {count:,}")
            if found.difference is not None:
                differing += 1
                said = f"DIFFERS {found.path}, loop {found.loop}: {found.difference}"
                out.print(said, markup=False, soft_wrap=True)
    out.print(f"Loops trained again: {done:,}, differing from what is stored: {differing:,}", markup=False)
    return differing
