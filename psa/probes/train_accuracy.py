"""Accuracy on the training split after an epoch, unlike a running average over the epoch."""

from __future__ import annotations

from psa.engine.probing import ProbeInput
from psa.engine.train_step import EVALUATION_BATCH, batch_sizes, evaluate, padded
from psa.probes.base import NetworkProbe
from psa.storage.trial_state import Observation


class TrainAccuracy(NetworkProbe):
    """The number of training samples that the weights after the epoch classify correctly: correct, total.

    A memory does not act. A pass over the training split; about a third of an epoch's time.
    """

    name = "train_accuracy"

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe each network, as the class describes."""
        trials, split = len(probe_input.loops), probe_input.splits.train
        twin = padded(probe_input.net, trials, batch_sizes(len(split), EVALUATION_BATCH))
        weights, loops = probe_input.weights, list(probe_input.loops)
        if twin:
            weights, loops = weights.repeat(2), loops * 2
        correct, _ = evaluate(probe_input.net, weights, split, loops)
        return [{"correct": [int(count)], "total": [len(split)]} for count in correct[:trials]]
