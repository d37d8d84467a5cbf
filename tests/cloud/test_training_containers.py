"""Training containers in a rehearsal: they run the archive's code, need no network, and say why they fail."""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import tarred
from helpers import trial
from rehearsals import GROUP, Aws, staged

from cloud.aws import settings
from cloud.aws.bucket import Bucket
from cloud.sagemaker.container.code import ARCHIVE_NAME, CodeArchive, build_archive
from cloud.sagemaker.container.entry import FAILURES_FILE, PACKS_FILE
from cloud.sagemaker.container.images import container_target
from cloud.sagemaker.jobs.managed_job import ManagedJob, upload_inputs
from cloud.sagemaker.request import DATA, build_request
from psa.specs.trial import Pack
from psa.storage.store import Store

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("unshare"), reason="needs Linux's namespaces"
)
Files = dict[str, bytes]
# As it was: -P takes the current folder off the path, and nothing puts the code's folder on it.
OLD_START = """#!/bin/bash
set -e
exec python -P -m cloud.sagemaker.container.entry
"""


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    """A rehearsal whose containers reach no network."""
    with (
        staged(tmp_path_factory.mktemp("stage"), grace=1.0, no_network=True) as made,
        pytest.MonkeyPatch.context() as context,
    ):
        for name, value in made.stage.environment.items():
            context.setenv(name, value)
        yield made


def unpacked(code: CodeArchive) -> Files:
    """The files of the archive, as a container gets them."""
    with tarfile.open(fileobj=io.BytesIO(code.content)) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def code() -> CodeArchive:
    """The code of this checkout, packed once."""
    return build_archive()


def run(
    aws: Aws, number: int, content: bytes, packs: bytes = b"", **environment: str
) -> tuple[ManagedJob, dict[str, Any]]:
    """Run a job as a sweep would request it, with an archive of one's own; its line and its end."""
    place = settings.read_settings()
    bucket = Bucket(aws.s3, place.bucket, place.prefix)
    line = ManagedJob(f"{number:08x}", {"p0000": Pack(trials=(trial("1*4", batch_size=500),), horizon=1)})
    for _ in upload_inputs(line, bucket, Store(Path("nowhere/models"), Path("nowhere/results"))):
        pass
    if packs:
        bucket.write(f"{line.folder}/inputs/{PACKS_FILE}", packs)
    code = CodeArchive({"number": str(number).encode()}, container_target())
    bucket.write(f"{code.folder}/{ARCHIVE_NAME}", content)
    bucket.write(f"{DATA}/mark", b"")
    request = build_request(place, line, 1, bucket, code, instance="ml.c5.xlarge", gpu=False, seconds=100)
    aws.jobs.create_training_job(**request, **({"Environment": environment} if environment else {}))
    return line, aws.ended(request["TrainingJobName"])


def changed(name: str, body: str) -> Callable[[Files], bytes]:
    """The archive with another text for one of its files."""
    return lambda files: tarred({**files, name: body.encode()})


def without(name: str) -> Callable[[Files], bytes]:
    """The archive less a file."""
    return lambda files: tarred({each: body for each, body in files.items() if each != name})


FAILING = {
    "no archive": (lambda files: b"nonsense", {}, "not in gzip format"),
    "no Python": (tarred, {"PATH": "/bin"}, "python: command not found"),
    "a package is missing": (without("psa/core/errors.py"), {}, "No module named 'psa.core.errors'"),
    "psa is missing": (
        lambda files: tarred({each: body for each, body in files.items() if not each.startswith("psa/")}),
        {},
        "No module named 'psa'",
    ),
    "what the image lacks is missing": (
        lambda files: tarred({each: body for each, body in files.items() if "safetensors" not in each}),
        {},
        "No module named 'safetensors'",
    ),
    "an exception": (
        changed("cloud/sagemaker/container/entry.py", "raise RuntimeError('lost')"),
        {},
        "RuntimeError: lost",
    ),
    "a signal": (
        changed("cloud/sagemaker/container/entry.py", "import os; os.kill(os.getpid(), 9)"),
        {},
        "killed by signal SIGKILL, most often for lack of memory",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", FAILING)
def test_a_container_that_fails_says_why(kind: str, aws: Aws, code: CodeArchive) -> None:
    """Whatever fails, at whatever moment: its last words are the job's FailureReason, and are logged."""
    change, environment, reason = FAILING[kind]
    _, job = run(aws, list(FAILING).index(kind), change(unpacked(code)), **environment)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith("AlgorithmError: ")
    assert reason in job["FailureReason"], job["FailureReason"]
    if kind != "a signal":
        assert reason in "\n".join(aws.printed(job["TrainingJobName"]))


def test_the_entry_as_it_was_finds_no_code(aws: Aws, code: CodeArchive) -> None:
    """It did in containers that had psa installed, and would not have done so on AWS."""
    _, job = run(aws, 100, changed("start.sh", OLD_START)(unpacked(code)))
    assert job["FailureReason"] == "AlgorithmError: , exit code: 1"
    assert "No module named 'cloud'" in "\n".join(aws.printed(job["TrainingJobName"]))


@pytest.mark.slow
def test_the_log_names_the_archive_by_its_digest(aws: Aws, code: CodeArchive) -> None:
    """What ran is what was packed here; a mistake that ends it is one line."""
    line, job = run(aws, 101, code.content, b"[]")
    assert f"INFO code {code.digest} in /opt/ml/code" in aws.printed(line.job_name(1))
    mistake = "/opt/ml/input/data/line/packs.json must hold packs, got none. Submit the sweep again"
    assert job["FailureReason"] == f"AlgorithmError: {mistake}, exit code: 2"


def test_a_container_reaches_no_network_and_no_psa(aws: Aws) -> None:
    """What a rehearsal promises of it."""
    script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' '; python -P -c 'import psa'"
    assert aws.run("bare", script)["TrainingJobStatus"] == "Failed"
    said = aws.printed("bare")
    assert said[0] == "lo"
    assert said[-1] == "ModuleNotFoundError: No module named 'psa'"
    assert not [interface for interface in said if interface.startswith(("eth", "en"))]


@pytest.mark.slow
def test_a_pack_whose_workers_are_killed_fails_with_that_reason(aws: Aws, code: CodeArchive) -> None:
    """As for lack of memory: the entry lives, and tells the watcher through the checkpoints."""
    body = "import os\n\nos.kill(os.getpid(), 9)\n"
    line, _ = run(aws, 102, changed("psa/execution/worker/__main__.py", body)(unpacked(code)))
    told = json.loads(aws.get(f"{settings.read_settings().prefix}/{line.folder}/checkpoints/{FAILURES_FILE}"))
    assert told["job"] == line.job_name(1)
    (reason,) = told["trials"].values()
    assert (
        reason
        == "a worker ended with code -9 (killed, most often for lack of memory), 3 times over this pack"
    )


def test_the_watcher_names_the_group_and_the_stream_as_they_are() -> None:
    """What its message says can be typed into CloudWatch."""
    from cloud.sagemaker.jobs.controller import log_stream_of

    assert log_stream_of("a-job", {}) == f"log stream a-job/algo-1-* in {GROUP}"
    queued = {"TrainingJobArn": "arn:aws:sagemaker:us-east-1:1:training-job/AWSBatcha-job0a"}
    assert log_stream_of("a-job", queued) == f"log stream AWSBatcha-job0a/algo-1-* in {GROUP}"
