"""The content of a grid file: its tables and keys, overrides of the command line, and their checks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.core.formatting import quote
from psa.core.parsing import (
    NAME_PATTERN,
    check_choice,
    nearest,
    parse_assignment,
    parse_int,
    parse_seeds,
    parse_values,
    split_top_level,
)
from psa.core.plugins.loading import load_declared
from psa.core.text_file import read_toml
from psa.data import own
from psa.experiments.setting_text import axis_values, is_list_setting, parse_setting
from psa.experiments.study import Study, study_named
from psa.specs.base import Spec, parse_spec

MAX_LOOPS: Final = 10_000_000
_GRIDS: Final = Path("reproduction")  # the folder of the grids of the studies
_MAX_STAGES: Final = 100
_RESERVED: Final = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9]")  # no folders of these names on Windows
_TABLES: Final = {"base", "axes", "variants", "stages"}
_TOP: Final = _TABLES | {"study", "name", "about", "meta_loops", "seeds", "plugins"}
_STAGE_KEYS: Final = {"name", "meta_loops", "seeds", "settings", "promote"}


class Promotion(Spec):
    """The rule that promotes candidates of a stage to the next, by validation accuracy alone.

    best: number per group. within: settings (or "variant"); candidates with equal values form a group.
    groups: groups as lists of variants, instead of `within`. always: variants that are always promoted.
    """

    best: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 1
    within: tuple[str, ...] = ()
    groups: tuple[tuple[str, ...], ...] = ()
    always: tuple[str, ...] = ()


@dataclass
class DeclaredStage:
    """One stage as declared; name is "" in a grid without stages, promotion None in a first stage."""

    name: str
    meta_loops: Any
    seeds: Any
    settings: dict[str, Any]
    promotion: Promotion | None


class GridFile:
    """A grid file, or a mapping of the same form, with its overrides. `tables`: further tables that it may
    have, which are left unparsed. file: its file name, "" for a mapping.

    Raises UserError that names the file, the key and the nearest valid name.
    """

    def __init__(
        self,
        source: Path | Mapping[str, Any],
        overrides: Sequence[str],
        tables: frozenset[str] = frozenset(),
    ) -> None:
        if isinstance(source, Path):
            body, self.where, self.folder = _read(source), str(source), source.parent
            self.file = source.name
        else:
            self.file, shown = "", source.get("name", source.get("study", "experiment"))
            body, self.where, self.folder = dict(source), f"experiment {shown}", Path()
        for key in (body := own.with_paths(body, self.folder)):
            check_choice(key, _TOP | tables, self.where)
        load_declared(body.get("plugins", []), self.folder, self.where)
        self.further = {name: _table(body, name, self.where) for name in tables}
        study = body.get("study", "ablation")
        self.study: Study = study_named(study, self.where)
        self.study_name = str(study)
        self.fields = self.study.Settings.model_fields
        self.name = body.get("name", study)
        name = self.name if isinstance(self.name, str) else ""
        if re.fullmatch(NAME_PATTERN, name) is None or _RESERVED.fullmatch(name):
            raise UserError(
                f"{self.where}: name must be up to 40 of a-z, 0-9, - and _, got {quote(self.name)}",
                "Begin with a letter; names that Windows reserves, such as con, are not allowed",
            )
        self.base = _table(body, "base", self.where)
        self.axes = _table(body, "axes", self.where)
        self.variants = _variants(_table(body, "variants", self.where), self.where)
        self.stages = self._stages(body)
        given = [parse_assignment(override, "override") for override in overrides]
        for key, count in Counter(key for key, _ in given).items():
            if count > 1:
                raise UserError(f"override {key} must be given once, got {count}", f"Write {key}=A,B")
        for key, value in given:
            self._override(key, value)
        self._check_keys()
        self._check_places()
        for stage in self.stages:
            self._check_stage(stage)
        self.axes = {key: self._values(value, key) for key, value in self.axes.items()}

    def _stages(self, body: Mapping[str, Any]) -> list[DeclaredStage]:
        declared = body.get("stages", [])
        if not isinstance(declared, list) or not all(isinstance(each, dict) for each in declared):
            raise UserError(f"{self.where}: stages must be a list of tables", "Write [[stages]] before each")
        if len(declared) > _MAX_STAGES:
            raise UserError(f"{self.where}: stages must be at most {_MAX_STAGES}", "Write several grids")
        for key in ("meta_loops", "seeds"):
            if key in body and declared and all(key in each for each in declared):
                raise _set_twice(self.where, key, "every stage", "above them")
        common = {"meta_loops": body.get("meta_loops", 100), "seeds": body.get("seeds", [0])}
        if not declared:
            return [DeclaredStage("", common["meta_loops"], common["seeds"], {}, None)]
        return [self._stage(number, {**common, **each}) for number, each in enumerate(declared)]

    def _stage(self, number: int, body: dict[str, Any]) -> DeclaredStage:
        name = body.get("name")
        where = f"{self.where}: stages.{name or number + 1}"
        for key in body:
            check_choice(key, _STAGE_KEYS, where)
        if not isinstance(name, str) or not name.isidentifier():
            raise UserError(f"{where}: name must be letters, digits and _, got {name!r}", "Write stage_1")
        settings, promotion = _table(body, "settings", where), None
        if number == 0 and "promote" in body:
            raise UserError(f"{where}: promote must be left out of the first stage", "It trains all")
        if number > 0:
            if "promote" not in body:
                raise UserError(f"{where}: promote must be set after stage 1", "Write promote = { best = 1 }")
            promotion = parse_spec(Promotion, _table(body, "promote", where), f"{where}.promote")
        return DeclaredStage(name, body["meta_loops"], body["seeds"], settings, promotion)

    def _override(self, key: str, value: str) -> None:
        """Set a key from the command line, replacing an axis of that name. `stage.key` is for one stage."""
        name, dot, inner = key.rpartition(".")
        if dot:
            if not self.stages[0].name:
                raise UserError(f"override {key}: the grid has no stages", f"Write {inner}={value}")
            check_choice(name, {stage.name for stage in self.stages}, "override", "stage")
            stages, key = [stage for stage in self.stages if stage.name == name], inner
        else:
            stages = self.stages
        if key in ("meta_loops", "seeds"):
            for stage in stages:
                setattr(stage, key, parse_int(value, "override meta_loops") if key == "meta_loops" else value)
            return
        check_choice(key, {*self.fields, "meta_loops", "seeds"}, "override")
        values = [
            parse_setting(self.fields[key].annotation, part, f"override {key}")
            for part in self.parts(key, value)
        ]
        if dot:
            if len(values) > 1:
                raise UserError(
                    f"override {name}.{key} must be one value, got {len(values)}",
                    f"Write {key}={value} for an axis of all stages",
                )
            stages[0].settings[key] = values[0]
            return
        self._check_override(key, value)
        self.base.pop(key, None)
        if len(values) > 1 or key in self.axes:
            self.axes[key] = values  # in its position: the order of axes decides ties
        else:
            self.base[key] = values[0]

    def _check_override(self, key: str, value: str) -> None:
        """Raise UserError if a variant or a stage sets the key: the override would not reach all trials."""
        for name, settings in self.variants.items():
            if key in settings:
                raise _set_twice(self.where, key, "an override", f"variant {name!r}")
        for stage in self.stages:
            if key in stage.settings:
                raise UserError(
                    f"override {key} must not be set by a stage, got it in {stage.name!r}",
                    f"Write {stage.name}.{key}={value}",
                )

    def parts(self, key: str, value: str) -> list[str]:
        """Split a text into values: `mode=none,full` has two, `digits=0,1` one and `digits=[0,1],even` two.
        Ranges and files of values are written as in a grid.
        """
        if value.startswith("@") or ".." in value:
            return [str(each) for each in parse_values(value, self.folder, key)]
        parts = split_top_level(value, ",") or [value]
        if (
            is_list_setting(self.fields[key].annotation)
            and not value.startswith("[")
            and parts[0][:1].isdigit()
        ):
            return [value]
        return parts

    def _check_keys(self) -> None:
        tables = [("base", self.base), ("axes", self.axes)]
        tables += [(f"variants.{name}", settings) for name, settings in self.variants.items()]
        tables += [(f"stages.{stage.name}.settings", stage.settings) for stage in self.stages]
        for place, keys in tables:
            for key in keys:
                check_choice(key, set(self.fields), f"{self.where}: {place}")

    def _check_places(self) -> None:
        """Raise UserError for a setting in two places. A stage or a variant may override the base."""
        places = [("base", self.base)]
        places += [(f"variant {name!r}", settings) for name, settings in self.variants.items()]
        places += [(f"stage {stage.name!r}", stage.settings) for stage in self.stages]
        for key in self.axes:
            for place, settings in places:
                if key in settings:
                    raise _set_twice(self.where, key, "axes", place)
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"{self.where}: stages must differ in name, got {name!r} twice", "Rename one")
        for stage in self.stages:
            for name, settings in self.variants.items():
                for key in settings.keys() & stage.settings.keys():
                    raise _set_twice(self.where, key, f"variant {name!r}", f"stage {stage.name!r}")

    def _check_stage(self, stage: DeclaredStage) -> None:
        where, loops = f"{self.where}: {f'stages.{stage.name}: ' * bool(stage.name)}", stage.meta_loops
        if not isinstance(loops, int) or isinstance(loops, bool) or not 1 <= loops <= MAX_LOOPS:
            raise UserError(
                f"{where}meta_loops must be a whole number from 1 to {MAX_LOOPS:,}, got {quote(loops)}",
                "Write 100",
            )
        stage.seeds = [
            parse_int(seed, f"{where}seeds")
            for seed in parse_seeds(stage.seeds, self.folder, f"{where}seeds")
        ]
        if stage.promotion is not None:
            self._check_promotion(stage.promotion, f"{where}promote")

    def _check_promotion(self, promotion: Promotion, where: str) -> None:
        for key in promotion.within:
            check_choice(key, {*self.fields, "variant"}, f"{where}.within")
        for place, names in (
            ("always", promotion.always),
            *(("groups", group) for group in promotion.groups),
        ):
            for name in names:
                check_choice(name, set(self.variants), f"{where}.{place}", "variant")
        if promotion.groups and promotion.within:
            raise UserError(f"{where} must have within or groups, got both", "Keep one of them")

    def _values(self, value: Any, key: str) -> list[Any]:
        return axis_values(value, self.fields.get(key), self.folder, f"{self.where}: axes.{key}")


def _read(path: Path) -> dict[str, Any]:
    content = read_bytes(path)
    if content is None:
        there = [other for folder in (_GRIDS, path.parent) for other in sorted(folder.glob("*.toml"))]
        grids = {other.stem: other for other in there if other.name != "pyproject.toml"}
        near = nearest(path.stem, grids, likeness=0.75)
        hint = f"Did you mean {grids[near]}?" if near else "Name a .toml file, such as those in reproduction/"
        raise UserError(f"the grid {path} does not exist", hint)
    return read_toml(content, str(path), "grid")


def _set_twice(where: str, key: str, one: str, other: str) -> UserError:
    return UserError(f"{where}: {key} must be set in one place, got {one} and {other}", "Keep one of them")


def _table(declared: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = declared.get(key, {})
    if not isinstance(value, dict):
        raise UserError(
            f"{where}: {key} must be a table, got {quote(value)}", f"Write [{key}] above its keys"
        )
    return dict(value)


def _variants(declared: dict[str, Any], where: str) -> dict[str, dict[str, Any]]:
    seen: dict[str, str] = {}
    for name, settings in declared.items():
        if not isinstance(settings, dict):
            raise UserError(
                f"{where}: variants.{name} must be a table, got {quote(settings)}", "Write { key = 1 }"
            )
        content = repr(sorted(settings.items(), key=lambda item: item[0]))
        if content in seen:
            raise UserError(f"{where}: variants must differ, got {seen[content]!r} = {name!r}", "Remove one")
        seen[content] = name
    return declared
