"""The slow twin: one trial, an ordinary nn.Module, an `if` for the ratchet. Obviously right.

It shares with the engine only what defines a trial: the random streams and the data. Its one oddity is
`Linear`, because the twin is compared bit for bit: a product is made beside a copy of itself (a lone small
matrix takes another kernel than a matrix in a batch), and parameters are padded to whole vectors (the last
few numbers of a tensor otherwise go through scalar code, which rounds differently).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from psa.core.rng import generator, hash_seed
from psa.data.splits import Split, Splits
from psa.specs.trial import Trial


class Linear(nn.Module):
    """weight x + bias for x [inputs, B]."""

    def __init__(self, inputs: int, outputs: int, *, first: bool) -> None:
        super().__init__()
        self.shape, self.first = (outputs, inputs), first
        self.padded_weight = nn.Parameter(torch.zeros(-(-outputs * inputs // 16) * 16))
        self.padded_bias = nn.Parameter(torch.zeros(-(-outputs // 16) * 16))

    @property
    def weight(self) -> Tensor:
        return self.padded_weight[: self.shape[0] * self.shape[1]].view(self.shape)

    @property
    def bias(self) -> Tensor:
        return self.padded_bias[: self.shape[0]]

    def forward(self, x: Tensor) -> Tensor:
        rows, samples = len(self.weight), x.shape[1]
        if samples == 1 and not self.first:
            x = x.expand(-1, 2)
        if self.first:  # a plain product, which minds having fewer than sixteen rows or columns
            missing = max(0, 16 - rows)
            wide = nn.functional.pad(x.T, (0, 0, 0, max(0, 16 - samples))).T
            weight = nn.functional.pad(self.weight, (0, 0, 0, missing))
            bias = nn.functional.pad(self.bias, (0, missing))
            y = torch.addmm(bias.unsqueeze(1), weight, x)
            with torch.no_grad():  # the gradient is a sum over the samples alone
                y.copy_(torch.addmm(bias.unsqueeze(1), weight, wide)[:, :samples])
        elif len(x) == 1:  # an outer product
            y = self.weight * x + self.bias.unsqueeze(1)
        else:
            weight, bias, x = (torch.stack([each, each]) for each in (self.weight, self.bias, x))
            y = torch.baddbmm(bias.unsqueeze(2), weight, x)[0]
        return y[:rows, :samples]


class Dropout:
    """The keep-or-drop decision of every element, as the hash of where it is."""

    def __init__(self, trial: Trial, loop: int) -> None:
        self.p = trial.model.dropout
        self.key = hash_seed(trial.seed, "dropout", loop)

    def __call__(self, h: Tensor, step: int, layer: int) -> Tensor:
        if self.p == 0:
            return h
        place = mixed(np.array([self.key + step * 0x9E3779B1 + layer * 0x85EBCA77], dtype=object))
        elements = np.arange(h.numel(), dtype=object) * 0x9E3779B1
        bits = mixed(elements + place[0]).astype(np.int64)
        signed = np.where(bits >= 2**31, bits - 2**32, bits)
        keep = signed >= round(self.p * 2**32) - 2**31
        mask = torch.from_numpy(keep.astype(np.float32)).view_as(h) * torch.tensor(1 / (1 - self.p))
        return h * mask


def mixed(bits: np.ndarray) -> np.ndarray:
    """MurmurHash3's finaliser in integers of any size."""
    bits = bits % 2**32
    bits = bits ^ (bits >> 16)
    bits = bits * 0x85EBCA6B % 2**32
    bits = bits ^ (bits >> 13)
    bits = bits * 0xC2B2AE35 % 2**32
    return bits ^ (bits >> 16)


class SimpleMLP(nn.Module):
    """Linear, ReLU, Dropout per hidden width; Linear."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [784, *widths]
        self.hidden = nn.ModuleList(
            Linear(a, b, first=k == 0) for k, (a, b) in enumerate(zip(sizes, widths, strict=False))
        )
        self.output = Linear(sizes[-1], 10, first=False)

    def linears(self) -> list[Linear]:
        return [*self.hidden, self.output]

    def hidden_set(self) -> list[int]:
        return list(range(len(self.hidden)))

    def forward(self, h: Tensor, dropout: Dropout, step: int) -> Tensor:
        for number, linear in enumerate(self.hidden):
            h = dropout(torch.relu(linear(h)), step, number)
        return self.output(h)


class ResMLP(nn.Module):
    """Stacks of residual blocks, with a projection wherever the width changes."""

    def __init__(self, widths: tuple[int, ...]) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        width = 784
        for number, wanted in enumerate(widths):
            if (number == 0 or wanted != widths[number - 1]) and wanted != width:
                self.steps.append(nn.ModuleList([Linear(width, wanted, first=number == 0)]))
            enter = Linear(wanted, wanted, first=not self.steps)
            self.steps.append(nn.ModuleList([enter, Linear(wanted, wanted, first=False)]))
            width = wanted
        self.output = Linear(width, 10, first=False)

    def linears(self) -> list[Linear]:
        return [*(linear for step in self.steps for linear in step), self.output]

    def hidden_set(self) -> list[int]:
        return list(range(1, len(self.linears()) - 1))

    def forward(self, h: Tensor, dropout: Dropout, step: int) -> Tensor:
        number = 0
        for linears in self.steps:
            inner = dropout(torch.relu(linears[0](h)), step, number)
            h = inner if len(linears) == 1 else torch.relu(linears[1](inner) + h)
            number += len(linears)
        return self.output(h)


@dataclass
class Outcome:
    """What the twin found. rows: (loop, correct on validation, kept, (layer, unit) or None)."""

    lkg: list[Tensor]
    rows: list[tuple[int, int, bool, tuple[int, int] | None]] = field(default_factory=list)
    best: int = -1
    test: int = -1


def train(trial: Trial, splits: Splits, loops: int) -> Outcome:
    """The ratchet, as written in the study: first loop undamaged, strict improvement, fresh AdamW."""
    lkg = build(trial).to(splits.train.images.dtype)  # float64 shows how far rounding takes float32
    outcome = Outcome([])
    for loop in range(1, loops + 1):
        active = copy.deepcopy(lkg)
        damaged = ablate(active, trial, loop) if loop > 1 else None
        finite = train_one_epoch(active, trial, splits.train, loop)
        finite = finite and all(bool(tensor.isfinite().all()) for tensor in active.parameters())
        finite = finite and bool(logits_of(active, splits.val, trial).isfinite().all())
        correct = count_correct(active, splits.val, trial)
        kept = finite and correct > outcome.best
        if not finite and outcome.best < 0:
            outcome.best = count_correct(lkg, splits.val, trial)
        if kept:
            lkg, outcome.best = active, correct
        outcome.rows.append((loop, correct, kept, damaged))
    outcome.lkg = [tensor.detach() for linear in lkg.linears() for tensor in (linear.weight, linear.bias)]
    outcome.test = count_correct(lkg, splits.test, trial)
    return outcome


def build(trial: Trial) -> SimpleMLP | ResMLP:
    """A new network with weights and biases ~ U(+-1/sqrt(inputs))."""
    kind = SimpleMLP if trial.model.family == "simplemlp" else ResMLP
    net = kind(trial.model.arch.widths)
    draws = generator(trial.seed, "init")
    for linear in net.linears():
        bound = np.float32(1 / np.sqrt(linear.weight.shape[1]))
        for parameter in (linear.weight, linear.bias):
            values = (2 * draws.random(parameter.numel(), dtype=np.float32) - 1) * bound
            parameter.data.copy_(torch.from_numpy(values).view_as(parameter))
    return net


def ablate(net: SimpleMLP | ResMLP, trial: Trial, loop: int) -> tuple[int, int] | None:
    """Damage one neuron of `net`; which one."""
    linears, draws = net.linears(), generator(trial.seed, "ablate", loop)
    mode = trial.intervention.mode
    if mode in ("none", "decay", "dropout"):
        return None
    if mode == "hidden":
        neurons = [(k, i) for k in net.hidden_set() for i in range(len(linears[k].bias))]
        layer, unit = neurons[int(draws.integers(len(neurons)))]
        linears[layer + 1].weight.data[:, unit] = 0
    else:
        layer = int(draws.integers(len(linears))) if mode == "full" else len(linears) - 1
        unit = int(draws.integers(len(linears[layer].bias)))
    linears[layer].weight.data[unit, :] = 0
    linears[layer].bias.data[unit] = 0
    return layer, unit


def optimizer_of(net: nn.Module, trial: Trial) -> torch.optim.AdamW:
    """A fresh optimiser."""
    method = trial.method
    return torch.optim.AdamW(net.parameters(), lr=method.lr, weight_decay=method.weight_decay, fused=True)


def train_one_epoch(
    net: nn.Module, trial: Trial, train: Split, loop: int, optimizer: torch.optim.Optimizer | None = None
) -> bool:
    """One epoch of mini-batches, with a fresh optimiser if none is given. True if every loss was finite."""
    method = trial.method
    optimizer = optimizer or optimizer_of(net, trial)
    order = torch.from_numpy(generator(trial.seed, "shuffle", loop).permutation(len(train)))
    dropout = Dropout(trial, loop)
    finite = True
    for step, batch in enumerate(order.split(method.batch_size)):
        optimizer.zero_grad()
        logits = net(train.images[batch].T, dropout, step)
        loss = nn.functional.cross_entropy(logits[None], train.labels[batch][None])
        loss.backward()
        optimizer.step()
        finite = finite and bool(loss.isfinite())
    return finite


def count_correct(net: nn.Module, split: Split, trial: Trial) -> int:
    """How many samples of a split the network gets right."""
    return int((logits_of(net, split, trial).argmax(dim=0) == split.labels).sum())


def logits_of(net: nn.Module, split: Split, trial: Trial) -> Tensor:
    """Return the logits of a split, [classes, samples]."""
    silent = Dropout(trial.model_copy(update={"model": trial.model.model_copy(update={"dropout": 0.0})}), 0)
    with torch.no_grad():
        logits: Tensor = net(split.images.T, silent, 0)
    return logits
