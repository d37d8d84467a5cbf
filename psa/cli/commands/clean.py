"""`clean` and `clean-all`: remove checkpoints, after showing which."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.table import Table
from rich.text import Text

from psa.cli.checkpoint_folder import all_files, checkpoint_files, checkpoint_of, lock_folder
from psa.cli.console import console, print_line
from psa.cli.options import ModelDir
from psa.core.errors import UserError
from psa.core.files import file_error
from psa.core.formatting import join_names, pluralize
from psa.storage.layout import SLURM_FOLDER, STATE_NAME, WORKSPACE_FILE, is_named_by_train
from psa.storage.locks import any_leased
from psa.storage.records.bundle import is_record_file
from psa.storage.sweep_registry import active_sweeps

_AFFIRMED: Final = ("y", "yes")
_SHOWN: Final = 4  # studies that a question names
Yes = Annotated[bool, Parameter(negative="", help="Do not ask.")]
DryRun = Annotated[bool, Parameter(negative="", help="Print what would be removed, then exit.")]


def clean(
    files: Annotated[
        tuple[Path, ...],
        Parameter(
            negative="",
            show_default=False,
            help="Checkpoints to remove, by name or path. [default: the checkpoints of `train`]",
        ),
    ] = (),
    /,
    *,
    all: Annotated[  # noqa: A002 - the option is called --all
        bool,
        Parameter(
            negative="", help="Remove everything in the folder. Asks if sweeps have states or jobs there."
        ),
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    model_dir: ModelDir = Path("models"),
) -> int:
    """Remove checkpoints.

    Removes the checkpoints of `train`, the named ones, or everything in the folder of checkpoints, each with
    its earlier versions (.previous, .damaged). Asks before it removes more than one. If a name does not
    exist, it is listed as not found, the others are removed, and the exit code is 1. Records are never
    removed.

    Example: clean --dry-run
    """
    if all and files:
        raise UserError("clean needs --all or names of files, got both", "Give one of them")
    if all:
        return clean_all(dry_run=dry_run, yes=yes, model_dir=model_dir)
    if not files:
        chosen = [path for path in checkpoint_files(model_dir) if is_named_by_train(checkpoint_of(path).name)]
        return _remove(chosen, model_dir, _several(chosen, yes), dry_run=dry_run)
    named = {file: _named(file, model_dir) for file in files}
    chosen = sorted({path for found in named.values() for path in found})
    absent = [file for file, found in named.items() if not found]
    if not chosen:
        raise UserError(
            f"{absent[0]} does not exist in {model_dir}", "List the files with clean --all --dry-run"
        )
    _remove(chosen, model_dir, _several(chosen, yes), dry_run=dry_run)
    for file in absent:
        print_line(console(), f"Not found in {model_dir}: {file}")
    return 1 if absent else 0


def clean_all(*, dry_run: DryRun = False, yes: Yes = False, model_dir: ModelDir = Path("models")) -> int:
    """Remove every checkpoint.

    Removes everything in the folder of checkpoints. Asks if sweeps have states in it, since their trials
    could not be resumed or extended without them, or if they ran on Slurm, SageMaker or Ray. The id of the
    folder in the names of their jobs is kept. Records are never removed.

    Example: clean-all --dry-run
    """
    folder = model_dir.resolve()
    kept = {"the folder you are in": Path.cwd()}
    with contextlib.suppress(RuntimeError):  # a user may have no home
        kept["your home folder"] = Path.home()
    for what, place in kept.items():
        if place.resolve().is_relative_to(folder):
            raise UserError(f"{model_dir} holds {what}: everything in it would be removed", "Name the files")
    chosen = [path for path in all_files(model_dir) if not is_record_file(path.name)]
    return _remove(chosen, model_dir, "" if yes else _swept(chosen, model_dir), dry_run=dry_run)


def _several(chosen: Sequence[Path], yes: bool) -> str:
    """Return the question about more than one checkpoint, "" if none is asked."""
    things = {checkpoint_of(path) for path in chosen}
    if yes or len(things) < 2:
        return ""
    return f"Remove {len(things)} checkpoints, {len(chosen)} files? [y/N] "


def _swept(chosen: Sequence[Path], folder: Path) -> str:
    """Return the question about sweeps whose states, arrays or jobs are known here, "" if there are none."""
    states = {path.parent for path in chosen if path.name == STATE_NAME and path.parent != folder}
    arrays = [path for path in chosen if path.match(f"{SLURM_FOLDER}/*/job.json")]
    lost = []
    if states:
        studies = join_names(sorted({state.relative_to(folder).parts[0] for state in states}), _SHOWN)
        trials = f"{pluralize(len(states), 'trial')} of sweeps ({studies})"
        lost.append(f"{trials} could not be resumed or extended any more")
    if arrays:
        lost.append(f"{pluralize(len(arrays), 'job array')} of Slurm could not be watched or run any more")
    if (folder / WORKSPACE_FILE).exists():
        lost.append(
            "sweeps of this folder ran on SageMaker or Ray, and their jobs would lose the states stored here "
            "(the folder keeps its id, so that `psa fetch` finds their results)"
        )
    return f"{'; '.join(lost)}. Remove {pluralize(len(chosen), 'file')}? [y/N] " if lost else ""


def _named(file: Path, folder: Path) -> list[Path]:
    """Return a file, given by its path or its name in the folder, and its generations; nothing if there is
    no such file. Raises UserError for a file elsewhere.

    Only files in the folder are removed, so that a mistyped path deletes no other file and no record.
    """
    if is_record_file(file.name):
        raise UserError(
            f"{file} must be a checkpoint, got the name of a record or a bundle", "`clean` removes no results"
        )
    inside = Path(os.path.normpath(folder.absolute()))
    for path in (folder / file, file):
        place = Path(os.path.normpath(path.absolute()))
        # once as it is written and once behind all links
        if place.is_relative_to(inside) and place.parent.resolve().is_relative_to(folder.resolve()):
            found = [
                other for other in checkpoint_files(place.parent) if place in (other, checkpoint_of(other))
            ]
            if found:
                return [folder / other.relative_to(inside) for other in found]
    if os.path.lexists(file):
        raise UserError(
            f"{file} must be a file in {folder}, got one elsewhere", "`clean` removes nothing else"
        )
    return []


def _remove(chosen: Sequence[Path], folder: Path, question: str, *, dry_run: bool) -> int:
    """Remove files, after the answer to a question if there is one."""
    out = console()
    if not chosen:
        print_line(out, f"Nothing to remove in {folder}")
        return 0
    if dry_run:
        out.print(_table((path, "would be removed") for path in chosen))
        return 0
    for sweep in active_sweeps(folder):
        raise UserError(f"a sweep is at work in {folder} (process {sweep.pid})", "Wait for it, or stop it")
    with lock_folder(folder):
        if any_leased(folder):  # by a task of Slurm, or by a worker that has outlived its sweep
            raise UserError(f"a worker is training trials of {folder}", "Wait for it, or stop it")
        if question:
            out.print(_table((path, "to be removed") for path in chosen))
            if not _agreed(question):
                out.print("Nothing was removed")
                return 0
        _unlink(chosen, folder)
    return 0


def _unlink(chosen: Iterable[Path], folder: Path) -> None:
    """Remove files, and folders that become empty; print the outcome of each. Raises UserError."""
    table, refused = _table(()), None
    for path in chosen:
        facts = _facts(path)
        try:
            path.unlink()
            _drop_empty(path.parent, folder)
        except OSError as error:
            refused = refused or file_error(error, f"cannot remove {path}")
            table.add_row(*facts, "not removed")
        else:
            table.add_row(*facts, "removed")
    console().print(table)
    if refused is not None:
        raise refused


def _table(rows: Iterable[tuple[Path, str]]) -> Table:
    table = Table()
    table.add_column("file", overflow="fold")
    for heading in ("size", "changed", "status"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    for path, status in rows:
        table.add_row(*_facts(path), status)
    return table


def _facts(path: Path) -> tuple[Text, str, str]:
    facts = path.lstat()
    changed = datetime.fromtimestamp(facts.st_mtime).astimezone()
    return Text(str(path)), f"{facts.st_size:,} B", f"{changed:%Y-%m-%d %H:%M}"


def _agreed(question: str) -> bool:
    """Ask for confirmation; a pipe may answer, too. Raises UserError if no answer comes."""
    console().print(question, end="", markup=False, soft_wrap=True)
    answer = sys.stdin.readline()
    if not answer:
        raise UserError("nothing was removed: the question was not answered", "Confirm with --yes")
    return answer.strip().lower() in _AFFIRMED


def _drop_empty(folder: Path, top: Path) -> None:
    """Remove a folder that has become empty, and those above it below `top`."""
    while folder != top and folder.is_relative_to(top) and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
