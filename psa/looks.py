"""What a probe is shown and asked: the contract between the engine and psa.probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from psa.data import Splits
from psa.memory.visit import Visited
from psa.nets.dense import Dense
from psa.nets.rows import Rows
from psa.state import Observation


@dataclass(frozen=True)
class Look:
    """What a probe is shown: T networks, the loop that made the weights of each, and their memories where
    they have any, begun at those loops. It changes nothing.
    """

    net: Dense
    weights: Rows
    loops: Sequence[int]
    splits: Splits
    visited: Visited | None = None


class Probe(Protocol):
    """A pure observer: the same weights give the same numbers, in any pack and at any position."""

    name: str

    def places(self, net: Dense) -> list[str]:
        """What the numbers of a quantity stand for, one by one: layers, say."""

    def each(self, look: Look) -> list[Observation]:
        """Before the first loop and after each: of every trial some quantities, each a list of numbers."""

    def last(self, look: Look) -> list[Observation]:
        """Of the LKG, after selection."""
