"""`train`: one network on one data set by the ratchet, resumed where it was left."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Group, Parameter
from pydantic import ValidationError
from rich.console import Console

from psa.arch import Arch
from psa.commands.folder import alone
from psa.commands.options import DataDir, ModelDir, Number, ResultsDir, Whole, Wholes
from psa.console import TrainView, architecture_table, console, resumed
from psa.errors import Interrupted, UserError
from psa.files import check_writable
from psa.machine import DeviceName, Machine, check_memory
from psa.nets.shapes import shape_of
from psa.signals import StopRequest
from psa.store import Store
from psa.studies import ablation
from psa.trial import (
    MAX_SEED,
    DataSpec,
    Family,
    Mode,
    ModelSpec,
    Pack,
    Ratchet,
    Trial,
    first_fault,
    validated,
)

# Its trials may change their settings on the way, so they stay out of every study's rows.
STUDY: Final = "train"
DECAY: Final = 1e-4
DROPOUT: Final = 0.1

_NETWORK: Final = Group.create_ordered("Network")
_TRAINING: Final = Group.create_ordered("Training")
_PLACES: Final = Group.create_ordered("Folders")
_MACHINE: Final = Group.create_ordered("Machine")


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `train`, with the defaults of the published study."""

    arch: Annotated[
        str | None,
        Parameter(
            group=_NETWORK,
            help='Hidden layers as count*width segments, e.g. "[4*4, 2*8, 1*16]". [default: [1*1024]]',
        ),
    ] = None
    hidden_layers: Annotated[
        Wholes, Parameter(group=_NETWORK, help="The same as one width per layer, e.g. 64 32.")
    ] = None
    model: Annotated[
        Family, Parameter(group=_NETWORK, help="resmlp has residual connections, simplemlp has none.")
    ] = "resmlp"
    dataset: Annotated[
        Literal["mnist", "fashion-mnist"], Parameter(group=_NETWORK, help="What it learns to classify.")
    ] = "mnist"
    ablation_mode: Annotated[
        Mode,
        Parameter(
            group=_TRAINING,
            help="What is done to the copy of the LKG. none, decay (weight decay) and dropout damage "
            "nothing; full, hidden and output zero one neuron: of any layer, of a hidden layer together with "
            "its outgoing weights, of the last layer.",
        ),
    ] = "none"
    meta_loops: Annotated[
        Whole,
        Parameter(
            group=_TRAINING,
            help="Meta-loops to train, each one epoch. An unfinished run is finished first; a finished one "
            "goes on for so many more.",
        ),
    ] = 100
    lr: Annotated[Number, Parameter(group=_TRAINING, help="Learning rate of AdamW.")] = 1e-4
    batch_size: Annotated[Whole, Parameter(group=_TRAINING, help="Images per training step.")] = 256
    weight_decay: Annotated[
        Number | None, Parameter(group=_TRAINING, help=f"Used in mode decay only. [default: {DECAY:g}]")
    ] = None
    dropout: Annotated[
        Number | None,
        Parameter(
            group=_TRAINING,
            help=f"Share of hidden units dropped, used in mode dropout only. [default: {DROPOUT:g}]",
        ),
    ] = None
    seed: Annotated[
        Whole,
        Parameter(group=_TRAINING, help="Decides the initial weights, the shuffles and the neurons hit."),
    ] = 0
    num_runs: Annotated[
        Whole, Parameter(group=_TRAINING, help="Independent trials at once, with seeds SEED, SEED+1, ...")
    ] = 1
    model_dir: Annotated[ModelDir, Parameter(group=_PLACES)] = Path("models")
    results_dir: Annotated[ResultsDir, Parameter(group=_PLACES)] = Path("results")
    data_dir: Annotated[DataDir, Parameter(group=_PLACES)] = Path("dataset")
    device: Annotated[
        DeviceName | None,
        Parameter(group=_MACHINE, help="Where to compute. [default: the best one there is]"),
    ] = None
    threads: Annotated[
        Whole,
        Parameter(
            group=_MACHINE, help="Processor threads. One gives the same bits on every run; more may not."
        ),
    ] = 1
    num_workers: Annotated[
        Whole,
        Parameter(
            group=_MACHINE,
            help="Threads that read and check the data files at the start; then none is needed.",
        ),
    ] = 4
    debug: Annotated[
        bool, Parameter(group=_MACHINE, negative="", help="Show losses and times, and where errors happened.")
    ] = False

    def check(self) -> None:
        """Raise UserError for what is not the trial's own to check."""
        for option, value, low, high in (
            ("--meta-loops", self.meta_loops, 1, 1_000_000),
            ("--num-runs", self.num_runs, 1, 1_000),
            ("--threads", self.threads, 1, 1_024),
            ("--num-workers", self.num_workers, 0, 1_024),
            ("--seed", self.seed, 0, MAX_SEED - 1_000),
        ):
            if not low <= value <= high:
                raise UserError(f"{option} {value} is out of range", f"Choose {low:,} to {high:,}")
        if self.hidden_layers == ():
            raise UserError("--hidden-layers names no width", "Give one width per hidden layer, e.g. 64 32")
        if self.arch is not None and self.hidden_layers is not None:
            raise UserError("--arch and --hidden-layers say the same thing twice", "Give one of them")

    def trials(self) -> tuple[Trial, ...]:
        """One trial per run. Raises UserError."""
        if self.arch is not None:
            arch = Arch.parse(self.arch)
        else:
            arch = Arch.of_stacks([(1, width) for width in self.hidden_layers or (1024,)])
        decay = DECAY if self.weight_decay is None else self.weight_decay
        dropout = DROPOUT if self.dropout is None else self.dropout
        try:
            # Judged even where the mode has no use for them.
            Ratchet(weight_decay=decay), ModelSpec(dropout=dropout)
            return tuple(self._trial(arch, decay, dropout, self.seed + run) for run in range(self.num_runs))
        except ValidationError as error:
            option, colon, rest = first_fault(error).partition(":")
            raise UserError(f"--{option.replace('_', '-')}{colon}{rest}", "See `train --help`") from None

    def _trial(self, arch: Arch, decay: float, dropout: float, seed: int) -> Trial:
        return ablation.trial(
            study=STUDY,
            arch=arch,
            mode=self.ablation_mode,
            family=self.model,
            seed=seed,
            data=DataSpec(name=self.dataset),
            lr=self.lr,
            batch_size=self.batch_size,
            weight_decay=decay,
            dropout=dropout,
        )

    def idle(self) -> list[str]:
        """Options that were given but act in another mode only."""
        given = {"--weight-decay": (self.weight_decay, "decay"), "--dropout": (self.dropout, "dropout")}
        return [
            f"note: {option} acts in mode {mode} only; mode {self.ablation_mode} trains without it"
            for option, (value, mode) in given.items()
            if value is not None and self.ablation_mode != mode
        ]


def train(options: Annotated[TrainOptions | None, Parameter(name="*")] = None) -> int:
    """Train a network by the ratchet, and go on from its checkpoint when run again.

    Every meta-loop copies the last known good (LKG) weights, damages the copy as --ablation-mode says, trains
    it for one epoch, and keeps it as the new LKG only if it answers more validation images correctly. The
    best score so far is the bounty. Ctrl-C stops; the same command goes on from there.

    Example: train --arch "[2*64]" --ablation-mode hidden --meta-loops 10
    """
    options = options or TrainOptions()
    options.check()
    trials = options.trials()
    shape = shape_of(trials[0].model)
    out = console()
    for note in options.idle():
        out.print(note, markup=False, soft_wrap=True)
    check_writable(options.results_dir)
    check_writable(options.model_dir)
    store = Store(
        options.model_dir, options.results_dir, single=f"{options.dataset}_lkg", plain_seed=options.seed
    )
    machine = Machine(options.data_dir, options.device, options.threads, options.num_workers)
    with alone(options.model_dir):
        plan = _plan(store, trials, options.meta_loops)
        check_memory(shape.parameters, len(trials), machine.prepare())
        out.print(architecture_table(options.model, str(trials[0].model.arch), shape))
        view = TrainView(out, shape, plan.pack.horizon, debug=options.debug)
        return _train(plan, store, machine, view, out)


@dataclass(frozen=True)
class _Plan:
    """The pack that continues what is stored. reached: loops of its least trained trial.

    finishing: the run was begun earlier and is brought to the end it had then.
    """

    pack: Pack
    reached: int
    finishing: bool


def _plan(store: Store, trials: Sequence[Trial], meta_loops: int) -> _Plan:
    """What to train: an unfinished run to its end, a finished one `meta_loops` further. Raises UserError."""
    stored = [store.state_file(trial).load() for trial in trials]
    going_on = [
        trial if state is None else state.trial.continued_by(trial, state.loops)
        for trial, state in zip(trials, stored, strict=True)
    ]
    if len({None if state is None else (state.loops, state.horizon) for state in stored}) > 1:
        raise UserError(
            "--num-runs: the checkpoints of these seeds have reached different loops",
            "Use another --model-dir, or bring them to the same loop one by one with --seed",
        )
    first, horizon, finishing = stored[0], meta_loops, False
    if first is not None:
        finishing = first.loops < first.horizon or any(
            # every loop is trained, but a stop came before the record was written
            state is not None and trial == state.trial and not store.done(trial, first.horizon)
            for trial, state in zip(going_on, stored, strict=True)
        )
        horizon = first.horizon if finishing else first.loops + meta_loops
    pack = validated(Pack, {"trials": tuple(going_on), "horizon": horizon}, "train")
    return _Plan(pack, min(0 if state is None else state.loops for state in stored), finishing)


def _train(plan: _Plan, store: Store, machine: Machine, view: TrainView, out: Console) -> int:
    from psa.worker import run_pack  # torch is imported here, not while options are read

    def started(states: Sequence[Any]) -> None:
        out.print(
            resumed(states[0], plan.pack.horizon, finishing=plan.finishing), markup=False, soft_wrap=True
        )

    stop = StopRequest()
    try:
        with view.live(plan.reached):
            records = run_pack(
                plan.pack,
                store,
                machine,
                listen=view.loop,
                started=started,
                stop=stop,
                progress=lambda message: out.print(message, markup=False, soft_wrap=True),
            )
    except Interrupted:
        view.stopped(plan.reached, shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
        return 128 + (stop.signal or signal.SIGINT)
    except (MemoryError, RuntimeError) as error:
        if _is_of_memory(error):
            raise UserError(
                f"arch {plan.pack.trials[0].model.arch}: the memory does not hold this network",
                "Choose fewer or narrower layers, or fewer trials at once; every saved loop is safe",
            ) from error
        raise
    view.finals(records)
    for trial in plan.pack.trials:
        out.print(f"Checkpoint {store.state_file(trial).path}", markup=False, soft_wrap=True)
        out.print(f"Record     {store.record_path(trial)}", markup=False, soft_wrap=True)
    return 0


def _is_of_memory(error: Exception) -> bool:
    """Whether memory ran out, which torch tells in several ways."""
    signs = ("out of memory", "not enough memory", "allocate memory")
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in signs)
