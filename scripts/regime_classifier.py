"""Regimes of a list of architectures from a published table of trials."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from psa.analysis.published import published_trials
from psa.analysis.regimes import PUBLISHED_ZERO_R, regime_of
from psa.reports.ablation.cells import archs_in, cells_of

ABSENT: Final = "Unknown"  # the table lacks the architecture, whereas `unknown` means that no rule applies


def get_all_regime_classifications(
    configurations: str | Path, trials_markdown: str | Path, zero_r: float = PUBLISHED_ZERO_R
) -> dict[str, str]:
    """Return the regime of every architecture in the list `configurations`, in its order.

    trials_markdown: a table of trials such as results/psa_simplemlp_trials.md; zero_r: the score in percent
    of always answering the majority class of the validation split. Raises psa.core.errors.UserError for
    invalid files.
    """
    # only percentages decide, so the family of the table makes no difference
    cells = cells_of(published_trials(Path(trials_markdown), "simplemlp"))
    return {
        arch: regime_of(cells.numbers(arch), zero_r) if arch in cells.archs else ABSENT
        for arch in archs_in(Path(configurations))
    }
