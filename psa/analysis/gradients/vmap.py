"""Per-sample gradients of any function of parameters, by torch.func: the general alternative to factors.

It costs a forward and a backward pass of each sample in one vectorised call, and N times the parameters in
memory; for linear layers psa.analysis.gradients.factored holds the same numbers in a fraction of either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Function = Callable[[dict[str, Tensor], Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


def per_sample_gradients(
    function: Function,
    parameters: Mapping[str, Tensor],
    x: Tensor,
    y: Tensor,
    loss: Loss = torch.nn.functional.cross_entropy,
    chunk: int | None = None,
) -> dict[str, Tensor]:
    """Return the gradient of every sample's own loss for every parameter, each [N, *parameter.shape].

    function: (parameters, one sample of x) -> one prediction; of an nn.Module
    `lambda p, x: torch.func.functional_call(module, p, (x[None],))[0]`. It must treat samples apart: batch
    norm in training mode does not. x: [N, ...], y: [N, ...]. loss: (one prediction, one label) -> number.
    chunk: number of samples at once, to use less memory. Raises ValueError where x and y differ in length.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} samples and {len(y)} labels")

    def own_loss(given: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        return loss(function(given, sample), label)

    of_each = torch.func.vmap(torch.func.grad(own_loss), in_dims=(None, 0, 0), chunk_size=chunk)
    detached = {name: value.detach() for name, value in parameters.items()}
    found: dict[str, Tensor] = of_each(detached, x, y)
    return found
