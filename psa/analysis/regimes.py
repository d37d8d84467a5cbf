"""The four regimes of the PSA study: what ablation does to an architecture, decided by published rules.

The rules and their numbers are those of the study's final version. They work on percentages: of each mode the
mean, the population standard deviation, the least and the greatest bounty of its trials, and on ZeroR, the
score of always predicting the majority class of the validation split.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from psa.specs.training.settings import ABLATIVE

BASELINES: Final = ("none", "decay", "dropout")
Regime = Literal[
    "beneficial-regularization", "optimally-sized", "chaotic-optimization", "untrainable", "unknown"
]
REGIMES: Final[tuple[Regime, ...]] = (
    "beneficial-regularization",
    "optimally-sized",
    "chaotic-optimization",
    "untrainable",
    "unknown",
)
PUBLISHED_ZERO_R: Final = 11.02  # percent of the published validation split
_LEAST_SPREAD: Final = 0.5  # points; three baselines that agree more closely still count as this far apart
_NOTICEABLE: Final = 0.01  # points
_CLEARLY_WORSE: Final = 0.1  # points
_CLEARLY_BETTER: Final = 0.5  # points
_UNSTABLE: Final = 15.0  # points of standard deviation


@dataclass(frozen=True)
class RegimeCell:
    """The bounties of one mode of one architecture, in percent; sd is the population's (ddof 0)."""

    mean: float
    sd: float
    low: float
    high: float

    @classmethod
    def of(cls, bounties: list[float]) -> RegimeCell:
        """Summarise the bounties of single trials. Raises statistics.StatisticsError if there are none."""
        return cls(statistics.fmean(bounties), statistics.pstdev(bounties), min(bounties), max(bounties))


def regime_of(cells: Mapping[str, RegimeCell], zero_r: float = PUBLISHED_ZERO_R) -> Regime:
    """Return the regime of an architecture from its six modes; unknown where one is missing."""
    if any(mode not in cells for mode in (*BASELINES, *ABLATIVE)):
        return "unknown"
    baselines = [cells[mode] for mode in BASELINES]
    ablative = [cells[mode] for mode in ABLATIVE]
    if _untrainable(baselines, ablative, zero_r):
        return "untrainable"
    if _beneficial(baselines, ablative):
        return "beneficial-regularization"
    if _optimally_sized(baselines, ablative):
        return "optimally-sized"
    if _chaotic(baselines, ablative, zero_r):
        return "chaotic-optimization"
    return "unknown"


def _means(cells: list[RegimeCell]) -> list[float]:
    return [cell.mean for cell in cells]


def _tolerance(baselines: list[RegimeCell]) -> float:
    """Return the distance from the baselines' common mean that still counts as equal to them."""
    return max(statistics.pstdev(_means(baselines)), _LEAST_SPREAD)


def _consistent(baselines: list[RegimeCell]) -> bool:
    middle, tolerance = statistics.fmean(_means(baselines)), _tolerance(baselines)
    return all(abs(mean - middle) <= tolerance for mean in _means(baselines))


def _untrainable(baselines: list[RegimeCell], ablative: list[RegimeCell], zero_r: float) -> bool:
    """Return True if nothing beats ZeroR, or only a lucky baseline does and no mean."""
    everything = [*baselines, *ablative]
    if max(cell.high for cell in everything) <= zero_r:
        return True
    return max(_means(everything)) <= zero_r and max(cell.high for cell in ablative) <= zero_r


def _beneficial(baselines: list[RegimeCell], ablative: list[RegimeCell]) -> bool:
    """Return True if ablation costs nothing or helps a little, and no mode is far above the baselines."""
    middle, tolerance = statistics.fmean(_means(baselines)), _tolerance(baselines)
    if any(mean > middle + tolerance for mean in _means(ablative)) or not _consistent(baselines):
        return False
    alike = all(abs(mean - middle) <= tolerance for mean in _means(ablative))
    return alike or max(_means(ablative)) - min(_means(baselines)) >= _NOTICEABLE


def _optimally_sized(baselines: list[RegimeCell], ablative: list[RegimeCell]) -> bool:
    """Return True if every neuron is needed: ablation makes the network worse."""
    middle, ablated = statistics.fmean(_means(baselines)), statistics.fmean(_means(ablative))
    if ablated < middle - _tolerance(baselines):
        return True
    if max(cell.high for cell in baselines) > max(cell.high for cell in ablative) and ablated <= middle:
        return True
    spread = max(statistics.pstdev(_means(ablative)), _LEAST_SPREAD)
    return (
        _consistent(baselines)
        and all(abs(mean - ablated) <= spread for mean in _means(ablative))
        and ablated < middle
        and max(_means(ablative)) - min(_means(baselines)) <= 0
        and middle - ablated > _CLEARLY_WORSE
    )


def _chaotic(baselines: list[RegimeCell], ablative: list[RegimeCell], zero_r: float) -> bool:
    """Return True if the network learns only with ablation, or chance decides."""
    middle, ablated = statistics.fmean(_means(baselines)), statistics.fmean(_means(ablative))
    rescued = max(cell.high for cell in baselines) <= zero_r < max(cell.high for cell in ablative)
    return rescued or ablated > middle + _CLEARLY_BETTER or any(cell.sd > _UNSTABLE for cell in baselines)
