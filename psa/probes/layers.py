"""Probes of layers: their size and use, the accuracy of an early exit behind each, their thresholds."""

from __future__ import annotations

import torch
from torch import Tensor

from psa.engine.probing import ProbeInput
from psa.nn.activations import added
from psa.nn.dense import Dense
from psa.nn.layers import effective
from psa.nn.precision import sum_dtype
from psa.probes.base import LkgProbe, NetworkProbe
from psa.probes.layer_trace import hidden_layers, ignore, trace_layers
from psa.storage.trial_state import Observation


def _hidden(net: Dense) -> list[str]:
    return [linear.name for linear in net.shape.linears if linear.role != "output"]


class LayerUsage(NetworkProbe):
    """For every layer, first to last, the entrywise L1 norm of its parameters; for every hidden one the mean
    output |h| over the validation split, after its activation, and the share of outputs that are not 0.

    parameters_l1: weights and biases. mean_output, active_share: hidden layers, in order. A memory does not
    act.
    """

    name = "layer_usage"

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return the layers by name; the output layer has parameters alone."""
        names, hidden = [linear.name for linear in net.shape.linears], _hidden(net)
        return {"parameters_l1": names, "mean_output": hidden, "active_share": hidden}

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        one = probe_input.weights[row : row + 1]
        layers = hidden_layers(probe_input)
        # tensors, which are read once: a read for every layer and batch would hold a GPU up
        total = dict.fromkeys(layers, torch.zeros((), dtype=sum_dtype(one.first.device)))
        active = dict.fromkeys(layers, torch.zeros((), dtype=torch.int64))

        def watch(layer: int, before: Tensor, after: Tensor) -> None:
            total[layer] = after.abs().sum(dtype=sum_dtype(after.device)) + total[layer].to(after.device)
            active[layer] = torch.count_nonzero(after) + active[layer].to(after.device)

        trace_layers(probe_input, probe_input.splits.val, row, watch, ignore)
        linears = probe_input.net.shape.linears
        widths = {layer: linears[layer].outputs * max(1, linears[layer].side ** 2) for layer in layers}
        count = len(probe_input.splits.val)
        return {
            "parameters_l1": [
                sum(float(part.abs().sum(dtype=sum_dtype(part.device))) for part in (weight, bias))
                for weight, bias in probe_input.net.layout.views(one)
            ],
            "mean_output": [float(total[layer]) / (count * widths[layer]) for layer in layers],
            "active_share": [int(active[layer]) / (count * widths[layer]) for layer in layers],
        }


class EarlyExit(LkgProbe):
    """The number of validation samples that the network classifies correctly when its head reads only the
    first k hidden layers: their sum if the network sums them, else the k-th layer. It is null for layers
    whose width differs from the input of the head.

    correct: for k = 1, 2, ... hidden layers. A memory does not act.
    """

    name = "early_exit"

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return the hidden layers with an early exit behind them."""
        return {"correct": _hidden(net)}

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        net, weights = probe_input.net, probe_input.weights[row : row + 1]
        *_, (weight, bias) = net.layout.views(weights)
        head = net.bind(weights, loops=probe_input.loops[row : row + 1]).plan[-1][0]
        weight = effective(head)[0]
        layers = hidden_layers(probe_input)
        correct: dict[int, int | None] = dict.fromkeys(layers)
        exits: dict[int, Tensor] = {}
        total: list[Tensor] = []

        def watch(layer: int, before: Tensor, after: Tensor) -> None:
            read = after
            if net.shape.summed:
                read = added(total.pop()[None], after[None])[0] if total else after
                total.append(read)
            # a residual block ends in `leave`; inside of it the skip connection is missing
            inside = net.shape.linears[layer].role in ("enter", "conv")
            if len(read) == weight.shape[1] and not inside:
                exits[layer] = (weight @ read + bias[0]).argmax(dim=0)

        def answer(logits: Tensor, labels: Tensor) -> None:
            for layer, answers in exits.items():
                correct[layer] = (correct[layer] or 0) + int((answers == labels).sum())
            total.clear()

        trace_layers(probe_input, probe_input.splits.val, row, watch, answer)
        return {"correct": [correct[layer] for layer in layers]}


class Thresholds(NetworkProbe):
    """The learned threshold of every hidden layer, within its limits."""

    name = "thresholds"

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return the layers that have a threshold."""
        return {"threshold": [net.shape.linears[layer].name for layer in net.layout.threshold_at]}

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe each network, as the class describes."""
        kind, layout = probe_input.net.activation, probe_input.net.layout
        low, high = kind.number("min"), kind.number("max")
        found: list[Observation] = [{"threshold": []} for _ in probe_input.loops]
        for layer in layout.threshold_at:
            values = layout.threshold(probe_input.weights, layer)
            for row, value in enumerate([] if values is None else values.flatten().tolist()):
                found[row]["threshold"].append(min(max(value, low), high))
        return found
