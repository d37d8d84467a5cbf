"""The slow twin of the ratchet with every setting that is off by default, written from the definitions.

Like `reference`, it shares with the engine only the random streams and the data.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import reference
import torch
from torch import Tensor, nn

from psa.core.rng import generator
from psa.data.splits import Split, Splits
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.training import Ablation, RatchetTraining
from psa.specs.trial import Trial

# One example of every setting, by a name for tests. `model` and `method` belong to those parts of a trial.
EXAMPLES: dict[str, dict[str, Any]] = {
    "patience": {"mode": "hidden", "patience": 2},
    "impatience": {"mode": "none", "patience": 1},
    "stop_after": {"mode": "full", "stop_after": 1},
    "persistent": {"mode": "hidden", "optimizer_state": "persistent"},
    "persistent_patience": {"mode": "output", "optimizer_state": "persistent", "patience": 2},
    "units_hidden": {"mode": "hidden", "units": 3},
    "units_full": {"mode": "full", "units": 4},
    "units_output": {"mode": "output", "units": 9},
    "share": {"mode": "hidden", "share": 0.5},
    "everything": {"mode": "output", "share": 1.0},
    "layer": {"mode": "full", "target": "layer"},
    "layers": {"mode": "hidden", "target": "layer", "units": 2},
    "block": {"mode": "hidden", "target": "block"},
    "blocks": {"mode": "full", "target": "block", "share": 1.0},
    "fixed": {"mode": "hidden", "choice": "fixed"},
    "fixed_several": {"mode": "full", "choice": "fixed", "units": 2},
    "least_weight": {"mode": "hidden", "choice": "least_weight", "units": 2},
    "most_weight": {"mode": "full", "choice": "most_weight"},
    "least_activation": {"mode": "hidden", "choice": "least_activation", "units": 4},
    "most_activation": {"mode": "full", "choice": "most_activation"},
    "least_gradient": {"mode": "full", "choice": "least_gradient", "units": 3},
    "most_gradient": {"mode": "hidden", "choice": "most_gradient"},
    "least_contribution": {"mode": "hidden", "choice": "least_contribution"},
    "most_contribution": {"mode": "output", "choice": "most_contribution"},
    "weightiest_layer": {"mode": "full", "choice": "most_weight", "target": "layer"},
    "reset": {"mode": "hidden", "change": "reset"},
    "reset_several": {"mode": "full", "change": "reset", "units": 3},
    "noise": {"mode": "hidden", "change": "noise", "amount": 0.5, "units": 2},
    "scale": {"mode": "hidden", "change": "scale", "amount": 2.0, "units": 5},
    "shrink": {"mode": "full", "change": "shrink", "amount": 0.75, "target": "layer"},
    "rate": {"mode": "hidden", "rate": 0.5},
    "linear": {"mode": "full", "schedule": "linear", "schedule_loops": 6},
    "cosine": {"mode": "full", "rate": 0.1, "end_rate": 0.9, "schedule": "cosine", "schedule_loops": 5},
    "adaptive": {"mode": "output", "schedule": "adaptive", "schedule_loops": 3, "end_rate": 0.1},
    "switch": {"mode": "none", "switch": ("3:hidden", "5:output")},
    "decayed": {"mode": "hidden", "regularizer": "decay"},
    "dropped": {"mode": "full", "regularizer": "dropout"},
    "together": {
        "mode": "full", "switch": ("4:hidden",), "patience": 2, "optimizer_state": "persistent", "units": 2,
        "choice": "least_weight", "change": "noise", "amount": 0.3, "rate": 0.8, "schedule": "adaptive",
        "schedule_loops": 4, "end_rate": 0.2, "regularizer": "decay",
    },
}  # fmt: skip


def question(seed: int = 1, arch: str = "1*6, 2*5", family: str = "resmlp", **settings: Any) -> Trial:
    """A trial of the ratchet with some of these settings, at a rate at which it is often rejected."""
    ratchet = {key: settings.pop(key) for key in list(settings) if key in RatchetTraining.model_fields}
    ablation = Ablation(**settings)
    decay, dropout = (kind in ablation.regularizers for kind in ("decay", "dropout"))
    return Trial(
        model=PublishedModelSpec(family=family, arch=Arch.coerce(arch), dropout=0.2 * dropout),
        method=RatchetTraining(**({"lr": 0.02, "batch_size": 64, "weight_decay": 0.1 * decay} | ratchet)),
        intervention=ablation,
        seed=seed,
    )


@dataclass
class Found:
    """What the twin found: the weights of the best state and of the LKG, and a row of each loop."""

    best: list[Tensor] = field(default_factory=list)
    lkg: list[Tensor] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False


def train(trial: Trial, splits: Splits, loops: int) -> Found:
    """The ratchet as the definitions have it."""
    method, ablation = trial.method, trial.intervention
    assert isinstance(method, RatchetTraining)
    found, lkg = Found(), reference.build(trial)
    best, best_correct, lkg_correct, rejected, moments = lkg, -1, -1, 0, None
    for loop in range(1, loops + 1):
        active = copy.deepcopy(lkg)
        mode = mode_of(ablation, trial.seed, loop, found.rows)
        units = chosen(active, trial, mode, loop, splits.train) if loop > 1 and mode != "none" else []
        damage(active, trial, mode, loop, units)
        optimizer = reference.optimizer_of(active, trial)
        if moments is not None and method.optimizer_state == "persistent":
            optimizer.load_state_dict(copy.deepcopy(moments))
        assert reference.train_one_epoch(active, trial, splits.train, loop, optimizer)
        correct = reference.count_correct(active, splits.val, trial)
        row = {"loop": loop, "units": units, "correct": correct, "kept": correct > best_correct}
        row |= {"before": lkg_correct, "mode": ablation.mode_at(loop)}
        rejected += 1
        row["accepted"] = correct > lkg_correct or (
            method.patience is not None and rejected >= method.patience
        )
        if row["accepted"]:
            lkg, lkg_correct, rejected, moments = active, correct, 0, optimizer.state_dict()
        if row["kept"]:
            best, best_correct = active, correct
        found.rows.append(row)
        since = loop - max(each["loop"] for each in found.rows if each["kept"])
        if method.stop_after is not None and since >= method.stop_after:
            found.stopped = True
            break
    found.best, found.lkg = weights(best), weights(lkg)
    return found


def weights(net: Any) -> list[Tensor]:
    """The weights and biases of a network, in compute order."""
    return [tensor.detach() for linear in net.linears() for tensor in (linear.weight, linear.bias)]


def mode_of(ablation: Ablation, seed: int, loop: int, rows: list[dict[str, Any]]) -> str:
    """The mode in which a loop ablates."""
    rate, end, length = ablation.rate, ablation.end_rate, ablation.schedule_loops
    if ablation.schedule == "linear":
        rate += (end - rate) * min(1.0, (loop - 1) / (length - 1))
    elif ablation.schedule == "cosine":
        rate = end + (rate - end) * (1 + math.cos(math.pi * min(1.0, (loop - 1) / (length - 1)))) / 2
    elif ablation.schedule == "adaptive":
        ablated = [row for row in rows[-length:] if row["units"]]
        harm = [row["correct"] < row["before"] for row in ablated]
        rate = end + (rate - end) * (1 - (sum(harm) / len(harm) if harm else 0))
    if rate >= 1:
        return ablation.mode_at(loop)
    return ablation.mode_at(loop) if generator(seed, "rate", loop).random() < rate else "none"


def layers_of(net: Any, mode: str) -> list[int]:
    """The layers of a mode."""
    every = list(range(len(net.linears())))
    return {"full": every, "hidden": net.hidden_set(), "output": every[-1:]}[mode]


def chosen(net: Any, trial: Trial, mode: str, loop: int, train: Split) -> list[tuple[int, int]]:
    """The units that a loop ablates, in the order in which they were chosen."""
    ablation, linears, layers = trial.intervention, net.linears(), layers_of(net, mode)
    draws = generator(trial.seed, "ablate", 0 if ablation.choice == "fixed" else loop)
    units = [[(layer, unit) for unit in range(len(linears[layer].bias))] for layer in layers]
    if ablation.target == "unit":
        targets = [[[unit] for unit in layer] for layer in units]
        pools = targets if mode == "full" else [[each for layer in targets for each in layer]]
    elif ablation.target == "layer":
        pools = [units]
    else:
        inside = dict(zip(layers, units, strict=True))
        pools = [[inside[a] + inside[a + 1] for a in blocks_of(net) if a in inside and a + 1 in inside]]
    count = ablation.units
    if ablation.share is not None:
        count = max(1, round(ablation.share * sum(len(pool) for pool in pools)))
    if ablation.choice in ("random", "fixed"):
        picked = []
        while len(picked) < count:
            pools = [pool for pool in pools if pool]
            pool = pools[int(draws.integers(len(pools)))] if mode == "full" and len(pools) > 1 else pools[0]
            at = int(draws.integers(len(pool)))
            picked.append(pool[at])
            pool[at] = pool[-1]
            del pool[-1]
    else:
        order, _, measure = ablation.choice.partition("_")
        everyone = [each for pool in pools for each in pool]
        score = scores_of(net, trial, measure, train)
        mean = [float(np.mean([score[layer][unit] for layer, unit in target])) for target in everyone]
        shuffled = [int(at) for at in draws.permutation(len(everyone))]
        ranked = sorted(shuffled, key=lambda at: mean[at] if order == "least" else -mean[at])
        picked = [everyone[at] for at in ranked[:count]]
    return [unit for target in picked for unit in target]


def blocks_of(net: Any) -> list[int]:
    """The number of the first layer of each residual block."""
    found, number = [], 0
    for step in net.steps:
        found += [number] if len(step) == 2 else []
        number += len(step)
    return found


def scores_of(net: Any, trial: Trial, measure: str, train: Split) -> list[np.ndarray]:
    """The scores of all units, by autograd over an ordinary module, in float64."""
    twin = copy.deepcopy(net).double()
    seen: list[Tensor] = []
    images, labels = train.images[:1000].double(), train.labels[:1000]

    def keep(activation: Tensor) -> Tensor:
        activation.retain_grad()
        seen.append(activation)
        return activation

    h = images.T
    if hasattr(twin, "steps"):
        for step in twin.steps:
            inner = keep(torch.relu(step[0](h)))
            h = inner if len(step) == 1 else keep(torch.relu(step[1](inner) + h))
    else:
        for linear in twin.hidden:
            h = keep(torch.relu(linear(h)))
    logits = keep(twin.output(h))
    nn.functional.cross_entropy(logits.T, labels, reduction="sum").backward()
    found = []
    for linear, activation in zip(twin.linears(), seen, strict=True):
        outputs, inputs = linear.shape
        gradient = linear.padded_weight.grad[: outputs * inputs].view(outputs, inputs) / len(labels)
        values = {
            "weight": linear.weight.detach().norm(dim=1),
            "activation": activation.detach().abs().mean(dim=1),
            "gradient": gradient.norm(dim=1),
            "contribution": (activation.detach() * activation.grad).abs().mean(dim=1),
        }
        found.append(values[measure].numpy())
    return found


def damage(net: Any, trial: Trial, mode: str, loop: int, units: list[tuple[int, int]]) -> None:
    """Change the weights of the units, each once, layer by layer."""
    ablation, draws = trial.intervention, generator(trial.seed, "perturb", loop)
    fresh = generator(trial.seed, "init", loop)
    for number, linear in enumerate(net.linears()):
        outputs, inputs = linear.shape
        marked = torch.zeros(outputs, inputs, dtype=torch.bool)
        marked_bias = torch.zeros(outputs, dtype=torch.bool)
        for layer, unit in units:
            if layer == number:
                marked[unit] = True
                marked_bias[unit] = True
            if layer == number - 1 and mode == "hidden" and ablation.target != "block":
                marked[:, unit] = True
        bound = np.float32(1 / np.sqrt(inputs))
        for parameter, mark in ((linear.weight.data, marked), (linear.bias.data, marked_bias)):
            drawn = (2 * fresh.random(parameter.numel(), dtype=np.float32) - 1) * bound
            old = parameter[mark].numpy()
            if len(old):
                new = changed(ablation, old, drawn.reshape(parameter.shape)[mark.numpy()], bound, draws)
                parameter[mark] = torch.from_numpy(new)


def changed(
    ablation: Ablation, old: np.ndarray, fresh: np.ndarray, bound: np.float32, draws: np.random.Generator
) -> np.ndarray:
    """The values after the change."""
    amount = np.float32(ablation.amount or 0)
    if ablation.change == "zero":
        return np.zeros_like(old)
    if ablation.change == "reset":
        return fresh
    if ablation.change == "scale":
        return amount * old
    if ablation.change == "noise":
        return old + amount * bound * draws.standard_normal(len(old), dtype=np.float32)
    cut = amount * np.float32(np.abs(old).mean(dtype=np.float64))
    return np.where(np.abs(old) > cut, np.sign(old) * (np.abs(old) - cut), 0).astype(np.float32)
