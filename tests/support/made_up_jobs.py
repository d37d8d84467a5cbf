"""Training jobs that never ran, as SageMaker would describe them, and what they would leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paths import ROOT

from cloud.commands.cost import cost_estimator
from cloud.commands.logs import get_training_logs, logs_parser
from cloud.commands.results import results_parser
from cloud.commands.storage import estimate_storage
from psa.reports.ablation.cells import archs_in
from psa.specs.training import MODES

COMMANDS: dict[str, Callable[..., int]] = {
    "sagemaker-cost-estimator": cost_estimator,
    "sagemaker-estimate-storage": estimate_storage,
    "sagemaker-get-training-logs": get_training_logs,
    "sagemaker-logs-parser": logs_parser,
    "sagemaker-results-parser": results_parser,
}
# $640.32 at $0.7364 an hour; 869.5 hours
STUDY_SECONDS = 3_130_298
LONGEST_SECONDS = 100_440  # 27.9 hours


def described(
    name: str, billable: int, status: str = "Completed", *, spot: bool = False, training: int | None = None
) -> dict[str, Any]:
    """What DescribeTrainingJob answers, as far as it is read."""
    return {
        "TrainingJobName": name,
        "TrainingJobArn": f"arn:aws:sagemaker:us-east-1:123456789012:training-job/{name}",
        "TrainingJobStatus": status,
        "ResourceConfig": {"InstanceType": "ml.g4dn.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        "EnableManagedSpotTraining": spot,
        "BillableTimeInSeconds": billable,
        "TrainingTimeInSeconds": billable if training is None else training,
    }


def study() -> list[dict[str, Any]]:
    """The 588 jobs of the original study, with its longest job and its sum, and other times made up."""
    archs = archs_in(ROOT / "reproduction/configurations.txt")
    names = [
        f"psa-{arch.replace('*', 'x')}-{mode}-2025-08-04-19-17-02-{at:03d}"
        for at, arch in enumerate(archs)
        for mode in MODES
    ]
    left = STUDY_SECONDS - LONGEST_SECONDS
    usual = left // (len(names) - 1)
    seconds = [LONGEST_SECONDS, *[usual] * (len(names) - 2), left - usual * (len(names) - 2)]
    return [described(name, each) for name, each in zip(names, seconds, strict=True)]


def log(horizon: int, trials: int, *, width: int = 200, start: float = 90.0) -> str:
    """The lines of a job's log: the terminal that it was written for was `width` wide."""
    lines = ["INFO     Model has 1,234 parameters."]
    for trial in range(trials):
        lkg = start + trial
        for loop in range(1, horizon + 1):
            current = start + trial + (0.5 * loop if loop % 2 else -1)
            lkg = max(lkg, current)
            lines += _broken(
                f"Loop {loop}/{horizon} (Global: {loop}) | Current: {current:.2f}% | LKG: {lkg:.2f}% | "
                f"Bounty: {lkg:.2f}%",
                width,
            )
        lines.append(f"[19:17:02] INFO     🧪 Final Test Accuracy: {lkg - 0.25:.2f}%    train.py:377")
    return "\n".join(lines) + "\n"


def _broken(text: str, width: int) -> list[str]:
    """As a terminal of that width shows it: time, level, the text broken between words, the source."""
    head, lines, line = "[19:17:02] INFO     ", [], ""
    for word in text.split(" "):
        if line and len(head) + len(line) + len(word) > width - 14:
            lines.append(line)
            line = ""
        line += f"{word} "
    lines.append(line)
    return [f"{head}{lines[0].ljust(40)} train.py:350", *(f"{' ' * len(head)}{each}" for each in lines[1:])]
