"""A declared experiment: a TOML file and overrides in, trials out. Pure; imports no torch.

study = "ablation"          name = "mine"      meta_loops = 100          seeds = "0..9"
[base]      settings that all trials share
[axes]      setting = list, "a..b" or "@file" (one value a line); every combination is run
[variants]  name = { settings }; every variant is run with every combination
[[stages]]  name, meta_loops, seeds, settings = {...}; all after the first: promote = { best = 3 }
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from psa.core.errors import UserError
from psa.core.formatting import join_names
from psa.core.parsing import (
    check_choice,
    parse_assignment,
    parse_int,
    parse_seeds,
    split_names,
    split_top_level,
)
from psa.execution.gradient_storage import unreached
from psa.experiments.grid_file import DeclaredStage, GridFile, Promotion
from psa.experiments.setting_text import parse_setting
from psa.specs.base import Spec, first_error, parse_spec
from psa.specs.trial import Trial, check_shape, check_sizes

MAX_TRIALS: Final = 200_000


@dataclass(frozen=True)
class GridPoint:
    """A trial of a grid with its variant ("" where none is declared) and its settings.

    candidate: the unit of promotion from stage to stage; points that differ only in seed and stage share it.
    """

    trial: Trial
    variant: str
    settings: Spec
    candidate: int

    def value(self, key: str) -> Any:
        """Return the value of a key of the grid: a setting, `seed` or `variant`."""
        named: dict[str, Any] = {"seed": self.trial.seed, "variant": self.variant}
        return named[key] if key in named else getattr(self.settings, key)


@dataclass(frozen=True)
class Stage:
    """Trials that are trained together up to `meta_loops`. Every stage but the first trains only candidates
    that `promotion` selects from the stage before (see psa.experiments.promotion).

    everyone: all declared points, among which promotion decides; points: those of them that --only selects,
    the only ones that are trained and shown.
    """

    name: str
    meta_loops: int
    everyone: tuple[GridPoint, ...]
    points: tuple[GridPoint, ...]
    promotion: Promotion | None = None

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The selected trials that the stage may train."""
        return tuple(point.trial for point in self.points)


@dataclass(frozen=True)
class Grid:
    """A declared experiment, resolved: its stages in order (one called "" where none is declared), and the
    warnings of its study.

    name: under which results are stored. file: the name of its file, "" for a mapping.
    """

    name: str
    stages: tuple[Stage, ...]
    warnings: tuple[str, ...] = ()
    file: str = ""

    @property
    def heading(self) -> str:
        """The name of the experiment, followed by that of its file where the two differ."""
        return self.name if self.label == self.name else f"{self.name} ({self.file})"

    @property
    def label(self) -> str:
        """The name of its file without the suffix, by which trackers group runs; `name` without a file."""
        return Path(self.file).stem or self.name

    @property
    def trials(self) -> tuple[Trial, ...]:
        """The trials of all stages, each once, in the order of the file."""
        return tuple({trial.id: trial for stage in self.stages for trial in stage.trials}.values())

    @property
    def horizons(self) -> dict[str, int]:
        """The minimum meta-loops of each trial by id: those of the first stage that has it."""
        return {trial.id: stage.meta_loops for stage in reversed(self.stages) for trial in stage.trials}

    @property
    def meta_loops(self) -> int:
        """The meta-loops of the last stage."""
        return self.stages[-1].meta_loops

    @property
    def points(self) -> tuple[GridPoint, ...]:
        """The points of all stages."""
        return tuple(point for stage in self.stages for point in stage.points)

    @property
    def variant_names(self) -> dict[str, str]:
        """The names of the variants by the id of a trial; a trial of several has all their names."""
        names: dict[str, dict[str, None]] = {}
        for point in self.points:
            if point.variant:
                names.setdefault(point.trial.id, {})[point.variant] = None
        return {trial: "/".join(found) for trial, found in names.items()}


def load_grid(source: Path | Mapping[str, Any], overrides: Sequence[str] = (), only: str = "") -> Grid:
    """Read a grid (a file, or a mapping of the same form), apply `key=value` overrides, and keep the points
    that `only` ("arch=1*16 mode=hidden") selects.

    Raises UserError that names the file, the key and the nearest valid name.
    """
    declared = GridFile(source, overrides)
    _check_size(declared)
    stages, repeated = [], Counter[str]()
    for stage in declared.stages:
        points = tuple(_points(declared, stage, repeated))
        stages.append(Stage(stage.name, stage.meta_loops, points, points, stage.promotion))
    grid = Grid(declared.name, tuple(_selected(declared, stages, only)), file=declared.file)
    horizons = {trial.id: grid.meta_loops for trial in grid.trials}  # the maximum over the stages
    warnings = [*declared.study.warnings(grid.trials), *unreached(grid.trials, horizons)]
    warnings += [
        f"{key} has no effect in some trials, which are trained once: {count:,} repetitions left out"
        for key, count in repeated.items()
    ]
    return replace(grid, warnings=tuple(warnings))


def _check_size(declared: GridFile) -> None:
    candidates = math.prod(map(len, declared.axes.values())) * max(1, len(declared.variants))
    count = candidates * sum(len(stage.seeds) for stage in declared.stages)
    if count > MAX_TRIALS:
        raise UserError(
            f"{declared.where} must have at most {MAX_TRIALS:,} trials, got {count:,}",
            "Split it into several grids",
        )


def _points(declared: GridFile, stage: DeclaredStage, repeated: Counter[str]) -> Iterator[GridPoint]:
    """Yield every point of a stage, in the order of the file. Raises UserError.

    Of the values of an axis that has no effect in a trial, such as the rate of dropout in mode none, the
    first is taken. repeated: counts the seeds of the others, by the names of the settings.
    """
    seen: dict[str, GridPoint] = {}
    combinations = itertools.product(
        declared.variants.items() or [("", {})], itertools.product(*declared.axes.values())
    )
    for candidate, ((variant, extra), values) in enumerate(combinations):
        axes = dict(zip(declared.axes, values, strict=True))
        chosen = {**declared.base, **stage.settings, **extra, **axes}
        settings = parse_spec(declared.study.Settings, chosen, declared.where)
        first = _trial(declared, settings, stage.seeds[0])
        for seed in stage.seeds:
            point = GridPoint(first.changed(seed=seed), variant, settings, candidate)
            before = seen.setdefault(point.trial.id, point)
            if before is point:
                yield point
            elif idle := _without_effect(before, point):
                repeated[idle] += 1
            else:
                raise _twice(declared, point.trial, before.trial.digest)


def _without_effect(one: GridPoint, other: GridPoint) -> str:
    """Return the settings in which two points of one variant and of the same trial differ, "" for others."""
    if one.trial.digest != other.trial.digest or one.variant != other.variant:
        return ""
    mine, theirs = one.settings.model_dump(), other.settings.model_dump()
    return join_names([name for name, value in mine.items() if value != theirs[name]])


def _twice(declared: GridFile, trial: Trial, digest: str) -> UserError:
    """Return the error for two trials with one name."""
    if trial.digest == digest:
        return UserError(
            f"{declared.where} must declare each trial once, got {trial.id} twice",
            "Two variants or values resolve to the same settings: remove one",
        )
    return UserError(
        f"{declared.where}: trials must have different ids, got {trial.id} for two of them",
        "Split the grid in two, each with a name of its own",
    )


def _trial(declared: GridFile, settings: Spec, seed: int) -> Trial:
    try:
        trial = declared.study.from_settings(settings, seed, declared.name)
        check_sizes(trial)
        check_shape(trial)
    except ValidationError as error:
        raise UserError(f"{declared.where}: {first_error(error)}", "Correct that value") from None
    except UserError as error:
        raise UserError(f"{declared.where}: {error.message}", error.hint) from None
    return trial


def _selected(declared: GridFile, stages: list[Stage], only: str) -> list[Stage]:
    """Return the stages with the points that match every `key=value[,value]` of the filter."""
    for clause in split_top_level(only, " ", quotes=True):
        key, values = _clause(declared, clause)
        _check_found(clause, key, values, stages)
        wanted = frozenset(values)
        stages = [
            replace(stage, points=tuple(point for point in stage.points if point.value(key) in wanted))
            for stage in stages
        ]
        if not any(stage.points for stage in stages):
            raise UserError(
                f"--only {clause} must match a trial of the grid", "See `psa plan` for the trials"
            )
    return stages


def _check_found(clause: str, key: str, values: list[Any], stages: list[Stage]) -> None:
    """Raise UserError for a value that no trial has, since it is probably a typing error."""
    there = {point.value(key) for stage in stages for point in stage.points}
    for value in values:
        if value not in there:
            raise UserError(
                f"--only {clause} must match a trial for each value, got none for {value}",
                "See `psa plan` for the trials",
            )


def _clause(declared: GridFile, clause: str) -> tuple[str, list[Any]]:
    """Return the key and the values of a clause of --only."""
    key, text = parse_assignment(clause, "--only")
    check_choice(key, {"seed", "variant", *declared.fields}, "--only")
    where = f"--only {key}"
    if key == "variant":
        return key, split_names(text, declared.variants)
    if key == "seed":
        return key, [parse_int(seed, where) for seed in parse_seeds(text, declared.folder, where)]
    parts = declared.parts(key, text)
    return key, [_setting(declared, key, part, where) for part in parts]


def _setting(declared: GridFile, key: str, text: str, where: str) -> Any:
    """Parse a text as the value of a setting: `2*4` and `[2*4]` are one architecture."""
    field: FieldInfo = declared.fields[key]
    kind: Any = Annotated[field.annotation, field]  # with its limits and conversions
    try:
        return TypeAdapter(kind).validate_python(parse_setting(field.annotation, text, where))
    except ValidationError as error:
        raise UserError(first_error(error, lambda _: where), "See `psa plan` for the trials") from None
