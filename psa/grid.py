"""A declared experiment: a TOML file and overrides in, trials out. Pure; imports no torch.

study = "ablation"          meta_loops = 100          seeds = "0..9"
[base]      settings that all trials share
[axes]      setting = list, "a..b" or "@file" (one value a line); every combination is run
[variants]  name = { settings }; every variant is run with every combination
"""

from __future__ import annotations

import difflib
import itertools
import math
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from psa.errors import UserError
from psa.files import read_bytes
from psa.nets.shapes import shape_of
from psa.studies import ablation
from psa.trial import ArchField, Family, Mode, Spec, Trial, first_fault
from psa.values import assignment, check_known, typed, values_of, whole_number

MAX_TRIALS: Final = 200_000
MAX_LOOPS: Final = 10_000_000
_MAX_FILE: Final = 1_000_000  # bytes; a grid is written by hand


class Settings(Spec):
    """One point of a grid: what `base`, `axes`, `variants` and overrides may set."""

    family: Family = "resmlp"
    arch: ArchField
    mode: Mode = "none"
    dataset: Literal["mnist", "fashion-mnist"] = "mnist"
    scaling: Literal["standard", "unit"] = "standard"
    digits: tuple[Annotated[int, Field(ge=0, le=9)], ...] | None = None
    val_size: int = 10_000
    split_seed: int = 1337
    lr: float = 1e-4
    batch_size: int = 256
    weight_decay: float = 1e-4
    dropout: float = 0.1


@dataclass(frozen=True)
class Grid:
    """A declared experiment, resolved: its trials in the order of the file, and how far they are trained.

    variants: the name of each trial's variant, "" where none is declared.
    """

    name: str
    meta_loops: int
    trials: tuple[Trial, ...]
    variants: tuple[str, ...]


def load(path: Path, overrides: Sequence[str] = (), only: str = "") -> Grid:
    """Read a grid, apply `key=value` overrides, and keep what `only` ("arch=1*16 mode=hidden") selects.

    Raises UserError that names the file, the key and the nearest right name.
    """
    declared = _Declared.read(path)
    for override in overrides:
        declared.override(*assignment(override, "override"))
    declared.check()
    rows = _select(list(declared.rows()), only)
    return Grid(
        path.stem, declared.meta_loops, tuple(trial for trial, _ in rows), tuple(name for _, name in rows)
    )


@dataclass
class _Declared:
    """What a grid file says, as it says it."""

    where: str
    folder: Path
    study: Any
    meta_loops: Any
    seeds: Any
    base: dict[str, Any]
    axes: dict[str, Any]
    variants: dict[str, dict[str, Any]]

    @classmethod
    def read(cls, path: Path) -> _Declared:
        body, where = _read(path), str(path)
        for key in body:
            check_known(key, {"study", "about", "meta_loops", "seeds", "base", "axes", "variants"}, where)
        return cls(
            where=where,
            folder=path.parent,
            study=body.get("study", "ablation"),
            meta_loops=body.get("meta_loops", 100),
            seeds=body.get("seeds", [0]),
            base=_table(body, "base", where),
            axes=_table(body, "axes", where),
            variants=_variants(_table(body, "variants", where), where),
        )

    def override(self, key: str, value: str) -> None:
        """Set a key from the command line; an axis of that name gives way."""
        if key == "meta_loops":
            self.meta_loops = whole_number(value, "override meta_loops")
        elif key == "seeds":
            self.seeds = value
        else:
            check_known(key, set(Settings.model_fields), "override")
            self.axes.pop(key, None)
            self.base[key] = typed(key, value, "override")

    def check(self) -> None:
        """Expand the axes, and refuse what cannot be meant. Raises UserError."""
        for place, keys in (
            ("base", self.base),
            ("axes", self.axes),
            *((f"variants.{name}", settings) for name, settings in self.variants.items()),
        ):
            for key in keys:
                check_known(key, set(Settings.model_fields), f"{self.where}: {place}")
        _exclusive(self.base, self.axes, self.variants, self.where)
        loops = self.meta_loops
        if not isinstance(loops, int) or isinstance(loops, bool) or not 1 <= loops <= MAX_LOOPS:
            raise UserError(
                f"{self.where}: meta_loops = {loops!r} is not a number of loops",
                f"Write 1 to {MAX_LOOPS:,}",
            )
        self.axes = {key: self._values(value, f"axes.{key}") for key, value in self.axes.items()}
        self.seeds = [
            whole_number(seed, f"{self.where}: seeds") for seed in self._values(self.seeds, "seeds")
        ]
        count = math.prod(map(len, self.axes.values())) * max(1, len(self.variants)) * len(self.seeds)
        if count > MAX_TRIALS:
            raise UserError(
                f"{self.where}: {count:,} trials", f"At most {MAX_TRIALS:,}: split it into several grids"
            )

    def _values(self, value: Any, key: str) -> list[Any]:
        return values_of(value, self.folder, f"{self.where}: {key}")

    def rows(self) -> Iterator[tuple[Trial, str]]:
        """Every trial with the name of its variant, in the order of the file. Raises UserError."""
        seen: set[str] = set()
        for variant, extra in self.variants.items() or [("", {})]:
            for values in itertools.product(*self.axes.values()):
                point = {**self.base, **extra, **dict(zip(self.axes, values, strict=True))}
                for seed in self.seeds:
                    trial = _trial(point, seed, self.study, self.where)
                    if trial.id in seen:
                        raise UserError(
                            f"{self.where}: the same trial is asked for twice ({trial.id})",
                            "Two variants or values resolve to the same settings: remove one",
                        )
                    seen.add(trial.id)
                    yield trial, variant


def _read(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    if content is None:
        near = sorted(other.name for other in path.parent.glob("*.toml")) if path.parent.is_dir() else []
        hint = difflib.get_close_matches(path.name, near, 1, 0.3)
        raise UserError(
            f"there is no grid {path}", f"Did you mean {hint[0]}?" if hint else "Name a .toml file"
        )
    if len(content) > _MAX_FILE:
        raise UserError(f"{path} is {len(content):,} bytes long", "That is no grid")
    try:
        return tomllib.loads(content.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path} is not TOML: {error}", "Correct that line") from error


def _table(declared: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = declared.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{where}: {key} is not a table", f"Write [{key}] and its keys below")
    return dict(value)


def _variants(declared: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    seen: dict[str, str] = {}
    for name, settings in declared.items():
        if not isinstance(settings, dict):
            raise UserError(f"{where}: variants.{name} is not a table", "Write name = { key = value }")
        content = repr(sorted(settings.items(), key=lambda item: item[0]))
        if content in seen:
            raise UserError(
                f"{where}: variants {seen[content]!r} and {name!r} are the same", "Remove one of them"
            )
        seen[content] = name
    return declared


def _exclusive(
    base: Mapping[str, Any], axes: Mapping[str, Any], variants: Mapping[str, Mapping[str, Any]], where: str
) -> None:
    """A setting has one place; another would silently win."""
    for key in axes:
        if key in base:
            raise UserError(f"{where}: {key} stands in base and in axes", "Keep one of them")
        for name, settings in variants.items():
            if key in settings:
                raise UserError(f"{where}: {key} stands in axes and in variant {name!r}", "Keep one of them")


def _trial(point: Mapping[str, Any], seed: int, study: str, where: str) -> Trial:
    try:
        trial = ablation.from_settings(Settings.model_validate(dict(point)), seed, study)
        shape_of(trial.model, trial.data.classes)
    except ValidationError as error:
        raise UserError(f"{where}: {first_fault(error)}", "Correct that value") from None
    except UserError as error:
        raise UserError(f"{where}: {error.what}", error.way_out) from None
    return trial


def _select(rows: list[tuple[Trial, str]], only: str) -> list[tuple[Trial, str]]:
    """The rows for which every `key=value[,value]` of the filter holds."""
    for clause in only.split():
        key, value = assignment(clause, "--only")
        check_known(key, {"arch", "mode", "family", "seed", "variant"}, "--only")
        wanted = {part.strip("[]") for part in value.split(",")}
        rows = [row for row in rows if _facts(*row)[key] in wanted]
        if not rows:
            raise UserError(
                f"--only {clause}: no trial of the grid is left", "See `psa plan` for what there is"
            )
    return rows


def _facts(trial: Trial, variant: str) -> dict[str, str]:
    return {
        "arch": trial.model.arch.label,
        "mode": trial.intervention.mode,
        "family": trial.model.family,
        "seed": str(trial.seed),
        "variant": variant,
    }
