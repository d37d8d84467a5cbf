"""What a probe is shown and asked: the contract between the engine and psa.probes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from psa.batches import Batches
from psa.data.splits import Splits
from psa.interventions.memory.hook import Visited
from psa.nn.dense import Dense
from psa.nn.stacked import Rows
from psa.storage.array_file import Arrays
from psa.storage.trial_state import Observation
from psa.train import Observer


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

    def places(self, net: Dense) -> dict[str, list[str]]:
        """What the numbers of a quantity stand for, one by one: layers, say. By the quantity's name, or by
        its last part where there are many of one kind; under "" what holds for all others.
        """

    def each(self, look: Look) -> list[Observation]:
        """Before the first loop and after each: of every trial some quantities, each a list of numbers."""

    def last(self, look: Look) -> list[Observation]:
        """Of the LKG, after selection."""


class Following(Observer, Protocol):
    """What a probe has seen of an epoch."""

    def arrays(self, row: int) -> Arrays | None:
        """What is kept of one trial of the epoch, in a file of its own; None for nothing."""


@runtime_checkable
class Follower(Protocol):
    """A probe that also follows training step by step."""

    def follow(self, net: Dense, splits: Splits, batches: Batches, loops: Sequence[int]) -> Following | None:
        """An observer of the epoch with these batches, which is loop `loops` of each of its trials; None for
        nothing to see.
        """


@runtime_checkable
class Collector(Protocol):
    """A probe that keeps arrays of the LKG, after selection."""

    def arrays(self, look: Look, row: int) -> Arrays:
        """What is kept of one trial, in a file of its own."""
