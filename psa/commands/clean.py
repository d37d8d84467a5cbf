"""`clean` and `clean-all`: remove checkpoints, after showing which."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from psa.console import console
from psa.errors import UserError
from psa.files import refusal

DEFAULTS = ("mnist_lkg", "fashion-mnist_lkg")
LOCK_NAME = ".train.lock"
ModelDir = Annotated[
    Path, Parameter(env_var="SAGEMAKER_MODEL_DIR", help="Where checkpoints are kept.")
]
DryRun = Annotated[bool, Parameter(negative="", help="Show what would be removed, and remove nothing.")]


def clean(
    files: Annotated[
        tuple[Path, ...], Parameter(help="Files to remove, of the folder or by path [default: the checkpoint of `train`].")
    ] = (),
    *,
    all: Annotated[bool, Parameter(negative="", help="Everything in the folder, without asking.")] = False,  # noqa: A002 - the option is called --all
    dry_run: DryRun = False,
    yes: Annotated[bool, Parameter(negative="", help="Do not ask.")] = False,
    model_dir: ModelDir = Path("models"),
) -> int:
    """Remove the checkpoint of `train`, the files named, or everything in the folder of checkpoints.

    Example: clean --dry-run
    """
    if all and files:
        raise UserError("--all and named files exclude each other", "Give one of them")
    if all:
        chosen = _everything(model_dir)
    elif files:
        chosen = [_named(file, model_dir) for file in files]
    else:
        chosen = [path for path in _everything(model_dir) if path.name.startswith(DEFAULTS)]
    return _remove(chosen, model_dir, ask=not (all or yes), dry_run=dry_run)


def clean_all(*, dry_run: DryRun = False, model_dir: ModelDir = Path("models")) -> int:
    """Remove every file in the folder of checkpoints.

    Example: clean-all --dry-run
    """
    return _remove(_everything(model_dir), model_dir, ask=False, dry_run=dry_run)


def _everything(folder: Path) -> list[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(path for path in found if path.name != LOCK_NAME)


def _named(file: Path, folder: Path) -> Path:
    """A file as given, or of the folder; with its generations it is removed. Raises UserError."""
    for path in (folder / file, file):
        if path.is_file():
            return path
    raise UserError(f"there is no file {file}, and none in {folder}", "See what there is: clean --all --dry-run")


def _remove(chosen: list[Path], folder: Path, *, ask: bool, dry_run: bool) -> int:
    out = console()
    if not chosen:
        out.print(f"Nothing to remove in {folder}", markup=False)
        return 0
    if len(chosen) > 1 and ask and not dry_run and not _agreed(chosen):
        out.print("Nothing was removed")
        return 0
    table = Table("file", "bytes", "changed", "status")
    for path in chosen:
        facts = path.lstat()
        size, changed = f"{facts.st_size:,}", datetime.fromtimestamp(facts.st_mtime).strftime("%Y-%m-%d %H:%M")
        if not dry_run:
            try:
                path.unlink()
            except OSError as error:
                raise refusal(error, f"cannot remove {path}") from error
        table.add_row(str(path), size, changed, "would be removed" if dry_run else "removed")
    out.print(table)
    _drop_empty_folders(folder, dry_run=dry_run)
    return 0


def _agreed(chosen: list[Path]) -> bool:
    """Ask before more than one file goes. Without a terminal nobody can answer, which is a no."""
    names = ", ".join(path.name for path in chosen[:5]) + (", ..." if len(chosen) > 5 else "")
    if not sys.stdin.isatty():
        raise UserError(f"{len(chosen)} files would be removed ({names})", "Say so with --yes")
    answer = console().input(f"Remove {len(chosen)} files ({names})? [y/N] ", markup=False)
    return answer.strip().lower() in ("y", "yes")


def _drop_empty_folders(folder: Path, *, dry_run: bool) -> None:
    if dry_run:
        return
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()
