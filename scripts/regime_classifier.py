"""Regimes of a list of architectures from a published table of trials."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from psa.analysis.published import published_trials
from psa.analysis.regimes import PUBLISHED_ZERO_R, regime_of
from psa.reports.ablation.cells import archs_in, cells_of

ABSENT: Final = "Unknown"  # the table does not name the architecture; `unknown`: no rule applies


def get_all_regime_classifications(
    configurations: str | Path, trials_markdown: str | Path, zero_r: float = PUBLISHED_ZERO_R
) -> dict[str, str]:
    """The regime of every architecture in the list `configurations`, in its order.

    trials_markdown: a table of trials such as results/psa_simplemlp_trials.md; zero_r: what always answering
    the majority class of the validation split scores, in percent. Raises psa.core.errors.UserError for files
    that are not so.
    """
    # percentages alone decide: of which family the table is makes no difference
    cells = cells_of(published_trials(Path(trials_markdown), "simplemlp"))
    return {
        arch: regime_of(cells.numbers(arch), zero_r) if arch in cells.archs else ABSENT
        for arch in archs_in(Path(configurations))
    }
