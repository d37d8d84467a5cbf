"""An experiment declared in Python, and its run on a backend."""

from __future__ import annotations

import inspect
import math
import os
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from html import escape
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from psa.cli.console import console
from psa.cli.output.sweep_view import ConsoleProgress
from psa.core.errors import UserError
from psa.core.formatting import quote
from psa.core.parsing import MAX_VALUES, as_list, as_path, check_choice, parse_int
from psa.core.plugins.loading import load_declared
from psa.core.stop import StopRequest
from psa.execution.backend import BACKEND_PLUGINS, BackendOptions
from psa.execution.machine import DeviceName, Machine
from psa.experiment.earlier_names import current_settings
from psa.experiment.results import Results
from psa.experiments.grid import Grid, load_grid
from psa.experiments.sweep import Sweep, SweepOptions
from psa.experiments.tracking.base import Tracker
from psa.storage.retention import KeepWeights
from psa.storage.store import Store

if TYPE_CHECKING:
    from psa.specs.data import DataContent

Settings = Mapping[str, Any]


class Experiment:
    """A declared experiment: every combination of `axes` and `variants`, each with every seed.

    study: a study of psa (activations, ablation, ...), whose settings are the keys of `base`, `axes` and
    `variants`. name: under which results are stored. epochs: maximum epochs of each trial. seeds: their
    number (3 means 0, 1, 2) or the seeds themselves. stages: as in a grid file. data: a data set of your own:
    (X, y) or (X, y, split), with X [N, features], [N, height, width] or [N, height, width, channels], one
    label per sample, and train, validation or test for each sample. If X is a pandas data frame, y and split
    may be names of its columns. Other data sets are named by the setting `dataset`. plugins: Python files
    with studies, modes and the like of your own (docs/extending.md), relative to the current folder.
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
        data: Sequence[Any] | None = None,
        plugins: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        load_declared(as_list(plugins, "plugins"), Path(), "plugins")  # the study may be one of theirs
        settings = current_settings(_mapping(base, "base"), study, lists=False)
        if data is not None:
            settings["dataset"] = _content(data, settings)
        optional = {
            "name": name,
            "meta_loops": _epochs(epochs),
            "seeds": _seeds(seeds),
            "stages": stages and as_list(stages, "stages"),
            "plugins": as_list(plugins, "plugins") or None,
        }
        declared: dict[str, Any] = {
            "study": study,
            "base": settings,
            "axes": {
                key: _values(each)
                for key, each in current_settings(_mapping(axes, "axes"), study, lists=True).items()
            },
            "variants": {
                key: current_settings(_mapping(each, f"variants.{key}"), study, lists=False)
                for key, each in _mapping(variants, "variants").items()
            },
        }
        declared |= {key: value for key, value in optional.items() if value is not None}
        self.study, self.name = study, study if name is None else name
        self.axes = (*declared["axes"], *(["variant"] if variants else []))
        self.values = dict(declared["axes"]) | ({"variant": list(variants)} if variants else {})
        self.grid: Grid = load_grid(declared)

    def __len__(self) -> int:
        """Return the number of trials."""
        return len(self.grid.trials)

    def run(
        self,
        workers: int | None = None,
        *,
        backend: str = "local",
        device: DeviceName | None = None,
        data_dir: str | os.PathLike[str] = "dataset",
        model_dir: str | os.PathLike[str] = "models",
        results_dir: str | os.PathLike[str] = "results",
        trackers: Sequence[Tracker] = (),
        keep_weights: KeepWeights = "all",
        pack_size: int | None = None,
        quiet: bool = False,
        **backend_options: Any,
    ) -> Results:
        """Train the trials that are not done, like `psa sweep`; run again to resume after an interruption.

        Args:
            workers: Packs that are trained at once; None for the backend's default, locally one per core.
            backend: The name of a backend: local, ray, sagemaker, slurm, or one of a plugin.
            device: cpu, cuda or mps; None for cuda where there is such a GPU, else cpu.
            data_dir: The folder of the data sets. Missing files are downloaded into it.
            model_dir: The folder of the checkpoints.
            results_dir: The folder of the records.
            trackers: Trackers that log each finished trial, such as `MLflow(uri, study)` of
                psa.experiments.tracking.mlflow, `TensorBoard(folder)` of
                psa.experiments.tracking.tensorboard, or one of your own.
            keep_weights: The weights to keep of finished trials: all, best (seed per arch and mode) or none.
            pack_size: Trials per pack; None for the fastest by measurement.
            quiet: Print nothing.
            backend_options: Options of the backend, as keyword arguments: the fields of
                psa.execution.backend.BackendOptions, such as address of ray, max_cost of sagemaker and
                partition of slurm.

        Returns:
            The results stored so far. Trials that failed are in the frame with their status.

        Raises:
            UserError: An argument that is unknown or out of range, or data, a backend or a folder that is
                unusable.
            KeyboardInterrupt: Ctrl-C, after all workers have saved their states.
            SystemExit: SIGTERM, after the same; jobs of sagemaker and tasks of slurm continue.

        """
        if device is not None and device not in get_args(DeviceName):
            raise UserError(
                f"device must be {' or '.join(map(repr, get_args(DeviceName)))}, got {quote(device)}"
            )
        BACKEND_PLUGINS.check_choice(backend, "backend")
        if keep_weights not in get_args(KeepWeights):
            check_choice(keep_weights, set(get_args(KeepWeights)), "keep_weights", "value")
        options = SweepOptions(
            backend=backend,
            backend_options=_backend_options(workers, backend_options),
            pack_size=_count(pack_size, "pack_size"),
            keep_weights=keep_weights,
            trackers=_trackers(trackers),
        )
        store, stop, out = _store(model_dir, results_dir), StopRequest(), console()
        out.quiet = quiet
        machine = Machine(as_path(data_dir, "data_dir"), device)
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
        return Results(self, _store(model_dir, results_dir))

    def __repr__(self) -> str:
        """Return the name, the study and the size: `Experiment('mine', study='ablation', trials=12)`."""
        return f"Experiment({self.name!r}, study={self.study!r}, trials={len(self)})"

    def _repr_html_(self) -> str:
        """Return the axes and their values as an HTML table for a notebook."""
        axes = [("trials", f"{len(self):,}"), ("meta-loops", f"{self.grid.meta_loops:,}")]
        axes += [(key, ", ".join(map(str, values))) for key, values in self.values.items()]
        rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(text)}</td></tr>" for key, text in axes)
        return f"<table><caption>{escape(self.name)} ({escape(self.study)})</caption>{rows}</table>"


def _store(model_dir: str | os.PathLike[str], results_dir: str | os.PathLike[str]) -> Store:
    """Return the store in two folders. Raises UserError for anything but paths."""
    return Store(as_path(model_dir, "model_dir"), as_path(results_dir, "results_dir"))


def _trackers(trackers: Any) -> tuple[str | Tracker, ...]:
    """Return trackers, and the names of those of plugins. Raises UserError for anything else."""
    found = as_list(trackers, "trackers")
    for each in found:
        missing = [name for name in ("name", "logged_loops", "log_trial") if not hasattr(each, name)]
        if missing and not isinstance(each, str):
            raise UserError(
                f"trackers must have {', '.join(missing)}, got {quote(each)}", "See docs/trackers.md"
            )
    return tuple(found)


def _count(value: Any, name: str) -> int | None:
    """Return a whole number above 0, or None. Raises UserError."""
    if value is not None and parse_int(value, name) < 1:
        raise UserError(f"{name} must be at least 1 or None, got {value}")
    return None if value is None else parse_int(value, name)


def _backend_options(workers: Any, given: Mapping[str, Any]) -> BackendOptions:
    """Return the options of a backend. Raises UserError for an unknown one."""
    known = {each.name for each in fields(BackendOptions)}
    known |= inspect.signature(Experiment.run).parameters.keys() - {"self", "backend_options"}
    for key in given:
        check_choice(key, known, "run", "option")
    if given.get("prices") is not None:
        given = {**given, "prices": as_path(given["prices"], "prices")}
    most = _plain(given.get("max_cost"))
    if most is not None and (type(most) not in (int, float) or not 0 < most < math.inf):
        raise UserError(f"max_cost must be a number of dollars above 0, got {quote(most)}")
    return BackendOptions(workers=_count(workers, "workers"), **given)


def _content(data: Sequence[Any], settings: Settings) -> DataContent:
    """Return the content of data given from Python. Raises UserError."""
    from psa.data.own import content_of_arrays

    if "dataset" in settings:
        raise UserError("data and base['dataset'] must not both be given, got both", "Keep one of them")
    if not isinstance(data, tuple | list) or len(data) not in (2, 3):
        raise UserError(
            f"data must be (X, y) or (X, y, split), got {type(data).__name__}", "Write data=(X, y)"
        )
    return content_of_arrays(*data)


def _epochs(epochs: Any) -> Any:
    """Return the number of epochs. Raises UserError unless it is a whole number of at least 1."""
    found = _plain(epochs)
    if found is not None and (type(found) is not int or found < 1):
        raise UserError(f"epochs must be a whole number of at least 1, got {quote(epochs)}")
    return found


def _seeds(seeds: Any) -> Any:
    """Convert a number of seeds to the list that a grid needs. Raises UserError for a fraction."""
    seeds = _plain(seeds)
    if isinstance(seeds, bool | float):
        raise UserError(f"seeds must be a number (3), a list ([0, 7]) or a range ('0..9'), got {seeds!r}")
    if isinstance(seeds, int):
        if seeds < 1:
            raise UserError(f"seeds must be at least 1, got {seeds}")
        return list(range(min(seeds, MAX_VALUES + 1)))
    return seeds if seeds is None or isinstance(seeds, str) else _values(seeds)


def _mapping(value: Any, where: str) -> dict[str, Any]:
    """Return settings by name. Raises UserError for anything but a mapping."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{where} must be a mapping, got {quote(value)}", "Write {'lr': 0.01, ...}")
    if (wrong := next((key for key in value if not isinstance(key, str)), None)) is not None:
        raise UserError(f"{where} must have names as keys, got {quote(wrong)}", "Write {'lr': 0.01, ...}")
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
