"""Loss, prediction and confidence of each validation and test sample, and the effect of a memory on it."""

from __future__ import annotations

import numpy as np
import torch

from psa.data.splits import Split
from psa.engine.probing import ProbeInput
from psa.probes.base import FileProbe
from psa.probes.predictions import Predictions, both_splits, predict
from psa.storage.array_file import Arrays

_MEMORY_FREE = ("loss", "prediction", "confidence")  # also stored for the network without its memory


class SampleDetails(FileProbe):
    """Each sample of validation and test as the LKG sees it, in the order of the split. All are arrays [N].

    SPLIT.index: the place in the train or test file of the data set. SPLIT.digit: the class in the data set.
    SPLIT.label: the class in training. SPLIT.prediction: a class in the data set, as `digit`. SPLIT.loss:
    nats. SPLIT.confidence: the greatest probability.

    With a memory also the loss, prediction and confidence without it (SPLIT.loss_without, ...), and
    SPLIT.distance, SPLIT.purity, SPLIT.top1, SPLIT.gate, SPLIT.magnitude and SPLIT.relative (see
    psa.interventions.memory.hidden_memory.HiddenMemory.observed): the retrieval is NaN for a sample that
    the memory leaves as it is. Integers are int64, other numbers float32.
    """

    name = "sample_details"

    def arrays(self, probe_input: ProbeInput, row: int) -> Arrays:
        """See psa.engine.probing.ArrayProbe. One trial at a time beside a copy of itself: the same bits in
        any pack.
        """
        found: Arrays = {}
        for name, split in both_splits(probe_input):
            seen = _of_split(probe_input, row, split)
            found |= {f"{name}.{quantity}": values for quantity, values in seen.items()}
        return found


def _of_split(probe_input: ProbeInput, row: int, split: Split) -> Arrays:
    digits = np.array(probe_input.splits.digits, dtype=np.int64)
    given = {"index": split.index, "digit": split.digits, "label": split.labels}
    found: Arrays = {name: _numpy(values) for name, values in given.items()}
    seen = predict(probe_input, split, row)
    found |= _answers(seen, digits)
    if probe_input.memory_site is not None:
        without = _answers(predict(probe_input, split, row, with_memory=False), digits)
        found |= {f"{name}_without": without[name] for name in _MEMORY_FREE}
        found |= {name: values.astype(np.float32) for name, values in seen.memory.items()}
    return found


def _answers(seen: Predictions, digits: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Arrays:
    return {
        "prediction": digits[seen.answers],
        "loss": seen.losses.astype(np.float32),
        "confidence": seen.confidence.astype(np.float32),
    }


def _numpy(values: torch.Tensor) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    found: np.ndarray[tuple[int], np.dtype[np.int64]] = values.cpu().numpy()
    return found
