"""Placement of labels beside their marks: no overlaps, no covered marks, leader lines that do not cross.

Libraries were tried on the map of 98 architectures (2026-11): this module places 98 labels with 10 leader
lines and no overlap; textalloc 1.2.4 places 64 with 50 crossing leaders, or 47 with none; adjustText 1.4.0
places 98, 90 of them on marks.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.transforms import Affine2D
from numpy.typing import NDArray

from psa.reports.plotting.style import GREY, LABEL_SIZE

Array = NDArray[np.float64]
Truths = NDArray[np.bool_]
Pair = tuple[float, float]
_PAD: Final = 0.7  # typographic points between two labels
_CLEAR: Final = 0.5  # between a label and the mark of another
_OWN: Final = 1.2  # between a label and its mark: diamonds are wider than circles
_RINGS: Final = (0.0, 2.5, 5.0, 8.0, 12.0, 17.0, 23.0, 30.0, 40.0, 55.0, 75.0, 100.0)
_ANGLES: Final = np.deg2rad([0, 180, 90, 270, 30, -30, 150, -150, 60, -60, 120, -120, 15, -15, 165, -165])
_LEADER_FROM: Final = 1.6  # from a mark to its label: without a line it would seem another mark's
_SWEEPS: Final = 8
# Costs in points of distance: how far a label is moved to avoid each.
_CROSSING: Final = 40.0
_OVER_MARK: Final = 6.0
_OVER_LABEL: Final = 60.0


@dataclass(frozen=True)
class Placed:
    """The lower left corner of a label and the end of its leader, in points from its mark."""

    corner: Pair
    leader: Pair | None


@functools.lru_cache(maxsize=64)  # six maps of the same architectures have the same labels
def place(
    anchors: tuple[Pair, ...], sizes: tuple[Pair, ...], box: Pair, radius: float
) -> tuple[Placed | None, ...]:
    """Return a place for each label, None if there is no room.

    anchors: marks in points from the lower left corner of axes of size `box`, each of `radius`; sizes: width
    and height of the labels of the first anchors, the others have none. Each label in turn takes the best of
    about 200 places, given all the others, until nothing changes. No random numbers.
    """
    if not anchors:
        return ()
    layout = _Layout(np.array(anchors), np.array(sizes), np.array(box), radius)
    for _ in range(_SWEEPS):
        if not layout.sweep():
            break
    return tuple(layout.placed(at) for at in range(len(sizes)))


class _Layout:
    """Candidate places of every label, the chosen ones, and the cost of a choice."""

    def __init__(self, anchors: Array, sizes: Array, box: Array, radius: float) -> None:
        self.anchors, self.radius = anchors, radius
        self.boxes, self.ends, self.fixed = [], [], []
        for at in range(len(sizes)):
            boxes, ends, costs = self._candidates(at, sizes[at], box)
            self.boxes.append(boxes)
            self.ends.append(ends)
            self.fixed.append(costs)
        self.chosen = np.full(len(sizes), -1)
        gaps = np.linalg.norm(anchors[:, None] - anchors[None, :], axis=2)
        # the most crowded first: the others find a place later, too
        self.order = np.argsort(-(gaps < 30).sum(axis=1)[: len(sizes)], kind="stable")

    def _candidates(self, at: int, size: Array, box: Array) -> tuple[Array, Array, Array]:
        """Return boxes [n, 4], ends of their leaders [n, 2], and their cost regardless of other labels."""
        rings, angles = np.meshgrid(_RINGS, _ANGLES, indexing="ij")
        ways = np.stack([np.cos(angles), np.sin(angles)], axis=-1).reshape(-1, 2)
        rings = rings.reshape(-1, 1)
        centres = (
            self.anchors[at] + ways * (self.radius + _OWN + rings) + np.clip(1.6 * ways, -1, 1) * size / 2
        )
        boxes = np.concatenate([centres - size / 2, centres + size / 2], axis=1)
        inside = (boxes[:, :2] >= 1).all(axis=1) & (boxes[:, 2:] <= box - 1).all(axis=1)
        clear = self.radius + _CLEAR
        marks = np.concatenate([self.anchors - clear, self.anchors + clear], axis=1)
        free = ~_overlaps(boxes, marks).any(axis=1)
        boxes, ways, rings = boxes[inside & free], ways[inside & free], rings[inside & free]
        ends = np.clip(self.anchors[at], boxes[:, :2], boxes[:, 2:])
        preference = np.tile(np.linspace(0, 2, len(_ANGLES)), len(_RINGS))[inside & free]
        return boxes, ends, rings[:, 0] + preference + _OVER_MARK * self._marks_on_the_way(at, ends)

    def _marks_on_the_way(self, at: int, ends: Array) -> Array:
        """Count the marks of others that each leader crosses; short leaders are not drawn."""
        others = np.delete(self.anchors, at, axis=0)
        way = ends - self.anchors[at]
        length = np.linalg.norm(way, axis=1)
        along = np.einsum("cd,nd->cn", way, others - self.anchors[at])
        share = np.clip(along / np.maximum(length, 1e-9)[:, None] ** 2, 0, 1)
        nearest = self.anchors[at] + share[:, :, None] * way[:, None, :]
        near = np.linalg.norm(nearest - others[None], axis=2) < self.radius
        drawn = length > self.radius + _LEADER_FROM
        counts: Array = (near & drawn[:, None]).sum(axis=1).astype(np.float64)
        return counts

    def sweep(self) -> bool:
        """Give each label its best place once. Return whether any moved."""
        moved = False
        for at in self.order:
            best = self._best(at)
            moved |= bool(best != self.chosen[at])
            self.chosen[at] = best
        return moved

    def _best(self, at: int) -> int:
        others = np.flatnonzero(self.chosen >= 0)
        others = others[others != at]
        theirs = np.array([self.boxes[other][self.chosen[other]] for other in others]).reshape(-1, 4)
        tips = np.array([self.ends[other][self.chosen[other]] for other in others]).reshape(-1, 2)
        free = np.flatnonzero(~_overlaps(self.boxes[at], theirs, _PAD).any(axis=1))
        if not len(free):
            return -1
        boxes, ends, starts = self.boxes[at][free], self.ends[at][free], self.anchors[others]
        start = np.broadcast_to(self.anchors[at], ends.shape)
        cost = self.fixed[at][free] + _CROSSING * _cross(start, ends, starts, tips).sum(axis=1)
        cost += _OVER_LABEL * _runs_through(start, ends, theirs).sum(axis=1)
        cost += _OVER_LABEL * _runs_through(starts, tips, boxes).sum(axis=0)
        return int(free[np.argmin(cost)])

    def placed(self, at: int) -> Placed | None:
        """Return the chosen place of a label, relative to its mark."""
        if self.chosen[at] < 0:
            return None
        box, end = self.boxes[at][self.chosen[at]], self.ends[at][self.chosen[at]] - self.anchors[at]
        corner = box[:2] - self.anchors[at]
        far = float(np.linalg.norm(end)) > self.radius + _LEADER_FROM
        return Placed((float(corner[0]), float(corner[1])), (float(end[0]), float(end[1])) if far else None)


def _overlaps(ones: Array, others: Array, pad: float = 0.0) -> Truths:
    """Return whether boxes [n, 4] and [m, 4] overlap, or are closer than `pad`: [n, m]."""
    low = np.maximum(ones[:, None, :2], others[None, :, :2])
    high = np.minimum(ones[:, None, 2:], others[None, :, 2:])
    return np.asarray((low - high < pad).all(axis=2), dtype=np.bool_)


def _cross(start: Array, end: Array, starts: Array, ends: Array) -> Truths:
    """Return whether segments [n] and [m] cross: [n, m]."""

    def side(a: Array, b: Array, c: Array) -> Array:
        return (b[..., 0] - a[..., 0]) * (c[..., 1] - a[..., 1]) - (b[..., 1] - a[..., 1]) * (
            c[..., 0] - a[..., 0]
        )

    p, q, r, s = start[:, None], end[:, None], starts[None], ends[None]
    return (side(p, q, r) * side(p, q, s) < 0) & (side(r, s, p) * side(r, s, q) < 0)


def _runs_through(starts: Array, ends: Array, boxes: Array) -> Truths:
    """Return whether segments [n] run through boxes [m, 4], tested at eight of their points: [n, m]."""
    share = np.linspace(0.1, 0.9, 8)[None, :, None]
    spots = starts[:, None] + share * (ends - starts)[:, None]
    low, high = boxes[None, None, :, :2], boxes[None, None, :, 2:]
    inside: Truths = np.all((spots[:, :, None] > low) & (spots[:, :, None] < high), axis=3)
    return np.asarray(inside.any(axis=1), dtype=np.bool_)


def place_label(
    ax: Axes, places: list[Pair], texts: list[str], radius: float, background: bool = False
) -> list[str]:
    """Write each text beside its place (in data coordinates of finished axes). Return those without room.

    places may be more than texts: marks without a label. radius: of the marks, in typographic points.
    background: a white background where lines run below.
    """
    to_points = ax.figure.dpi_scale_trans.inverted() + Affine2D().scale(72)
    corner, opposite = to_points.transform(ax.bbox.get_points())
    size = opposite - corner
    anchors = to_points.transform(ax.transData.transform(np.array(places).reshape(-1, 2))) - corner
    found = place(
        tuple((round(x, 3), round(y, 3)) for x, y in anchors.tolist()),
        tuple(_ink(text)[:2] for text in texts),
        (round(float(size[0]), 3), round(float(size[1]), 3)),
        radius,
    )
    for at, (text, placed) in enumerate(zip(texts, found, strict=True)):
        if placed is not None:
            _write(ax, places[at], text, placed, background)
    return [text for text, placed in zip(texts, found, strict=True) if placed is None]


def _write(ax: Axes, place_: Pair, text: str, placed: Placed, background: bool) -> None:
    # below the marks (3), so that no background hides one
    foot = (placed.corner[0], placed.corner[1] + _ink(text)[2])
    ground = {"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    if placed.leader is not None:
        ax.annotate(
            "", place_, placed.leader, textcoords="offset points", annotation_clip=False, zorder=2,
            arrowprops={"arrowstyle": "-", "linewidth": 0.35, "color": GREY, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip
    ax.annotate(
        text, place_, foot, textcoords="offset points", fontsize=LABEL_SIZE, ha="left",
        va="baseline", annotation_clip=False, zorder=2.9, gid="label", bbox=ground if background else None,
    )  # fmt: skip


@functools.lru_cache(maxsize=4096)
def _ink(text: str) -> tuple[float, float, float]:
    """Return width and height of the inked part of a label, and its depth below its line, in points."""
    fine = 10  # times the usual resolution, at which widths are whole pixels
    renderer = FigureCanvasAgg(Figure(figsize=(1, 1), dpi=72 * fine)).get_renderer()  # type: ignore[no-untyped-call]
    found = renderer.get_text_width_height_descent(text, FontProperties(size=LABEL_SIZE), False)
    wide, high, below = (round(each / fine, 2) for each in found)
    return wide, high, below
