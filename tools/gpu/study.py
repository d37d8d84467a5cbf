"""An estimate of the published study on a device: hours, from the architectures measured, and dollars."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from cloud.aws.pricing import price_table
from gpu.setting import FAMILIES
from gpu.work import Workload

TRIALS: Final = 60  # six modes, ten seeds
LOOPS: Final = 100
# The 588 jobs of the published study, on ml.g4dn.xlarge (docs/reproduction.md).
PUBLISHED: Final = {"family": "simplemlp", "hours": 869.5, "dollars": 640}
FEWEST: Final = 6  # architectures of a family, from which the others are estimated
# The GPU of each family of instances, as a word of its name in CUDA.
INSTANCES: Final = {"T4": "ml.g4dn.", "A10G": "ml.g5.", "L4": "ml.g6.", "V100": "ml.p3.", "H100": "ml.p5."}


def study_estimate(
    everyone: Sequence[Workload], seconds: Mapping[Workload, float], device_name: str
) -> dict[str, Any] | None:
    """Return hours per family and in total, and dollars where the table of prices has such a device.

    seconds: per trial-epoch of the architectures measured. None if a family has too few of them.
    """
    hours = {}
    for family in FAMILIES:
        mine = [work for work in everyone if work.family == family]
        known = [work for work in mine if work in seconds]
        if len(known) < min(FEWEST, len(mine)):
            return None
        missing = [work for work in mine if work not in seconds]
        total = sum(seconds[work] for work in known) + sum(_estimated(known, seconds, missing))
        hours[family] = total * TRIALS * LOOPS / 3600
    hours["both"] = sum(hours.values())
    return {"hours": hours, "dollars": _offers(hours["both"], device_name), "published": PUBLISHED}


def _estimated(
    known: Sequence[Workload], seconds: Mapping[Workload, float], missing: Sequence[Workload]
) -> list[float]:
    """Return seconds per trial-epoch as a x arithmetic + b x layers + c, none of them negative.

    The three are fitted to relative errors: of every set of them the least squares are tried.
    """
    if not missing:
        return []
    a = _features(known) / np.array([[seconds[work]] for work in known])
    fits = []
    for columns in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in (1, 2, 3)):
        some = list(columns)
        found = np.zeros(3)
        found[some] = np.linalg.lstsq(a[:, some], np.ones(len(known)), rcond=None)[0]
        if (found >= 0).all():
            fits.append((float(((a @ found - 1) ** 2).sum()), tuple(found)))
    return [float(each) for each in _features(missing) @ np.array(min(fits)[1])]


def _features(works: Sequence[Workload]) -> Any:
    return np.array([[work.flop / 1e9, work.layers, 1.0] for work in works])


def _offers(hours: float, device_name: str) -> list[dict[str, Any]]:
    """Return the instances of the table of prices that have this device, the cheapest first."""
    prefixes = tuple(INSTANCES[word] for word in re.split(r"[\s-]+", device_name) if word in INSTANCES)
    table = price_table()
    offers = [
        {"instance": name, "dollars": price.cost(3600 * hours) / price.gpus, "dated": table.description}
        for name, price in table.instances.items()
        if prefixes and name.startswith(prefixes)
    ]
    return sorted(offers, key=lambda offer: float(offer["dollars"]))
