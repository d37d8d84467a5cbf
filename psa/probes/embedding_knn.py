"""A nearest-neighbour classifier on the embeddings of the training split, without further training."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from psa.data.splits import Split
from psa.engine.probing import ProbeInput
from psa.engine.train_step import EVALUATION_BATCH
from psa.probes.base import LkgProbe
from psa.probes.layer_trace import hidden_layers, ignore, trace_layers
from psa.probes.predictions import both_splits
from psa.storage.trial_state import Observation

NEIGHBOURS: Final = 8


class EmbeddingKnn(LkgProbe):
    """Samples of validation and test answered correctly by the majority of the 8 training samples whose
    outputs of the last hidden layer are nearest (euclidean), each with one vote; ties go to the lowest class.

    correct, total. The layer's outputs are as the network makes them, without any memory.
    """

    name = "embedding_knn"

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        train, classes = probe_input.splits.train, probe_input.net.classes
        known = embeddings(probe_input, train, row)
        found: Observation = {"correct": [], "total": []}
        for _, split in both_splits(probe_input):
            answers = voted(known, train.labels, embeddings(probe_input, split, row), classes)
            found["correct"].append(int((answers == split.labels.cpu().numpy()).sum()))
            found["total"].append(len(split))
        return found


def embeddings(probe_input: ProbeInput, split: Split, row: int) -> Tensor:
    """Return the outputs of the last hidden layer of one trial, [N, width]."""
    last, parts = hidden_layers(probe_input)[-1], list[Tensor]()

    def watch(layer: int, before: Tensor, after: Tensor) -> None:
        if layer == last:
            parts.append(after.T.clone())

    trace_layers(probe_input, split, row, watch, ignore)
    return torch.cat(parts)


def voted(
    known: Tensor, labels: Tensor, queries: Tensor, classes: int, neighbours: int = NEIGHBOURS
) -> np.ndarray:
    """Return the majority label, int64 [N], of the nearest neighbours of queries [N, width] in known
    [M, width] with labels [M].
    """
    lengths = known.square().sum(dim=1)
    answers = []
    for part in queries.split(EVALUATION_BATCH):
        scores = lengths - 2 * part @ known.T  # the query's own length is the same for all
        nearest = torch.topk(scores, min(neighbours, len(known)), dim=1, largest=False).indices
        votes = torch.nn.functional.one_hot(labels[nearest], classes).sum(dim=1)
        answers.append(np.argmax(votes.cpu().numpy(), axis=1))  # the first of equal ones
    return np.concatenate(answers)
