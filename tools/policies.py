"""Write the IAM policies of psa from the calls that it makes: `make policies`.

Every command that uses AWS runs against the emulator, which records the calls of the caller and of the role.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from cloud.emulator import Emulator, rehearsal
from cloud.emulator.services.policies import ApiCall, Authorizer

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "cloud/sagemaker/account_check/policies"
_PREFIX: Final = "psa-experiment"
_SECONDS: Final = 180.0
_INCOMPLETE: Final = 3  # the exit code of `psa status`
_TICK: Final = 0.1
_CONDITION: Final = {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}
_SWEEP: Final = ("reproduction/smoke.toml", "--backend", "sagemaker")
_OF_REGION: Final = "${REGION}:${ACCOUNT}"
# what a resource of a call is in a policy
_RESOURCES: Final = {
    r"arn:aws:sagemaker:.*:training-job/psa-.*": (
        f"arn:${{PARTITION}}:sagemaker:{_OF_REGION}:training-job/psa-*"
    ),
    rf"arn:aws:s3:::[^/]+/{_PREFIX}/.*": "arn:${PARTITION}:s3:::${BUCKET}/${PREFIX}/*",
    r"arn:aws:s3:::[^/]+": "arn:${PARTITION}:s3:::${BUCKET}",
    r"arn:aws:logs:.*:log-group:(/aws/sagemaker/TrainingJobs):\*": (
        "arn:${PARTITION}:logs:${REGION}:${ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:*"
    ),
    r"arn:aws:ecr:.*:repository/.*": "arn:${PARTITION}:ecr:*:*:repository/*",
    r"arn:aws:batch:.*:job-queue/.*": "arn:${PARTITION}:batch:${REGION}:${ACCOUNT}:job-queue/*",
    r"\*": "*",
}
_OWN_RESOURCES: Final = {
    "iam:PassRole": "${ROLE}",
    "iam:GetRole": "${ROLE}",
    "iam:SimulatePrincipalPolicy": "*",  # of the caller and of the role
}


def record_calls(folder: Path, data_dir: Path) -> set[ApiCall]:
    """Run all commands against an emulator. Return the calls that they and their jobs made."""
    authorizer = Authorizer()
    with rehearsal(folder / "stage", authorizer=authorizer) as stage:
        environment = {**stage.inherited(os.environ), "XDG_CONFIG_HOME": str(folder / "config")}
        exercise(stage, folder, data_dir, environment)
    return authorizer.calls


def exercise(stage: Emulator, folder: Path, data_dir: Path, environment: Mapping[str, str]) -> None:
    """Run every command that uses AWS, to its end. Raises CalledProcessError if one fails."""
    places = [f"--model-dir={folder / 'models'}", f"--results-dir={folder / 'results'}"]
    sweep = ["psa", "sweep", *_SWEEP, "seeds=0", *places, f"--data-dir={data_dir}"]
    grid = [*_SWEEP, "seeds=0", *places]
    _run(["psa", "check", "aws"], environment)
    _run(["psa", "prices", "refresh"], environment)
    _interrupted([*sweep, "meta_loops=200"], environment, stage)
    _run([*sweep, "meta_loops=1", "--detach"], environment)
    _run(["psa", "status", *grid, "meta_loops=1"], environment, incomplete=True)
    stage.wait(_SECONDS)
    _run(["psa", "fetch", _SWEEP[0], "seeds=0", "meta_loops=1", *places], environment)
    output = f"--output-file={folder / 'cost.json'}"
    _run(["sagemaker-cost-estimator", output], environment)
    _run(["sagemaker-estimate-storage"], environment)
    _run(["sagemaker-get-training-logs", f"--output-dir={folder / 'logs'}"], environment)


def _run(command: list[str], environment: Mapping[str, str], *, incomplete: bool = False) -> None:
    """Run a command. incomplete: it may also end with 3, as `psa status` of an incomplete grid does."""
    done = subprocess.run(
        _located(command), env=environment, cwd=ROOT, check=False, stdout=subprocess.DEVNULL
    )
    if not (incomplete and done.returncode == _INCOMPLETE):
        done.check_returncode()


def _located(command: list[str]) -> list[str]:
    """Return a command of this environment by its path, which may not be on PATH."""
    return [str(Path(sys.executable).with_name(command[0])), *command[1:]]


def _interrupted(command: list[str], environment: Mapping[str, str], stage: Emulator) -> None:
    """Run a sweep and stop it, and so its jobs, once they are running."""
    process = subprocess.Popen(_located(command), env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    until = time.monotonic() + _SECONDS
    while not stage.live and process.poll() is None and time.monotonic() < until:
        time.sleep(_TICK)
    process.send_signal(signal.SIGINT)
    process.wait(_SECONDS)
    stage.wait(_SECONDS)


def policy_of(calls: Iterable[ApiCall], principal: str) -> dict[str, Any]:
    """Return the least policy that allows the calls of a principal, by resource."""
    actions: dict[str, set[str]] = {}
    for call in calls:
        if call.principal == principal:
            actions.setdefault(_resource(call), set()).add(call.action)
    passed = actions.get("${ROLE}", set()) & {"iam:PassRole"}
    statements: list[dict[str, Any]] = [
        {"Effect": "Allow", "Action": sorted(found - passed), "Resource": resource}
        for resource, found in sorted(actions.items())
        if found - passed
    ]
    if passed:
        statements.append(
            {"Effect": "Allow", "Action": sorted(passed), "Resource": "${ROLE}", "Condition": _CONDITION}
        )
    return {"Version": "2012-10-17", "Statement": statements}


def _resource(call: ApiCall) -> str:
    if call.action in _OWN_RESOURCES:
        return _OWN_RESOURCES[call.action]
    for pattern, resource in _RESOURCES.items():
        if re.fullmatch(pattern, call.resource):
            return resource
    raise ValueError(f"no resource of a policy covers {call}")


def main() -> int:
    """Write both policies."""
    data_dir = Path(os.environ.get("PSA_DATA_DIR") or ROOT / "dataset")
    with tempfile.TemporaryDirectory() as made:
        calls = record_calls(Path(made), data_dir)
    for principal in ("caller", "role"):
        text = json.dumps(policy_of(calls, principal), indent=2) + "\n"
        (FOLDER / f"{principal}.json").write_text(text)
        print(f"{FOLDER / principal}.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
