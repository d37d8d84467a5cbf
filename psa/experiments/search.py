"""A declared search: a TOML file and overrides in, packs for sampled settings out. Pure; imports no torch.

study, name, meta_loops, seeds, [base]    as in a grid (psa.experiments.grid)
[space]     setting = { low = 1e-5, high = 1e-2, log = true }, or a list of choices, "a..b" or "@file"; if the
            setting is a whole number, low and high are whole numbers and both are included
[search]    samples, scheduler (asha, pbt or none), sampler (random or optuna), grace, reduction, seed

Every configuration is run over all seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, get_args, get_origin

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from psa.core.errors import UserError
from psa.core.parsing import check_choice, parse_values
from psa.core.plugins.loading import loaded_plugins
from psa.data import own
from psa.experiments.grid_file import GridFile
from psa.experiments.study import study_named
from psa.specs.base import Spec, canonical_json, first_error, parse_spec
from psa.specs.trial import Pack, check_shape, check_sizes

TABLES: Final = frozenset({"space", "search"})


class Range(Spec):
    """Numbers from low to high, drawn evenly, or evenly in their logarithm."""

    low: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    high: Annotated[float, Field(strict=True, allow_inf_nan=False)]
    log: bool = False

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high ({self.high:g}), got {self.low:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 with log = true, got {self.low:g}")
        return self


class WholeRange(Spec):
    """Whole numbers from low to high, both included, drawn evenly, or evenly in their logarithm."""

    low: Annotated[int, Field(strict=True)]
    high: Annotated[int, Field(strict=True)]
    log: bool = False

    @model_validator(mode="after")
    def _from_low_to_high(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"low must be below high ({self.high}), got {self.low}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 with log = true, got {self.low}")
        return self


RANGES: Final = (Range, WholeRange)
# Stored searches are read back by this. Whole numbers first: a Range keeps 16.0, but would take 16 as well.
SearchValues = Annotated[WholeRange | Range | tuple[Any, ...], Field(union_mode="left_to_right")]


class SearchStrategy(Spec):
    """The strategy of a search.

    samples: number of configurations. scheduler: asha stops the worse of them early, after `grace` meta-loops
    and then each time after `reduction` times as many; pbt continues the worse ones, every `grace`
    meta-loops, from the weights of better ones with settings near theirs; none trains all to the end.
    sampler: random, or Optuna's (TPE).
    """

    samples: Annotated[int, Field(strict=True, ge=1, le=100_000)] = 20
    scheduler: Literal["asha", "pbt", "none"] = "asha"
    sampler: Literal["random", "optuna"] = "random"
    grace: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] = 5
    reduction: Annotated[int, Field(strict=True, ge=2, le=100)] = 3
    seed: Annotated[int, Field(strict=True, ge=0, le=2**32 - 1)] = 0


class SearchTemplate(Spec):
    """The settings that all configurations of a search share; with sampled settings it becomes a pack.

    plugins: names and versions of its plugins, see psa.core.plugins.identity.PluginId.
    """

    study: str
    name: str
    base: dict[str, Any]
    seeds: tuple[int, ...]
    meta_loops: int
    plugins: tuple[tuple[str, str], ...] = ()

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out plugins where there are none, so that the digests of earlier searches stay the same."""
        body: dict[str, Any] = handler(self)
        return body if self.plugins else {key: value for key, value in body.items() if key != "plugins"}

    def pack(self, sampled: Mapping[str, Any]) -> Pack:
        """Return the configuration with these settings over all seeds. Raises UserError for invalid ones."""
        study = study_named(self.study, self.name)
        settings = parse_spec(study.Settings, {**self.base, **sampled}, self.name)
        try:
            first = study.from_settings(settings, self.seeds[0], self.name)
            check_sizes(first)
            check_shape(first)
        except ValidationError as error:
            raise UserError(f"{self.name}: {first_error(error)}", "Correct that value") from None
        trials = tuple(first.changed(seed=seed) for seed in self.seeds)
        return Pack(trials=trials, horizon=self.meta_loops)


class Search(Spec):
    """A declared search."""

    template: SearchTemplate
    space: dict[str, SearchValues]
    strategy: SearchStrategy

    @property
    def first(self) -> Pack:
        """A configuration in a corner of the space."""
        corner = {
            key: values.low if isinstance(values, RANGES) else values[0] for key, values in self.space.items()
        }
        return self.template.pack(corner)

    def acts(self, sampled: Mapping[str, Any], key: str) -> bool:
        """Return True if a setting has an effect given the others: dropout has none in mode none."""
        values = self.space[key]
        others = (values.low, values.high) if isinstance(values, RANGES) else values
        try:
            mine = self.template.pack(sampled).trials
            return any(self.template.pack({**sampled, key: other}).trials != mine for other in others)
        except UserError:  # if a neighbour is invalid, the setting certainly has an effect
            return True

    @property
    def digest(self) -> str:
        """The SHA-256 digest of everything that decides which configurations are tried."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _with_content(base: dict[str, Any]) -> dict[str, Any]:
    """Return settings with the content of a file in place of its path, which other machines do not have."""
    if not own.is_own(base.get("dataset")):
        return base
    return base | {"dataset": own.content_of(base["dataset"]).model_dump(mode="json")}


def load_search(path: Path, overrides: Sequence[str] = ()) -> Search:
    """Read a search and apply `key=value` overrides of its base, seeds and meta-loops.

    Raises UserError that names the file, the key and the nearest valid name.
    """
    declared = GridFile(path, overrides, TABLES)
    for table in ("axes", "variants"):
        if getattr(declared, table):
            raise UserError(f"{path}: {table} must be left out of a search", "Write the choices into [space]")
    if declared.stages[0].name:
        raise UserError(f"{path}: stages must be left out of a search", "Its scheduler stops trials early")
    if any(own.is_own(value) for value in _listed(declared.further["space"].get("dataset"))):
        raise UserError(f"{path}: space.dataset must hold names, got a file", "Write the file into [base]")
    space = {key: _values(declared, key, value) for key, value in declared.further["space"].items()}
    if not space:
        raise UserError(
            f"{path}: [space] must have a setting, got none", "Add lr = { low = 1e-5, high = 1e-2 }"
        )
    strategy = parse_spec(SearchStrategy, declared.further["search"], f"{path}: search")
    stage = declared.stages[0]
    template = SearchTemplate(
        study=declared.study_name,
        name=declared.name,
        base=_with_content(declared.base),
        seeds=tuple(stage.seeds),
        meta_loops=stage.meta_loops,
        plugins=tuple((plugin.name, plugin.version) for plugin in loaded_plugins()),
    )
    found = Search(template=template, space=space, strategy=strategy)
    _check(found, path)
    return found


def _values(declared: GridFile, key: str, value: Any) -> WholeRange | Range | tuple[Any, ...]:
    where = f"{declared.where}: space.{key}"
    check_choice(key, set(declared.fields), f"{declared.where}: space")
    if key in declared.base:
        raise UserError(f"{declared.where}: {key} must be set in one place, got space and base", "Keep one")
    if isinstance(value, dict):
        whole = _is_whole(declared.fields[key].annotation)
        return parse_spec(WholeRange, value, where) if whole else parse_spec(Range, value, where)
    return tuple(parse_values(value, declared.folder, where))


def _is_whole(annotation: Any) -> bool:
    """Return True if a setting is a whole number, or an optional one."""
    if get_origin(annotation) is Annotated:
        return _is_whole(get_args(annotation)[0])
    parts = [part for part in get_args(annotation) if part is not type(None)]
    return annotation is int or (len(parts) == 1 and len(get_args(annotation)) == 2 and _is_whole(parts[0]))


def _check(found: Search, path: Path) -> None:
    """Raise UserError if a corner of the space has no valid trial, or the scheduler has nothing to do."""
    corners = {
        key: (values.low, values.high) if isinstance(values, RANGES) else values
        for key, values in found.space.items()
    }
    first = {key: values[0] for key, values in corners.items()}
    for key, values in corners.items():
        for value in values:
            try:
                found.template.pack({**first, key: value})
            except UserError as error:
                raise UserError(f"{path}: space: {error.message}", error.hint) from None
    strategy = found.strategy
    if strategy.scheduler != "none" and strategy.grace >= found.template.meta_loops:
        raise UserError(
            f"{path}: search.grace must be below meta_loops ({found.template.meta_loops}), got "
            f"{strategy.grace}",
            'Write scheduler = "none" for no early stops',
        )
    if strategy.scheduler == "pbt":
        fixed = [key for key in found.space if key not in ("lr", "weight_decay", "dropout", "mode")]
        if fixed:
            raise UserError(
                f"{path}: scheduler pbt copies weights and cannot search {fixed[0]}",
                'Choose scheduler = "asha"',
            )
        if strategy.sampler != "random":
            raise UserError(f"{path}: scheduler pbt must have sampler random", 'Write sampler = "random"')
