"""Options that several commands share, and strict parsing of numbers: 1.5 images are rejected."""

# No deferred annotations here: cyclopts could not resolve those of a dataclass in a subclass elsewhere.
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Group, Parameter, Token

from psa.core.errors import UserError
from psa.core.formatting import quote
from psa.execution.backend import BackendOptions
from psa.execution.machine import DeviceName
from psa.experiments.grid import Grid, load_grid
from psa.experiments.sweep import SweepOptions
from psa.experiments.tracking.trackers import TrackerOptions
from psa.storage.retention import KeepWeights

# In the order in which `--help` shows them.
NETWORK: Final = Group.create_ordered("Network")
TRAINING: Final = Group.create_ordered("Training")
EXPERIMENT: Final = Group.create_ordered("Experiment")
EXECUTION: Final = Group.create_ordered("Execution")
RAY: Final = Group.create_ordered("Ray")
SAGEMAKER: Final = Group.create_ordered("SageMaker")
SLURM: Final = Group.create_ordered("Slurm")
OUTPUT_FILES: Final = Group.create_ordered("Output")


def option(group: Group, text: str, **more: Any) -> Parameter:
    """Return an option that `--help` lists under a heading."""
    return Parameter(group=group, help=text, **more)


def option_name(key: str) -> str:
    """Return the option of a setting: `--weight-decay` of weight_decay; "" of ""."""
    return f"--{key.replace('_', '-')}" * bool(key)


def flag(group: Group, text: str, **more: Any) -> Parameter:
    """Return an option without a value."""
    return option(group, text, negative="", **more)


MAX_COUNT: Final = 100_000
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,30}", re.ASCII)
_NUMBER: Final = re.compile(
    r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?(nan|inf)", re.ASCII | re.IGNORECASE
)


def _whole(_type: Any, tokens: Sequence[Token]) -> int:
    """Parse a whole number; reject one that would have to be rounded. Raises ValueError."""
    text = tokens[0].value
    if _WHOLE.fullmatch(text) is None:
        raise ValueError(f'must be a whole number, got "{text[:40]}".')
    return int(text)


def _wholes(kind: Any, tokens: Sequence[Token]) -> tuple[int, ...]:
    return tuple(_whole(kind, [token]) for token in tokens)


def _number(_type: Any, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    if _NUMBER.fullmatch(text) is None:
        raise ValueError(f'must be a number, got "{text[:40]}".')
    return float(text)


def _dollars(kind: Any, tokens: Sequence[Token]) -> float:
    value = _number(kind, tokens)
    if not 0 < value < math.inf:
        raise ValueError(f"must be a number of dollars above 0, got {value:g}.")
    return value


def _count(kind: Any, tokens: Sequence[Token]) -> int:
    value = _whole(kind, tokens)
    if not 1 <= value <= MAX_COUNT:
        raise ValueError(f"must be from 1 to {MAX_COUNT:,}, got {value}.")
    return value


WholeOption = Annotated[int, Parameter(converter=_whole)]
OptionalWhole = Annotated[int | None, Parameter(converter=_whole)]
Wholes = Annotated[tuple[int, ...] | None, Parameter(converter=_wholes, consume_multiple=True, negative="")]
CountOption = Annotated[int | None, Parameter(converter=_count)]
Dollars = Annotated[float, Parameter(converter=_dollars)]
NumberOption = Annotated[float, Parameter(converter=_number)]

ModelDir = Annotated[
    Path,
    # a SageMaker container sets the variable; nobody else needs to know it
    option(OUTPUT_FILES, "Folder of the checkpoints.", env_var="SAGEMAKER_MODEL_DIR", show_env_var=False),
]
ResultsDir = Annotated[Path, option(OUTPUT_FILES, "Folder of the records, one per finished trial.")]
DataDir = Annotated[Path, option(EXECUTION, "Folder of the data sets. Missing files are downloaded into it.")]

PluginFiles = Annotated[
    tuple[Path, ...],
    option(
        EXPERIMENT,
        "Plugin to load: a Python file with modes, probes, networks or studies of your own. May be repeated.",
        name="--plugin",
        negative="",
    ),
]
GridFileArgument = Annotated[
    Path, option(EXPERIMENT, "Grid file of the experiment, e.g. reproduction/smoke.toml.")
]
Override = Annotated[str, option(EXPERIMENT, "Settings that override those of the file: lr=1e-3 seeds=0..4")]
Only = Annotated[str, option(EXPERIMENT, "Select a part of the grid: 'arch=1*16 mode=hidden,none seed=0'.")]


def declared_grid(grid: Path | None, overrides: Sequence[str], only: str) -> Grid | None:
    """Return the grid of a file with its overrides, or None without a file. Raises UserError for overrides or
    a selection without one.
    """
    if grid is not None:
        return load_grid(grid, overrides, only)
    if overrides or only:
        given = quote(only or overrides[0])
        raise UserError(f"overrides and --only must belong to a grid, got {given}", "Name it with --grid")
    return None


Workers = Annotated[
    CountOption,
    option(
        EXECUTION,
        "Number of worker processes, each with one thread. [default: one per core; with GPUs up to "
        "four per GPU]",
    ),
]
PackSize = Annotated[
    CountOption, option(EXECUTION, "Trials per pack. [default: the fastest, by measurement]")
]
Device = Annotated[
    DeviceName | None, option(EXECUTION, "Device to train on. [default: cuda if available, else cpu]")
]


@dataclass(frozen=True, kw_only=True)
class BackendArguments:
    """Options that select and configure a backend."""

    backend: Annotated[
        str | None,
        option(
            EXECUTION,
            "Run on this machine (local), as Ray Tune trials on a cluster (ray), as SageMaker training jobs "
            "(sagemaker), as Slurm array tasks (slurm), or on the backend of a plugin. [default: local; psa "
            "search: ray]",
        ),
    ] = None
    workers: Workers = None
    address: Annotated[
        str | None,
        option(
            RAY,
            "Address of the cluster: auto, HOST:PORT or ray://HOST:10001. [ray] [default: start one on "
            "this machine]",
        ),
    ] = None
    gpus_per_pack: Annotated[
        NumberOption | None,
        option(RAY, "GPUs per pack, may be a fraction. [ray] [default: 0.25 if the cluster has GPUs]"),
    ] = None
    storage: Annotated[
        str | None,
        option(
            RAY, "Folder or s3://BUCKET/PREFIX that all nodes can reach. [ray] [default: below --model-dir]"
        ),
    ] = None

    jobs: Annotated[
        CountOption, option(SAGEMAKER, "Number of jobs. [sagemaker] [default: jobs of about four hours each]")
    ] = None
    spot: Annotated[
        bool, flag(SAGEMAKER, "Use spot instances, which are cheaper and may be interrupted. [sagemaker]")
    ] = False
    detach: Annotated[
        bool,
        flag(
            SAGEMAKER,
            "Submit the jobs and exit: to Slurm or a job queue all of them, otherwise as many as the quota "
            "allows. [sagemaker, slurm]",
        ),
    ] = False
    max_cost: Annotated[
        Dollars | None,
        option(
            SAGEMAKER,
            "Maximum cost in USD of all jobs of the study, including those already billed. [sagemaker]",
        ),
    ] = None
    prices: Annotated[
        Path | None, option(SAGEMAKER, "Table of prices, see cloud/aws/pricing/prices.toml. [sagemaker]")
    ] = None

    partition: Annotated[
        str | None, option(SLURM, "Partition of the tasks. [slurm] [default: the cluster's]")
    ] = None
    account: Annotated[
        str | None, option(SLURM, "Account that is charged. [slurm] [default: the user's]")
    ] = None
    qos: Annotated[
        str | None, option(SLURM, "Quality of service of the tasks. [slurm] [default: the account's]")
    ] = None
    time: Annotated[
        str | None,
        option(
            SLURM,
            "Time limit of a task: MINUTES, HOURS:MINUTES:SECONDS or DAYS-HOURS. A task that reaches it "
            "saves and returns to the queue. [slurm] [default: the partition's]",
        ),
    ] = None
    gpus_per_task: Annotated[
        str | None, option(SLURM, "GPU of a task: 1 or TYPE:1. [slurm] [default: none, tasks use the CPU]")
    ] = None
    array_parallelism: Annotated[
        CountOption, option(SLURM, "Maximum tasks of an array at once. [slurm] [default: all that fit]")
    ] = None

    @property
    def backend_options(self) -> BackendOptions:
        """The options of the backend."""
        names = [field.name for field in fields(BackendOptions) if hasattr(self, field.name)]
        return BackendOptions(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True, kw_only=True)
class SweepArguments:
    """Options of a sweep that apply to every backend."""

    pack_size: PackSize = None
    keep_weights: Annotated[
        KeepWeights,
        option(
            OUTPUT_FILES,
            "Keep the weights of all finished trials, of the best seed per arch and mode, or none. With "
            "none, a trial whose training equals that of a finished one copies its record.",
        ),
    ] = "all"
    fail_fast: Annotated[bool, flag(EXECUTION, "Stop at the first failed pack.")] = False
    dry_run: Annotated[bool, flag(EXECUTION, "Print and check what would be launched, then exit.")] = False
    tensorboard: Annotated[
        Path | None, option(OUTPUT_FILES, "Write each finished trial as a TensorBoard run to this folder.")
    ] = None
    mlflow: Annotated[
        str | None,
        option(
            OUTPUT_FILES, "Log finished trials to this MLflow server: http://HOST:5000 or sqlite:///runs.db."
        ),
    ] = None
    wandb: Annotated[
        str | None,
        option(OUTPUT_FILES, "Log finished trials to this Weights & Biases project: NAME or ENTITY/NAME."),
    ] = None
    trackio: Annotated[str | None, option(OUTPUT_FILES, "Log finished trials to this trackio project.")] = (
        None
    )
    notify: Annotated[
        str | None,
        option(
            EXECUTION,
            "Run this command at the end of the sweep, without a shell, with PSA_SWEEP, PSA_EXIT_CODE and "
            "PSA_SUMMARY in its environment.",
        ),
    ] = None

    tracker: Annotated[
        tuple[str, ...],
        option(
            OUTPUT_FILES,
            "Log finished trials with a tracker of a plugin: NAME or NAME=TARGET. May be repeated.",
            negative="",
        ),
    ] = ()

    def sweep_on(self, runs: BackendArguments) -> SweepOptions:
        """Return the options of a sweep on the backend that `runs` selects."""
        return SweepOptions(
            backend=runs.backend or "local",
            backend_options=runs.backend_options,
            pack_size=self.pack_size,
            keep_weights=self.keep_weights,
            fail_fast=self.fail_fast,
            targets=TrackerOptions(self.tensorboard, self.mlflow, self.wandb, self.trackio),
            trackers=self.tracker,
            notify=self.notify,
        )
