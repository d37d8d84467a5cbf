"""What kept gradients will take: said before training, and so it comes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers import net_trial

from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.execution.cost_model import candidate_sizes, memory_bytes, trial_bytes
from psa.execution.gradient_storage import epoch_bytes, keeps_gradients, train_samples, unreached
from psa.execution.gradient_storage import gradient_bytes as files_bytes
from psa.execution.machine import check_memory
from psa.experiments.grid import load_grid
from psa.specs.data import DataSpec
from psa.specs.trial import Trial

ONLINE = "gradients_online"


def wide(*probes: str) -> Trial:
    """The network of the study."""
    return net_trial("1*512", probes=probes)


def test_files_are_as_large_as_was_said(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one network with all digits to a percent: what stands around the numbers is small."""
    monkeypatch.chdir(tmp_path)
    words = [
        "train",
        "--study",
        "gradients",
        "--hidden-sizes",
        "24,8",
        "--val-size",
        "58000",
        "--epochs",
        "2",
    ]
    words += ["--probes", f"{ONLINE}(epochs=2+9,layers=hidden.1),gradients", "--data-dir", str(data_dir)]
    assert run(PSA, [*words, "--device", "cpu"]) == 0
    there = {path.name: path.stat().st_size for path in (tmp_path / "models").rglob("*.arrays.safetensors")}
    assert sorted(there) == [f"lkg.{name}-2.arrays.safetensors" for name in ("gradients", ONLINE)]
    told = net_trial("1*24, 1*8", probes=("gradients", f"{ONLINE}(epochs=2+9,layers=hidden.1)"))
    told = told.model_copy(update={"data": DataSpec(val_size=58_000)})
    assert files_bytes(told, 2) == pytest.approx(sum(there.values()), rel=0.01)
    assert epoch_bytes(told) == pytest.approx(max(there.values()), rel=0.01)


def test_every_epoch_has_its_file() -> None:
    """Three epochs, or two of five that are named; a checkpoint has one."""
    one = files_bytes(wide(ONLINE), 1)
    assert files_bytes(wide(ONLINE), 3) == 3 * one
    assert files_bytes(wide(f"{ONLINE}(epochs=1+4+9)"), 5) == 2 * one
    assert files_bytes(wide("gradients"), 5) == one
    assert files_bytes(wide("gradients", ONLINE), 5) == 6 * one
    assert not keeps_gradients(wide("train_accuracy"))
    assert files_bytes(wide("train_accuracy"), 5) == epoch_bytes(wide()) == 0


def test_a_probe_that_would_keep_nothing_is_told() -> None:
    """All of its epochs are after the last; once for all seeds. One of them in reach is enough."""
    late = wide(f"{ONLINE}(epochs=4+9)")
    trials = [late, late.model_copy(update={"seed": 7}), wide(ONLINE), wide("gradients")]
    said = [f"{ONLINE}(epochs=4+9) keeps nothing: training ends at epoch 3"]
    assert unreached(trials, {trial.id: 3 for trial in trials}) == said
    assert unreached(trials, {trial.id: 4 for trial in trials}) == []


def test_it_is_told_before_training(tmp_path: Path) -> None:
    """With the other warnings about a grid."""
    path = tmp_path / "grid.toml"
    path.write_text(
        'study = "gradients"\nmeta_loops = 1\nseeds = 0\n[base]\nprobes = ["gradients_online(epochs=2)"]\n'
    )
    assert load_grid(path).warnings == (f"{ONLINE}(epochs=2) keeps nothing: training ends at epoch 1",)


def test_a_digit_filter_leaves_a_share_of_the_samples() -> None:
    """A tenth of the images each, as plans are made before the data are there."""
    assert train_samples(wide()) == 50_000
    assert train_samples(wide().model_copy(update={"data": DataSpec(digits=(1, 7))})) == 10_000


def test_plans_count_them() -> None:
    """Memory, disk, and how many trials make a pack."""
    plain, kept = wide(), wide(ONLINE)
    assert memory_bytes([kept] * 4) - memory_bytes([plain] * 4) == 6 * epoch_bytes(kept)
    assert trial_bytes(kept, 2) - trial_bytes(plain, 2) == 2 * epoch_bytes(kept)
    kept_60, plain_60 = ([each.changed(seed=seed) for seed in range(60)] for each in (kept, plain))
    assert max(candidate_sizes(kept_60)) < max(candidate_sizes(plain_60))


def test_what_cannot_fit_is_refused_before_any_work() -> None:
    """More gradients than this machine's memory: what, how much, and what to do."""
    with pytest.raises(UserError, match=r"2 trials of 9 parameters and the gradients of their samples need"):
        check_memory(9, 2, torch.device("cpu"), kept=10**15)
    check_memory(9, 2, torch.device("cpu"), kept=10**6)
