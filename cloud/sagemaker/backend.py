"""The backend `sagemaker`: run packs in training jobs, watch the jobs, and download their results.

Everything is decided before anything is sent: `preview` shows each request with its hours, dollars and bytes,
and needs no network. A job's name is derived from what it trains, so that submitting twice submits once.
Settings of a submission are read only when something is submitted: read-only use needs no role.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from cloud.aws import account as accounts
from cloud.aws.bucket import Bucket
from cloud.aws.job_names import job_parts
from cloud.aws.training_jobs import SubmitResult, TrainingJobStatus
from cloud.sagemaker.budget import Budget
from cloud.sagemaker.container.entry import PROGRESS
from cloud.sagemaker.estimate import work_of
from cloud.sagemaker.jobs.controller import JobController
from cloud.sagemaker.jobs.course import JobState
from cloud.sagemaker.jobs.managed_job import (
    ManagedJob,
    last_attempts,
    list_managed_jobs,
    unfinished,
    upload_inputs,
    without,
)
from cloud.sagemaker.jobs.messages import (
    describe_job,
    detach_message,
    startup_notices,
    stop_message,
    with_running_jobs,
)
from cloud.sagemaker.jobs.reconcile import reconcile
from cloud.sagemaker.planner import RequestPlanner
from cloud.sagemaker.request import check_request
from cloud.sagemaker.results import delete_if_complete, download_results
from cloud.sagemaker.upload import uploaded
from cloud.workspace import workspace_id
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions, Job
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage import locks
from psa.storage.store import Store

logger = logging.getLogger(__name__)


class SageMakerBackend:
    """The training jobs of one account, region and bucket."""

    def __init__(self, store: Store, machine: Machine, costs: CostModel, where: BackendOptions) -> None:
        self.store, self.machine, self.costs, self.where = store, machine, costs, where
        self.account = accounts.open_account()
        self.budget = Budget(where.max_cost)
        self.wanted: dict[str, int] = {}  # the horizon of each requested trial, by id
        self.asked_to_stop = 0
        self.not_reached: list[str] = []  # jobs that keep running, since the request to stop failed

    @cached_property
    def offers(self) -> RequestPlanner:
        """The planner of requests and their cost. Raises UserError."""
        return RequestPlanner(self.store, self.machine, self.costs, self.where)

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """Return one job per pack, the longest first, with its remaining seconds on one core."""
        return work_of(packs, self.costs, self.store)

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield each request, validated against AWS's own model, and the estimated totals. Nothing is sent or
        written. Raises UserError for what AWS or the budget would refuse.
        """
        yield from self.offers.said(jobs)

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Submit the jobs and watch them to their end; a tick comes several times a second. Closing the
        generator asks running jobs to save and stop, unless `detach` is set.
        """
        trials = [trial for job in jobs for trial in job.pack.trials]
        with locks.lock_trials(self.store, trials) as got:
            if len(got) < len(trials):
                yield WorkerEvent("taken", jobs[0].pack)
                return
            while jobs:
                watch = yield from self._prepared(jobs)
                if watch is None:
                    return
                yield from self._watched(watch)
                # pending trials of lines that hold more than was requested go into new lines
                is_open = any(course.last for course in watch.courses) and not self.where.detach
                jobs = unfinished(jobs, self.store, watch.failed) if is_open else []

    def _watched(self, watch: JobController) -> Generator[WorkerEvent, None, None]:
        pack = watch.courses[0].pack
        yield WorkerEvent("ready", pack, {"workers": self.offers.cores(len(watch.courses))})
        try:
            yield from watch.events(detach=self.where.detach)
        except GeneratorExit:
            self._stop(watch)
            raise
        except UserError as error:
            raise with_running_jobs(error, watch) from None
        if self.where.detach:
            yield WorkerEvent("detached", pack, {"said": detach_message(watch)})

    @property
    def stopped(self) -> str:
        """A message about the jobs of a stopped sweep, which take a while to stop."""
        return stop_message(self.asked_to_stop, self.not_reached)

    def fetch(self) -> None:
        """Download all results of this workspace's jobs so far; delete completed lines from the bucket."""
        live: set[str] | None = None
        for line in list_managed_jobs(self.bucket, self.home_name):
            pending = line.pending(self.store)
            with locks.lock_trials(self.store, pending) as leased:
                if pending and len(leased) == len(pending):
                    download_results(line, self.bucket, self.store)
                    pending = line.pending(self.store)
            if not pending:
                live = self._live() if live is None else live
                if line.name not in live:
                    delete_if_complete(line, self.bucket, self.store)

    def status(self) -> Iterator[str]:
        """Yield a status line for the last job of each unfinished line, with the progress of its packs."""
        jobs = self.listed()
        for line in list_managed_jobs(self.bucket, self.home_name):
            pending = line.pending(self.store)
            if pending:
                yield describe_job(line, len(pending), jobs, self.told(line, PROGRESS))

    # The interface that the controller uses (JobBackend).

    def submit(self, course: JobState) -> SubmitResult:
        """Submit the present job of a line, as far as the budget allows."""
        price = self.offers.price(course)
        seconds = self.budget.seconds(price.hourly, self.offers.longest(course.line))
        if not seconds:
            return SubmitResult("unpaid")
        if course.attempt > 1:  # continue from the local states, in case the bucket has lost its own
            for _ in upload_inputs(course.line, self.bucket, self.store):
                pass
        request = self.offers.request(course, seconds)
        check_request(request)
        answer = self.account.jobs.submit(request)
        if answer.started:
            self.budget.begun(course.job, price.dollars(seconds))
        return answer

    def listed(self) -> dict[str, TrainingJobStatus]:
        """Return the jobs of this workspace, by name."""
        return self.account.jobs.list_jobs(f"psa-{self.home_name}-")

    def described(self, name: str) -> dict[str, Any]:
        """Return the full description of a job."""
        return self.account.jobs.describe(name)

    def told(self, line: ManagedJob, name: str) -> bytes | None:
        """Return a file that the running job keeps beside its states."""
        return self.bucket.read(f"{line.folder}/checkpoints/{name}")

    def home(self, line: ManagedJob, job: str) -> dict[str, str]:
        """Download the results of a job, except trials locked by other local processes. Return why some of
        them, by trial id, contradict the local ones.
        """
        refused = self._take_home(line)
        if self.where.max_cost is not None:
            self._book(self.described(job), watched=True)
        return refused

    def dropped(self, line: ManagedJob) -> None:
        """Delete a line's files from the bucket if all of its results are here."""
        delete_if_complete(line, self.bucket, self.store)

    # Parts.

    @property
    def bucket(self) -> Bucket:
        """The part of the bucket that holds all files."""
        return self.account.bucket

    @property
    def home_name(self) -> str:
        """The id of this workspace, which distinguishes its folder of states from others."""
        return workspace_id(self.store.models)

    def _live(self) -> set[str]:
        """Return the names of the lines that have a running job."""
        live = (job_parts(name) for name, status in self.listed().items() if not status.over)
        return {parts[1] for parts in live if parts}

    def _prepared(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, JobController | None]:
        """Reconcile stored lines with the jobs, plan new lines for the rest, and upload their inputs. Return
        the controller, or None if nothing is left to train after the downloads.
        """
        self.offers.check_device()
        self.bucket.check()
        tick = WorkerEvent("tick", jobs[0].pack)
        self.wanted = {trial.id: job.pack.horizon for job in jobs for trial in job.pack.trials}
        stored, live = list(list_managed_jobs(self.bucket, self.home_name)), self._live()
        found = reconcile(stored, live, self.store, self.wanted)
        for line in found.past:
            yield tick
            self._take_home(line)
            if not line.pending(self.store):
                delete_if_complete(line, self.bucket, self.store)
        rest = without(unfinished(jobs, self.store), found.taken)
        new = self.offers.lines(self.home_name, rest) if rest else []
        lines = [*found.taken, *new]
        if not lines:
            return None
        for _ in self._counted(stored, lines):
            yield tick
        if any(line.name not in live for line in lines):
            self.offers.check(lines, sum(self.budget.spent.values()))
        for said in startup_notices(found, self.offers.quotes.foreign if self.where.max_cost else ""):
            yield WorkerEvent("said", jobs[0].pack, {"said": said})
        upload = uploaded(
            [*found.known, *new], self.bucket, self.store, self.offers.code, self.machine.data_dir
        )
        for _ in upload:
            yield tick
        attempts = last_attempts(self.listed()) if found.doubles else {}
        for line in found.doubles:
            self._ask_to_stop(line.job(attempts[line.name]))
        return JobController(
            self,
            lines,
            self.wanted,
            choices=len(self.offers.quotes.prices),
            at_once=self.where.workers,
            last={line.name for line in found.running},
        )

    def _counted(self, stored: Sequence[ManagedJob], watched: Sequence[ManagedJob]) -> Iterator[str]:
        """Charge the budget with past jobs of these studies and the maximum cost of running ones. Yield each
        job's name.
        """
        if self.where.max_cost is None:
            return
        studies = {trial.study for line in watched for trial in line.trials}
        mine = {line.name for line in stored if any(trial.study in studies for trial in line.trials)}
        names = {line.name for line in watched}
        for job in self.listed():
            parts = job_parts(job)
            if parts is not None and parts[1] in mine:
                self._book(self.described(job), watched=parts[1] in names)
                yield job

    def _book(self, said: Mapping[str, Any], watched: bool) -> None:
        self.budget.charge(
            said, self.offers.quotes.price(said["ResourceConfig"]["InstanceType"]).hourly, watched
        )

    def _take_home(self, line: ManagedJob) -> dict[str, str]:
        others = [trial for trial in line.trials if trial.id not in self.wanted]
        with locks.lock_trials(self.store, others) as leased:
            ours = {trial.id for trial in leased} | self.wanted.keys()
            return download_results(line, self.bucket, self.store, ours)

    def _stop(self, watch: JobController) -> None:
        """Ask the jobs to save and stop; the next sweep continues from what they saved."""
        if self.where.detach:
            return
        for course in watch.courses:
            if course.running:
                self._ask_to_stop(course.job)

    def _ask_to_stop(self, job: str) -> None:
        try:
            self.asked_to_stop += self.account.jobs.stop(job)
        except UserError as error:
            self.not_reached.append(job)
            logger.warning("%s", error.message)
