"""A sentence on trials of the depth study whose tested weights are far worse than earlier ones."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from psa.analysis.stats import present
from psa.core.formatting import pluralize
from psa.reports.glonet.networks import GlonetResults
from psa.reports.glonet.tables import network_order
from psa.reports.wording import FALL


def fallen_trials_text(results: GlonetResults) -> Iterator[str]:
    """Yield a sentence on the trials whose validation accuracy fell by FALL points or more from their best
    epoch to the tested weights; none without any.
    """
    parts, count = [], 0
    for each in network_order(results):
        falls = present(each.best - each.validation)
        fallen = falls[falls >= FALL]
        if len(fallen):
            count += len(fallen)
            of = f"{len(fallen)} of {pluralize(each.n, 'trial')}"
            parts.append(f"{each.network.label} ({of}, by up to {np.max(fallen):.1f} points)")
    if parts:
        have = "trial has" if count == 1 else "trials have"
        yield (
            f"{count} {have} a validation accuracy {FALL:g} points or more below that of the best epoch: "
            f"{'; '.join(parts)}. Training is unstable there, and the test accuracy depends on the epoch at "
            "which it ended."
        )
