"""Frames of trials that no training made, for tests of what is drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from paths import ROOT

from psa.analysis.frame_schema import build_frame
from psa.reports.ablation.architectures import parameters_of
from psa.specs.training import MODES

ARCHS = tuple(
    line for line in (ROOT / "reproduction/configurations.txt").read_text().split("\n") if line[:1].isdigit()
)
ASYMMETRIC = tuple(
    line for line in (ROOT / "reproduction/asymmetric.txt").read_text().split("\n") if line[:1].isdigit()
)
FEW = ("1*1024", "1*16", "2*30", "4*17", "18*18", "10*10", "3*3", "8*2")
ZERO_R = 1102


def curve(arch: str, mode: str, seed: int, loops: int) -> list[int]:
    """Correct validation images of 10,000 after each loop: learning, a late jump, or nothing, by the arch."""
    depth, width = (int(part) for part in arch.split("*"))
    offset = 7 * MODES.index(mode) + 11 * seed
    x = np.arange(1, loops + 1)
    if width >= 16 and depth <= 4:
        top = 9600 + 40 * np.log2(width) - 30 * depth - 3 * offset
        return [int(each) for each in top * (1 - 0.1 * np.exp(-x / 4)) + x % 3]
    if depth == width and depth <= 19 and (seed + depth) % 3 == 0 and mode in ("none", "full", "output"):
        jump = loops // 2 + 1 + (depth + seed) % (loops // 3 + 1)
        return [int(each) for each in np.where(x < jump, 980 + x % 2, 4000 + offset - 900 / (x + 1))]
    return [min(ZERO_R, 900 + offset + int(each) % 5) for each in x]


def row(arch: str, mode: str, seed: int, correct: Sequence[int] = (), **changes: Any) -> dict[str, Any]:
    """A trial with these counts of 10,000; without any it is missing."""
    kept = [count > max([-1, *correct[:at]]) for at, count in enumerate(correct)]
    loops = len(correct)
    trial: dict[str, Any] = {
        "id": f"ablation/simplemlp-{arch}/{mode}/s{seed:02d}",
        "study": "ablation",
        "family": "simplemlp",
        "arch": arch,
        "mode": mode,
        "seed": seed,
        "status": "missing",
        "parameters": parameters_of("simplemlp", arch),
        "source": "psa",
    }
    if correct:
        trial |= {
            "status": "done",
            "dataset": "mnist",
            "loops": loops,
            "stopped_early": False,
            "validation_size": 10_000,
            "bounty": max(correct) / 100,
            "bounty_correct": max(correct),
            "bounty_loop": list(correct).index(max(correct)) + 1,
            "zero_r": ZERO_R / 100,
            "history": {
                "loop": list(range(1, loops + 1)),
                "mode": [mode] * loops,
                "correct": list(correct),
                "kept": kept,
                **{name: [None] * loops for name in ("layer", "unit", "loss", "train_loss")},
            },
        }
    return trial | changes


def rows(archs: Sequence[str] = FEW, seeds: int = 4, loops: int = 12) -> list[dict[str, Any]]:
    """Every mode and seed of every architecture."""
    return [
        row(arch, mode, seed, curve(arch, mode, seed, loops))
        for arch in archs
        for mode in MODES
        for seed in range(seeds)
    ]


def frame(archs: Sequence[str] = FEW, seeds: int = 4, loops: int = 12) -> pd.DataFrame:
    """All of them as psa.analysis.records_frame would give them."""
    return build_frame(rows(archs, seeds, loops))


def partial(archs: Sequence[str] = FEW, seeds: int = 4, loops: int = 12) -> pd.DataFrame:
    """Every other cell missing, no trial of mode hidden, and one trial failed."""
    found = []
    for at, each in enumerate(rows(archs, seeds, loops)):
        cell = at // seeds
        if each["mode"] == "hidden" or (cell + cell // 6) % 2:
            each = row(each["arch"], each["mode"], each["seed"])  # noqa: PLW2901 - another in its place
        found.append(each)
    first = next(at for at, each in enumerate(found) if each["status"] == "done")
    found[first] = row(found[first]["arch"], found[first]["mode"], found[first]["seed"], status="failed")
    return build_frame(found)
