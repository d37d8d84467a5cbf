"""The architectures of the study: depth and width, shape, and the parameter budgets that they were meant to
meet, computed beside the labels of the study.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from psa.reports.ablation.cells import Cells
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import IMAGE, shape_of

MATCHED: Final = 0.10  # largest relative difference between parameters and budget that counts as matched
MatchRole = Literal["budget", "partnered", "none"]
SHAPES: Final = (
    "wide: depth of at most 4",
    "square: as deep as wide",
    "deep: width of at most 4",
    "other",
)


@dataclass(frozen=True)
class Spot:
    """The position of an architecture: its number of hidden layers (of residual networks: blocks), and the
    units of its widest one.
    """

    arch: str
    depth: int
    width: int

    @property
    def shape(self) -> str:
        """The shape, one of SHAPES."""
        wide, square, deep, other = SHAPES
        if self.depth == self.width:
            return square
        if self.depth <= 4 < self.width or self.depth < self.width <= 4:
            return wide
        return deep if self.width <= 4 else other


def spots(archs: Sequence[str]) -> dict[str, Spot]:
    """Return the position of every architecture, in the order given."""
    found = {}
    for arch in archs:
        widths = Arch.coerce(arch).widths
        found[arch] = Spot(arch, len(widths), max(widths))
    return found


def by_size(archs: Iterable[str]) -> list[str]:
    """Sort architectures by depth, then by the width of their widest layer."""
    found = spots(tuple(archs)).values()
    return [spot.arch for spot in sorted(found, key=lambda spot: (spot.depth, spot.width, spot.arch))]


@dataclass(frozen=True)
class Match:
    """An architecture and the parameter budget that it was meant to meet.

    labelled: whether the study calls it matched, None for an architecture that is not in its list; role:
    whether it is a budget itself, was meant to meet one, or neither; partner: the network with one layer
    whose parameters are that budget ("" if it has none); deviation: relative excess of its parameters over
    the budget (NaN without a partner).
    """

    parameters: int
    labelled: bool | None
    role: MatchRole
    partner: str
    deviation: float

    def within(self, tolerance: float = MATCHED) -> bool | None:
        """Return whether the parameters meet the budget within a tolerance; a budget meets itself. None for
        an architecture without a partner.
        """
        if self.role == "partnered":
            return abs(self.deviation) <= tolerance
        return True if self.role == "budget" else None


def has_budgets(family: str) -> bool:
    """Return whether the study chose the widths of a family for equal numbers of parameters: those of plain
    networks. Residual networks have the same depths and widths, and other numbers of parameters.
    """
    return family == "simplemlp"


def parameters_of(family: str, arch: str, classes: int = 10, sample: tuple[int, ...] = IMAGE) -> int:
    """Return the number of weights and biases of an architecture. Raises UserError for an invalid one."""
    model = PublishedModelSpec.model_validate({"family": family, "arch": arch})
    return shape_of(model, classes, sample).parameters


def sizes(cells: Cells) -> Callable[[str], int]:
    """Return a function from any architecture, with or without trials, to its parameters in these cells."""
    of = functools.partial(parameters_of, cells.family, classes=cells.classes, sample=cells.sample)
    return lambda arch: cells.parameters.get(arch) or of(arch)


def matches(
    archs: Sequence[str],
    parameters: Callable[[str], int],
    asymmetric: Collection[str],
    order: Sequence[str] = (),
) -> dict[str, Match]:
    """Return each architecture with its partner in `order`, the list of the whole study (see partners).

    Of an architecture that is not in that list the study says nothing: it has no label and no role.
    """
    meant = partners(order)
    labels = {arch: arch not in asymmetric if arch in order or not order else None for arch in archs}
    return {arch: _match(arch, meant.get(arch, ""), parameters, labels[arch]) for arch in archs}


def _match(arch: str, partner: str, parameters: Callable[[str], int], labelled: bool | None) -> Match:
    size = parameters(arch)
    if partner:
        return Match(size, labelled, "partnered", partner, size / parameters(partner) - 1)
    budget = labelled is not None and _is_budget(arch)
    return Match(size, labelled, "budget" if budget else "none", "", float("nan"))


def _is_budget(arch: str) -> bool:
    (depth, width), *more = Arch.coerce(arch).stacks
    return depth == 1 < width and not more


def partners(archs: Sequence[str]) -> dict[str, str]:
    """Return the network with one layer whose parameters each architecture was meant to have, if there is
    one.

    The study chose widths for depth L by solving (L-1)W^2 + (794+L)W + 10 = P for the parameters P of each
    1*W. Its list does not name the pairs; they follow from the order: within a depth, and among the squares,
    the i-th widest goes with the i-th widest 1*W. Squares beside others (32*32, 31*31, ... 1*1) are a series
    of all sizes, and an architecture that is deeper than wide mirrors another: neither was meant to match.
    """
    sizes = {stacks[0]: arch for arch in archs if len(stacks := Arch.coerce(arch).stacks) == 1}
    squares = {width for depth, width in sizes if depth == width}
    groups: dict[int, list[tuple[int, int]]] = {}
    for depth, width in sizes:
        alone = depth == width and not {width - 1, width + 1} & squares
        if depth < width or alone:
            groups.setdefault(0 if depth == width else depth, []).append((depth, width))
    budgets = sorted(groups.pop(1, []), reverse=True)
    found = {}
    for group in groups.values():
        widest_first = sorted(group, key=lambda size: -size[1])
        found.update(
            {sizes[size]: sizes[budget] for size, budget in zip(widest_first, budgets, strict=False)}
        )
    return found
