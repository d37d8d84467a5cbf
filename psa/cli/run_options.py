"""Training of networks from the command line: seeds, folders, machine, and display of progress."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Console

from psa.cli.console import TrainView, print_line, resumed
from psa.cli.options import (
    EXECUTION,
    TRAINING,
    DataDir,
    Device,
    ModelDir,
    ResultsDir,
    WholeOption,
    flag,
    option,
)
from psa.cli.output.activity import activity
from psa.core.errors import Interrupted, UserError, lacks_memory
from psa.core.stop import StopRequest
from psa.data.own import keep_tables
from psa.execution.machine import Machine
from psa.specs.base import MAX_SEED
from psa.specs.trial import Pack
from psa.storage.locks import lock_trials
from psa.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run: seeds, folders, device and display."""

    seed: Annotated[
        WholeOption, option(TRAINING, "Seed of the initial weights, the shuffles and the ablated neurons.")
    ] = 0
    num_runs: Annotated[
        WholeOption, option(TRAINING, "Number of independent trials, with seeds SEED, SEED+1, ...")
    ] = 1
    model_dir: ModelDir = Path("models")
    results_dir: ResultsDir = Path("results")
    data_dir: DataDir = Path("dataset")
    device: Device = None
    threads: Annotated[
        WholeOption, option(EXECUTION, "CPU threads. Only with one thread are runs bit-identical.")
    ] = 1
    num_workers: Annotated[
        WholeOption,
        option(
            EXECUTION, "Threads used to read and verify the data files at startup. Not used during training."
        ),
    ] = 4
    debug: Annotated[bool, flag(EXECUTION, "Show losses, times, and the traceback of errors.")] = False

    def check(self) -> None:
        """Raise UserError for a number that is out of range."""
        in_range("--num-runs", self.num_runs, 1, 1_000)
        in_range("--threads", self.threads, 1, 1_024)
        in_range("--num-workers", self.num_workers, 0, 1_024)
        in_range("--seed", self.seed, 0, MAX_SEED - 1_000)

    @property
    def seeds(self) -> range:
        """The seeds, one for each run."""
        return range(self.seed, self.seed + self.num_runs)

    def prepare(self, out: Console) -> Any:
        """Load PyTorch, which takes seconds, and return the device to train on. Raises UserError."""
        with activity(out, "loading PyTorch"):
            return self.machine.prepare()

    @property
    def machine(self) -> Machine:
        """The machine to train on."""
        return Machine(self.data_dir, self.device, self.threads, self.num_workers)


def in_range(option: str, value: float, low: float, high: float) -> None:
    """Raise UserError for a number below `low` or above `high`."""
    if not low <= value <= high:
        raise UserError(
            f"{option} must be from {low:,} to {high:,}, got {str(value).removesuffix('.0')}",
            "Choose a number in this range",
        )


@dataclass(frozen=True)
class PackRun:
    """The pack that continues stored trials. reached: loops of its least trained trial.

    finishing: the run was begun earlier and is trained to the horizon it had then.
    """

    pack: Pack
    reached: int
    finishing: bool


def trained(plan: PackRun, store: Store, machine: Machine, view: TrainView, out: Console) -> int:
    """Train a pack and show its progress. Return the exit code. Raises UserError."""
    with activity(out, "loading PyTorch"):  # here, and not while options are read
        from psa.execution.worker.run import RunHooks, run_pack

    keep_tables(plan.pack.trials, machine.data_dir)

    def started(states: Sequence[Any]) -> None:
        found = store.progress(plan.pack.trials, plan.pack.horizon)
        recorded = len(found.done) == len(plan.pack.trials)
        text = resumed(states[0], plan.pack.horizon, finishing=plan.finishing, recorded=recorded)
        print_line(out, text)

    stop = StopRequest()
    try:
        with view.live(plan.reached):
            hooks = RunHooks(
                on_start=started,
                on_loop=view.loop,
                progress=lambda message: print_line(out, message),
                stop=stop,
            )
            with lock_trials(store, plan.pack.trials) as leased:
                if len(leased) < len(plan.pack.trials):
                    raise UserError(
                        "another process is training this network into the same folder",
                        "Wait for it, or use another --model-dir",
                    )
                records = run_pack(plan.pack, store, machine, hooks)
    except Interrupted:
        view.stopped(plan.reached, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        return stop.exit_code
    except (MemoryError, RuntimeError) as error:
        if lacks_memory(error):
            raise UserError(
                f"arch {plan.pack.trials[0].model.arch}: this network does not fit into memory",
                "Choose fewer or narrower layers, or fewer trials at once; every saved loop is safe",
            ) from error
        raise
    view.finals(records)
    for trial in plan.pack.trials:
        print_line(out, f"Checkpoint {store.state_file(trial).path}")
        stored = store.records.locate(trial.id)
        place = store.record_path(trial) if stored is None else stored.place
        print_line(out, f"Record     {place}")
    return 0
