"""`psa verify`: check the digest and the place of every stored state and record."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter
from rich.console import Console

from psa.cli.console import console, print_line
from psa.cli.options import CountOption, DataDir, ModelDir, PluginFiles, ResultsDir
from psa.core.errors import UserError
from psa.execution.machine import Machine
from psa.plugins.loading import load_plugins
from psa.storage.layout import PUBLISHED
from psa.storage.store import Store

MODELS: Final = Path("models")
RESULTS: Final = Path("results")


def verify(
    *,
    replay: Annotated[
        CountOption,
        Parameter(help="Also repeat this number of stored loops, drawn at random, and compare the bits."),
    ] = None,
    plugin: PluginFiles = (),
    data_dir: DataDir = Path("dataset"),
    model_dir: ModelDir = MODELS,
    results_dir: ResultsDir = RESULTS,
) -> int:
    """Check the digest and the path of every stored file.

    The path of a file must be that of the trial in it. Exit code 2 if a file is damaged, misplaced or
    differs.

    Example: psa verify --replay 5
    """
    load_plugins(plugin)
    out, store = console(), Store(model_dir, results_dir)
    _check_folders(store)
    counts, folders = _checked(store, out)
    for path in store.set_aside_paths():
        print_line(out, f"damaged file set aside earlier, not used: {path}")
    for folder, count in folders.items():
        print_line(out, _apart(folder, count, results_dir))
    place = f"Files checked in {model_dir} and {results_dir}"
    print_line(out, f"{place}: {_summary(counts)}")
    differing = _replayed(store, data_dir, replay, out) if replay else 0
    return 2 if counts["damaged"] or counts["misplaced"] or differing else 0


def _check_folders(store: Store) -> None:
    """Raise UserError for a folder that was named and does not exist, and where neither exists."""
    if not store.models.exists() and not store.results.exists():
        raise UserError(
            f"{store.models} or {store.results} must exist, got neither",
            "Name the folders to check with --model-dir and --results-dir",
        )
    store.check_folders()
    for option, folder, default in (
        ("--model-dir", store.models, MODELS),
        ("--results-dir", store.results, RESULTS),
    ):
        if not folder.exists() and (folder != default or folder.is_symlink()):
            raise UserError(f"{option} must be a folder, got {folder}", "Name one that exists")


def _checked(store: Store, out: Console) -> tuple[Counter[str], Counter[Path]]:
    """Check every file and name those with a problem. Return the number of files of each kind, and of files
    in each nested results or models folder.
    """
    counts, folders = Counter[str](), Counter[Path]()
    with out.status("checking") as shown:
        for finding in store.verify():
            counts["bundled" if finding.bundled else "checked"] += 1
            shown.update(f"checking: {counts['checked']:,} files")
            if not finding.bundled and finding.folder not in (None, store.results / PUBLISHED):
                folders[finding.folder] += 1
            if finding.problem is not None:
                kind = "misplaced" if finding.misplaced else "damaged"
                counts[kind] += 1
                print_line(out, f"{kind.upper()} {finding.problem}")
    return counts, folders


def _apart(folder: Path, count: int, results_dir: Path) -> str:
    """Describe a results or models folder inside of the one that is checked."""
    option = "--results-dir" if folder.is_relative_to(results_dir) else "--model-dir"
    files = f"{folder} is a folder of its own, {count:,} file{'s' * (count != 1)}"
    return f"{files}: nothing in it is counted elsewhere. Name it with {option} {folder}"


def _summary(counts: Counter[str]) -> str:
    if not counts["checked"]:
        return "none, nothing is stored there yet"
    bundled = f" ({counts['bundled']:,} records in bundles)" if counts["bundled"] else ""
    misplaced = f", misplaced: {counts['misplaced']:,}" if counts["misplaced"] else ""
    return f"{counts['checked']:,}{bundled}, damaged: {counts['damaged']:,}{misplaced}"


def _replayed(store: Store, data_dir: Path, count: int, out: Console) -> int:
    """Train stored loops again. Return the number that came out differently."""
    from psa.execution.replay import replay  # torch is imported here, not while options are read

    done = differing = 0
    # equal bits are guaranteed for one CPU thread only, so the comparison uses one
    with out.status("training stored loops again") as shown:
        for found in replay(store, Machine(data_dir, "cpu"), count):
            done += 1
            shown.update(f"training stored loops again: {done:,} of {count:,}")
            if found.difference is not None:
                differing += 1
                line = f"DIFFERS {found.place}, loop {found.loop}: {found.difference}"
                line += f"; {found.machines}" if found.machines else ""
                print_line(out, line)
    out.print(f"Loops trained again: {done:,}, differing from what is stored: {differing:,}", markup=False)
    return differing
