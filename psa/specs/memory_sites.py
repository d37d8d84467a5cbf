"""The sites of a plain network at which a memory may act: their names, and the layer before each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psa.core.errors import UserError
from psa.specs.growth import Growth
from psa.specs.memory import Memory, check_query
from psa.specs.model import NetworkSpec, PublishedModelSpec
from psa.specs.training import Method, StandardTraining

_PLAIN: Final = ("simplemlp", "mlp")  # hidden layers one after the other


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


def check_changes(
    model: PublishedModelSpec | NetworkSpec,
    method: Method,
    memory: Memory | None,
    growth: Growth | None,
    side: int,
) -> None:
    """Raise ValueError for a memory or a growth that does not fit the network and its training.

    side: of the images that a convolution reads.
    """
    if model.family not in _PLAIN and (growth is not None or model.family != "cnn"):
        families = "mlp, simplemlp or cnn with a memory" if growth is None else "mlp or simplemlp to grow"
        raise ValueError(f"family must be {families}, got {model.family}")
    if not isinstance(method, StandardTraining) or method.patience is not None:
        raise ValueError("policy must be keep and patience left out with a memory or growth")
    widths = model.arch.widths
    if memory is not None:
        check_query(memory, site_widths(model, side)[position_of(memory.site, len(widths)).layer])
    if growth is None:
        return
    if isinstance(model, NetworkSpec) and not (model.activation.is_relu and model.simplex == "none"):
        raise ValueError("growth must have activation ReLU and simplex none")
    if growth.grown(widths) == widths:
        raise ValueError(f"max_width and max_depth must leave room to grow, got arch {model.arch}")
