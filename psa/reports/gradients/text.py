"""The sentences of the gradient study: tautologies, artefacts, and the evidence for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from psa.core.formatting import format_range, pluralize
from psa.reports.gradients.measurements import STARTS_PER_VIEW, GradientMeasurements
from psa.reports.rendering.html import Picture, Section, pick
from psa.reports.rendering.tables import Table

CLEARLY: Final = 0.9  # of pairs, or of samples
_SAME: Final = 0.01  # of purity: such a difference counts as none
_ABOVE: Final = 0.05  # of purity above that of permuted classes, from which on there is agreement


def sections(
    measured: Sequence[GradientMeasurements], made: Mapping[str, Table], pictures: Mapping[str, Picture]
) -> Iterator[Section]:
    """Yield all sections of the page, in order."""
    shown = pick(pictures, "training_curves", "data_samples", "test_predictions")
    yield Section("Networks", (), shown, pick(made, "training"))
    if not measured:
        return
    agreed = "Agreement with classes and predictions"
    yield Section(agreed, (), pick(pictures, "agreement", "tsne"), pick(made, "agreement"))
    yield Section("The output layer", tuple(output_layer_text(measured)))
    yield Section(
        "Raw gradients",
        tuple(raw_gradient_text(measured)),
        pick(pictures, "norms_output", "norms_hidden"),
        pick(made, "norms"),
    )
    yield Section(
        "The hidden layer", tuple(hidden_layer_text(measured)), pick(pictures, "centres", "samples")
    )
    yield Section("One start or ten", tuple(start_text(measured)), (), pick(made, "starts"))
    yield Section(
        "How many clusters", tuple(choice_text(measured[0])), pick(pictures, "choice"), pick(made, "choice")
    )
    yield Section("Clusters", (), pick(pictures, "predictions"), pick(made, "clusters", "diversity"))


def output_layer_text(measured: Sequence[GradientMeasurements]) -> Iterator[str]:
    """Explain why the clusters of the output layer are the classes."""
    here = [each for each in measured if "output_unit" in each.found]
    if not here:
        return
    shares = [each.read_off for each in here if each.read_off is not None]
    yield (
        "At length 1 the clusters of the output layer agree with the classes at a purity of "
        f"{_purities(here, 'output_unit')}. Agreement here is a tautology and no finding: with cross-entropy "
        "delta is softmax minus one-hot, whose only negative number stands at the label. The label is part "
        "of "
        "what is clustered; without any clustering it can be read off as the place of the least number, in "
        f"{span(shares, percent=True)} of the samples."
    )
    right = [float((each.digits == each.predictions).mean()) for each in here]
    against = [each.found["output_unit"].predictions.purity.value for each in here]
    same = max(abs(one - other) for one, other in zip(against, right, strict=True)) <= _SAME
    yield (
        f"Compared with predictions the purity is {span(against)}, and the predictions are right for "
        f"{span(right, percent=True)} of the samples"
        + (": where clusters are the classes, the two are nearly the same number." if same else ".")
    )


def raw_gradient_text(measured: Sequence[GradientMeasurements]) -> Iterator[str]:
    """Describe what raw gradients cluster by."""
    for key, layer in (("output_raw", "output"), ("hidden_raw", "hidden")):
        here = [each for each in measured if key in each.found]
        if not here:
            continue
        largest = [max(each.found[key].clusters.sizes) / len(each.sample) for each in here]
        apart = [each for each in here if not math.isnan(each.shorter(key))]
        yield (
            f"Raw gradients of the {layer} layer: purity {_purities(here, key)}, and the largest of "
            f"{pluralize(here[0].count, 'cluster')} holds {span(largest, percent=True)} of the samples."
        )
        if not apart:
            yield "No sample is outside of it: all of these gradients are equal."
            continue
        pairs = [each.shorter(key) for each in apart]
        yield (
            f"A sample of that cluster has a shorter gradient than one of any other in "
            f"{span(pairs, percent=True)} of pairs; purity among the {_outside(apart, key)} outside of it is "
            f"{span([each.without_largest(key) for each in apart])}."
        )
        if min(pairs) > CLEARLY:
            yield why_short(here, key)


def why_short(measured: Sequence[GradientMeasurements], key: str) -> str:
    """Explain why short gradients form a cluster; that they are of samples that the network answers right is
    said only where it is so.
    """
    text = "So it is mostly length that decides which samples are in the largest cluster."
    inside = [_right(each, each.found[key].clusters.labels.numpy() == 0) for each in measured]
    outside = [_right(each, each.found[key].clusters.labels.numpy() != 0) for each in measured]
    text += (
        f" The network answers {span(inside, percent=True)} of the samples in that cluster right, and "
        f"{span(outside, percent=True)} of the others."
    )
    missed = [_missed_outside(each, key) for each in measured]
    if min(missed) > CLEARLY and max(outside) < min(inside):
        text += (
            " Samples of which it is sure have short gradients, near the origin, whatever the image shows: "
            "the cluster says how well a sample is known, not of what kind it is."
        )
    return text


def _outside(measured: Sequence[GradientMeasurements], key: str) -> str:
    """Return how many samples of each trial lie outside of the largest cluster, as text."""
    counts = [len(each.sample) - max(each.found[key].clusters.sizes) for each in measured]
    return f"{format_range(counts)} {'sample' if max(counts) == 1 else 'samples'}"


def _missed_outside(each: GradientMeasurements, key: str) -> float:
    """Return the share of the samples answered wrong that lie outside of the largest cluster; 1 if there are
    none.
    """
    outside = each.found[key].clusters.labels.numpy() != 0
    wrong = each.digits != each.predictions
    return float(outside[wrong].mean()) if wrong.any() else 1.0


def _right(each: GradientMeasurements, part: NDArray[np.bool_]) -> float:
    return float((each.digits == each.predictions)[part].mean())


def hidden_layer_text(measured: Sequence[GradientMeasurements]) -> Iterator[str]:
    """Compare the hidden layer's clusters with those of delta alone and of the input alone."""
    here = [each for each in measured if "hidden_unit" in each.found]
    if not here:
        return
    several = [each for each in here if len(each.kept.layers) > 2]
    if several:
        yield (
            f"Of the layers before the output {several[0].hidden} alone is clustered, the first that was "
            "kept; lengths are those of all."
        )
    whole, delta, seen = (_values(here, key) for key in ("hidden_unit", "delta", "input"))
    chance = [each.permuted.purity.value for each in here if each.permuted is not None]
    yield (
        f"At length 1 the clusters of the hidden layer have a purity of {span(whole)} against classes; "
        f"against permuted classes it is {span(chance)}. A gradient is delta times input, so each was "
        f"clustered alone: delta gives {span(delta)}, the input {span(seen)}."
    )
    means = (float(np.mean(each)) for each in (whole, delta, seen, chance or [0.0]))
    yield factor_verdict(*means)


# What the factors of a gradient say of its clusters, and the conditions: the first that holds counts. All are
# mean purities: of the whole gradient, of delta alone, of the input alone, and of permuted classes.
FACTOR_VERDICTS: Final[tuple[tuple[str, Callable[[float, float, float, float], bool]], ...]] = (
    (
        "That is hardly above chance: these clusters are not the classes.",
        lambda whole, delta, seen, chance: whole <= chance + _ABOVE,
    ),
    (
        "So delta alone does as well as the whole gradient, to 0.01 of purity: the label comes in through "
        "the output's delta, carried back by the last weights, and what the images have in common is not "
        "needed. The hidden layer is close to the same tautology as the output layer, and its agreement "
        "with the classes is not evidence of structure that the network has found in the images.",
        lambda whole, delta, seen, chance: delta >= whole - _SAME and delta > seen,
    ),
    (
        "The input alone agrees with the classes as well as the whole gradient does: the gradient adds "
        "nothing to what the layer reads.",
        lambda whole, delta, seen, chance: seen >= whole - _SAME,
    ),
    (
        "Here the gradient agrees with the classes better than either of its factors alone.",
        lambda whole, delta, seen, chance: True,
    ),
)


def factor_verdict(whole: float, delta: float, seen: float, chance: float) -> str:
    """Return the sentence on what the clusters of the hidden layer show."""
    return next(text for text, holds in FACTOR_VERDICTS if holds(whole, delta, seen, chance))


def start_text(measured: Sequence[GradientMeasurements]) -> Iterator[str]:
    """Describe the results of single runs of k-means."""
    here = [each for each in measured if each.starts]
    if not here:
        return
    for init in dict.fromkeys(start.init for each in here for start in each.starts):
        runs = [start for each in here for start in each.starts if start.init == init]
        purities = [run.purity for run in runs]
        best = [
            min(
                (start for start in each.starts if start.init == init), key=lambda start: start.inertia
            ).purity
            for each in here
        ]
        yield (
            f"Single runs from {init} starts: purity {min(purities):.3f} to {max(purities):.3f}, median "
            f"{float(np.median(purities)):.3f}, of {pluralize(len(runs), 'run')}. The run of least inertia "
            f"among {STARTS_PER_VIEW} has {span(best)}."
        )
    every = [start.purity for each in here for start in each.starts]
    final = float(np.mean(_values(here, "hidden_unit")))
    if final - float(np.median(every)) > 0.02:
        yield (
            "Most single runs end in a local optimum of higher inertia, in which clusters mix classes: the "
            "purity of a single run is a property of its start, not of the gradients."
        )


def choice_text(one: GradientMeasurements) -> Iterator[str]:
    """Yield the number of clusters that each measure would choose."""
    if one.choice is None:
        return
    chosen = {
        name: one.choice.best(measure)
        for name, measure in (
            ("silhouette", "silhouette"),
            ("Calinski-Harabasz", "calinski_harabasz"),
            ("Davies-Bouldin", "davies_bouldin"),
        )
    }
    choices = ", ".join(f"{name} {'nothing' if best is None else best}" for name, best in chosen.items())
    yield f"There are {one.count} classes. By {one.choice.samples:,} samples the measures choose: {choices}."


def _values(measured: Sequence[GradientMeasurements], key: str) -> list[float]:
    return [each.found[key].digits.purity.value for each in measured if key in each.found]


def _purities(measured: Sequence[GradientMeasurements], key: str) -> str:
    return span(_values(measured, key))


def span(values: Sequence[float], *, percent: bool = False) -> str:
    """Return `0.998`, or `0.997 to 0.999` over the seeds."""
    shown = [f"{100 * value:.1f} %" if percent else f"{value:.3f}" for value in (min(values), max(values))]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"
