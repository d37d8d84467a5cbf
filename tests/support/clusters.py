"""A Ray cluster of this machine, for as long as tests need one: starting one takes seconds of all cores."""

from __future__ import annotations

import contextlib
import gc
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Cluster:
    """A cluster, and the nodes beside its head, which can be told to go."""

    ray: Any
    extra: list[Any] = field(default_factory=list)

    @property
    def address(self) -> str:
        """For those on one of its nodes."""
        return str(self.ray.address)

    def add_node(self) -> None:
        """One with room for one pack."""
        self.extra.append(self.ray.add_node(num_cpus=1))

    def lose_node(self) -> None:
        """One goes, and whatever it has in hand."""
        self.ray.remove_node(self.extra.pop(), allow_graceful=False)


@contextlib.contextmanager
def cluster_of(**head: Any) -> Iterator[Cluster]:
    """One whose head is such; it ends with the block."""
    from ray.cluster_utils import Cluster as RayCluster

    with warnings.catch_warnings():  # the logs of its client server are left open, until they are found
        warnings.simplefilter("ignore", ResourceWarning)
        made = RayCluster(initialize_head=True, head_node_args={"include_dashboard": False, **head})
        gc.collect()
    try:
        yield Cluster(made)
    finally:
        made.shutdown()


def broken_ray(folder: Path, line: str) -> str:
    """Make a package `ray` that runs a line when it is imported. Return what PYTHONPATH must hold."""
    (folder / "broken" / "ray").mkdir(parents=True)
    (folder / "broken" / "ray" / "__init__.py").write_text(line)
    return str(folder / "broken")
