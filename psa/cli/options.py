"""Options that several commands share, and strict parsing of numbers: 1.5 images are rejected."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter, Token

from psa.execution.backend import BackendOptions
from psa.execution.machine import DeviceName
from psa.experiments.sweep import SweepOptions
from psa.storage.retention import KeepWeights

MAX_COUNT: Final = 100_000
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf)", re.ASCII | re.IGNORECASE
)


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    """Parse a whole number; reject one that would have to be rounded. Raises ValueError."""
    text = tokens[0].value
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f'"{text[:40]}" is not a whole number.')
    return int(text)


def _wholes(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(_whole(kind, [token]) for token in tokens)


def _number(_type: Any, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f'"{text[:40]}" is not a number.')
    return float(text)


def _dollars(kind: Any, tokens: Sequence[Token]) -> float:
    value = _number(kind, tokens)
    if not 0 < value < math.inf:
        raise ValueError(f"{value:g} is not a number of dollars above 0.")
    return value


def _count(kind: Any, tokens: Sequence[Token]) -> int:
    value = _whole(kind, tokens)
    if not 1 <= value <= MAX_COUNT:
        raise ValueError(f"{value} is not a number from 1 to {MAX_COUNT:,}.")
    return value


WholeOption = Annotated[int, Parameter(converter=_whole)]
Wholes = Annotated[tuple[int, ...] | None, Parameter(converter=_wholes, consume_multiple=True, negative="")]
CountOption = Annotated[int | None, Parameter(converter=_count)]
Dollars = Annotated[float, Parameter(converter=_dollars)]
NumberOption = Annotated[float, Parameter(converter=_number)]

ModelDir = Annotated[Path, Parameter(env_var="SAGEMAKER_MODEL_DIR", help="Folder of the checkpoints.")]
ResultsDir = Annotated[Path, Parameter(help="Folder of the records, one per finished trial.")]
DataDir = Annotated[Path, Parameter(help="Folder of the data sets; what is missing is fetched into it.")]

GridFileArgument = Annotated[Path, Parameter(help="A declared experiment, e.g. reproduction/smoke.toml.")]
Override = Annotated[str, Parameter(help="Settings that override the file's: lr=1e-3 seeds=0..4")]
Only = Annotated[str, Parameter(help="A part of the grid: 'arch=1*16 mode=hidden,none seed=0'.")]
Workers = Annotated[
    CountOption,
    Parameter(help="Processes of one thread. [default: one per core; with GPUs up to four on each of them]"),
]
PackSize = Annotated[CountOption, Parameter(help="Trials per pack. [default: the fastest, by measurement]")]
Device = Annotated[DeviceName | None, Parameter(help="Where to compute. [default: the best one there is]")]


@dataclass(frozen=True, kw_only=True)
class SweepCommandOptions:
    """Options that select and configure a backend."""

    backend: Annotated[
        Literal["local", "ray", "sagemaker"] | None,
        Parameter(
            help="Here, as trials of Ray Tune on a cluster, or as jobs of SageMaker. "
            "[default: local; a search: ray]"
        ),
    ] = None
    workers: Workers = None
    address: Annotated[
        str | None,
        Parameter(
            help="Of a Ray cluster: auto, HOST:PORT, ray://HOST:10001. [default: local, one made here]"
        ),
    ] = None
    gpus_per_pack: Annotated[
        NumberOption | None,
        Parameter(help="Of Ray's GPUs, e.g. 0.25. [default: a quarter of one, if there are any]"),
    ] = None
    storage: Annotated[
        str | None,
        Parameter(
            help="A folder or s3://BUCKET/PREFIX that all nodes of Ray reach. [default: in --model-dir]"
        ),
    ] = None

    jobs: Annotated[
        CountOption, Parameter(help="Of SageMaker, in all. [default: as many as hold four hours each]")
    ] = None
    spot: Annotated[
        bool, Parameter(negative="", help="Of SageMaker: on spare capacity, cheaper and interrupted.")
    ] = False
    detach: Annotated[
        bool, Parameter(negative="", help="Of SageMaker: submit what the quota allows, and leave.")
    ] = False
    max_cost: Annotated[
        Dollars | None,
        Parameter(help="Of SageMaker: dollars that the jobs of a study may cost at most, all that it had."),
    ] = None
    prices: Annotated[
        Path | None, Parameter(help="Of SageMaker: a table of prices like cloud/aws/prices.toml.")
    ] = None

    @property
    def where(self) -> BackendOptions:
        """The options of the backend."""
        return BackendOptions(**{field.name: getattr(self, field.name) for field in fields(BackendOptions)})


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a sweep that apply to every backend."""

    pack_size: PackSize = None
    keep_weights: Annotated[
        KeepWeights, Parameter(help="Of finished trials: all, the best seed per arch and mode, or none.")
    ] = "all"
    fail_fast: Annotated[bool, Parameter(negative="", help="Stop at the first pack that fails.")] = False
    dry_run: Annotated[bool, Parameter(negative="", help="Only show, and check, what would be launched.")] = (
        False
    )
    tensorboard: Annotated[
        Path | None, Parameter(help="Folder in which TensorBoard finds every finished trial as a run.")
    ] = None
    mlflow: Annotated[
        str | None,
        Parameter(
            help="MLflow's server that is told of finished trials: http://HOST:5000, sqlite:///runs.db."
        ),
    ] = None

    def sweep_on(self, runs: SweepCommandOptions) -> SweepOptions:
        """Return the options of a sweep on the backend that `runs` selects."""
        return SweepOptions(
            backend=runs.backend or "local",
            where=runs.where,
            pack_size=self.pack_size,
            keep_weights=self.keep_weights,
            fail_fast=self.fail_fast,
            tensorboard=self.tensorboard,
            mlflow=self.mlflow,
        )
