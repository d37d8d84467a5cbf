"""Convolutions as products of patches: the operations between the stacked linear layers of a small CNN.

A hidden vector is [T, channels x side x side, B] between layers, as torch flattens an image. A 3 x 3
convolution with a border of zeros is a product with patches [T, 9 x channels, B x side x side], so that it
runs in the same kernels as every other layer; all else here copies, compares or adds within one image.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from psa.nn.activations import placed

Rows = tuple[slice, ...]
_KERNEL: Final = 3


def first_patches(x: Tensor, side: int, rows: Rows) -> tuple[Tensor, Rows]:
    """Return patches [T, B x side x side, 9 x channels] of images [S, B, channels x side x side], and a group
    per trial.

    Not one product for all trials of a group: with so many columns its rounding depends on its rows.
    """
    groups, batch, size = x.shape
    channels = size // side**2
    cut = torch.nn.functional.unfold(x.reshape(-1, channels, side, side), _KERNEL, padding=1)
    cut = cut.transpose(1, 2).reshape(groups, batch * side * side, _KERNEL**2 * channels)
    trials = [group for group, run in enumerate(rows) for _ in range(run.start, run.stop)]
    each = cut.expand(len(trials), -1, -1) if groups == 1 else cut[trials]
    return each, tuple(slice(row, row + 1) for row in range(len(trials)))


def patches(h: Tensor, side: int) -> Tensor:
    """Return patches [T, 9 x channels, B x side x side] of hidden images [T, channels x side x side, B]."""
    trials, size, batch = h.shape
    images = h.permute(0, 2, 1).reshape(trials * batch, size // side**2, side, side)
    cut = torch.nn.functional.unfold(images, _KERNEL, padding=1)
    cut = cut.view(trials, batch, -1, side * side).permute(0, 2, 1, 3)
    return placed(cut.reshape(trials, cut.shape[1], -1))


def flattened(y: Tensor, side: int) -> Tensor:
    """Return [T, channels x side x side, B] of a convolution's output, [T, channels, B x side x side]."""
    trials, channels, _ = y.shape
    return y.view(trials, channels, -1, side * side).transpose(2, 3).reshape(trials, channels * side**2, -1)


def pooled(h: Tensor, side: int) -> Tensor:
    """Return the maximum of every 2 x 2 pixels, [T, channels x (side // 2) ** 2, B]; odd borders are lost."""
    trials, size, batch = h.shape
    planes = h.permute(0, 2, 1).reshape(-1, size // side**2, side, side)
    small = torch.nn.functional.max_pool2d(planes, 2)
    return placed(small.reshape(trials, batch, -1).transpose(1, 2).contiguous())
