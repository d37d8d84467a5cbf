"""CUDA graphs: work over the same buffers, recorded once on a GPU and played back many times.

A small network's step is a few dozen kernels of microseconds each, and starting them one by one from Python
takes far longer than running them. A CUDA graph starts all of them at once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import torch

logger = logging.getLogger(__name__)


@lru_cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """Return the one side stream of a device: memory used on one stream is not reused on another."""
    return torch.cuda.Stream(device)


class CudaGraphStep:
    """A repeated call of `work`, which has no arguments and no result, and uses tensors at fixed addresses.

    On a GPU the first call runs it directly (libraries initialise then), the second records it, and that and
    all further ones play the recording back. On other devices every call runs it.
    """

    def __init__(self, work: Callable[[], None], device: torch.device) -> None:
        self.work, self.device = work, device
        self.records = device.type == "cuda"
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Run the work once."""
        self.calls += 1
        if self.records and self.calls == 1:
            self._aside()
        elif self.records and self.graph is None:
            self.graph = self._recording()
        if self.graph is not None:
            self.graph.replay()
        elif self.calls > 1 or not self.records:
            self.work()

    def _aside(self) -> None:
        """Run the work on a stream of its own: what is set up on the main one cannot be recorded."""
        main, aside = torch.cuda.current_stream(self.device), _aside(self.device)
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            self.work()
        main.wait_stream(aside)

    def _recording(self) -> torch.cuda.CUDAGraph | None:
        """Return the work as a graph. None, and a warning, if this machine cannot record it."""
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self.work()
        except RuntimeError as error:
            logger.warning("a training step cannot be recorded here, so it runs slower: %s", error)
            self.records = False
            return None
        return graph
