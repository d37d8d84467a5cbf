"""The origin of a page: its records, the versions that trained and evaluated them, the command, the grid."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from psa import __version__
from psa.core.formatting import pluralize

_TRAINED_WITH: Final = ("psa", "torch", "numpy", "python")
_WRITTEN_WITH: Final = ("numpy", "pandas", "scipy", "matplotlib")
_PACKAGE: Final = Path(__file__).parents[2]
_PATIENCE: Final = 10  # seconds for git
_NAMED: Final = 4


@dataclass(frozen=True)
class Provenance:
    """The origin of a page, as names and values, and the text of the grid ("" without one)."""

    facts: tuple[tuple[str, str], ...]
    grid: str = ""


def provenance(sidecars: Iterable[Mapping[str, Any]], command: str, grid: Path | None = None) -> Provenance:
    """Return the origin of a page from the sidecars of its records, which hold times and versions.

    sidecars: one per record, empty where a record has none.

    It depends on the records, the code and the libraries alone: the same page is written on any day.
    """
    facts = [*_training_facts(list(sidecars)), ("Page written by", _writer()), ("Command", command)]
    if grid is None:
        return Provenance(tuple(facts))
    return Provenance((*facts, ("Grid", str(grid))), grid.read_text())


def _training_facts(sidecars: list[Mapping[str, Any]]) -> list[tuple[str, str]]:
    times = sorted(str(each["finished"]) for each in sidecars if each.get("finished"))
    facts = []
    if not times:
        facts.append(("Trained", "at an unknown time: the records have no sidecars"))
    else:
        first, last = (f"{time[:10]} {time[11:16]}" for time in (times[0], times[-1]))
        span = f"{first} UTC" if first == last else f"{first} to {last} UTC"
        known = f"{len(times):,} of {pluralize(len(sidecars), 'record')}"
        rest = "" if len(times) == len(sidecars) else "; the others have no time"
        facts.append(("Trained", f"{span}, according to {known}{rest}"))
    versions = [f"{name} {found}" for name in _TRAINED_WITH if (found := _several(sidecars, name))]
    if versions:
        facts.append(("Trained with", ", ".join(versions) + _known(sidecars, _TRAINED_WITH)))
    if machines := _several(sidecars, "device_name"):
        facts.append(("Trained on", machines + _known(sidecars, ["device_name"])))
    if copied := sum(bool(each.get("copied_from")) for each in sidecars):
        of = pluralize(len(sidecars), "record")
        facts.append(("Copied", f"{copied:,} of {of}, from trials with equal training"))
    return facts


def _known(sidecars: list[Mapping[str, Any]], keys: Iterable[str]) -> str:
    """Return of how many records something is known, after a comma; "" if of all of them."""
    known = sum(any(each.get(key) for key in keys) for each in sidecars)
    of = pluralize(len(sidecars), "record")
    return "" if known == len(sidecars) else f", according to {known:,} of {of}"


def _several(sidecars: list[Mapping[str, Any]], key: str) -> str:
    """Return the values of a key, each once: `2.14.0 and 2.15.0`."""
    values = sorted({str(each[key]) for each in sidecars if each.get(key)})
    more = f" and {len(values) - _NAMED} more" if len(values) > _NAMED else ""
    return " and ".join(values[:_NAMED]) + more


def _writer() -> str:
    own = f"psa {__version__}" + (f", commit {found}" if (found := code_commit()) else "")
    others = [f"{name} {metadata.version(name)}" for name in _WRITTEN_WITH]
    return ", ".join([own, *others, f"Python {platform.python_version()}"])


@lru_cache(maxsize=1)
def code_commit() -> str:
    """Return the last commit that changed the code of psa, with `, modified` where the code differs from it.

    Empty outside of a git checkout. Commits that change only results or documents leave it as it is.
    """
    commit = _git("log", "-1", "--format=%h", "--abbrev=12", "--", ".")
    if not commit:
        return ""
    return f"{commit}, modified" if _git("status", "--porcelain", "--", ".") else commit


def _git(*words: str) -> str:
    """Return the output of git in the folder of psa, "" where it fails or is not installed."""
    try:
        done = subprocess.run(
            ["git", *words], cwd=_PACKAGE, capture_output=True, text=True, check=True, timeout=_PATIENCE
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
