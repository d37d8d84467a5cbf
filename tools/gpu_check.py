"""Check psa on a GPU: its results, its speed, and the hours and dollars of the published study.

    python tools/gpu_check.py [--device cuda|mps|cpu] [--output DIR] [--seconds N] [--data-dir DIR]
                              [--architectures N]

Needs a checkout, torch, numpy, pydantic and safetensors; no network, and no other package. Without
MNIST in the data folder it makes samples up. Writes gpu.json and gpu.md. Exits with 1 if a check has failed.
On MPS only the checks run, on the CPU a short form of everything.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STARTED = time.monotonic()  # before torch is loaded, which may take a while
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tools")]

import torch  # noqa: E402 - after the clock and the paths are set
from gpu import correctness, report  # noqa: E402
from gpu.benchmark import run_benchmark  # noqa: E402
from gpu.checks import CheckResult, run_checks  # noqa: E402
from gpu.recorded import recorded_steps  # noqa: E402
from gpu.setting import Deadline, Setting, load_data  # noqa: E402

from psa.core.errors import EXIT_USER_ERROR, UserError  # noqa: E402
from psa.execution.machine import Machine  # noqa: E402

LIMIT = 330.0
CHECKS = (
    ("dropout masks", correctness.dropout_masks),
    ("engine and reference", correctness.engine_beside_twin),
    ("resume", correctness.resume),
    ("packs", correctness.packs),
    ("recorded steps", recorded_steps),
    ("closeness to the CPU", correctness.closeness),
    ("hidden-state memory", correctness.hidden_memory),
)
CHECKS_SHARE = 0.5  # of the time at most: a check that has not ended then has failed


def main(arguments: list[str] | None = None) -> int:
    """Run the checks and the benchmark. Return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return check_device(options, Deadline(STARTED + options.seconds))
    except UserError as error:
        print(f"gpu_check: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR


def _parser() -> argparse.ArgumentParser:
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary, prog="gpu_check.py")
    parser.add_argument("--device", choices=["cuda", "mps", "cpu"], help="default: the best one there is")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "results/gpu", help="folder of gpu.json and gpu.md"
    )
    parser.add_argument(
        "--seconds", type=float, default=LIMIT, help=f"time for everything [default: {LIMIT:.0f}]"
    )
    parser.add_argument("--data-dir", type=Path, default=ROOT / "dataset", help="folder that may hold MNIST")
    parser.add_argument("--architectures", type=int, help="measure at most this many [default: all]")
    return parser


def check_device(options: argparse.Namespace, deadline: Deadline) -> int:
    """Check a device until the deadline, and write what was found. Return the exit code."""
    device = Machine(device=options.device).prepare()
    splits, data = load_data(options.data_dir)
    half = Deadline(time.monotonic() + CHECKS_SHARE * deadline.left())
    checks = run_checks(Setting(device, splits, data, half), CHECKS)
    print("\n".join(report.check_lines(checks)), flush=True)
    passed = _write(options, device, data, checks, None)  # not lost if the benchmark fails
    if device.type != "mps":
        benchmark = run_benchmark(device, splits, deadline, options.architectures)
        print("\n" + "\n".join(report.speed_lines(benchmark)))
        _write(options, device, data, checks, benchmark)
    print(f"\nwrote gpu.json and gpu.md to {options.output}")
    return 0 if passed else 1


def _write(
    options: argparse.Namespace,
    device: torch.device,
    data: str,
    checks: Sequence[CheckResult],
    benchmark: dict[str, Any] | None,
) -> bool:
    """Write gpu.json and gpu.md. Return True if no check has failed."""
    facts = report.facts_of(device, data, options.seconds, time.monotonic() - STARTED)
    body = report.as_dict(checks, facts, benchmark)
    report.write(options.output, body, checks)
    return bool(body["passed"])


if __name__ == "__main__":
    sys.exit(main())
