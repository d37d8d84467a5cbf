"""`psa verify`: check the digest of every stored state and record."""

from __future__ import annotations

from pathlib import Path

from psa.commands.options import ModelDir, ResultsDir
from psa.console import console
from psa.store import Store


def verify(
    *,
    model_dir: ModelDir = Path("models"),
    results_dir: ResultsDir = Path("results"),
) -> int:
    """Check every state and record file against its digest. Exit code 2 if one is damaged.

    Example: psa verify
    """
    out = console()
    store = Store(model_dir, results_dir)
    checked = damaged = 0
    for finding in store.verify():
        checked += 1
        if finding.problem is not None:
            damaged += 1
            out.print(f"DAMAGED {finding.problem}", markup=False, soft_wrap=True)
    for path in store.set_aside_paths():
        out.print(f"set aside as damaged earlier, of no use to psa: {path}", markup=False, soft_wrap=True)
    out.print(
        f"Files checked in {model_dir} and {results_dir}: {checked:,}, damaged: {damaged:,}",
        markup=False,
        soft_wrap=True,
    )
    return 2 if damaged else 0
