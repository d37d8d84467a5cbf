"""The machine's best matrix product, over the libraries and shapes that one would try."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

import numpy as np
import torch


def products(side: int = 2048) -> dict[str, tuple[float, Callable[[], object]]]:
    """Return, by name, the FLOP of a product and the function that computes it."""
    draws = torch.Generator().manual_seed(0)
    square = torch.randn(side, side, generator=draws)
    batch = torch.randn(6, 256, side // 4, generator=draws)
    weights = torch.randn(6, side // 4, side // 4, generator=draws)
    array = square.numpy()
    cube = 2.0 * side**3
    made: dict[str, tuple[float, Callable[[], object]]] = {
        "torch.mm": (cube, lambda: torch.mm(square, square)),
        "torch.bmm": (2.0 * batch.numel() * (side // 4), lambda: torch.bmm(batch, weights)),
        "numpy": (cube, lambda: np.matmul(array, array)),
    }
    try:
        linear = torch.ops.mkldnn._linear_pointwise
        rows = square[:256].contiguous()
        work = lambda: linear(rows, square, None, "none", [], "")  # noqa: E731
        work()
    except (AttributeError, RuntimeError):
        return made  # a build of torch without oneDNN
    return made | {"oneDNN": (2.0 * rows.numel() * side, work)}


def best_product(repeats: int = 8, side: int = 2048) -> dict[str, float]:
    """Return the FLOP/s of each product on all cores, the best of `repeats`."""
    torch.set_num_threads(os.cpu_count() or 1)
    found = {}
    with torch.no_grad():
        for name, (flop, work) in products(side).items():
            best = math.inf
            for _ in range(repeats):
                begun = time.perf_counter()
                work()
                best = min(best, time.perf_counter() - begun)
            found[name] = flop / best
    return found
