"""The map of sizes: parameters, their label in the study, and whether they meet their budget."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from psa.reports.ablation.architectures import MATCHED, Match, matches
from psa.reports.ablation.figures.design_space import MARK, map_notes, new_map
from psa.reports.ablation.figures.map_marks import EDGE, Legend, Scale, Spots, colour_bar, handle, marks
from psa.reports.plotting.style import footnote, plot_style

_GREY: Final = "#9A9A9A"
_KINDS: Final = {
    (True, True): ("o", f"Matched, within {MATCHED:.0%}"),
    (True, False): ("o", f"Matched, but not within {MATCHED:.0%}"),
    (False, True): ("^", f"Asymmetric, but within {MATCHED:.0%}"),
    (False, False): ("^", f"Asymmetric, not within {MATCHED:.0%}"),
}
_ALONE: Final = {
    True: ("o", "Matched, no partner to match"),
    False: ("^", "Asymmetric, no partner to match"),
    None: ("s", "not in the list of the study"),
}
_HOW: Final = (
    "Circles are labelled Matched by the study, triangles Asymmetric. Filled: the number of parameters is "
    f"within {MATCHED:.0%} of that of the network with one hidden layer (1*W) that it was meant to match, or "
    "it is such a network itself. Small and filled: without a network to match."
)
_SMALL: Final = 0.65  # of the size of a mark: without a partner there is no verdict


def plot_matching(ax: Axes, spots: Spots, found: Mapping[str, Match], scale: Scale) -> Axes:
    """Draw parameters as colour, and the published label as the mark, filled if the budget is met."""
    for (labelled, close), (marker, _) in _KINDS.items():
        archs = _alike(found, labelled, close)
        colours = scale.rgba([found[arch].parameters for arch in archs])
        if close:
            marks(ax, spots, archs, marker, colours)
        else:
            marks(ax, spots, archs, marker, "white", edgecolors=colours, linewidths=1.3)
    for label, (marker, _) in _ALONE.items():
        archs = _alone(found, label)
        colours = scale.rgba([found[arch].parameters for arch in archs])
        marks(ax, spots, archs, marker, colours, s=(_SMALL * MARK) ** 2)
    return ax


def _alike(found: Mapping[str, Match], labelled: bool, close: bool) -> list[str]:
    there = {arch: each for arch, each in found.items() if each.role != "none"}
    return [arch for arch, each in there.items() if (each.labelled, each.within()) == (labelled, close)]


def _alone(found: Mapping[str, Match], labelled: bool | None) -> list[str]:
    """Return the architectures with this label that were meant to match no other."""
    return [arch for arch, each in found.items() if each.role == "none" and each.labelled == labelled]


def matching_map(
    archs: Sequence[str],
    parameters: Callable[[str], int],
    asymmetric: Collection[str],
    order: Sequence[str],
    notes: Sequence[str] = (),
) -> Figure:
    """Return the map of the parameters of each architecture, and of whether they meet its budget. order: the
    list of the whole study, from which the budgets follow.
    """
    found = matches(archs, parameters, asymmetric, order)
    sizes = [each.parameters for each in found.values()]
    scale = Scale(LogNorm(min(sizes), max(*sizes, 1.05 * min(sizes))), "viridis", "parameters")
    with plot_style():
        drawn = new_map(archs, "Parameter matching")
        drawn.draw(lambda ax: plot_matching(ax, drawn.spots, found, scale))
        colour_bar(drawn, scale)
        legend = Legend()
        for (labelled, close), (marker, label) in _KINDS.items():
            mark = handle(marker, _GREY, EDGE) if close else handle(marker, "white", _GREY)
            legend.add(mark, label, _alike(found, labelled, close))
        for given, (marker, label) in _ALONE.items():
            legend.add(handle(marker, _GREY, EDGE, _SMALL * MARK), label, _alone(found, given))
        legend.draw(drawn, 3.8, heading="published label, and by our count")
        left_out = drawn.write_labels()
        how = _HOW + (" Squares are not in its list." if _alone(found, None) else "")
        footnote(drawn.figure, [*notes, how, *map_notes(archs, left_out)])
        return drawn.figure
