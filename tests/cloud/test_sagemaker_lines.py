"""Lines of training jobs: which are taken up, what is brought home and removed, and what it may cost."""

from __future__ import annotations

import dataclasses
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from archives import tarred
from helpers import trial

pytest.importorskip("boto3", reason="the extra aws is not installed")
pytest.importorskip("dotenv", reason="the extra aws is not installed")

from buckets import bucket
from managed_jobs import HOME, LOOPS, A, B, C, left, line, state, store

from cloud.aws.bucket import Bucket
from cloud.aws.pricing import price_table
from cloud.aws.settings import RUN_SECONDS_LIMIT, JobSettings, Settings
from cloud.sagemaker.budget import MIN_JOB_SECONDS, STARTUP_SECONDS, Budget
from cloud.sagemaker.estimate import CostEstimator
from cloud.sagemaker.jobs import managed_job as lines_module
from cloud.sagemaker.jobs.managed_job import partition_jobs, upload_inputs
from cloud.sagemaker.jobs.reconcile import reconcile
from cloud.sagemaker.planner import RequestPlanner
from cloud.sagemaker.request import SPOT_WAIT_SECONDS, build_request
from cloud.sagemaker.results import delete_if_complete, download_results, missing_weights
from cloud.workspace import NO_ID, read_workspace_id, workspace_id
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions, Job, plan_jobs
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.run import run_pack
from psa.specs.trial import Pack
from psa.storage.records.record import decode_record, encode_record
from psa.storage.store import Store

SETTINGS = Settings(
    "arn:aws:iam::123456789012:role/psa", "us-east-1", "a-bucket", "psa", ("ml.c5.xlarge",), True, 3600
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, bytes]:
    """What a container leaves that trained A and B, by name."""
    folder = tmp_path_factory.mktemp("container")
    run_pack(Pack(trials=(A, B), horizon=LOOPS), store(folder), Machine(data_dir, "cpu"))
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != ".trials.lock"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def record(each: Any) -> str:
    """The name of a trial's record."""
    return f"results/{each.id}.json"


def changed(content: bytes, **changes: Any) -> bytes:
    """A sound record that says something else; None takes a key away."""
    body = decode_record(content, "") | changes
    return encode_record({key: value for key, value in body.items() if value is not None})


# Which lines are taken up.


def test_a_line_of_just_what_is_asked_for_goes_on(tmp_path: Path) -> None:
    """With a job at work or without; one of other trials is nobody's concern."""
    exact, other = line(A, B), line(C)
    for live in ([], [exact.name]):
        found = reconcile([other, exact], live, store(tmp_path), {A.id: LOOPS, B.id: LOOPS})
        assert (found.known, found.running, found.past) == ([exact], [], [])


@pytest.mark.parametrize(
    "wanted", [{A.id: LOOPS}, {A.id: LOOPS + 3, B.id: LOOPS + 3}, {A.id: 1, B.id: 1, C.id: 1}]
)
def test_a_job_at_work_on_a_part_is_watched_and_without_one_the_line_is_past(
    wanted: dict[str, int], tmp_path: Path
) -> None:
    """A part of the grid, more loops, fewer loops."""
    there = line(A, B)
    found = reconcile([there], [there.name], store(tmp_path), wanted)
    assert (found.known, found.running, found.doubles) == ([], [there], [])
    found = reconcile([there], [], store(tmp_path), wanted)
    assert (found.taken, found.past) == ([], [there])


def test_no_two_lines_that_go_on_share_a_trial(tmp_path: Path) -> None:
    """Those at work come first; a second job upon the same trial is asked to stop."""
    wanted = {each.id: LOOPS for each in (A, B, C)}
    one, two, three = line(A, B), line(B, C), line(C)
    found = reconcile([one, two, three], [], store(tmp_path), wanted)
    assert len({each.id for known in found.known for each in known.trials}) == sum(
        len(known.trials) for known in found.known
    )
    assert len(found.known) + len(found.past) == 3
    found = reconcile([one, two, three], [two.name], store(tmp_path), wanted)
    assert (found.known, found.past) == ([two], sorted([one, three], key=lambda each: each.name))
    found = reconcile([one, two, three], [one.name, two.name], store(tmp_path), wanted)
    assert len(found.known) == len(found.doubles) == len(found.running) == 1
    assert found.past == [three]


def test_lines_do_not_outgrow_an_artifact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was asked for; every trial is in one line."""
    monkeypatch.setattr(lines_module, "MAX_TRIALS_PER_JOB", 4)
    packs = [
        Pack(trials=tuple(trial("1*4", seed=10 * at + each) for each in range(size)), horizon=1)
        for at, size in enumerate((3, 3, 2, 1, 6))
    ]
    made = partition_jobs(HOME, [Job(pack, 1.0) for pack in packs], 2)
    sizes = [len(each.trials) for each in made]
    assert sum(sizes) == 15
    assert all(size <= 4 or len(each.packs) == 1 for size, each in zip(sizes, made, strict=True))


# What comes home.


def test_all_that_a_line_left_comes_home_and_is_removed(tmp_path: Path, trained: dict[str, bytes]) -> None:
    """Records and weights; what the line was stays."""
    here, there = store(tmp_path), left(trained, line(A, B))
    for _ in upload_inputs(line(A, B), there, here):
        pass
    assert download_results(line(A, B), there, here) == {}
    assert line(A, B).pending(here) == []
    assert (tmp_path / state(A)).read_bytes() == trained[state(A)]
    assert delete_if_complete(line(A, B), there, here)
    assert list(there.tree("lines")) == [f"{HOME}-{line(A, B).name}/inputs/packs.json"]


def test_what_is_here_is_not_downloaded_again(
    tmp_path: Path, trained: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fetch skips finished trials with weights. Of a state with no more loops it reads only the header."""
    monkeypatch.setattr("cloud.results_sync.START_BYTES", 8_000)
    here, there = store(tmp_path), left(trained, line(A, B))
    download_results(line(A, B), there, here)
    there.client.taken.clear()
    download_results(line(A, B), there, here)
    assert there.client.taken == []
    here.record_path(B).unlink()
    download_results(line(A, B), there, here)
    assert [size for key, size in there.client.taken if key.endswith(state(B))] == [8_000]
    assert not any(A.id in key for key, _ in there.client.taken)
    assert line(A, B).pending(here) == []
    (tmp_path / state(B)).write_bytes(b"damaged")
    download_results(line(A, B), there, here)
    assert (tmp_path / state(B)).read_bytes() == trained[state(B)]


def test_of_a_line_only_its_own_trials_are_accepted(tmp_path: Path, trained: dict[str, bytes]) -> None:
    """Neither records nor states of others, nor one trial under the name of another."""
    strange = {
        record(B): trained[record(A)],
        f"results/{B.id}.machine.json": b"{}",
        state(B): trained[state(A)],
    }
    here = store(tmp_path)
    download_results(line(A), left(trained, line(A)), here)
    assert here.progress([A, B], LOOPS).pending == [B]
    assert not (tmp_path / state(B)).exists()
    download_results(line(B), left(strange, line(B)), here)
    assert here.progress([B], LOOPS).pending == [B]
    assert not (tmp_path / state(B)).exists()


@pytest.mark.parametrize(
    "change", [{"spec": None}, {"spec": {}}, {"loops": None}, {"history": None}, {"finals": 3}]
)
def test_a_record_that_is_none_stops_its_trial_alone(
    change: dict[str, Any], tmp_path: Path, trained: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Named in one warning; the other trial comes home."""
    here = store(tmp_path)
    there = left(trained | {record(A): changed(trained[record(A)], **change)}, line(A, B))
    assert download_results(line(A, B), there, here) == {}
    assert line(A, B).pending(here) == [A]
    assert [A.id in entry.getMessage() for entry in caplog.records] == [True]


def test_a_record_that_differs_from_ours_is_told(
    tmp_path: Path, trained: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Ours stays; why is returned, since no training will mend it."""
    here = store(tmp_path)
    ours = decode_record(trained[record(A)], "")
    shorter = {key: values[:1] for key, values in ours["history"].items()}
    ours |= {"loops": 1, "history": shorter | {"correct": [9]}}
    here.write(A, ours, {})
    refused = download_results(line(A, B), left(trained, line(A, B)), here)
    assert list(refused) == [A.id]
    assert "differs" in refused[A.id]
    assert line(A, B).pending(here) == [A]
    assert len(caplog.records) == 1


def test_a_damaged_record_here_is_named_and_ends_nothing(
    tmp_path: Path, trained: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Its trial is left out; what is in the bucket stays there for it."""
    here = store(tmp_path)
    (tmp_path / record(A)).parent.mkdir(parents=True)
    (tmp_path / record(A)).write_bytes(b"{}")
    assert line(A, B).pending(here) == line(A, B).pending(here) == [B]
    there = left(trained, line(A, B))
    assert list(download_results(line(A, B), there, here)) == [A.id]
    assert line(A, B).pending(here) == []
    assert not delete_if_complete(line(A, B), there, here)
    assert there.read(f"{line(A, B).folder}/checkpoints/{state(A)}") is not None
    assert sum("left out" in entry.getMessage() for entry in caplog.records) == 1


def test_nothing_is_removed_while_weights_are_missing(
    tmp_path: Path, trained: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """A torn state is neither taken nor forgotten; a generation before it that is sound will do."""
    here = store(tmp_path)
    torn = {**trained, state(A): trained[state(A)][:-1]}
    torn.pop(f"models/{A.id}/lkg.previous.safetensors", None)
    there = left(torn, line(A, B))
    download_results(line(A, B), there, here)
    assert line(A, B).pending(here) == []
    assert missing_weights(line(A, B), here) == [A]
    assert not delete_if_complete(line(A, B), there, here)
    assert there.read(f"{line(A, B).folder}/checkpoints/{state(B)}") is not None
    assert A.id in caplog.records[-1].getMessage()
    assert B.id not in caplog.records[-1].getMessage()
    there.write(f"{line(A, B).folder}/checkpoints/models/{A.id}/lkg.previous.safetensors", trained[state(A)])
    assert delete_if_complete(line(A, B), there, here)
    assert missing_weights(line(A, B), here) == []
    assert not list(there.tree(line(A, B).folder))


def test_a_damaged_state_here_is_replaced_by_a_sound_one(
    tmp_path: Path, trained: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it had reached the same loop. It is set aside, not lost."""
    here, mine = store(tmp_path), line(A, B)
    download_results(mine, left(trained, mine), here)
    file = here.state_file(A)
    file.previous.unlink(missing_ok=True)
    file.path.write_bytes(trained[state(A)][:-3] + b"???")
    download_results(mine, left(trained, mine), here)
    assert file.path.read_bytes() == trained[state(A)]
    assert (file.path.parent / "lkg.damaged.safetensors").exists()
    there = left(trained, mine)
    assert delete_if_complete(mine, there, here)
    assert "neither" not in caplog.text


def test_what_the_checkpoints_lack_comes_from_an_artifact(tmp_path: Path, trained: dict[str, bytes]) -> None:
    """Of whichever attempt; records and weights."""
    here, there, mine = store(tmp_path), bucket(), line(A, B)
    for attempt, each in ((1, A), (2, B)):
        files = {name: body for name, body in trained.items() if each.id in name}
        there.write(f"{mine.folder}/output/{mine.job_name(attempt)}/output/model.tar.gz", tarred(files))
    there.write(f"{mine.folder}/output/{mine.job_name(3)}/output/model.tar.gz", b"no archive")
    assert download_results(mine, there, here) == {}
    assert (mine.pending(here), missing_weights(mine, here)) == ([], [])
    assert delete_if_complete(mine, there, here)


def test_a_bucket_that_fails_ends_the_taking(tmp_path: Path, trained: dict[str, bytes]) -> None:
    """It is no damage of a file."""

    class Failing(Bucket):
        def read(self, name: str) -> bytes | None:
            raise UserError("no network")

    there = left(trained, line(A))
    with pytest.raises(UserError, match="no network"):
        download_results(line(A), Failing(there.client, there.name, there.prefix), store(tmp_path))


# What it costs.


def test_a_budget_knows_earlier_jobs() -> None:
    """What they were billed, and the most that those at work may cost."""
    budget = Budget(1.0)
    said = {"TrainingJobName": "a", "TrainingJobStatus": "Completed", "BillableTimeInSeconds": 1800}
    at_work = {"TrainingJobStatus": "Stopping", "StoppingCondition": {"MaxRuntimeInSeconds": 900}}
    budget.charge(said, 1.0, watched=True)
    budget.charge(said | at_work | {"TrainingJobName": "b"}, 1.0, watched=True)
    assert (budget.spent, budget.reserved) == ({"a": 0.5}, {"b": 0.25})
    assert budget.allowed_seconds(1.0, 100_000) == 900
    budget.charge(said | at_work | {"TrainingJobName": "c"}, 1.0, watched=False)
    assert budget.allowed_seconds(1.0, 100_000) == 0
    budget.spend("b", 0.25)
    with pytest.raises(UserError, match=r"\$1\.00 spent"):
        budget.allowed_seconds(1.0, 100_000)
    budget.reserve("c", 0.1)
    assert (budget.spent, budget.reserved) == ({"a": 0.5, "b": 0.25}, {"c": 0.1})


def test_a_budget_pays_for_instances_that_are_kept() -> None:
    """Their seconds are billed as those of training: at most all that were asked for, then those used."""
    budget = Budget(1.0, keep_alive=600)
    assert budget.allowed_seconds(1.0, 100_000) == 3000
    kept = {"InstanceType": "ml.c5.xlarge", "KeepAlivePeriodInSeconds": 600}
    job = {"TrainingJobName": "a", "TrainingJobStatus": "InProgress", "ResourceConfig": kept}
    job |= {"StoppingCondition": {"MaxRuntimeInSeconds": 1200}}
    budget.charge(job, 1.0, watched=True)
    assert budget.reserved == {"a": 0.5}
    job |= {"TrainingJobStatus": "Completed", "BillableTimeInSeconds": 300}
    budget.charge(job | {"WarmPoolStatus": {"Status": "Available"}}, 1.0, watched=True)
    assert (budget.reserved, budget.spent) == ({}, {"a": 0.25})
    pool = {"Status": "Reused", "ResourceRetainedBillableTimeInSeconds": 60}
    budget.charge(job | {"WarmPoolStatus": pool}, 1.0, watched=True)
    assert budget.spent == {"a": 0.1}
    budget.charge(job, 1.0, watched=True)
    assert budget.spent == {"a": 300 / 3600}


def test_no_job_is_paid_for_that_can_only_start_up() -> None:
    """A short one that wants no more is."""
    assert MIN_JOB_SECONDS > STARTUP_SECONDS
    budget = Budget(200 / 3600)
    assert budget.allowed_seconds(1.0, 150) == 150
    with pytest.raises(UserError, match="--max-cost"):
        budget.allowed_seconds(1.0, 1000)
    assert budget.allowed_seconds(0.0, 1000) == 1000


def quotes(where: Store, limit: float | None = None, **changes: Any) -> CostEstimator:
    """Quotes of this machine for some settings."""
    costs = CostModel(where.models / "costs.json")
    return CostEstimator(price_table(), dataclasses.replace(SETTINGS, **changes), costs, where, limit)


def test_a_quote_is_of_what_is_left(tmp_path: Path, trained: dict[str, bytes]) -> None:
    """Loops that are here already cost nothing more."""
    here, mine = store(tmp_path), line(A, B, horizon=2 * LOOPS)
    whole = quotes(here).estimate(mine).seconds - STARTUP_SECONDS
    download_results(line(A, B), left(trained, line(A, B)), here)
    assert quotes(here).estimate(mine).seconds - STARTUP_SECONDS == pytest.approx(whole / 2)


def test_a_quote_includes_instances_that_are_kept(tmp_path: Path) -> None:
    """For the time that was asked for, after each job."""
    here, mine = store(tmp_path), line(A)
    kept = quotes(here, spot=False, jobs=JobSettings(keep_alive=3600))
    plain, longer = quotes(here, spot=False).estimate(mine), kept.estimate(mine)
    hour = kept.prices[0].cost(3600)
    assert (longer.seconds, longer.dollars) == (plain.seconds, pytest.approx(plain.dollars + hour))
    said = "\n".join(kept.describe([longer], 1))
    assert "included: 1 h 00 min per job for which its instance is kept" in said
    assert f": {longer.billed_seconds / 3600:.2f} instance-hours" in said


def test_prices_of_another_region_are_told_apart(tmp_path: Path) -> None:
    """Nothing is said where they are this region's."""
    here = store(tmp_path)
    assert quotes(here).region_notice == ""
    there = quotes(here, region="eu-west-1")
    assert "those of us-east-1, and jobs in eu-west-1" in "\n".join(
        there.describe([there.estimate(line(A))], 1)
    )


def test_what_is_spent_counts_towards_the_limit(tmp_path: Path) -> None:
    """Before anything new is submitted."""
    asked = quotes(store(tmp_path), limit=1.0)
    asked.check([asked.estimate(line(A))], spent=0.5)
    with pytest.raises(UserError, match=r"beside the \$1\.00 that are spent"):
        asked.check([asked.estimate(line(A))], spent=1.0)


@pytest.mark.parametrize(
    ("seconds", "wait"),
    [(3600, 3600 + SPOT_WAIT_SECONDS), (RUN_SECONDS_LIMIT - 60, RUN_SECONDS_LIMIT), (RUN_SECONDS_LIMIT,) * 2],
)
def test_spot_is_waited_for_some_hours(seconds: int, wait: int) -> None:
    """Beside the time of the run, and within what AWS allows."""
    code: Any = type("Code", (), {"folder": "code/x"})
    request = build_request(
        SETTINGS, line(A), 1, bucket(), code, instance="ml.c5.xlarge", gpu=False, seconds=seconds
    )
    assert request["StoppingCondition"] == {
        "MaxRuntimeInSeconds": seconds,
        "MaxWaitTimeInSeconds": wait,
    }


@pytest.mark.parametrize(
    ("device", "instances", "said"),
    [
        (
            "cuda",
            ("ml.g4dn.xlarge", "ml.c5.xlarge"),
            "--device must be available, got cuda: ml.c5.xlarge has none",
        ),
        ("cuda", ("ml.g4dn.xlarge",), ""),
        ("mps", ("ml.g4dn.xlarge",), "--device must be available, got mps: SageMaker has none"),
        (None, ("ml.c5.xlarge",), ""),
    ],
)
def test_a_device_that_an_instance_lacks_is_refused(
    device: Any, instances: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Before anything is paid."""
    found = dataclasses.replace(SETTINGS, instances=instances)
    here, costs = store(tmp_path), CostModel(tmp_path / "costs.json")
    planner = RequestPlanner(here, Machine(tmp_path, device), costs, BackendOptions(), found)
    if said:
        with pytest.raises(UserError, match=re.escape(said)):
            planner.check_device()
    else:
        planner.check_device()


def test_a_dry_run_names_no_folder(tmp_path: Path) -> None:
    """It shows a stand-in, says so, and writes nothing."""
    here, costs = store(tmp_path), CostModel(tmp_path / "costs.json")
    packs = [Pack(trials=(A, B), horizon=LOOPS)]
    said = list(
        RequestPlanner(here, Machine(tmp_path), costs, BackendOptions(), SETTINGS).preview(
            plan_jobs(packs, costs)
        )
    )
    assert f"psa-{NO_ID}-" in said[0]
    assert said[1].startswith(f"{NO_ID} in the names stands for")
    assert not list(tmp_path.iterdir())
    name = workspace_id(here.models)
    said = list(
        RequestPlanner(here, Machine(tmp_path), costs, BackendOptions(), SETTINGS).preview(
            plan_jobs(packs, costs)
        )
    )
    assert f"psa-{name}-" in said[0]
    assert NO_ID not in "".join(said)


def test_sweeps_that_start_at_once_have_one_name(tmp_path: Path) -> None:
    """With a name of its own, each would submit what the other has submitted."""
    together = threading.Barrier(8)

    def named(folder: Path) -> str:
        together.wait()
        return workspace_id(folder)

    with ThreadPoolExecutor(8) as pool:
        for number in range(20):
            folder = tmp_path / str(number)
            assert set(pool.map(named, [folder] * 8)) == {read_workspace_id(folder)}


def test_the_name_of_a_folder_is_checked(tmp_path: Path) -> None:
    """It goes into names of jobs and folders."""
    assert read_workspace_id(tmp_path) == NO_ID
    name = workspace_id(tmp_path)
    assert re.fullmatch("[0-9a-f]{8}", name)
    assert workspace_id(tmp_path) == read_workspace_id(tmp_path) == name
    (tmp_path / ".home").write_text(f"{name}\n")
    assert workspace_id(tmp_path) == name
    for wrong in (b"", b"../../up", b"0123ABCD", b"\xff" * 8, b"0123abcde"):
        (tmp_path / ".home").write_bytes(wrong)
        with pytest.raises(UserError, match=r"\.home must hold 8 hexadecimal digits"):
            workspace_id(tmp_path)
