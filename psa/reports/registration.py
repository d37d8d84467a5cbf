"""Registration of reports. Apart from the contract of reports, which takes long to import."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from psa.core.plugins.identity import plugin_functions
from psa.reports.report_kinds import OPTIONAL_FUNCTIONS, REPORT_FUNCTIONS, REPORT_PLUGINS

if TYPE_CHECKING:
    from psa.reports.contract import Report


def register_report(kind: str, report: Report) -> None:
    """Register the report of a kind of trials: its pages, tables and figures.

    Args:
        kind: The kind of the trials (`Trial.kind`), which the study chooses.
        report: A module or an object of the protocol `psa.reports.contract.Report`. Import pandas, matplotlib
            and psa.reports inside of its functions: workers load the plugin, too, and may not have them.

    Raises:
        PluginError: The kind is invalid, has a report of psa, or is registered already; or a
            function of the protocol is missing.

    Example:
        >>> class Page:
        ...     def parts(self, frame): ...
        ...     def tables(self, frame, context): ...
        ...     def figures(self, frame, context): ...
        ...     def listings(self, frame, context): ...
        ...     def page(self, frame, context, made, stored): ...
        >>> def register():
        ...     register_report("widths", Page())

    """
    made = SimpleNamespace()
    REPORT_PLUGINS.add(kind, made)
    needed = {part: getattr(report, part, None) for part in REPORT_FUNCTIONS}
    optional = {part: getattr(report, part) for part in OPTIONAL_FUNCTIONS if hasattr(report, part)}
    vars(made).update(plugin_functions("report", kind, needed | optional))
