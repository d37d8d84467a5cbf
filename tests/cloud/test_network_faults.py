"""AWS out of reach, in every way that its clients can say so: one line, and patience where it may pass."""

from __future__ import annotations

import datetime as dt
import inspect
import re
import string
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("boto3", reason="the extra aws is not installed")

import boto3.exceptions
from botocore import exceptions
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError
from managed_jobs import A, FakeJobBackend, left, line, state, store
from processes import tree
from proxy import Fault, Kind, Proxy, proxy
from s3 import BUCKET, s3_server
from urllib3.exceptions import HTTPError, IncompleteRead, ProtocolError, SSLError

from cloud.aws.account import Account
from cloud.aws.bucket import Bucket
from cloud.aws.errors import Unreachable, aws_error, aws_errors
from cloud.aws.training_jobs import TrainingJobs
from cloud.emulator.s3_server import ACCESS_KEY, REGION, S3, SECRET_KEY
from cloud.results_sync import sync_results
from cloud.retry import MAX_OUTAGE_SECONDS
from cloud.sagemaker.jobs import controller as watching
from cloud.sagemaker.jobs.controller import JobController
from cloud.sagemaker.results import download_results
from psa.core.errors import UserError
from psa.execution.machine import Machine
from psa.execution.worker.run import run_pack
from psa.specs.trial import Pack

TRANSIENT = (
    exceptions.HTTPClientError,
    exceptions.ConnectionError,
    exceptions.IncompleteReadError,
    exceptions.ChecksumError,
    exceptions.FlexibleChecksumError,
    exceptions.SSOError,
    exceptions.CredentialRetrievalError,
)


def subclasses(kind: type[BotoCoreError]) -> Iterator[type[BotoCoreError]]:
    """Yield a class and all that are derived from it."""
    yield kind
    for each in kind.__subclasses__():
        yield from subclasses(each)


def instance(kind: type[BotoCoreError]) -> BotoCoreError:
    """Return an exception as botocore would raise it: without an answer of AWS."""
    names = [name for _, name, _, _ in string.Formatter().parse(kind.fmt) if name]
    parameters = list(inspect.signature(kind).parameters.values())
    positional = [each for each in parameters if each.kind == each.POSITIONAL_OR_KEYWORD]
    required = {each.name: "x" for each in positional if each.default is each.empty}
    takes_all = any(each.kind == each.VAR_KEYWORD for each in parameters)
    return kind(**{**(dict.fromkeys(names, "x") if takes_all else {}), **required})


KINDS = sorted(set(subclasses(BotoCoreError)), key=lambda kind: f"{kind.__module__}.{kind.__name__}")
FURTHER = [ResponseParserError("no XML"), SSLError("bad MAC"), ProtocolError("x"), IncompleteRead(1, 2)]


class Broken:
    """A client whose every request, or the reading of its body, ends in an exception."""

    def __init__(self, error: Exception, body: bool = False) -> None:
        self.error, self.body = error, body

    def __getattr__(self, _operation: str) -> Any:
        return self._fail

    def get_paginator(self, _operation: str) -> Broken:
        return self

    def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
        yield self._fail()

    def get_object(self, **_: Any) -> dict[str, Any]:
        return {"Body": self, "ContentLength": 1} if self.body else self._fail()

    def _fail(self, *_: Any, **__: Any) -> Any:
        raise self.error


def requests(client: Broken) -> dict[str, Any]:
    """Return every place of cloud/ that asks AWS, by name, as a function without arguments."""
    bucket, jobs = Bucket(client, "a-bucket", "psa"), TrainingJobs(client)
    account = Account("us-east-1", "a-bucket", "psa", lambda _service: client)
    return {
        "check": bucket.check,
        "read": lambda: bucket.read("x"),
        "write": lambda: bucket.write("x", b""),
        "write new": lambda: bucket.write_new("x", b""),
        "folders": lambda: bucket.folders("x"),
        "tree": lambda: list(bucket.tree("x")),
        "remove": lambda: bucket.remove("x"),
        "jobs listed": lambda: jobs.list_jobs("x"),
        "job described": lambda: jobs.describe("x"),
        "job stopped": lambda: jobs.stop("x"),
        "names": lambda: account.job_names(lambda _: None),
        "keys": lambda: account.stored_job_names(lambda _: None),
        "fetched": lambda: account.bucket.read("x", 10),
    }


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_exception_of_the_client_is_one_line(kind: type[BotoCoreError]) -> None:
    """At every request; what may pass is Unreachable, so that a watch waits for it."""
    error = instance(kind)
    for request in requests(Broken(error)).values():
        with pytest.raises(UserError) as caught:
            request()
        assert isinstance(caught.value, Unreachable) or not isinstance(error, TRANSIENT)
        assert "\n" not in str(caught.value)
    if isinstance(error, TRANSIENT):
        assert TrainingJobs(Broken(error)).submit({"TrainingJobName": "x"}).kind == "throttled"


def test_the_class_tree_is_walked_to_its_leaves() -> None:
    """A tree without the kinds that were met would prove nothing."""
    assert {"ReadTimeoutError", "ConnectionClosedError", "ResponseStreamingError"} <= {
        kind.__name__ for kind in KINDS
    }
    assert len(KINDS) > 60


@pytest.mark.parametrize("error", FURTHER, ids=lambda error: type(error).__name__)
def test_what_the_layers_below_raise_is_transient(error: Exception) -> None:
    """A body is read past botocore, and its parser's error is not of its family."""
    for request in ("read", "fetched"):
        with pytest.raises(Unreachable):
            requests(Broken(error, body=isinstance(error, HTTPError)))[request]()


@pytest.mark.parametrize("request_", ["jobs listed", "job described", "names"])
def test_an_answer_that_is_not_amazons_is_not_taken_for_one(request_: str) -> None:
    """A proxy that asks to log in answers 200 to everything: no jobs would then be there."""

    class Proxied(Broken):
        def _fail(self, *_: Any, **__: Any) -> Any:
            return {"message": "<html>Please log in</html>"}

    with pytest.raises(Unreachable, match="a proxy or another server may have sent it"):
        requests(Proxied(ValueError()))[request_]()


@pytest.mark.parametrize("request_", ["jobs listed", "job described", "names", "keys", "tree", "folders"])
def test_an_answer_that_is_malformed_once_is_asked_for_again(request_: str) -> None:
    """An answer that is torn in its head looks whole to botocore, and empty."""
    whole = {"TrainingJobSummaries": [], "TrainingJobStatus": "Completed", "IsTruncated": False}
    answers = [{}, whole]

    class Torn(Broken):
        def _fail(self, *_: Any, **__: Any) -> Any:
            return answers.pop(0)

    requests(Torn(ValueError()))[request_]()
    assert not answers


def refused(code: str, message: str = "x", status: int = 400, hours: float = 0.0) -> ClientError:
    """Return a refusal of AWS, with its time."""
    date = dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)
    headers = {"date": date.strftime("%a, %d %b %Y %H:%M:%S GMT")}
    about: Any = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": message}, "ResponseMetadata": about}, "X")


# Made in the tests: their time is that of the answer.
@pytest.mark.parametrize(
    "error",
    [
        partial(refused, "RequestTimeTooSkewed", hours=1),
        partial(refused, "RequestExpired", hours=1),
        partial(
            refused,
            "InvalidSignatureException",
            "Signature expired: 20260101T000000Z is now earlier",
            hours=1,
        ),
        partial(refused, "SignatureDoesNotMatch", "Signature not yet current: 20260101T000000Z", hours=1),
        partial(refused, "403", "Forbidden", 403, hours=1),
    ],
    ids=lambda error: error.args[0],
)
def test_a_wrong_clock_is_called_that(error: Callable[[], ClientError]) -> None:
    """By how much, and what to do; an answer to HEAD has no words, only its time."""
    said = aws_error(error(), "bucket x cannot be used")
    assert isinstance(said, Unreachable)
    assert re.search(r"the clock of this machine is wrong \(3,[56]\d\d s behind AWS\)", said.message)
    assert "Set the clock" in said.hint


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (partial(refused, "403", "Forbidden", 403), False),
        (partial(refused, "SignatureDoesNotMatch", "The signature does not match"), False),
        (partial(refused, "AccessDenied", status=403), False),
        (partial(refused, "AccessDenied", status=403, hours=1), False),
        (partial(refused, "403", "Forbidden", 403, hours=0.2), False),
        (partial(refused, "RequestTimeout"), True),
        (partial(refused, "SlowDown", status=503), True),
        (partial(refused, "502", "Bad Gateway", 502), True),
        (partial(refused, "504", "Gateway Timeout", 504), True),
    ],
    ids=lambda case: case.args[0] if isinstance(case, partial) else str(case),
)
def test_what_passes_and_what_does_not(error: Callable[[], ClientError], passes: bool) -> None:
    """A refusal ends a watch at once; a fault of AWS's own is waited for."""
    assert isinstance(aws_error(error(), "x"), Unreachable) == passes


# A real network between boto3 and a real server.


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """Run one S3 server with an object of a megabyte."""
    with s3_server(tmp_path_factory.mktemp("s3")) as found:
        found.client().put_object(Bucket=BUCKET, Key="psa/x", Body=CONTENT)
        yield found


CONTENT = bytes(range(256)) * 4096
SESSION = boto3.session.Session(
    ACCESS_KEY, SECRET_KEY, region_name=REGION
)  # one: it reads AWS's models from disk


@pytest.fixture
def network(server: S3) -> Iterator[Proxy]:
    """Run a network of its own for each test."""
    with proxy(server.port) as found:
        yield found


def bucket(network: Proxy, seconds: float = 60.0) -> Bucket:
    """Return the bucket behind the network; its client tries nothing again and waits so many seconds."""
    client = SESSION.client(
        "s3",
        endpoint_url=network.endpoint,
        config=Config(
            proxies={},
            s3={"addressing_style": "path"},
            connect_timeout=seconds,  # counts for the answer to `Expect: 100-continue`, too
            read_timeout=seconds,
            retries={"total_max_attempts": 1},
        ),
    )
    return Bucket(client, BUCKET, "psa")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "after"),
    [
        *((kind, after) for kind in ("torn", "reset") for after in (0, 20, 500_000)),
        ("torn", 5_000),
        ("slow", 0),
        ("slow", 500_000),
    ],
)
def test_a_network_that_fails_in_an_answer(kind: Kind, after: int, network: Proxy) -> None:
    """Before its head, in it, and in the body; a body that breaks off once is read again."""
    network.always = Fault(kind, after)
    with pytest.raises(Unreachable, match="cannot be read"):
        bucket(network, 0.4).read("x")
    network.always = None
    assert bucket(network).read("x") == CONTENT
    if after > 1_000:
        network.faults.append(Fault(kind, after))
        assert bucket(network, 3.0).read("x") == CONTENT


@pytest.mark.parametrize("kind", ["torn", "reset", "slow"])
def test_a_network_that_fails_in_other_requests(kind: Kind, network: Proxy) -> None:
    """Lists, checks and writes."""
    network.always = Fault(kind, 30)
    broken = bucket(network, 0.4)
    with pytest.raises(Unreachable):
        list(broken.tree(""))
    network.always = Fault(kind, 5)
    for request in (broken.check, lambda: broken.write("y", b"y")):
        with pytest.raises(Unreachable):
            request()


# What a watch makes of it.


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a look follow the other at once."""
    for name in ("MIN_POLL_SECONDS", "MAX_POLL_SECONDS", "WAIT_TICK_SECONDS"):
        monkeypatch.setattr(watching, name, 0.0)


def lost(kind: type[BotoCoreError]) -> UserError:
    """Return an exception as the watch gets it."""
    with pytest.raises(UserError) as caught, aws_errors("AWS cannot be asked"):
        raise instance(kind)
    return caught.value


class Losing(FakeJobBackend):
    """A backend that AWS is lost sight of so many times at one of its questions."""

    question, times = "", 0
    kind: type[BotoCoreError] = exceptions.ReadTimeoutError

    def _ask(self, question: str) -> None:
        if question == self.question and self.times:
            self.times -= 1
            raise lost(self.kind)

    def submit(self, job_state: Any) -> Any:
        self._ask("submit")
        return super().submit(job_state)

    def list_jobs(self) -> Any:
        if self.asked:
            self._ask("listed")
        return super().list_jobs()

    def describe_job(self, name: str) -> Any:
        self._ask("described")
        return super().describe_job(name)

    def download(self, line: Any, job: str) -> Any:
        self._ask("home")
        return super().download(line, job)

    def delete_files(self, line: Any) -> None:
        self._ask("dropped")
        super().delete_files(line)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("question", ["submit", "listed", "described", "home"])
@pytest.mark.parametrize(
    "kind",
    [exceptions.ReadTimeoutError, exceptions.ConnectionClosedError, exceptions.ResponseStreamingError],
)
def test_a_watch_keeps_its_patience_at_every_question(
    question: str, kind: type[BotoCoreError], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It warns once, asks again, and submits no job twice."""
    backend = Losing(tmp_path)
    backend.question, backend.times, backend.kind = question, 5, kind
    backend.refused = {}
    events = list(JobController(backend, [line()], {}).events())
    assert backend.times == 0
    assert [event.kind for event in events if event.kind == "done"] == ["done"]
    assert sum("retrying, the" in entry.getMessage() for entry in caplog.records) == 1
    assert len({job for job, _ in backend.asked}) == len(backend.asked)


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize("question", ["submit", "listed"])
def test_patience_ends(question: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that is promised, and not before; with the reason."""
    backend = Losing(tmp_path)
    backend.question, backend.times = question, 10**9
    now = time.monotonic()
    clock = iter(now + 200.0 * tick for tick in range(10_000))
    monkeypatch.setattr(watching.time, "monotonic", lambda: next(clock))
    begun = next(clock)
    with pytest.raises(Unreachable, match="AWS cannot be asked"):
        list(JobController(backend, [line()], {}).events())
    assert next(clock) - begun > MAX_OUTAGE_SECONDS


@pytest.mark.usefixtures("no_waiting")
def test_a_line_that_is_at_home_is_done_though_it_cannot_be_removed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that could not be read stay in the bucket for the next fetch."""
    backend = Losing(tmp_path)
    backend.question, backend.times = "dropped", 1
    monkeypatch.setattr(JobController, "_pending", lambda *_: set())
    events = list(JobController(backend, [line()], {}).events())
    assert [event.kind for event in events if event.kind == "done"] == ["done"]
    assert any("psa fetch" in entry.getMessage() for entry in caplog.records)


# What it makes of single files.


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, bytes]:
    """Train one trial as a container does, and return its files by name."""
    folder = tmp_path_factory.mktemp("container")
    run_pack(Pack(trials=(A,), horizon=1), store(folder), Machine(data_dir, "cpu"))
    return {name: content for name, content in tree(folder).items() if A.id in name} | {
        f"results/{A.id}.machine.json": (folder / f"results/{A.id}.machine.json").read_bytes()
    }


def test_what_cannot_be_read_is_not_trained_again(tmp_path: Path, checkpoints: dict[str, bytes]) -> None:
    """Neither a state nor a record: a paid job would follow from a network that failed once."""
    there = left(checkpoints, line(A))
    for part in ("models/", "results/"):

        class Failing(Bucket):
            def read(self, name: str, part: str = part) -> bytes | None:
                if f"/{part}" in name:
                    raise Unreachable("no network")
                return super().read(name)

        with pytest.raises(Unreachable, match="no network"):
            download_results(line(A), Failing(there.client, there.name, there.prefix), store(tmp_path / part))


def test_an_object_that_vanished_is_not_called_damaged(
    tmp_path: Path, checkpoints: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """It was listed, and a rule of the bucket or another process has removed it since."""

    class Vanishing:
        uri = "s3://bucket/psa"

        def tree(self, _folder: str) -> Iterator[str]:
            yield from sorted(checkpoints)

        def read(self, _name: str) -> bytes | None:
            return None

        def read_start(self, _name: str, _count: int) -> bytes | None:
            return None

    assert sync_results(Vanishing(), "x", store(tmp_path), {A.id}) == {}
    said = [entry.getMessage() for entry in caplog.records]
    assert any(state(A) in each and "is missing" in each for each in said)
    assert not [each for each in said if "damaged" in each]


def test_an_object_that_is_not_removed_is_told() -> None:
    """S3 answers such a request with success and a list."""

    class Keeping(Broken):
        def get_paginator(self, _operation: str) -> Any:
            return self

        def paginate(self, **_: Any) -> Iterator[dict[str, Any]]:
            yield {"IsTruncated": False, "Contents": [{"Key": "psa/x/a", "Size": 1}]}

        def delete_objects(self, **_: Any) -> dict[str, Any]:
            return {"Errors": [{"Key": "psa/x/a", "Code": "AccessDenied", "Message": "no"}]}

    with pytest.raises(UserError, match="s3://a-bucket/psa/x/a cannot be removed: AccessDenied: no"):
        Bucket(Keeping(ValueError()), "a-bucket", "psa").remove("x")
