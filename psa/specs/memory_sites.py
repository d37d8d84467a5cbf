"""The sites of a plain network at which a memory may act: their names, and the layer before each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from psa.core.errors import UserError
from psa.specs.model import NetworkSpec, PublishedModelSpec


def site_of(site: str, candidates: Sequence[str]) -> str:
    """Return the name of a site among those of a network, first to last; the last one is `penultimate`.

    early is the first, late the last before the penultimate, middle the one half-way. Raises UserError.
    """
    places = {"early": 0, "middle": len(candidates) // 2, "late": max(len(candidates) - 2, 0)}
    if site in places:
        return candidates[places[site]]
    if site not in candidates:
        raise UserError(f"unknown site {site!r}", f"Known: early, middle, late, {', '.join(candidates)}")
    return site


@dataclass(frozen=True)
class SitePosition:
    """The hidden layer (from 0) of a plain network behind which a site is, before or after its dropout."""

    layer: int
    dropped: bool


def site_widths(model: PublishedModelSpec | NetworkSpec, side: int) -> tuple[int, ...]:
    """Return the length of the hidden vector behind each layer; of a convolution, before pooling.

    side: of the images in pixels, which only convolutions ask for.
    """
    widths = model.arch.widths
    if model.family != "cnn":
        return widths
    sides = [side >> number for number in range(len(widths) - 1)]
    return *(width * here**2 for width, here in zip(widths, sides, strict=False)), widths[-1]


def sites(depth: int) -> tuple[str, ...]:
    """Return the sites of a plain network of `depth` hidden layers, first to last."""
    return *(f"hidden_{layer}" for layer in range(depth)), "penultimate"


def position_of(site: str, depth: int, now: int | None = None) -> SitePosition:
    """Return the position of a site in a network that had `depth` hidden layers at first and has `now`.

    In a growing network penultimate is always the last hidden layer; every other site stays in its place.
    Raises UserError.
    """
    name = site_of(site, sites(depth))
    if name == "penultimate":
        return SitePosition((now or depth) - 1, dropped=True)
    return SitePosition(int(name.removeprefix("hidden_")), dropped=False)
