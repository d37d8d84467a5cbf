"""Results of the ablation study that no training made: frames for tables, and records on disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from made_up import some_record

from psa.analysis.frame_schema import build_frame
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of
from psa.specs.training import MODES
from psa.specs.trial import Trial
from psa.storage.store import Store

SAMPLES = 10_000
ARCHS = ("1*64", "1*16", "2*30", "4*4", "2*1")
# A trial is its bounty in percent, or why there is none.
Outcome = float | str


def frame(cells: Mapping[tuple[str, str], Sequence[Outcome]], **columns: Any) -> pd.DataFrame:
    """The frame of these cells (arch, mode), one outcome per seed; `columns` replaces what rows have."""
    return build_frame(
        [
            _row(arch, mode, seed, outcome) | columns
            for (arch, mode), outcomes in cells.items()
            for seed, outcome in enumerate(outcomes)
        ]
    )


def even(arch: str, *outcomes: Outcome) -> dict[tuple[str, str], Sequence[Outcome]]:
    """The same outcomes in every mode."""
    return {(arch, mode): outcomes for mode in MODES}


def _row(arch: str, mode: str, seed: int, outcome: Outcome) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": f"ablation/simplemlp-{arch}/{mode}/s{seed:02d}",
        "study": "ablation",
        "family": "simplemlp",
        "arch": arch,
        "mode": mode,
        "seed": seed,
        "parameters": shape_of(
            PublishedModelSpec.model_validate({"family": "simplemlp", "arch": arch})
        ).parameters,
        "source": "psa",
    }
    if isinstance(outcome, str):
        return row | {"status": outcome}
    correct = [round(outcome * 90), round(outcome * 100), round(outcome * 80)]
    return row | {
        "status": "done",
        "loops": 3,
        "validation_size": SAMPLES,
        "bounty": outcome,
        "bounty_correct": round(outcome * SAMPLES / 100),
        "bounty_loop": 2,
        "test": outcome - 0.25,
        "test_size": SAMPLES,
        "zero_r": 11.02,
        "history": _history(correct, mode),
    }


def _history(correct: Sequence[int], mode: str) -> dict[str, list[Any]]:
    loops = range(len(correct))
    return {
        "loop": [loop + 1 for loop in loops],
        "mode": [mode] * len(correct),
        "layer": [None] * len(correct),
        "unit": [None] * len(correct),
        "correct": list(correct),
        "loss": [1.0] * len(correct),
        "train_loss": [1.5] * len(correct),
        "kept": [all(correct[loop] > earlier for earlier in correct[:loop]) for loop in loops],
    }


def some_study(seeds: int = 4) -> pd.DataFrame:
    """Five architectures in all modes; one trial failed, one record damaged, one cell and a half missing."""
    cells: dict[tuple[str, str], Sequence[Outcome]] = {}
    for at, arch in enumerate(ARCHS):
        for number, mode in enumerate(MODES):
            cells[arch, mode] = [_bounty(at, number, seed) for seed in range(seeds)]
    cells["1*16", "hidden"] = [*cells["1*16", "hidden"][:-1], "failed"]
    cells["2*30", "none"] = [*cells["2*30", "none"][:2], "missing", "missing"]
    cells["2*30", "full"] = ["damaged", *cells["2*30", "full"][1:]]
    cells["4*4", "output"] = ["missing"] * seeds
    return frame(cells)


def _bounty(arch: int, mode: int, seed: int) -> float:
    """Percentages of whole counts; the last architecture never learns."""
    if arch == len(ARCHS) - 1:
        return 11.02
    return (9800 - 700 * arch - 40 * (mode % 4) * mode + (7 * seed + 3 * mode + 11 * arch) % 10) / 100


def stored(folder: Path, trials: Iterable[Trial]) -> Store:
    """A store in this folder that holds a record of each trial."""
    store = Store(folder / "models", folder / "results")
    for trial, record in _records(trials):
        store.write(trial, record, {})
    return store


def _records(trials: Iterable[Trial]) -> Iterator[tuple[Trial, dict[str, Any]]]:
    for trial in trials:
        record = some_record(3, trial)
        correct = [2000 + trial.seed, 2300 + 10 * MODES.index(trial.intervention.mode) + trial.seed, 2100]
        shape = shape_of(trial.model, trial.data.classes)
        record["built"] = {
            "family": trial.model.family,
            "arch": str(trial.model.arch),
            "parameters": shape.parameters,
        }
        record["history"] |= {"correct": correct, "kept": [True, True, False]}
        record["finals"]["bounty"] = {"correct": max(correct), "loop": 2}
        record["finals"]["test"] = {"correct": max(correct) - 7, "loss": 0.5}
        yield trial, record
