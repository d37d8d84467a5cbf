"""The protocol of a study: its settings, their names, and the function that makes a trial of them.

A study is a module of `psa.experiments.studies` with `Settings`, a Spec whose fields are the keys of its
grids, `from_settings(settings, seed, name) -> Trial` and `warnings(trials)`, found by its file name; or a
plugin registers it (`register_study`).
"""

from __future__ import annotations

import importlib
import pkgutil
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Protocol, cast

from pydantic import BeforeValidator, Field, ValidationError

from psa.core.errors import UserError
from psa.core.formatting import quote
from psa.core.parsing import nearest
from psa.core.plugins.identity import PluginError, plugin_functions
from psa.core.plugins.registry import Registry
from psa.data import own
from psa.specs.base import Probability, Seed, Spec, first_error
from psa.specs.data import (
    PRESETS,
    DataContent,
    DataSpec,
    Digits,
    Scaling,
    SubsetSize,
    ValidationSize,
    checked_name,
    default_sizes,
    resolved,
)
from psa.specs.data.catalogue import CATALOGUE
from psa.specs.probes import PROBE_PLUGINS, ProbeName, parse_probe
from psa.specs.training import (
    BatchSize,
    DropoutRate,
    LearningRate,
    OptimizerName,
    StandardTraining,
    WeightDecay,
)
from psa.specs.trial import Trial

# located by path: the study modules import this one, and circular imports are not allowed
_STUDIES: Final = Path(__file__).with_name("studies")


def _known_probes(names: Any) -> Any:
    """Check the names of probes before the pattern of the field does, whose error would suggest no name."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return names  # the type check reports any other value
    unknown = next((name for name in names if not PROBE_PLUGINS.accepts(name.partition("(")[0])), None)
    if unknown is not None:
        near = nearest(unknown, PROBE_PLUGINS.names)
        hint = f"Did you mean {near}?" if near else f"Known: {', '.join(PROBE_PLUGINS.names)}"
        raise ValueError(f"unknown probe {unknown!r}. {hint}")
    for name in names:
        try:
            parse_probe(name)
        except UserError as error:  # pydantic reports ValueErrors with the key they belong to
            raise ValueError(str(error)) from error
    return names


Probes = Annotated[
    tuple[ProbeName, ...],
    BeforeValidator(_known_probes),
    Field(description="Probes to run; NAME(key=value) sets options."),
]


def _dataset(value: Any) -> Any:
    """Check the name of a data set, or read the file that a setting names and return its content."""
    if isinstance(value, DataContent | dict):
        return value
    if not isinstance(value, str):
        must = f"dataset must be the name of a data set or {own.NOTATION}"
        raise ValueError(f"{must}, got {quote(value)}")  # noqa: TRY004 (pydantic reports no other error)
    if not own.is_own(value):
        return checked_name(value)
    try:
        return own.content_of(value)
    except UserError as error:  # pydantic reports a ValueError with its key
        raise ValueError(str(error)) from error


DATASET_HELP: Final = f"{', '.join(CATALOGUE)}; or a file of your own, {own.NOTATION}"
DatasetSetting = Annotated[
    DataContent | str, BeforeValidator(_dataset), Field(description=f"Data set: {DATASET_HELP}.")
]


def data_named(text: str) -> DataSpec:
    """Return the data of a name or of a `file:` with the usual splits and scaling. Raises UserError."""
    try:
        return DataSettings.model_validate({"dataset": text}).data
    except ValidationError as error:
        raise UserError(first_error(error, lambda key: f"--{key}" if key == "dataset" else key)) from None


class DataSettings(Spec):
    """The settings of every study that select its data."""

    dataset: DatasetSetting = "mnist"
    scaling: Scaling = "standard"
    digits: Annotated[
        Digits | None,
        BeforeValidator(resolved),  # "even" is the digits it names
        Field(description=f"Digits to classify: 0,1,7 or {', '.join(PRESETS)}. [default: all]"),
    ] = None
    val_size: ValidationSize = 10_000
    split_seed: Annotated[Seed, Field(description="Seed of the split and of the subsets of samples.")] = 1337
    train_size: Annotated[
        SubsetSize | None, Field(description="Number of training samples. [default: all]")
    ] = None
    test_size: Annotated[SubsetSize | None, Field(description="Number of test samples. [default: all]")] = (
        None
    )
    stratified: Annotated[
        bool, Field(description="Draw splits that all have the same shares of the classes.")
    ] = False

    @property
    def data(self) -> DataSpec:
        """The data that the settings select. Raises pydantic.ValidationError."""
        if self.dataset in ("mnist", "fashion-mnist"):
            return self._data({"name": self.dataset})
        content = self.dataset if isinstance(self.dataset, DataContent) else None
        name = str(self.dataset)
        usual = type(self).model_fields["val_size"].default
        sizes = default_sizes(CATALOGUE[name] if content is None else content, usual, self.test_size)
        given = self.model_fields_set
        return self._data(
            {"name": name, "content": content}
            | {key: size for key, size in sizes.items() if key not in given or getattr(self, key) is None}
        )

    def _data(self, chosen: dict[str, Any]) -> DataSpec:
        """Return the data of these fields, and of the settings for all others."""
        names = DataSpec.model_fields.keys() - {"name", "content"}
        return DataSpec.model_validate({name: getattr(self, name) for name in names} | chosen)


class TrainingSettings(DataSettings):
    """The settings of studies with ordinary training; a study repeats a field to change its default."""

    dropout: DropoutRate = 0.0
    optimizer: OptimizerName = "adam"
    lr: LearningRate = 1e-3
    momentum: Annotated[Probability, Field(description="Momentum. [optimizer sgd]")] = 0.0
    batch_size: BatchSize = 128
    weight_decay: WeightDecay = 0.0

    def training(self, patience: int | None = None) -> StandardTraining:
        """Return the training that the settings describe. Raises pydantic.ValidationError."""
        shared = StandardTraining.model_fields.keys() & TrainingSettings.model_fields.keys()
        return StandardTraining(patience=patience, **{name: getattr(self, name) for name in shared})


class Study(Protocol):
    """A module of `psa.experiments.studies`: the settings of a grid, and the trial that they stand for.

    The name of the module is the name of the study in a grid file. Functions of a module take no `self`.

    Attributes:
        Settings: A subclass of `DataSettings`. Its fields are the keys of a grid file and the options of
            `psa train --study`, with their types, limits, defaults and descriptions.
        ALIASES: Other names of settings, each with the name it stands for, as options of `train --study`.

    Example:
        The text of a module:

        >>> from psa.specs.arch import Arch
        >>> from psa.specs.model import NetworkSpec
        >>> from psa.specs.training import LearningRate, StandardTraining
        >>> ALIASES = {}
        >>> class Settings(DataSettings):
        ...     lr: LearningRate = 1e-3
        >>> def from_settings(settings, seed, name):
        ...     model = NetworkSpec(family="mlp", arch=Arch.coerce("1*16"))
        ...     method = StandardTraining(lr=settings.lr)
        ...     kind = "activations"  # the report of its pages
        ...     return Trial(
        ...         study=name, kind=kind, data=settings.data, model=model, method=method, seed=seed
        ...     )
        >>> def warnings(trials):
        ...     return []
        >>> from_settings(Settings(lr=1e-2), seed=3, name="rates").method.lr
        0.01

    """

    Settings: type[Spec]
    ALIASES: Mapping[str, str]

    def from_settings(self, settings: Any, seed: int, name: str) -> Trial:
        """Make the trial of one point of a grid.

        The seed must reach the field `seed` of the trial and nothing else: the grid copies the trial of one
        seed for the others.

        Args:
            settings: An instance of `Settings`.
            seed: The seed of initial weights, batches and interventions.
            name: The name of the grid, under which the trial is stored.

        Returns:
            The trial.

        Raises:
            ValidationError: Settings that are valid one by one and contradict each other.
            UserError: The same, with a hint of its own.

        """

    def warnings(self, trials: Sequence[Trial]) -> list[str]:
        """Collect warnings about trials that are valid, and may not be what the user means.

        Args:
            trials: All trials of the grid.

        Returns:
            One line per warning, printed before the training.

        """


def study_names() -> set[str]:
    """Return the names of the studies of psa."""
    return {module.name for module in pkgutil.iter_modules([str(_STUDIES)])}


STUDY_PLUGINS: Final = Registry[Study]("study", study_names)


def register_study(
    name: str,
    settings: type[Spec],
    from_settings: Callable[[Any, int, str], Trial],
    *,
    warnings: Callable[[Sequence[Trial]], list[str]] = lambda trials: [],
    aliases: Mapping[str, str] | None = None,
) -> None:
    """Register a study: the settings of its grids, and the trial that they stand for. See `Study`.

    Args:
        name: The name of the study in grids and of `psa train --study`.
        settings: A subclass of `DataSettings`; the first line of its docstring describes the study.
        from_settings: Makes the trial of settings (its `data`), a seed (its `seed` alone) and a `study`.
        warnings: Returns a line per warning about the trials of a grid.
        aliases: Other names of settings, each with the name it stands for.

    Raises:
        PluginError: The name is invalid, that of a study of psa, or registered already; or `settings` is not
            a subclass of `DataSettings`, or a function cannot be called.

    Example:
        >>> from psa.specs.model import NetworkSpec
        >>> class Width(DataSettings):
        ...     width: int = 8
        >>> def trial(settings, seed, name):
        ...     model = NetworkSpec(family="mlp", arch=f"1*{settings.width}")
        ...     shared = {"study": name, "kind": "activations", "data": settings.data, "seed": seed}
        ...     return Trial(model=model, method=StandardTraining(), **shared)
        >>> def register():
        ...     register_study("widths", Width, trial)

    """
    if not _are_settings(settings):
        raise PluginError(
            f"the settings of study {name!r} must be a subclass of psa.experiments.study.DataSettings, got "
            f"{quote(settings)}"
        )
    study = cast(Study, types.ModuleType(name, settings.__doc__ or f"The study {name}."))
    STUDY_PLUGINS.add(name, study)
    functions = {"from_settings": from_settings, "warnings": warnings}
    run = plugin_functions("study", name, functions, (ValidationError,))
    vars(study).update(run, Settings=settings, ALIASES=aliases or {})


def _are_settings(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, DataSettings)


def study_named(name: Any, where: str) -> Study:
    """Return the study of that name. Raises UserError with the nearest name."""
    if not isinstance(name, str):
        known = ", ".join(sorted(STUDY_PLUGINS.names))
        raise UserError(f"{where}: study must be the name of a study, got {name!r}", f"Known: {known}")
    STUDY_PLUGINS.check_choice(name, where)
    if name in study_names():
        return cast(Study, importlib.import_module(f"psa.experiments.studies.{name}"))
    return STUDY_PLUGINS.get(name)
