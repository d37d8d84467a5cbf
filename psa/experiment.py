"""Experiments from Python: the content of a grid file as arguments, and `psa sweep` as a method.

results = Experiment("activations", name="mine", axes={"activation": ["ReLU", "Tanh"]}, epochs=5).run()
print(results)
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from psa.cli.console import console
from psa.cli.sweep_view import ConsoleProgress
from psa.core.errors import UserError
from psa.core.formatting import join_names, quote
from psa.core.parsing import MAX_VALUES, parse_int
from psa.core.stop import StopRequest
from psa.execution.backend import BackendOptions
from psa.execution.machine import DeviceName, Machine
from psa.experiments.grid import Grid, load_grid
from psa.experiments.sweep import Sweep, SweepOptions
from psa.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd

    from psa.reports.activations.arms import Arm
    from psa.reports.rendering.tables import Table

Settings = Mapping[str, Any]


class Experiment:
    """A declared experiment: every combination of `axes` and `variants`, each with every seed.

    study: a study of psa (activations, ablation, ...), whose settings are the keys of `base`, `axes` and
    `variants`. name: under which results are stored. epochs: maximum epochs of each trial. seeds: their
    number (3 means 0, 1, 2) or the seeds themselves. stages: as in a grid file. plugins: Python files with
    studies, modes and the like of your own (docs/extending.md), relative to the current folder.
    Raises UserError that names the key and the nearest valid one.
    """

    def __init__(
        self,
        study: str = "ablation",
        *,
        name: str | None = None,
        base: Settings | None = None,
        axes: Mapping[str, Iterable[Any]] | None = None,
        variants: Mapping[str, Settings] | None = None,
        epochs: int | None = None,
        seeds: int | Sequence[int] | str | None = None,
        stages: Sequence[Settings] | None = None,
        plugins: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        optional = {
            "name": name,
            "meta_loops": epochs if epochs is None else _plain(epochs),
            "seeds": _seeds(seeds),
            "stages": stages and list(stages),
            "plugins": list(plugins) or None,
        }
        declared: dict[str, Any] = {
            "study": study,
            "base": _mapping(base, "base"),
            "axes": {key: _values(each) for key, each in _mapping(axes, "axes").items()},
            "variants": {
                key: _mapping(each, f"variants.{key}") for key, each in _mapping(variants, "variants").items()
            },
        }
        declared |= {key: value for key, value in optional.items() if value is not None}
        self.name = study if name is None else name
        self.axes = (*declared["axes"], *(["variant"] if variants else []))
        self.grid: Grid = load_grid(declared)

    def __len__(self) -> int:
        """Return the number of trials."""
        return len(self.grid.trials)

    def run(
        self,
        workers: int | None = None,
        *,
        device: DeviceName | None = None,
        data_dir: str | os.PathLike[str] = "dataset",
        model_dir: str | os.PathLike[str] = "models",
        results_dir: str | os.PathLike[str] = "results",
        quiet: bool = False,
    ) -> Results:
        """Train the trials that are not done, like `psa sweep`; run again to resume after an interruption.

        workers: processes, one per core where it is None. quiet: print nothing. Raises
        KeyboardInterrupt (SystemExit after SIGTERM) once all workers have saved what they had, UserError.
        """
        store, stop, out = Store(Path(model_dir), Path(results_dir)), StopRequest(), console()
        out.quiet = quiet
        if device is not None and device not in get_args(DeviceName):
            raise UserError(
                f"device must be {' or '.join(map(repr, get_args(DeviceName)))}, got {quote(device)}"
            )
        if workers is not None and parse_int(workers, "workers") < 1:
            raise UserError(f"workers must be at least 1 or None, got {workers}")
        workers = workers if workers is None else parse_int(workers, "workers")
        machine = Machine(Path(data_dir), device)
        options = SweepOptions(where=BackendOptions(workers=workers))
        code = Sweep.prepared(self.grid, store, machine, options).run(ConsoleProgress(out), stop)
        if stop():
            if stop.signal == signal.SIGINT:
                raise KeyboardInterrupt("stopped; repeat the call to resume")
            raise SystemExit(code)
        return Results(self, store)

    def results(
        self,
        *,
        model_dir: str | os.PathLike[str] = "models",
        results_dir: str | os.PathLike[str] = "results",
    ) -> Results:
        """Return the results stored so far. Train nothing."""
        return Results(self, Store(Path(model_dir), Path(results_dir)))


_LEAST: Final = 3  # seeds per row with an interval: that of two is too wide to be read (-90 to 224 %)


@dataclass(frozen=True)
class Results:
    """The results of an experiment, read from its records."""

    experiment: Experiment
    store: Store

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per trial, also of those that are missing or failed (`status`): the axes, `test`, `train`
        and `bounty` (validation accuracy) in percent, `test_loss`, `bounty_loop` (the epoch they are of),
        `loops` (epochs trained), `thresholds`, and every setting. Raises UserError where there is no record.
        """
        from psa.analysis.records_frame import load_frames
        from psa.reports.activations.arms import rows_of, with_seen

        grid = self.experiment.grid
        names = sorted({trial.study for trial in grid.trials})
        frame, observed = load_frames(self.store, names, grid.trials, grid.horizons)
        rows = rows_of(frame)
        if (rows["status"] == "missing").all():
            raise UserError(
                f"{self.store.results.absolute()} holds no record of {', '.join(names)}",
                "Run it first, or name the folder with results_dir",
            )
        rows = with_seen(rows, observed)
        points = {point.trial.id: point for point in grid.points}
        for key in self.experiment.axes:
            if key not in rows:
                rows[key] = [points[str(name)].value(key) for name in rows["id"]]
        return rows

    def summary(self) -> Table:
        """Return a row for each combination of the axes: trials, test accuracy with interval, and so on."""
        from psa.reports.activations.tables import results_table

        axes = self.experiment.axes or ("arch",)
        name, arms = self.experiment.name, self._arms(axes)
        return results_table(arms, axes, caption=name, label="tab:experiment", least=_LEAST)

    def _arms(self, axes: Sequence[str]) -> list[Arm]:
        """Return the arms in the order of the experiment, not of the records."""
        from psa.reports.activations.arms import arms_of

        order = {trial.id: place for place, trial in enumerate(self.experiment.grid.trials)}
        frame = self.frame.iloc[self.frame["id"].astype(str).map(order).argsort()]
        return arms_of(frame, axes)

    def markdown(self) -> str:
        """Return the summary as Markdown."""
        return self.summary().markdown()

    def latex(self) -> str:
        """Return the summary as a LaTeX table (booktabs, siunitx)."""
        return self.summary().latex()

    def __str__(self) -> str:
        """Return the summary, the number of diverged trials, and the reasons for missing ones."""
        failed = {
            str(reason)
            for trial in self.experiment.grid.trials
            if (reason := self.store.failure(trial)) is not None
        }
        lines = [f"failed: {reason}" for reason in sorted(failed)]
        lost = self.frame["id"][self.frame["status"] == "diverged"]
        if len(lost):
            trials = f"{len(lost):,} of {len(self.frame):,} trials"
            lines.append(f"diverged: {trials}, which take part in no mean ({join_names(list(lost))})")
        return "\n".join([self.markdown(), *lines])


def _seeds(seeds: Any) -> Any:
    """Convert a number of seeds to the list that a grid needs. Raises UserError for a fraction."""
    seeds = _plain(seeds)
    if isinstance(seeds, bool | float):
        raise UserError(f"seeds must be a number (3), a list ([0, 7]) or a range ('0..9'), got {seeds!r}")
    if isinstance(seeds, int):
        return list(range(min(seeds, MAX_VALUES + 1)))
    return seeds if seeds is None or isinstance(seeds, str) else _values(seeds)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """Return settings by name. Raises UserError for anything but a mapping."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a mapping, got {value!r}", "Write {'lr': 0.01, ...}")
    return {key: _plain(each) for key, each in value.items()}


def _plain(value: Any) -> Any:
    """Convert a number of NumPy to one of Python; return any other value as it is."""
    if isinstance(value, bool):
        return value
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value


def _values(values: Any) -> Any:
    """Return values as a grid file holds them: "0..9" and single values as they are, others as a list."""
    if isinstance(values, Iterable) and not isinstance(values, str):
        return [_plain(each) for each in values]
    return values
