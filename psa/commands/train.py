"""`train`: one network on one data set by the ratchet, resumed where it was left."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter
from filelock import FileLock, Timeout
from pydantic import ValidationError
from rich.console import Console

from psa.commands.clean import LOCK_NAME
from psa.console import TrainView, architecture_table, console, resumed
from psa.errors import Interrupted, UserError
from psa.files import check_writable
from psa.machine import DeviceName, Machine
from psa.nets.shapes import shape_of
from psa.store import Store
from psa.studies import ablation
from psa.trial import MAX_SEED, Arch, DataSpec, Family, Mode, Pack, Trial, first_fault

# Its trials may change their settings on the way, so they stay out of every study's rows.
STUDY: Final = "train"


@dataclass(frozen=True)
class TrainOptions:
    """The options of `train`, with the defaults of the published study."""

    arch: Annotated[str | None, Parameter(help='Hidden layers as count*width: "[4*4, 2*8, 1*16]".')] = None
    hidden_layers: Annotated[
        tuple[int, ...] | None,
        Parameter(consume_multiple=True, negative="", help="Widths instead of --arch [default: 1024]."),
    ] = None
    ablation_mode: Annotated[Mode, Parameter(help="What happens to the copy of the LKG.")] = "none"
    model: Annotated[Family, Parameter(help="With or without residual connections.")] = "resmlp"
    lr: Annotated[float, Parameter(help="Learning rate of AdamW.")] = 1e-4
    batch_size: Annotated[int, Parameter(help="Samples a training step.")] = 256
    meta_loops: Annotated[
        int, Parameter(help="Loops to train; a finished run goes on for so many more, an unfinished ends.")
    ] = 100
    weight_decay: Annotated[float | None, Parameter(help="In mode decay only [default: 1e-4].")] = None
    dropout: Annotated[float | None, Parameter(help="In mode dropout only [default: 0.1].")] = None
    seed: Annotated[int, Parameter(help="Of the initial weights, the shuffles and the draws.")] = 0
    num_runs: Annotated[int, Parameter(help="Independent trials at once: seeds SEED, SEED+1, ...")] = 1
    dataset: Annotated[Literal["mnist", "fashion-mnist"], Parameter(help="What to learn.")] = "mnist"
    data_dir: Annotated[Path, Parameter(help="Where data sets are kept.")] = Path("dataset")
    model_dir: Annotated[
        Path, Parameter(env_var="SAGEMAKER_MODEL_DIR", help="Where the checkpoint is kept.")
    ] = Path("models")
    results_dir: Annotated[Path, Parameter(help="Where the record of a finished run is kept.")] = Path(
        "results"
    )
    device: Annotated[DeviceName | None, Parameter(help="[default: the best one found].")] = None
    threads: Annotated[int, Parameter(help="Of the processor; with one, the bits never differ.")] = 1
    num_workers: Annotated[int, Parameter(help="Threads that read and check the data files.")] = 4
    debug: Annotated[bool, Parameter(negative="", help="Also losses, times, places of errors.")] = False

    def check(self) -> None:
        """Raise UserError for what is not the trial's own to check."""
        for option, value, low, high in (
            ("--meta-loops", self.meta_loops, 1, 1_000_000),
            ("--num-runs", self.num_runs, 1, 1_000),
            ("--threads", self.threads, 1, 1_024),
            ("--num-workers", self.num_workers, 0, 64),
        ):
            if not low <= value <= high:
                raise UserError(f"{option} {value} is out of range", f"Choose {low:,} to {high:,}")
        if self.arch is not None and self.hidden_layers is not None:
            raise UserError("--arch and --hidden-layers say the same thing twice", "Give one of them")

    def trials(self) -> tuple[Trial, ...]:
        """One trial per run. Raises UserError."""
        if self.arch is not None:
            arch = Arch.parse(self.arch)
        else:
            arch = Arch.of_stacks([(1, width) for width in self.hidden_layers or (1024,)])
        if not 0 <= self.seed <= MAX_SEED - self.num_runs:
            raise UserError(f"--seed {self.seed} is out of range", f"Choose 0 to {MAX_SEED - self.num_runs}")
        try:
            return tuple(
                ablation.trial(
                    study=STUDY,
                    arch=arch,
                    mode=self.ablation_mode,
                    family=self.model,
                    seed=self.seed + run,
                    data=DataSpec(name=self.dataset),
                    lr=self.lr,
                    batch_size=self.batch_size,
                    weight_decay=1e-4 if self.weight_decay is None else self.weight_decay,
                    dropout=0.1 if self.dropout is None else self.dropout,
                )
                for run in range(self.num_runs)
            )
        except ValidationError as error:
            fault = first_fault(error).replace("_", "-")
            raise UserError(f"--{fault}", "See `train --help`") from None

    def idle(self) -> list[str]:
        """Options that were given but act in another mode only."""
        given = {"--weight-decay": (self.weight_decay, "decay"), "--dropout": (self.dropout, "dropout")}
        return [
            f"note: {option} acts in mode {mode} only; mode {self.ablation_mode} trains without it"
            for option, (value, mode) in given.items()
            if value is not None and self.ablation_mode != mode
        ]


def train(options: Annotated[TrainOptions | None, Parameter(name="*")] = None) -> int:
    """Train a network on MNIST by the ratchet, and go on from its checkpoint when run again.

    Every meta-loop copies the last known good (LKG) state, perturbs the copy as --ablation-mode says, trains
    it for an epoch, and keeps it only if it is better on validation.

    Example: train --arch "[2*64]" --ablation-mode hidden --meta-loops 10
    """
    options = options or TrainOptions()
    options.check()
    trials = options.trials()
    shape = shape_of(trials[0].model)
    out = console()
    for note in options.idle():
        out.print(note, markup=False)
    check_writable(options.results_dir)
    check_writable(options.model_dir)
    store = Store(options.model_dir, options.results_dir, single=f"{options.dataset}_lkg")
    machine = Machine(options.data_dir, options.device, options.threads, options.num_workers)
    with _alone(options.model_dir):
        pack, reached = _plan(store, trials, options.meta_loops)
        out.print(architecture_table(options.model, str(trials[0].model.arch), shape))
        view = TrainView(out, shape, pack.horizon, debug=options.debug)
        return _train(pack, reached, store, machine, view, out)


def _alone(folder: Path) -> FileLock:
    """Hold the folder for this process, or say that another one does."""
    lock = FileLock(folder / LOCK_NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another `train` is at work in {folder}", "Wait for it, or use another --model-dir"
        ) from None
    return lock


def _plan(store: Store, trials: Sequence[Trial], meta_loops: int) -> tuple[Pack, int]:
    """The pack that continues what is stored, and the loop that is reached already."""
    going_on, horizon, reached = [], meta_loops, 0
    for run, trial in enumerate(trials):
        state = store.state_file(trial).load()
        if state is None:
            going_on.append(trial)
            continue
        going_on.append(state.trial.continued_by(trial, state.loops))
        if run == 0:
            reached = state.loops
            horizon = state.horizon if reached < state.horizon else reached + meta_loops
    return Pack(trials=tuple(going_on), horizon=horizon), reached


def _train(
    pack: Pack, reached: int, store: Store, machine: Machine, view: TrainView, out: Console
) -> int:
    from psa.worker import StopRequest, run_pack  # torch is imported here, not while options are read

    def started(states: Sequence[Any]) -> None:
        first = states[0]
        out.print(
            resumed(first, pack.horizon) if first.loops else f"Training to loop {pack.horizon}", markup=False
        )

    stop = StopRequest()
    try:
        with view.live(reached):
            records = run_pack(
                pack,
                store,
                machine,
                listen=view.loop,
                started=started,
                stop=stop,
                progress=lambda message: out.print(message, markup=False, soft_wrap=True),
            )
    except Interrupted:
        loops = max(view.reached.values(), default=reached)
        command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        out.print(
            f"Stopped at loop {loops} of {pack.horizon}; every finished loop is saved. Go on with: {command}",
            markup=False,
            soft_wrap=True,
        )
        return 128 + (stop.signal or signal.SIGINT)
    view.finals(records)
    for trial in pack.trials:
        out.print(
            f"Checkpoint {store.state_file(trial).path}{os.linesep}Record     {store.record_path(trial)}",
            markup=False,
            soft_wrap=True,
        )
    return 0
