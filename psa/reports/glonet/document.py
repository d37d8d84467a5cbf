"""The claims of the document that came with the earlier program, compared with trials that are like its "
"own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final

import pandas as pd

from psa.analysis.stats import share_summary
from psa.reports.glonet.networks import GlonetResults
from psa.reports.glonet.tables import (
    CLAIMED,
    CLAIMED_EPOCHS,
    CLAIMED_FEATURES,
    CLAIMED_LEAST,
    CLAIMED_OF,
    trained_for,
)

_MARGIN: Final = 1.0  # points of accuracy by which a claim may be off
_DEEP: Final = 50  # layers from which on the document calls networks deep

# What the document's claims are of: a name, and whether the trials have it. Otherwise nothing is compared.
CLAIM_CONDITIONS: Final[tuple[tuple[str, Callable[[pd.DataFrame, GlonetResults], bool]], ...]] = (
    (f"width {CLAIMED_FEATURES}", lambda trials, results: CLAIMED_FEATURES in results.features),
    ("MNIST", lambda trials, results: set(trials["dataset"].dropna()) == {CLAIMED_OF}),
    ("all ten digits", lambda trials, results: bool(trials["digits"].isna().all())),
    ("all training images", lambda trials, results: bool(trials["train_size"].isna().all())),
    (
        f"at least {CLAIMED_LEAST} epochs",
        lambda trials, results: min(results.epochs, default=0) >= CLAIMED_LEAST,
    ),
    ("one of its depths", lambda trials, results: any(layers in CLAIMED for layers in results.layers)),
)


def claims_missing(trials: pd.DataFrame, results: GlonetResults) -> list[str]:
    """Return what trials lack to be compared with the claims of the earlier document, empty if nothing."""
    return [name for name, holds in CLAIM_CONDITIONS if not holds(trials, results)]


# The verdicts on a claimed accuracy and their conditions, by the distances of the ends of the interval from
# it: the first that holds counts.
CLAIM_VERDICTS: Final[tuple[tuple[str, Callable[[float, float], bool]], ...]] = (
    ("cannot be told", lambda low, high: math.isnan(low) or math.isnan(high)),
    ("agrees", lambda low, high: low >= -_MARGIN and high <= _MARGIN),
    ("refuted", lambda low, high: low > _MARGIN or high < -_MARGIN),
    ("cannot be told", lambda low, high: True),
)


def claim_verdict(low: float, high: float) -> str:
    """Return the verdict on a claimed accuracy by the interval of measured minus claimed, in points."""
    return next(name for name, holds in CLAIM_VERDICTS if holds(low, high))


def degradation(results: GlonetResults) -> Iterator[str]:
    """Yield a sentence on whether MLPs degrade as gently as an earlier document claims, at its depths and
    its width.
    """
    parts = []
    for layers, claimed in CLAIMED.items():
        found = results.get("MLP", layers, CLAIMED_FEATURES)
        if layers < _DEEP or found is None or not found.n:
            continue
        of = share_summary(found.test)
        verdict = claim_verdict(of.low - claimed["MLP"], of.high - claimed["MLP"])
        parts.append(
            f"{of.mean:.2f} % with {layers} layers ({claimed['MLP']:g} % claimed: {verdict}, n = {of.n})"
        )
    if parts:
        yield (
            "An earlier document says that a plain MLP degrades gently, to 85 % with 200 layers, after "
            f"{CLAIMED_EPOCHS}. Measured at width {CLAIMED_FEATURES} after {trained_for(results)}: "
            f"{'; '.join(parts)}. A claim agrees where the 95 % interval lies within {_MARGIN:g} point of "
            "it, "
            "and is refuted where all of the interval lies beyond."
        )
