"""Measurements of the gradients of one trial: clusters of several views of them, controls, and starts.

All use a sample of its training images: the inner products of a few thousand gradients serve every run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from psa.analysis.gradients.cluster_metrics import (
    Choice,
    ClusterSummary,
    Diversity,
    choose_samples,
    diversity,
    groups,
)
from psa.analysis.gradients.factored import Factored, sampled_rows
from psa.analysis.gradients.file import GradientFile, Labels
from psa.analysis.gradients.kmeans import (
    Clusters,
    KMeansConfig,
    KMeansProgress,
    KMeansRun,
    all_runs,
    cluster,
    silent,
)
from psa.analysis.gradients.label_agreement import (
    LabelAgreement,
    cluster_purity,
    contingency,
    label_agreement,
)
from psa.analysis.gradients.metric_space import space_of
from psa.analysis.gradients.tsne import PERPLEXITY, Embedding, embed
from psa.core.errors import UserError
from psa.core.formatting import pluralize
from psa.core.rng import generator

_SAMPLE: Final = 4_000  # gradients of a trial that are clustered: 64 MB of inner products
_BLOCK: Final = 10_000  # gradients whose images are in memory at a time
CHOICE_SAMPLE: Final = 1_500
PICTURE: Final = 2_000  # points
WARM_UP: Final = 0.2  # of an epoch: earlier gradients mostly reflect that the weights are still random
STARTS_PER_VIEW: Final = 10
COUNTS: Final = range(2, 13)
OUTPUT: Final = "output"
Init = Literal["k-means++", "random"]


@dataclass(frozen=True)
class View:
    """A view of the gradients of the sample: name, points, and whether they are scaled to length 1."""

    name: str
    points: Factored
    normalise: bool


@dataclass(frozen=True)
class ClusteredView:
    """The clusters of a view, and their agreement with the classes and with the predictions."""

    view: View
    clusters: Clusters
    digits: LabelAgreement
    predictions: LabelAgreement


@dataclass(frozen=True)
class ClusteringStart:
    """The result of one run of k-means from one start."""

    init: Init
    number: int
    inertia: float
    purity: float


class GradientMeasurements:
    """The measurements of the gradients of one trial. sample: int64 [n], places in the file, rising; first:
    the number of gradients at its start that are left out.

    say: called with progress messages, since measuring takes a while. Raises UserError if there are too few
    gradients, or if the network diverged.
    """

    def __init__(self, kept: GradientFile, sample: int = _SAMPLE, say: KMeansProgress = silent) -> None:
        self.kept, self.seed, self.say = kept, kept.trial.seed, say
        self.first = int(WARM_UP * len(kept)) if kept.online else 0
        drawn = sampled_rows(len(kept) - self.first, sample, self.seed)
        self.sample: Labels = drawn.numpy() + self.first
        self.digits, self.predictions = kept.digits[self.sample], kept.predictions[self.sample]
        self.labels = kept.labels[self.sample]
        self.count = kept.trial.data.classes
        self._check()

    def _check(self) -> None:
        """Raise UserError for gradients that cannot be analysed."""
        what = f"{self.kept.trial.id}: of {self.kept.name}"
        if len(self.sample) < self.count:
            raise UserError(
                f"{what} {pluralize(len(self.sample), 'gradient')} can be clustered, fewer than the "
                f"{self.count} classes"
            )
        for lengths in self.lengths.values():
            if not np.isfinite(np.square(lengths)).all():
                raise UserError(f"{what} some gradients are not finite: the network diverged")

    @property
    def hidden(self) -> str | None:
        """The first layer whose gradients were kept, except the output; None without one."""
        names = [name for name in self.kept.layers if name != OUTPUT]
        return names[0] if names else None

    @cached_property
    def lengths(self) -> dict[str, NDArray[np.float32]]:
        """The lengths of the sample's gradients of every layer that was kept, [n] each."""
        return {name: self.kept.layer(name, self.sample).norms().numpy() for name in self.kept.layers}

    @cached_property
    def all_lengths(self) -> dict[str, NDArray[np.float32]]:
        """The lengths of all gradients of every layer that was kept, of the whole file."""
        blocks = [slice(at, at + _BLOCK) for at in range(0, len(self.kept), _BLOCK)]
        return {
            name: np.concatenate([self.kept.layer(name, block).norms().numpy() for block in blocks])
            for name in self.kept.layers
        }

    @property
    def selection(self) -> str:
        """A sentence on the gradients of the file that are clustered, and on those that are left out."""
        total, used, rest = len(self.kept), len(self.sample), len(self.kept) - self.first
        early = (
            f"the first {100 * WARM_UP:g} % ({self.first:,}) are left out, since they mostly reflect that "
            "the "
            "weights are still random; "
        )
        drawn = f"a random {used:,} of {rest:,}" if used < rest else f"{rest:,}"
        return (
            f"of {total:,} gradients in {self.kept.name} {early if self.first else ''}{drawn} are clustered."
        )

    @cached_property
    def views(self) -> dict[str, View]:
        """The views that are clustered, by key."""
        found = []
        if OUTPUT in self.kept.layers:
            found += self._pair(OUTPUT, "output")
        if self.hidden is not None:
            found += self._pair(self.hidden, "hidden")
            points = self.kept.layer(self.hidden, self.sample)
            alone = points.delta.new_ones(len(points), 1)
            found += [
                ("delta", View("hidden layer, delta alone", Factored.of_bias(points.delta), normalise=True)),
                (
                    "input",
                    View("hidden layer, input alone", Factored(alone, points.activation), normalise=True),
                ),
            ]
        return dict(found)

    def _pair(self, layer: str, key: str) -> list[tuple[str, View]]:
        points = self.kept.layer(layer, self.sample)
        return [
            (f"{key}_raw", View(f"{key} layer, raw", points, normalise=False)),
            (f"{key}_unit", View(f"{key} layer, at length 1", points, normalise=True)),
        ]

    @cached_property
    def found(self) -> dict[str, ClusteredView]:
        """The clusters of every view, as many as there are digits, the best of STARTS runs."""
        return {key: self._clustered(view) for key, view in self.views.items()}

    def _clustered(self, view: View) -> ClusteredView:
        options = KMeansConfig(self.count, view.normalise, n_init=STARTS_PER_VIEW)
        clusters = cluster(view.points, options, self.seed, self._progress(view.name))
        labels = clusters.labels.numpy()
        return ClusteredView(
            view,
            clusters,
            label_agreement(labels, self.digits, self.seed),
            label_agreement(labels, self.predictions, self.seed),
        )

    @cached_property
    def main(self) -> ClusteredView | None:
        """The view of the figures: the hidden layer at length 1 if present, else the output layer."""
        return self.found.get("hidden_unit") or self.found.get("output_unit")

    @cached_property
    def permuted(self) -> LabelAgreement | None:
        """The agreement of the main clusters with permuted classes, the level of chance."""
        if self.main is None:
            return None
        permuted = generator(self.seed, "permutation").permutation(self.digits)
        return label_agreement(self.main.clusters.labels.numpy(), permuted, self.seed)

    @cached_property
    def read_off(self) -> float | None:
        """The share of samples whose label is the place of the least delta of the output."""
        view = self.views.get("output_unit")
        return (
            None if view is None else float((view.points.delta.argmin(dim=1).numpy() == self.labels).mean())
        )

    def shorter(self, key: str) -> float:
        """Return the share of pairs of a sample of the largest cluster and one of another in which the first
        has the shorter gradient; a tie counts half. NaN if there is only one cluster.
        """
        from scipy.stats import rankdata

        largest = self.found[key].clusters.labels.numpy() == 0  # they are numbered by size
        inside, outside = int(largest.sum()), int((~largest).sum())
        if not inside or not outside:
            return float("nan")
        ranks = rankdata(self.norms(key))
        longer = float(ranks[largest].sum()) - inside * (inside + 1) / 2
        return 1 - longer / (inside * outside)

    def without_largest(self, key: str) -> float:
        """Return the purity of the samples outside of the largest cluster; NaN if there are none."""
        labels = self.found[key].clusters.labels.numpy()
        rest = labels != 0
        if not rest.any():
            return float("nan")
        return float(cluster_purity(contingency(labels[rest], self.digits[rest])[None])[0])

    @cached_property
    def starts(self) -> tuple[ClusteringStart, ...]:
        """Every single run of k-means on the hidden layer at length 1, from both kinds of start."""
        if "hidden_unit" not in self.found:
            return ()
        found = self.found["hidden_unit"]
        options = KMeansConfig(self.count, init="random", n_init=STARTS_PER_VIEW)
        space, progress = space_of(found.view.points.normalised()), self._progress("single runs, random")
        runs: dict[Init, Sequence[KMeansRun]] = {
            "k-means++": found.clusters.runs,  # computed from these starts already
            "random": all_runs(space, options, self.seed, progress),
        }
        return tuple(
            self._start(init, number, run)
            for init, of_init in runs.items()
            for number, run in enumerate(of_init)
        )

    def _progress(self, what: str) -> KMeansProgress:
        """Return a progress callback that names the seed and the step."""
        return lambda message: self.say(f"seed {self.seed}, {what}: {message}")

    def _start(self, init: Init, number: int, run: KMeansRun) -> ClusteringStart:
        table = contingency(run.labels.numpy(), self.digits)
        return ClusteringStart(init, number, run.inertia, float(cluster_purity(table[None])[0]))

    @cached_property
    def choice(self) -> Choice | None:
        """The quality of other numbers of clusters, of the main view."""
        counts = [count for count in COUNTS if count < min(CHOICE_SAMPLE, len(self.sample))]
        if self.main is None or not counts:
            return None
        options = KMeansConfig(2, self.main.view.normalise, n_init=STARTS_PER_VIEW)
        progress = self._progress("how many clusters")
        return choose_samples(self.main.view.points, options, counts, self.seed, CHOICE_SAMPLE, progress)

    def groups(self, key: str) -> tuple[ClusterSummary, ...]:
        """Return a summary of every cluster of a view."""
        return groups(self.found[key].clusters, self.digits, self.predictions)

    def diversity(self) -> Mapping[str, Diversity]:
        """Return the distances of samples from their centres, by view."""
        return {key: diversity(each.clusters) for key, each in self.found.items()}

    @cached_property
    def picture(self) -> Embedding | None:
        """The embedding of the main view in the plane. rows: places in the sample."""
        if self.main is None or min(PICTURE, len(self.sample)) <= PERPLEXITY:
            return None
        try:
            points = self.main.view.points.normalised()
            return embed(points, self.seed, PICTURE, progress=self._progress("the plane"))
        except UserError:  # all gradients are equal: a picture would show one point
            return None

    def norms(self, key: str) -> NDArray[np.float64]:
        """Return the lengths of the raw gradients of a view, [n]."""
        return np.asarray(self.views[key].points.norms().numpy(), dtype=np.float64)
