"""A plugin of psa: a mode of ablation, a probe, a network, a study of them, and the report of the study."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from psa import Trial, register_family, register_mode, register_probe, register_report, register_study
from psa.experiments.study import DataSettings, Probes
from psa.specs.model import ArchField, NetworkFamily, NetworkSpec
from psa.specs.shapes import Linear, Shape, Unit
from psa.specs.training import Ablation, LearningRate, Mode, RatchetTraining

if TYPE_CHECKING:  # workers load this file, too, and may not have these
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from psa.engine.probing import ProbeInput
    from psa.nn.dense import Dense
    from psa.reports.contract import ReportContext
    from psa.reports.rendering.html import Page
    from psa.reports.rendering.tables import Table
    from psa.storage.trial_state import Observation


def register() -> None:
    """Register everything; psa calls this."""
    register_mode("input", choose_input)
    register_probe(Norms)
    register_family("bottleneck", bottleneck)
    register_study("example", Settings, trial_of)
    register_report("example", Bounties())


def choose_input(shape: Shape, draws: np.random.Generator) -> Unit:
    """Return a neuron of the first layer, chosen uniformly."""
    return Unit(0, int(draws.integers(shape.linears[0].outputs)), outgoing=False)


def bottleneck(widths: tuple[int, ...], classes: int, sample: tuple[int, ...]) -> Shape:
    """Return a plain network with a layer of half its width behind each hidden layer."""
    sizes = [size for width in widths for size in (width, max(1, width // 2))]
    names = [*(f"hidden.{number}" for number in range(len(sizes))), "output"]
    pairs = zip(names, [math.prod(sample), *sizes], [*sizes, classes], strict=True)
    layers = [
        Linear(name, read, made, "output" if name == "output" else "hidden") for name, read, made in pairs
    ]
    return Shape(tuple(layers), hidden=tuple(range(len(sizes))))


class Norms:
    """norm: the Euclidean norm of the weights of each layer."""

    name = "norms"

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return the layer of each number."""
        return {"norm": [linear.name for linear in net.shape.linears]}

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe every trial before the first loop and after each."""
        layout, weights = probe_input.net.layout, probe_input.weights
        layers = range(len(layout.linears))
        return [
            {"norm": [float(layout.weight(weights[row : row + 1], layer).norm()) for layer in layers]}
            for row in range(len(probe_input.loops))
        ]

    def on_finish(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe the last known good weights."""
        return self.on_loop_end(probe_input)


class Settings(DataSettings):
    """Ablation of input neurons in networks with bottlenecks."""

    arch: Annotated[ArchField, Field(description="Hidden layers before the bottlenecks, such as 2*8.")]
    family: Annotated[NetworkFamily, Field(description="Connections of the layers.")] = "bottleneck"
    mode: Annotated[Mode, Field(description="Ablation between epochs.")] = "input"
    lr: LearningRate = 1e-3
    probes: Probes = ("norms",)


def trial_of(settings: Settings, seed: int, name: str) -> Trial:
    """Return the trial of one point of a grid."""
    return Trial(
        study=name,
        kind="example",
        data=settings.data,
        model=NetworkSpec(family=settings.family, arch=settings.arch),
        method=RatchetTraining(lr=settings.lr),
        intervention=Ablation(mode=settings.mode),
        probes=settings.probes,
        seed=seed,
    )


class Bounties:
    """The report of the study: the best validation accuracy of each trial."""

    def parts(self, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
        """Yield a page per grid."""
        for study, rows in frame.groupby("study", observed=True):
            yield str(study), rows

    def tables(self, frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
        """Return one table."""
        from psa.reports.rendering.tables import Column, Table

        rows = frame.drop_duplicates("id").sort_values("id").astype({"arch": str, "mode": str})
        columns = (
            Column("Architecture"),
            Column("Mode"),
            Column("Seed", "count"),
            Column("Bounty", "percent"),
        )
        cells = zip(*(rows[name].tolist() for name in ("arch", "mode", "seed", "bounty")), strict=True)
        return {"bounties": Table("Best validation accuracy", "tab:bounties", columns, tuple(cells))}

    def figures(self, frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
        """Draw no figures."""
        yield from ()

    def listings(self, frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
        """Return no further files."""
        return {}

    def page(
        self,
        frame: pd.DataFrame,
        context: ReportContext,
        made: Mapping[str, Table],
        stored: Mapping[str, Path],
    ) -> Page:
        """Compose the page."""
        from psa.reports.rendering.html import Page, Section

        sections = (Section("Bounties", tables=(made["bounties"],)),)
        return Page("Input neurons", "Which trial is best?", (), sections, (), ())
