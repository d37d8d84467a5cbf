"""`psa verify`: check the digest and the place of every stored state and record."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from rich.console import Console

from psa.cli.console import console, print_line
from psa.cli.options import CountOption, DataDir, ModelDir, PluginFiles, ResultsDir
from psa.cli.output.activity import activity
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.schema import FileProblem, NestedFolder, ReplayDifference, VerifyDocument
from psa.core.errors import UserError
from psa.core.plugins.loading import load_plugins
from psa.execution.machine import Machine
from psa.storage.layout import PUBLISHED
from psa.storage.store import Store

MODELS: Final = Path("models")
RESULTS: Final = Path("results")


def verify(
    *,
    replay: Annotated[
        CountOption,
        Parameter(help="Also repeat this number of stored loops, drawn at random, and compare the results."),
    ] = None,
    plugin: PluginFiles = (),
    data_dir: DataDir = Path("dataset"),
    model_dir: ModelDir = MODELS,
    results_dir: ResultsDir = RESULTS,
    as_json: JsonOption = False,
) -> Outcome:
    """Check the digest and the path of every stored file.

    The path of a file must be that of the trial in it. A repeated loop must equal the stored one: to the bit
    on the same kind of processor with the same version of torch, else within rounding. Exit code 2: a file is
    damaged or misplaced, or a repeated loop differs from the stored one.

    Example: psa verify --replay 5
    """
    load_plugins(plugin)
    out, store = console(quiet=as_json), Store(model_dir, results_dir)
    _check_folders(store)
    found = _checked(store, out)
    set_aside = list(map(str, store.set_aside_paths()))
    for path in set_aside:
        print_line(out, f"damaged file set aside earlier, not used: {path}")
    for folder, count in found.folders.items():
        print_line(out, _apart(folder, count, results_dir))
    place = f"Files checked in {model_dir} and {results_dir}"
    print_line(out, f"{place}: {_summary(found)}")
    repeated = _replayed(store, data_dir, replay, out) if replay else _Repeated()
    document = VerifyDocument(
        checked=found.counts["checked"],
        bundled=found.counts["bundled"],
        problems=found.problems,
        set_aside=set_aside,
        nested=[NestedFolder(path=str(folder), files=count) for folder, count in found.folders.items()],
        replayed=repeated.count,
        rounding=sum(repeated.rounding.values()),
        differences=repeated.differences,
    )
    return Outcome(2 if document.problems or document.differences else 0, document)


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


@dataclass
class _Findings:
    """The number of files of each kind and in each nested results or models folder, and the problems."""

    counts: Counter[str] = field(default_factory=Counter)
    folders: Counter[Path] = field(default_factory=Counter)
    problems: list[FileProblem] = field(default_factory=list)


def _checked(store: Store, out: Console) -> _Findings:
    """Check every file and name those with a problem."""
    found = _Findings()
    with activity(out, "checking") as show:
        for finding in store.verify():
            found.counts["bundled" if finding.bundled else "checked"] += 1
            show(f"checking: {found.counts['checked']:,} files")
            if not finding.bundled and finding.folder not in (None, store.results / PUBLISHED):
                found.folders[finding.folder] += 1
            if finding.problem is not None:
                kind: Literal["misplaced", "damaged"] = "misplaced" if finding.misplaced else "damaged"
                found.counts[kind] += 1
                found.problems.append(FileProblem(path=str(finding.path), kind=kind, problem=finding.problem))
                print_line(out, f"{kind.upper()} {finding.problem}")
    return found


def _apart(folder: Path, count: int, results_dir: Path) -> str:
    """Describe a results or models folder inside of the one that is checked."""
    option = "--results-dir" if folder.is_relative_to(results_dir) else "--model-dir"
    files = f"{folder} is a folder of its own, {count:,} file{'s' * (count != 1)}"
    return f"{files}: nothing in it is counted elsewhere. Name it with {option} {folder}"


def _summary(found: _Findings) -> str:
    counts = found.counts
    if not counts["checked"]:
        return "none, nothing is stored there yet"
    bundled = f" ({counts['bundled']:,} records in bundles)" if counts["bundled"] else ""
    misplaced = f", misplaced: {counts['misplaced']:,}" if counts["misplaced"] else ""
    return f"{counts['checked']:,}{bundled}, damaged: {counts['damaged']:,}{misplaced}"


@dataclass
class _Repeated:
    """The number of loops trained again; of those that differ by rounding alone their number for each pair of
    machines; and the others that came out differently.
    """

    count: int = 0
    rounding: Counter[str] = field(default_factory=Counter)
    differences: list[ReplayDifference] = field(default_factory=list)


def _replayed(store: Store, data_dir: Path, count: int, out: Console) -> _Repeated:
    """Train stored loops again, and print what came out differently."""
    from psa.execution.replay import replay  # torch is imported here, not while options are read

    repeated = _Repeated()
    # equal bits are guaranteed for one CPU thread only, so the comparison uses one
    with activity(out, "training stored loops again") as show:
        for found in replay(store, Machine(data_dir, "cpu"), count):
            repeated.count += 1
            show(f"training stored loops again: {repeated.count:,} of {count:,}")
            if found.rounding:
                repeated.rounding[found.machines] += 1
            elif found.difference is not None:
                repeated.differences.append(
                    ReplayDifference(
                        place=found.place,
                        loop=found.loop,
                        difference=found.difference,
                        machines=found.machines,
                    )
                )
                line = f"DIFFERS {found.place}, loop {found.loop}: {found.difference}"
                line += f"; {found.machines}" if found.machines else ""
                print_line(out, line)
    for machines, number in repeated.rounding.items():
        print_line(out, f"equal within rounding: {number:,}, {machines}")
    differing = len(repeated.differences)
    line = f"Loops trained again: {repeated.count:,}, differing from what is stored: {differing:,}"
    out.print(line, markup=False)
    return repeated
