"""The probe of sample details: each number again from the weights, and the sums that other probes store."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from helpers import run
from memories import memory

from psa.data.splits import Split, Splits, load_splits
from psa.execution.cost_model import trial_bytes
from psa.execution.gradient_storage import detail_bytes
from psa.specs.arch import Arch
from psa.specs.data import DataSpec
from psa.specs.model import NetworkSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial
from psa.storage.array_file import Arrays
from psa.storage.trial_state import TrialState

DETAILS = "sample_details"
GIVEN = {"index", "digit", "label", "prediction", "loss", "confidence"}
OF_MEMORY = {
    "loss_without", "prediction_without", "confidence_without",
    "distance", "purity", "top1", "gate", "magnitude", "relative",
}  # fmt: skip


def arm(seed: int = 1, **parts: Any) -> Trial:
    """A small plain network, with or without a memory."""
    return Trial(
        model=NetworkSpec(family="mlp", arch=Arch.coerce("1*21, 1*13")),
        method=StandardTraining(optimizer="adam", lr=1e-3, batch_size=64),
        seed=seed,
        **parts,
    )


def details(
    trials: list[Trial], splits: Splits, loops: int = 1
) -> tuple[list[TrialState], list[Arrays], Any]:
    """Train a pack; the states, the arrays of each trial, and the test results."""
    kept: dict[tuple[int, str], Arrays] = {}

    def keep(state: TrialState, name: str, arrays: Arrays) -> dict[str, Any]:
        kept[state.trial.seed, name] = arrays
        return {"sha256": "0" * 64, "bytes": sum(values.nbytes for values in arrays.values())}

    states, outcomes = run(trials, splits, loops, keep=keep)
    return states, [kept[trial.seed, f"{DETAILS}-{loops}"] for trial in trials], outcomes


def logits(state: TrialState, images: torch.Tensor) -> torch.Tensor:
    """The plain network of `arm`, written out in float64."""
    x = images.double()
    for name in ("hidden.0", "hidden.1", "output"):
        weight, bias = (torch.from_numpy(state.lkg[f"{name}.{part}"]).double() for part in ("weight", "bias"))
        x = x @ weight.T + bias
        x = x.clamp(min=0) if name != "output" else x
    return x


def check_plain(state: TrialState, found: Arrays, name: str, split: Split, ending: str = "") -> None:
    """Loss, prediction and confidence of the network alone."""
    log_p = torch.log_softmax(logits(state, split.images), dim=1)
    loss = -log_p[torch.arange(len(split)), split.labels]
    assert found[f"{name}.loss{ending}"] == pytest.approx(loss.numpy(), abs=1e-4)
    assert found[f"{name}.confidence{ending}"] == pytest.approx(log_p.exp().amax(1).numpy(), abs=1e-4)
    assert (found[f"{name}.prediction{ending}"] == log_p.argmax(1).numpy()).mean() > 0.99


def test_every_number_is_that_of_the_weights(small: Splits) -> None:
    """A network without a memory stores both splits in their order, in a file of the predicted size."""
    (state,), (found,), (outcome,) = details([arm(probes=(DETAILS,))], small)
    assert set(found) == {f"{split}.{name}" for split in ("validation", "test") for name in GIVEN}
    for name, split in (("validation", small.val), ("test", small.test)):
        check_plain(state, found, name, split)
        assert np.array_equal(found[f"{name}.index"], split.index.numpy())
        assert np.array_equal(found[f"{name}.digit"], split.digits.numpy())
    right = (found["test.prediction"] == found["test.digit"]).sum()
    assert right == outcome.correct
    assert found["test.loss"].astype(np.float64).mean() == pytest.approx(outcome.loss, abs=1e-5)
    entry = outcome.files[f"{DETAILS}-1"]
    told = arm(probes=(DETAILS,), data=DataSpec(val_size=len(small.val), test_size=len(small.test)))
    assert detail_bytes(told) == entry["bytes"]
    assert detail_bytes(arm()) == 0


def test_the_effect_of_a_memory_adds_up_to_what_its_probes_count(small: Splits) -> None:
    """Helped, harmed, distance and magnitude as toggle and retrieval; without it the plain network."""
    trial = arm(probes=(DETAILS, "toggle", "retrieval"), memory=memory(capacity=200))
    (state,), (found,), (outcome,) = details([trial], small)
    assert set(found) == {f"{split}.{name}" for split in ("validation", "test") for name in GIVEN | OF_MEMORY}
    for at, (name, split) in enumerate((("validation", small.val), ("test", small.test))):
        check_plain(state, found, name, split, "_without")
        change = found[f"{name}.loss"].astype(np.float64) - found[f"{name}.loss_without"]
        toggle, seen = outcome.probes["toggle"], outcome.probes["retrieval"]
        assert (change < -1e-6).sum() == toggle["helped"][at] > 0
        assert (change > 1e-6).sum() == toggle["harmed"][at] > 0
        assert change.mean() == pytest.approx(toggle["mean"][at], abs=1e-9)
        for quantity in ("distance", "purity", "magnitude", "relative", "gate"):
            mean = found[f"{name}.{quantity}"].astype(np.float64).mean()
            assert mean == pytest.approx(seen[quantity][at], abs=1e-6)
    told = trial.changed(data=DataSpec(val_size=len(small.val), test_size=len(small.test)))
    assert detail_bytes(told) == outcome.files[f"{DETAILS}-1"]["bytes"]


def test_looking_changes_nothing_and_a_pack_gives_the_same_bits(small: Splits) -> None:
    """Weights with and without the probe; a trial alone and among others."""
    with_memory = {"memory": memory(capacity=200)}
    (plain,), _ = run([arm(4, **with_memory)], small, 1)
    (alone,), (one,), _ = details([arm(4, probes=(DETAILS,), **with_memory)], small)
    assert all(np.array_equal(plain.lkg[name], alone.lkg[name]) for name in plain.lkg)
    _, (_, same), _ = details([arm(seed, probes=(DETAILS,), **with_memory) for seed in (9, 4)], small)
    assert one.keys() == same.keys()
    assert all(np.array_equal(one[name], same[name], equal_nan=True) for name in one)


def test_predictions_are_classes_of_the_data_set(data_dir: Any) -> None:
    """With digits 3 and 8 a prediction is 3 or 8, not the label 0 or 1."""
    data = DataSpec(digits=(3, 8), train_size=400, val_size=200, test_size=200)
    splits = load_splits(data, data_dir)
    _, (found,), _ = details([arm(probes=(DETAILS,), data=data)], splits)
    assert set(found["test.prediction"]) <= {3, 8}
    assert set(found["test.digit"]) == {3, 8}
    assert set(found["test.label"]) == {0, 1}


def test_the_plan_counts_the_file() -> None:
    """`psa plan` says the bytes of all finished trials."""
    with_file, without = arm(probes=(DETAILS,)), arm()
    assert trial_bytes(with_file, 3) - trial_bytes(without, 3) == detail_bytes(with_file) == 20_000 * 40
