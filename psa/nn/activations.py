"""The activations of stacked layers: functions of [T, width, B] that treat every sample by itself.

Statements about rows in the literature (a sum of 1, a projection) hold here for the width, dimension 1. No
function mixes samples or trials. Parameters come from psa.specs.activation and act in every layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from psa.nn.dropout import Dropout
from psa.nn.stacked import LANES, empty_rows
from psa.specs.activation import Activation


@dataclass(frozen=True)
class ActivationParams:
    """The parameters of an activation besides its input.

    kind: name and parameters. threshold: [T, 1, 1] where it has a learned one. scale: [T, 1, 1] where it
    depends on the epoch. training: whether weights are being learned.
    """

    kind: Activation
    threshold: Tensor | None = None
    scale: Tensor | None = None
    training: bool = False

    @property
    def factor(self) -> Tensor | float:
        """The factor of the output."""
        return self.kind.number("scale", 1.0) if self.scale is None else self.scale

    @property
    def clamped(self) -> Tensor:
        """The threshold within its limits. Outside of them it still has a gradient, so that it can return."""
        if self.threshold is None:
            raise ValueError(f"the activation must have a threshold, got {self.kind.name}")
        low, high = self.kind.number("min"), self.kind.number("max")
        inside = self.threshold.detach().clamp(low, high)
        return self.threshold + (inside - self.threshold.detach())

    def of(self, row: int) -> ActivationParams:
        """Return the parameters of one trial."""
        part = slice(row, row + 1)
        return replace(
            self,
            threshold=None if self.threshold is None else self.threshold[part],
            scale=None if self.scale is None else self.scale[part],
        )


def activate(x: Tensor, setting: ActivationParams) -> Tensor:
    """Apply the activation to x, [T, width, B].

    On the CPU an exponential has other bits at the end of a run of numbers than within it (measured: vectors
    of 16, two at a time). Such functions are applied trial by trial, so that a run is always one trial's.
    """
    function = _FUNCTIONS[setting.kind.name]
    if x.device.type != "cpu" or setting.kind.name not in _EXPONENTIAL:
        return function(x, setting)
    return torch.cat([function(x[row : row + 1], setting.of(row)) for row in range(len(x))])


def activate_samples(x: Tensor, setting: ActivationParams) -> Tensor:
    """Apply the activation to x, [B, width], of one network; its threshold is a number or None."""
    return _FUNCTIONS[setting.kind.name](x.unsqueeze(2), setting).squeeze(2)


def scales(kind: Activation, loops: Sequence[int], device: torch.device) -> Tensor | None:
    """Return the scale in each trial's epoch, [T, 1, 1], None if it is the same in all epochs."""
    if not kind.decays:
        return None
    return torch.tensor([kind.scale_at(loop) for loop in loops], device=device).view(-1, 1, 1)


def _shares(values: Tensor, setting: ActivationParams) -> Tensor:
    """Return (values + eps) over their sum, times the scale."""
    raised = values + setting.kind.number("eps")
    return raised / raised.sum(dim=1, keepdim=True) * setting.factor


def _softmax(x: Tensor, setting: ActivationParams) -> Tensor:
    return torch.softmax(x / setting.kind.number("temperature"), dim=1) * setting.factor


def _power(x: Tensor, setting: ActivationParams) -> Tensor:
    """Return clamp(relu(x / T) + eps, eps, 1e6) ** alpha over its sum + eps; T is 1 if not given."""
    eps = setting.kind.number("eps")
    tempered = x / setting.kind.number("temperature", 1.0)
    powers = (torch.relu(tempered) + eps).clamp(eps, 1e6) ** setting.kind.number("alpha")
    return powers / (powers.sum(dim=1, keepdim=True) + eps) * setting.factor


def _sparsemax(x: Tensor, setting: ActivationParams) -> Tensor:
    """Project each sample on the simplex (Euclidean; Martins and Astudillo 2016, algorithm 1)."""
    x = x - x.detach().amax(dim=1, keepdim=True)  # the projection is the same, and 1 is not lost beside it
    with torch.no_grad():
        ordered = torch.sort(x, dim=1, descending=True).values
        above = torch.cumsum(ordered, dim=1) - 1
        places = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device).view(1, -1, 1)
        support = (ordered > above / places).sum(dim=1, keepdim=True).clamp(min=1)  # 0 where x is not finite
    # tau = (sum of x over the support - 1) / its size; written with x, so that autograd sees the projection
    with torch.no_grad():
        tau = above.gather(1, support - 1) / support
        inside = (x > tau).to(x.dtype)
        count = inside.sum(dim=1, keepdim=True).clamp(min=1)
    level = ((x * inside).sum(dim=1, keepdim=True) - 1) / count
    return torch.relu(x - level) * setting.factor


def _threshold(x: Tensor, setting: ActivationParams) -> Tensor:
    """Return x sigmoid(s (x - theta)); outside of training x where x >= theta, unless hard = false."""
    theta = setting.clamped
    if not setting.training and setting.kind["hard"]:
        return x * (x >= theta)
    return x * torch.sigmoid(setting.kind.number("sharpness") * (x - theta))


def _fixed_threshold(x: Tensor, setting: ActivationParams) -> Tensor:
    """Return max(x, threshold) over its sum in the same sample, times the scale."""
    raised = x.clamp(min=setting.kind.number("threshold"))
    return raised / raised.sum(dim=1, keepdim=True) * setting.factor


def _jump(x: Tensor, setting: ActivationParams) -> Tensor:
    if not torch.is_grad_enabled():  # an exported program has no place for a function of Python
        return x * (x >= setting.clamped)
    jumped: Tensor = _Jump.apply(x, setting.clamped, setting.kind.number("window"))
    return jumped


def _fixed_jump(x: Tensor, setting: ActivationParams) -> Tensor:
    return _shares(x * (x >= setting.kind.number("threshold")), setting)


class _Jump(torch.autograd.Function):
    """x where x >= theta, else 0. The gradient of theta is the central difference over a window w: for a
    loss that is linear in the output, (L(theta + w) - L(theta - w)) / 2w to the bit of rounding.

    Rajamanoharan et al. 2024, equation 10, with a rectangular kernel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, window: float) -> Tensor:
        ctx.save_for_backward(x, theta)
        ctx.window = window
        return x * (x >= theta)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        x, theta = ctx.saved_tensors
        w = ctx.window
        near = (x >= theta - w) & (x < theta + w)
        moved = (gradient * x * near).sum(dim=(1, 2), keepdim=True)
        return gradient * (x >= theta), -moved / (2 * w), None


_Function = Callable[[Tensor, ActivationParams], Tensor]
_FUNCTIONS: Final[dict[str, _Function]] = {
    "ReLU": lambda x, setting: torch.relu(x),
    "Identity": lambda x, setting: x,
    "Tanh": lambda x, setting: torch.tanh(x),
    "Sigmoid": lambda x, setting: torch.sigmoid(x),
    "SiLU": lambda x, setting: torch.nn.functional.silu(x),
    "ELU": lambda x, setting: torch.nn.functional.elu(x, setting.kind.number("alpha")),
    "LeakyReLU": lambda x, setting: torch.nn.functional.leaky_relu(x, setting.kind.number("slope")),
    "RescaledReLU": lambda x, setting: _shares(torch.relu(x), setting),
    "LayerwiseSoftmax": _softmax,
    "PowerNormalization": _power,
    "TemperaturePowerNorm": _power,
    "SparseMax": _sparsemax,
    "Threshold": _threshold,
    "FixedThreshold": _fixed_threshold,
    "JumpReLU": _jump,
    "RescaledJumpReLU": lambda x, setting: _shares(_jump(x, setting), setting),
    "FixedRescaledJumpReLU": _fixed_jump,
    "DecayingRescaledReLU": lambda x, setting: _shares(torch.relu(x), setting),
    "DecayingRescaledJumpReLU": lambda x, setting: _shares(_jump(x, setting), setting),
    "DecayingFixedRescaledJumpReLU": _fixed_jump,
}


_EXPONENTIAL: Final = frozenset(
    {
        "Tanh", "Sigmoid", "SiLU", "ELU", "LayerwiseSoftmax", "PowerNormalization", "TemperaturePowerNorm",
        "Threshold",
    }
)  # fmt: skip


class _Learned(torch.autograd.Function):
    """A copy of a learned number of each trial, whose gradient is written into a buffer."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, value: Tensor, into: Tensor | None) -> Tensor:
        ctx.into = into
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:
        if ctx.into is not None:
            ctx.into.copy_(gradient)
        return None, None, None


def learned(anchor: Tensor, value: Tensor, into: Tensor | None) -> Tensor:
    """Return numbers of a buffer as [T, 1, 1]; backward() writes their gradients into another buffer.

    `anchor` is any tensor that requires a gradient; it ties them into the graph.
    """
    found: Tensor = _Learned.apply(anchor, value, into)
    return found


class _Placed(torch.autograd.Function):
    """A copy whose trials start on 64-byte boundaries, in both directions, with dropout on the way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dropout: Dropout | None, layer: int) -> Tensor:
        y = empty_rows(*x.shape, device=x.device)
        y.copy_(x)
        ctx.dropout, ctx.mask = dropout, None
        if dropout is not None:
            ctx.mask = dropout.mask(layer, *x.shape[1:])
            y[dropout.rows] *= ctx.mask
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        back = empty_rows(*gradient.shape, device=gradient.device)
        back.copy_(gradient)
        if ctx.dropout is not None:
            back[ctx.dropout.rows] *= ctx.mask
        return back, None, None


def placed(x: Tensor, dropout: Dropout | None = None, layer: int = 0) -> Tensor:
    """Align x for products, so that a trial's bits do not depend on its position in a pack. A layer's
    dropout is applied to it where there is any.
    """
    if dropout is None and x.is_contiguous() and x[0].numel() % LANES == 0 and not x.requires_grad:
        return x
    found: Tensor = _Placed.apply(x, dropout, layer)
    return found


class _Sum(torch.autograd.Function):
    """a + b, with trials on 64-byte boundaries; both get the gradient as it is."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        return torch.add(a, b, out=empty_rows(*a.shape, device=a.device))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, gradient


def added(a: Tensor, b: Tensor) -> Tensor:
    """Return a + b of two [T, width, B]."""
    found: Tensor = _Sum.apply(a, b)
    return found
