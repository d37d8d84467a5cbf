"""Calibration of the predicted probabilities, and the confusion matrix."""

from __future__ import annotations

import numpy as np

from psa.engine.probing import ProbeInput
from psa.nn.dense import Dense
from psa.probes.base import LkgProbe
from psa.probes.metrics import confusion, expected_calibration_error
from psa.probes.predictions import Predictions, both_splits, finite_rows, predict
from psa.storage.trial_state import Observation


class Calibration(LkgProbe):
    """The calibration of the LKG on validation and test: ece, the expected calibration error over 15 bins;
    confidence, the mean greatest probability; accuracy, as a share. For a diverged network, whose outputs
    are not finite, ece and confidence are missing.
    """

    name = "calibration"

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        found = [predict(probe_input, split, row) for _, split in both_splits(probe_input)]
        return {
            "ece": finite_rows(map(_ece, found)),
            "confidence": finite_rows(each.confidence.mean() for each in found),
            "accuracy": finite_rows(each.correct.mean() for each in found),
        }


def _ece(seen: Predictions) -> float:
    """Return the expected calibration error, NaN for a diverged trial, whose record leaves it out."""
    if not np.isfinite(seen.confidence).all():
        return float("nan")
    return expected_calibration_error(seen.confidence, seen.correct)


class Confusion(LkgProbe):
    """The confusion matrix of the LKG on the test split, as counts."""

    name = "confusion"

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return `true>answer`, row by row."""
        classes = range(net.classes)
        return {"": [f"{true}>{answer}" for true in classes for answer in classes]}

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        found = predict(probe_input, probe_input.splits.test, row)
        return {"counts": confusion(found.labels, found.answers, probe_input.net.classes).flatten().tolist()}
