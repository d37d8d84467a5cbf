"""The source of a report: the records that were read for it, and the commands that its pages name."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from psa.experiments.promotion import StageStatus
from psa.storage.records.record_store import StoredRecord

if TYPE_CHECKING:  # pandas is imported in functions, not while options are read
    from psa.reports.rendering.trials import StoredTrial


@dataclass(frozen=True)
class ReportSource:
    """The options of a report, the stages of its grid, and the trials that were read for it, by id.

    paths: the files and folders of other options, but for defaults; selections: the value of --only that
    selects a trial of the grid, by its id.
    """

    study: str
    grid: Path | None
    overrides: Sequence[str]
    only: str
    plugins: Sequence[Path]
    paths: Mapping[str, Path]
    selections: Mapping[str, str]
    stages: tuple[StageStatus, ...]
    trials: dict[str, StoredTrial] = field(default_factory=dict, repr=False)

    def add(self, stored: StoredRecord, results: Path) -> None:
        """Keep what a page shows of a record in a results folder."""
        from psa.reports.rendering.trials import stored_trial

        self.trials[stored.record["id"]] = stored_trial(stored, results)

    @property
    def command(self) -> str:
        """The command that writes the pages, without --output-dir: they are the same in any folder."""
        grid = [] if self.grid is None else ["--grid", str(self.grid)]
        only = ["--only", self.only] if self.only else []
        paths = [word for name, path in self.paths.items() for word in (name, str(path))]
        return shlex.join(["psa", "report", self.study, *grid, *self._settings, *only, *paths])

    def repeat(self, trial: str) -> str:
        """Return the command that trains a trial again, "" for one that the grid does not declare."""
        only = self.selections.get(trial)
        sweep = shlex.join(["psa", "sweep", str(self.grid), *self._settings])
        folders = "--results-dir again/results --model-dir again/models"
        if only is None:
            return ""
        quoted = shlex.quote(only) if "'" in only else f"'{only}'"
        return f"{sweep} --only {quoted} {folders}"

    @property
    def _settings(self) -> list[str]:
        """The overrides and plugins, as words of either command."""
        return [*self.overrides, *(word for path in self.plugins for word in ("--plugin", str(path)))]
