"""The kinds of trials that have a report: those of psa, which are folders of psa/reports, and of plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from psa.core.plugins.registry import Registry


def _built_in() -> list[str]:
    """Return the kinds with a report of psa. Looked up as files: importing them takes long."""
    return sorted(path.parent.name for path in Path(__file__).parent.glob("*/report.py"))


# What a report consists of, see psa.reports.contract.
REPORT_FUNCTIONS: Final = ("parts", "tables", "figures", "listings", "page")
OPTIONAL_FUNCTIONS: Final = ("runs",)
REPORT_PLUGINS: Final = Registry[Any]("report", _built_in)  # see psa.reports.registration
