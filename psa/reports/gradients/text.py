"""The sentences of the gradient study: tautologies, artefacts, and the evidence for each."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from psa.core.formatting import pluralize
from psa.reports.gradients.measurements import STARTS_PER_VIEW, GradientMeasurements
from psa.reports.rendering.html import Picture, Section, pick
from psa.reports.rendering.tables import Table

CLEARLY: Final = 0.9  # of pairs


def sections(
    measured: Sequence[GradientMeasurements], made: Mapping[str, Table], pictures: Mapping[str, Picture]
) -> Iterator[Section]:
    """Yield all sections of the page, in order."""
    yield Section("Networks", (), (), pick(made, "training"))
    if not measured:
        return
    agreed = "Agreement with digits and predictions"
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
    """Explain why the clusters of the output layer are the digits."""
    here = [each for each in measured if "output_unit" in each.found]
    if not here:
        return
    shares = [each.read_off for each in here if each.read_off is not None]
    yield (
        "At length 1 the clusters of the output layer agree with the digits at a purity of "
        f"{_purities(here, 'output_unit')}. This is a tautology and no finding: with cross-entropy delta is "
        "softmax minus one-hot, whose only negative number stands at the label. The label is part of what "
        "is clustered; without any clustering it can be read off as the place of the least number, in "
        f"{span(shares, percent=True)} of the samples."
    )
    right = [float((each.digits == each.predictions).mean()) for each in here]
    against = [each.found["output_unit"].predictions.purity.value for each in here]
    yield (
        f"Compared with predictions the purity is {span(against)}, and the predictions are right for "
        f"{span(right)} of the samples: where clusters are the digits, the one can only be the other."
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
            yield "Nobody is outside of it: all of these gradients are equal."
            continue
        pairs = [each.shorter(key) for each in apart]
        yield (
            f"A sample of that cluster has a shorter gradient than one of any other in "
            f"{span(pairs, percent=True)} of pairs; outside of it purity is "
            f"{span([each.without_largest(key) for each in apart])}."
        )
        if min(pairs) > CLEARLY:
            yield (
                "So it is length that decides who is in the largest cluster: what the network is sure of "
                "asks for next to nothing and lies near the origin, whatever is on the image. That is a "
                "property of how well a sample is known, not of its kind; at length 1 it is gone."
            )


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
        f"At length 1 the clusters of the hidden layer have a purity of {span(whole)} against digits; "
        f"against digits dealt out anew it is {span(chance)}. A gradient is delta times input, so each was "
        f"clustered alone: delta gives {span(delta)}, the input {span(seen)}."
    )
    if np.mean(delta) >= np.mean(whole) - 0.01 and np.mean(delta) > np.mean(seen):
        yield (
            "So delta alone does at least as well as the whole gradient: the label comes in through the "
            "output's delta, carried back by the last weights, and what the images have in common is not "
            "needed. The hidden layer is close to the same tautology as the output layer, and its agreement "
            "with the digits is not evidence of structure that the network has found in the images."
        )
    elif np.mean(seen) >= np.mean(whole):
        yield (
            "Here the input alone does as well as the gradient: the clusters are those of what the "
            "layer reads."
        )
    else:
        yield "Here the gradient agrees with the digits better than either of its factors alone."


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
            "Most single runs end in a local optimum of higher inertia, in which clusters mix digits: the "
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
    yield f"There are {one.count} digits. By {one.choice.samples:,} samples the measures choose: {choices}."


def _values(measured: Sequence[GradientMeasurements], key: str) -> list[float]:
    return [each.found[key].digits.purity.value for each in measured if key in each.found]


def _purities(measured: Sequence[GradientMeasurements], key: str) -> str:
    return span(_values(measured, key))


def span(values: Sequence[float], *, percent: bool = False) -> str:
    """Return `0.998`, or `0.997 to 0.999` over the seeds."""
    shown = [f"{100 * value:.1f} %" if percent else f"{value:.3f}" for value in (min(values), max(values))]
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"
