"""What a study hands the grid: its settings, what they are called, and how a trial is made of them.

A study is a module of `psa.experiments.studies` with `Settings`, a Spec whose fields are the keys of its
grids, and
`from_settings(settings, seed, name) -> Trial` and `remarks(trials)`. Nothing else needs to know of it.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol, Union, cast, get_args, get_origin

from pydantic import BeforeValidator, Field

from psa.core.errors import UserError
from psa.core.parsing import check_choice, parse_int, split_top_level, strip_brackets
from psa.experiments import studies
from psa.specs.base import Probability, Seed, Spec
from psa.specs.data import (
    PRESETS,
    DatasetName,
    DataSpec,
    Digits,
    Scaling,
    SubsetSize,
    ValidationSize,
    resolved,
)
from psa.specs.probes import PROBES, ProbeName, parse_probe
from psa.specs.training import BatchSize, LearningRate, OptimizerName, StandardTraining, WeightDecay
from psa.specs.trial import Trial


def _known_probes(names: Any) -> Any:
    """Before any pattern is asked, which could only say that a text is not like it."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return names  # whatever else it is, is told by its type
    unknown = next((name for name in names if name.partition("(")[0] not in PROBES), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, PROBES, 1, 0.4) or [", ".join(PROBES)]
        raise ValueError(f"there is no probe {unknown!r}; did you mean {near[0]}?")
    for name in names:
        try:
            parse_probe(name)
        except UserError as error:  # pydantic reports ValueErrors with the key they belong to
            raise ValueError(str(error)) from error
    return names


Probes = Annotated[
    tuple[ProbeName, ...],
    BeforeValidator(_known_probes),
    Field(description="What is observed beside scores; NAME(key=value) where one has options."),
]


class DataSettings(Spec):
    """The settings of every study that say which data are used."""

    dataset: DatasetName = "mnist"
    scaling: Scaling = "standard"
    digits: Annotated[
        Digits | None,
        BeforeValidator(resolved),  # "even" is the digits it names
        Field(description=f"Such as 0,1,7, or {', '.join(PRESETS)}; all."),
    ] = None
    val_size: ValidationSize = 10_000
    split_seed: Seed = 1337
    train_size: Annotated[SubsetSize | None, Field(description="Images of the training split; all.")] = None
    test_size: Annotated[SubsetSize | None, Field(description="Images of the test file; all.")] = None

    @property
    def data(self) -> DataSpec:
        """The data they name. Raises pydantic.ValidationError."""
        return DataSpec(
            name=self.dataset,
            scaling=self.scaling,
            digits=self.digits,
            val_size=self.val_size,
            split_seed=self.split_seed,
            train_size=self.train_size,
            test_size=self.test_size,
        )


class TrainingSettings(DataSettings):
    """The settings of studies with ordinary training; a study repeats a field to change its default."""

    dropout: Probability = 0.0
    optimizer: OptimizerName = "adam"
    lr: Annotated[LearningRate, Field(description="Learning rate.")] = 1e-3
    momentum: Annotated[Probability, Field(description="Of optimizer sgd.")] = 0.0
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 0.0

    def training(self, patience: int | None = None) -> StandardTraining:
        """Return the training they describe. Raises pydantic.ValidationError."""
        shared = StandardTraining.model_fields.keys() & TrainingSettings.model_fields.keys()
        return StandardTraining(patience=patience, **{name: getattr(self, name) for name in shared})


class Study(Protocol):
    """What the grid asks of a module of psa.experiments.studies."""

    Settings: type[Spec]
    ALIASES: Mapping[str, str]  # other names of settings, as options of `train --study`

    def from_settings(self, settings: Any, seed: int, name: str) -> Trial:
        """The trial of one point of a grid, stored under `name`; its other seeds differ in nothing else.

        Raises pydantic.ValidationError.
        """

    def remarks(self, trials: Sequence[Trial]) -> list[str]:
        """What a user should know of these trials before they are trained, one line each."""


def study_names() -> set[str]:
    """Every study that there is."""
    return {module.name for module in pkgutil.iter_modules(studies.__path__)}


def study_named(name: Any, where: str) -> Study:
    """The study of that name. Raises UserError with the nearest name."""
    known = study_names()
    if not isinstance(name, str):
        raise UserError(f"{where}: study = {name!r} is no name", f"Known: {', '.join(sorted(known))}")
    check_choice(name, known, where, "study")
    return cast(Study, importlib.import_module(f"psa.experiments.studies.{name}"))


def parse_setting(annotation: Any, text: str, where: str) -> Any:
    """The value that a text from the command line stands for, by the type of its setting: lr=1e-4 is a
    number, and a list may have a name. What it may be is left to the setting. Raises UserError.
    """
    kind = unwrap_annotation(annotation)
    if get_origin(kind) is tuple:
        inner, item = strip_brackets(text), get_args(kind)[0]
        if unwrap_annotation(item) is int and inner.isidentifier():
            return inner
        return [parse_setting(item, part, where) for part in split_top_level(inner, ",")]
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"{where}={text} is neither true nor false", "Write one of them")
        return text == "true"
    if kind is int:
        return parse_int(text, where)
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise UserError(f"{where}={text} is not a number", "For example lr=1e-3") from None
    return text


def is_list_setting(annotation: Any) -> bool:
    """Whether one value of a setting is itself a list, such as digits."""
    return get_origin(unwrap_annotation(annotation)) is tuple


def unwrap_annotation(annotation: Any) -> Any:
    """A type without its limits, and without the None that it may also be."""
    if get_origin(annotation) is Annotated:
        return unwrap_annotation(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return unwrap_annotation(next(each for each in get_args(annotation) if each is not type(None)))
    return annotation
