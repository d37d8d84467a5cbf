"""`train`: one network on one data set by the ratchet, resumed where it was left."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from cyclopts import Parameter
from pydantic import ValidationError

from psa.cli.checkpoint_folder import lock_folder
from psa.cli.console import TrainView, console, summary_table
from psa.cli.options import (
    NETWORK,
    TRAINING,
    NumberOption,
    PluginFiles,
    WholeOption,
    Wholes,
    option,
    option_name,
)
from psa.cli.run_options import PackRun, RunOptions, in_range, trained
from psa.core.errors import UserError
from psa.core.files import check_writable
from psa.core.plugins.loading import load_plugins
from psa.execution.machine import check_memory
from psa.experiments.studies import ablation
from psa.experiments.study import DATASET_HELP, data_named, study_named, study_names
from psa.specs.arch import Arch
from psa.specs.base import first_error, parse_spec
from psa.specs.model import Family, PublishedModelSpec
from psa.specs.training import MODE_PLUGINS, MODES, RatchetTraining
from psa.specs.trial import Pack, Trial, check_sizes
from psa.storage.store import Store

# Trials of `train` may change their settings between loops, so no study includes them in its rows.
STUDY: Final = "train"
DECAY: Final = 1e-4
DROPOUT: Final = 0.1

_OTHERS: Final = ", ".join(sorted(study_names() - {"ablation"}))


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """The options of `train`, with the defaults of the published study."""

    arch: Annotated[
        str | None,
        option(
            NETWORK,
            'Hidden layers as count*width segments, e.g. 2*64, 2x64 or "4*4, 2*8, 1*16". [default: 1*1024]',
        ),
    ] = None
    hidden_layers: Annotated[
        Wholes, option(NETWORK, "Widths of the hidden layers, instead of --arch, e.g. 64 32.")
    ] = None
    model: Annotated[Family, option(NETWORK, "resmlp has residual connections, simplemlp has none.")] = (
        "resmlp"
    )
    dataset: Annotated[str, option(NETWORK, f"Data set to train on: {DATASET_HELP}.")] = "mnist"
    ablation_mode: Annotated[
        str,
        option(
            TRAINING,
            "Perturbation of the copy of the LKG. full, hidden and output zero one neuron: of any "
            "layer, of a hidden layer together with its outgoing weights, or of the last layer. none, decay "
            "(weight decay) and dropout leave the copy unchanged. A plugin may define further modes. "
            f"[choices: {', '.join(MODES)}]",
            metavar="CHOICE",
        ),
    ] = "none"
    meta_loops: Annotated[
        WholeOption,
        option(
            TRAINING,
            "Number of meta-loops, each one epoch. A finished run is continued by this number; an "
            "unfinished run is finished first.",
        ),
    ] = 100
    lr: Annotated[NumberOption, option(TRAINING, "Learning rate of AdamW.")] = 1e-4
    batch_size: Annotated[WholeOption, option(TRAINING, "Samples per training step.")] = 256
    weight_decay: Annotated[
        NumberOption | None, option(TRAINING, f"Weight decay, used in mode decay only. [default: {DECAY:g}]")
    ] = None
    dropout: Annotated[
        NumberOption | None,
        option(
            TRAINING,
            f"Dropout probability of hidden units, used in mode dropout only. [default: {DROPOUT:g}]",
        ),
    ] = None

    def check(self) -> None:
        """Raise UserError for invalid options that the trial itself does not check."""
        in_range("--meta-loops", self.meta_loops, 1, 1_000_000)
        try:
            MODE_PLUGINS.check(self.ablation_mode, "--ablation-mode")
        except ValueError as error:
            raise UserError(str(error)) from None
        if self.hidden_layers == ():
            raise UserError(
                "--hidden-layers must name a width, got none", "Give one width per hidden layer, e.g. 64 32"
            )
        if self.arch is not None and self.hidden_layers is not None:
            raise UserError("train needs --arch or --hidden-layers, got both", "Give one of them")
        given = {"--weight-decay": (self.weight_decay, "decay"), "--dropout": (self.dropout, "dropout")}
        for name, (value, mode) in given.items():
            if value is not None and self.ablation_mode != mode:
                raise UserError(
                    f"{name} must be left out in mode {self.ablation_mode}",
                    f"It acts in mode {mode} only: add --ablation-mode {mode}, or leave it out",
                )

    def trials(self, seeds: range) -> tuple[Trial, ...]:
        """Return one trial per seed. Raises UserError."""
        if self.arch is not None:
            arch = Arch.parse(self.arch)
        else:
            arch = Arch.of_stacks([(1, width) for width in self.hidden_layers or (1024,)])
        decay = DECAY if self.weight_decay is None else self.weight_decay
        dropout = DROPOUT if self.dropout is None else self.dropout
        try:
            # Validated even if the mode does not use them.
            RatchetTraining(weight_decay=decay), PublishedModelSpec(dropout=dropout)
            return tuple(self._trial(arch, decay, dropout, seed) for seed in seeds)
        except ValidationError as error:
            raise UserError(first_error(error, option_name), "See `train --help`") from None

    def _trial(self, arch: Arch, decay: float, dropout: float, seed: int) -> Trial:
        return ablation.trial(
            study=STUDY,
            arch=arch,
            mode=self.ablation_mode,
            family=self.model,
            seed=seed,
            data=data_named(self.dataset),
            lr=self.lr,
            batch_size=self.batch_size,
            weight_decay=decay,
            dropout=dropout,
        )


def train(
    options: Annotated[TrainOptions | None, Parameter(name="*")] = None,
    run: Annotated[RunOptions | None, Parameter(name="*")] = None,
    study: Annotated[
        str | None,
        option(NETWORK, f"Train a network of another study, which has its own options: {_OTHERS}."),
    ] = None,
    plugin: PluginFiles = (),
) -> int:
    """Train one network; run the same command again to continue.

    Each meta-loop copies the last known good (LKG) weights, perturbs the copy as --ablation-mode specifies,
    trains it for one epoch, and keeps it as the new LKG only if it classifies more validation samples
    correctly. The best score so far is the bounty. Press Ctrl-C to stop.

    Example: train --arch "[2*64]" --ablation-mode hidden --meta-loops 10
    """
    load_plugins(plugin)
    if study is not None:
        study_named(study, "--study")
    options, run = options or TrainOptions(), run or RunOptions()
    options.check()
    run.check()
    trials = options.trials(run.seeds)
    check_sizes(trials[0])
    shape = trials[0].shape
    out = console()
    check_writable(run.results_dir)
    check_writable(run.model_dir)
    store = Store(run.model_dir, run.results_dir, single=f"{trials[0].data.name}_lkg", plain_seed=run.seed)
    with lock_folder(run.model_dir):
        plan = _plan(store, trials, options.meta_loops)
        check_memory(shape.parameters, len(trials), run.prepare(out))
        out.print(summary_table(options.model, str(trials[0].model.arch), shape))
        view = TrainView(out, shape, plan.pack.horizon, debug=run.debug)
        return trained(plan, store, run.machine, view, out)


def _plan(store: Store, trials: Sequence[Trial], meta_loops: int) -> PackRun:
    """Plan an unfinished run to its end, or a finished one `meta_loops` further. Raises UserError."""
    stored = [store.state_file(trial).load() for trial in trials]
    going_on = [
        trial if state is None else state.trial.continued_by(trial, state.loops)
        for trial, state in zip(trials, stored, strict=True)
    ]
    if len({None if state is None else (state.loops, state.horizon) for state in stored}) > 1:
        raise UserError(
            "--num-runs needs checkpoints at the same loop, got different loops",
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
    pack = parse_spec(Pack, {"trials": tuple(going_on), "horizon": horizon}, "train")
    return PackRun(pack, min(0 if state is None else state.loops for state in stored), finishing)
