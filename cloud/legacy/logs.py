"""Parse the log lines of the original study's jobs into trials; jobs of sweeps have records instead."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cloud.aws.job_names import LegacyJobName, latest_legacy_jobs
from psa.core.errors import UserError
from psa.core.files import read_bytes
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of

if TYPE_CHECKING:
    import pandas as pd

SAMPLES: Final = 10_000  # in the validation and in the test split, as published
# The line was wrapped at the width of a terminal, between words, with its source appended.
_GAP: Final = r"\s+(?:\S+\.py:\d+\s+)?"
_PERCENT: Final = r"(-?[0-9]{1,3}\.[0-9]{2})%"
_LINE: Final = re.compile(
    _GAP.join(
        [
            r"Loop", r"([0-9]{1,6})/([0-9]{1,6})", r"\(Global:", r"[0-9]{1,9}\)", r"\|",
            r"Current:", _PERCENT, r"\|", r"LKG:", _PERCENT, r"\|", r"Bounty:", _PERCENT,
        ]
    )
    + rf"|Final{_GAP}Test{_GAP}Accuracy:{_GAP}([0-9]{{1,3}}\.[0-9]{{2}})%"
)  # fmt: skip
_NUMBERS: Final = re.compile(r"[0-9]+")


@dataclass
class LegacyRun:
    """One trial of a log, with accuracies in percent. test: of the last LKG; gap: a loop is missing."""

    horizon: int
    current: list[float] = field(default_factory=list)
    lkg: list[float] = field(default_factory=list)
    test: float | None = None
    gap: bool = False

    @property
    def complete(self) -> bool:
        """True if every loop is present."""
        return len(self.current) == self.horizon and not self.gap


def parse_runs(text: str) -> list[LegacyRun]:
    """Parse the trials of a log, in order; the last may be truncated, and `gap` marks missing lines."""
    runs: list[LegacyRun] = []
    expected = 1
    for match in _LINE.finditer(text):
        if match[6] is not None:
            if runs:
                runs[-1].test = float(match[6])
            continue
        loop, horizon = int(match[1]), int(match[2])
        if not runs or loop < expected or horizon != runs[-1].horizon:
            runs.append(LegacyRun(horizon, gap=loop != 1))
        elif loop > expected:
            runs[-1].gap = True
        runs[-1].current.append(float(match[3]))
        runs[-1].lkg.append(float(match[4]))
        expected = loop + 1
    return runs


@dataclass(frozen=True)
class Logs:
    """The trials of the latest job of each arch and mode, and remarks on omissions, one line each."""

    runs: Mapping[LegacyJobName, Sequence[LegacyRun]]
    remarks: Sequence[str]


def read_logs(folder: Path) -> Logs:
    """Read the logs of all jobs below a folder. Raises UserError without any of the original study."""
    names = [path.name for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    jobs = latest_legacy_jobs(names)
    if not jobs:
        raise UserError(
            f"{folder} has no log of a job of the original study",
            "Fetch them with sagemaker-get-training-logs; psa's own sweeps have records, see `psa report`",
        )
    runs: dict[LegacyJobName, Sequence[LegacyRun]] = {}
    remarks: list[str] = []
    for job, *older in jobs.values():
        remarks += [f"{each.name}: left out, {job.name} is later" for each in older]
        found = _runs_of(folder / job.name, remarks)
        if found:
            runs[job] = found
    return Logs(runs, remarks)


def _runs_of(folder: Path, remarks: list[str]) -> list[LegacyRun]:
    """Return the trials of a job's last attempt: an interrupted job of the study started from scratch."""
    attempts = []
    for path in sorted(folder.rglob("*.log"), key=_order):
        runs = parse_runs((read_bytes(path) or b"").decode(errors="replace"))
        if runs:
            attempts.append((path, runs))
    if not attempts:
        remarks.append(f"{folder.name}: no loop in its logs")
        return []
    remarks += [
        f"{folder.name}: {path.name} is of an earlier attempt and left out" for path, _ in attempts[:-1]
    ]
    runs = attempts[-1][1]
    for number, run in enumerate(runs, 1):
        if run.gap:
            remarks.append(f"{folder.name}: lines of trial {number} are missing; the trial counts as missing")
        elif not run.complete:
            remarks.append(
                f"{folder.name}: trial {number} is cut off at loop {len(run.current)} of {run.horizon}; "
                "it counts as missing"
            )
    return runs


def _order(path: Path) -> tuple[list[int], str]:
    """Return the sort key of a stream: the second of its attempt's start, from the end of its name."""
    return [int(number[:18]) for number in _NUMBERS.findall(path.stem)][-1:], path.name


def frame_of_logs(logs: Logs, family: str) -> pd.DataFrame:
    """Return the trials as the data frame of reports, numbered from 1. Raises UserError without any."""
    from psa.analysis.frame_schema import build_frame

    rows = [
        _row(job, number, run, family)
        for job, runs in logs.runs.items()
        for number, run in enumerate(runs, 1)
    ]
    if not any(row["status"] == "done" for row in rows):
        raise UserError("the logs must hold a whole trial, got none", "Fetch them again")
    return build_frame(rows)


def _row(job: LegacyJobName, number: int, run: LegacyRun, family: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        "id": f"logs/{family}/{job.arch}/{job.mode}/{number}",
        "study": "published",
        "family": family,
        "arch": job.arch,
        "mode": job.mode,
        "seed": number,
        "status": "unfinished",
        "parameters": shape_of(
            PublishedModelSpec.model_validate({"family": family, "arch": job.arch})
        ).parameters,
        "source": "published",
    }
    if not run.complete:
        return row
    loops = len(run.current)
    before = [-1.0, *run.lkg[:-1]]
    return row | {
        "status": "done",
        "loops": loops,
        "validation_size": SAMPLES,
        "bounty": run.lkg[-1],
        "bounty_correct": round(run.lkg[-1] * SAMPLES / 100),
        "bounty_loop": run.lkg.index(run.lkg[-1]) + 1,
        "test": run.test,
        "test_size": SAMPLES,
        "history": {
            "loop": list(range(1, loops + 1)),
            "mode": [job.mode] * loops,
            "correct": [round(each * SAMPLES / 100) for each in run.current],
            "kept": [now > then for now, then in zip(run.lkg, before, strict=True)],
            **{name: [None] * loops for name in ("layer", "unit", "loss", "train_loss")},
        },
    }
