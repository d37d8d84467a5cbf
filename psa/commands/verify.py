"""`psa verify`: check the digest of every stored state and record."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from psa.console import console
from psa.store import Store


def verify(
    *,
    model_dir: Annotated[
        Path, Parameter(env_var="SAGEMAKER_MODEL_DIR", help="Where states are kept.")
    ] = Path("models"),
    results_dir: Annotated[Path, Parameter(help="Where records are kept.")] = Path("results"),
) -> int:
    """Check every state and record file against its digest. Exit code 2 if one is damaged.

    Example: psa verify
    """
    out = console()
    checked = damaged = 0
    for finding in Store(model_dir, results_dir).verify():
        checked += 1
        if finding.problem is not None:
            damaged += 1
            out.print(f"DAMAGED {finding.problem}", markup=False, soft_wrap=True)
    out.print(f"{checked:,} files checked in {model_dir} and {results_dir}, {damaged:,} damaged", markup=False)
    return 2 if damaged else 0
