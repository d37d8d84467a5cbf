"""The backend `sagemaker`: run packs in training jobs, watch the jobs, and download their results.

Everything is decided before anything is sent: `preview` shows each request with its hours, dollars and bytes,
and needs no network. A job's name is derived from what it trains, so that submitting twice submits once.
Settings of a submission are read only when something is submitted: read-only use needs no role.
"""

from __future__ import annotations

import functools
from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

from cloud.aws import account as accounts
from cloud.aws import settings
from cloud.aws.bucket import Bucket
from cloud.aws.job_names import parse_job_name
from cloud.aws.training_jobs import SubmitResult, TrainingJobStatus
from cloud.sagemaker.container.entry import PROGRESS_FILE
from cloud.sagemaker.estimate import plan_remaining_jobs
from cloud.sagemaker.jobs.controller import JobController
from cloud.sagemaker.jobs.job_state import JobState
from cloud.sagemaker.jobs.managed_job import (
    ManagedJob,
    last_attempts,
    list_managed_jobs,
    unfinished_jobs,
    upload_inputs,
    without_trials_of,
)
from cloud.sagemaker.jobs.messages import (
    describe_job,
    detach_message,
    startup_notices,
    with_running_jobs,
)
from cloud.sagemaker.jobs.reconcile import reconcile
from cloud.sagemaker.jobs.stop import JobStop
from cloud.sagemaker.jobs.workspace_jobs import WorkspaceJobs
from cloud.sagemaker.planner import RequestPlanner
from cloud.sagemaker.request import check_request
from cloud.sagemaker.results import delete_if_complete, download_results, fetch_results
from cloud.sagemaker.upload import upload_sweep_inputs
from cloud.workspace import workspace_id
from psa.core.errors import UserError
from psa.execution.backend import BackendOptions, Job
from psa.execution.cost_model import CostModel
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent
from psa.specs.trial import Pack
from psa.storage import locks
from psa.storage.store import Store


class SageMakerBackend:
    """The training jobs of one account, region and bucket."""

    def __init__(self, store: Store, machine: Machine, costs: CostModel, options: BackendOptions) -> None:
        self.store, self.machine, self.costs, self.options = store, machine, costs, options
        self.horizons: dict[str, int] = {}  # the horizon of each requested trial, by id
        self.job_stop = JobStop()

    @cached_property
    def account(self) -> accounts.Account:
        """The account of the settings, opened at its first use: estimates need none. Raises UserError."""
        return accounts.open_account()

    @cached_property
    def planner(self) -> RequestPlanner:
        """The planner of requests and their cost. Raises UserError."""
        return self._planner(settings.read_settings())

    @cached_property
    def training_jobs(self) -> WorkspaceJobs:
        """The jobs of this workspace; new ones go into the queue of --job-queue or SAGEMAKER_JOB_QUEUE."""
        jobs = settings.read_partial_settings().jobs.overridden(vars(self.options))
        has_limit = self.options.max_cost is not None
        return WorkspaceJobs(self.account, jobs, self.store.models, has_limit=has_limit)

    def _planner(self, found: settings.Settings) -> RequestPlanner:
        return RequestPlanner(self.store, self.machine, self.costs, self.options, found)

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """Return one job per pack, the longest first, with its remaining seconds on one core."""
        return plan_remaining_jobs(packs, self.costs, self.store)

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield each request, validated against AWS's own model, and the estimated totals. Nothing is sent or
        written. Raises UserError for what AWS or the budget would refuse.
        """
        yield from self._planner(settings.read_partial_settings()).preview(jobs)

    def estimate(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield the hours, dollars and bytes of the jobs, and the totals. Raises UserError like `preview`."""
        yield from self._planner(settings.read_partial_settings()).summary(jobs)

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Submit the jobs and watch them to their end; a tick comes several times a second. Closing the
        generator asks running jobs to save and stop, unless they are to be left running.
        """
        trials = [trial for job in jobs for trial in job.pack.trials]
        with locks.lock_trials(self.store, trials) as got:
            if len(got) < len(trials):
                yield WorkerEvent("taken", jobs[0].pack)
                return
            while jobs:
                controller = yield from self._prepared(jobs)
                if controller is None:
                    return
                yield from self._watched(controller)
                # pending trials of managed jobs that hold more than was requested go into new managed jobs
                is_open = any(state.last for state in controller.states) and not self.options.detach
                jobs = unfinished_jobs(jobs, self.store, controller.failed) if is_open else []

    def _watched(self, controller: JobController) -> Generator[WorkerEvent, None, None]:
        pack = controller.states[0].pack
        yield WorkerEvent("ready", pack, {"workers": self.planner.cores(len(controller.states))})
        try:
            yield from controller.events(detach=self.options.detach)
        except GeneratorExit:
            if not self.options.detach:
                self.job_stop.end(controller.states, self.training_jobs)
            raise
        except UserError as error:
            raise with_running_jobs(error, controller) from None
        if self.options.detach:
            yield WorkerEvent("detached", pack, {"message": detach_message(controller)})

    @property
    def stopped(self) -> str:
        """A message about the jobs of a stopped sweep, which take a while to stop."""
        return self.job_stop.message

    def leave_running(self) -> None:
        """Let the jobs continue when the generator of `launch` is closed."""
        self.job_stop.leaves = True

    def fetch(self) -> None:
        """Download the results of this workspace so far; delete completed managed jobs from the bucket."""
        stored = list_managed_jobs(self.bucket, self.workspace)
        fetch_results(stored, self.bucket, self.store, functools.cache(self._live))

    def status(self) -> Iterator[str]:
        """Yield the status of the last training job of each unfinished managed job, one line each."""
        jobs = self.list_jobs()
        for managed in list_managed_jobs(self.bucket, self.workspace):
            pending = managed.pending(self.store)
            if pending:
                yield describe_job(managed, len(pending), jobs, self.read_file(managed, PROGRESS_FILE))

    # The interface that the controller uses (JobBackend).

    def submit(self, state: JobState) -> SubmitResult:
        """Submit the present training job of a managed job, as far as the budget allows."""
        price = self.planner.price(state)
        seconds = self.planner.budget.allowed_seconds(
            price.cost(3600), self.planner.max_seconds(state.managed_job)
        )
        if not seconds:
            return SubmitResult("budget")
        if state.attempt > 1:  # continue from the local states, in case the bucket has lost its own
            for _ in upload_inputs(state.managed_job, self.bucket, self.store):
                pass
        request = self.planner.request(state, seconds)
        check_request(request)
        answer = self.training_jobs.submit(request)
        if answer.started:
            self.planner.budget.reserve(state.job_name, price.cost(seconds + self.planner.budget.keep_alive))
        return answer

    def list_jobs(self) -> dict[str, TrainingJobStatus]:
        """Return the jobs of this workspace, by name."""
        return self.training_jobs.list_jobs()

    def describe_job(self, name: str) -> dict[str, Any]:
        """Return the full description of a job."""
        return self.training_jobs.describe(name)

    def stop_job(self, name: str) -> bool:
        """Ask a job to stop. Return False if it has already ended."""
        return self.training_jobs.stop(name)

    def read_file(self, managed: ManagedJob, name: str) -> bytes | None:
        """Return a file that the running job keeps beside its states."""
        return self.bucket.read(f"{managed.folder}/checkpoints/{name}")

    def download(self, managed: ManagedJob, job: str) -> dict[str, str]:
        """Download a job's results, except locked trials. Return why some contradict local ones, by id."""
        refused = self._download(managed)
        if self.options.max_cost is not None:
            self._book(self.describe_job(job), watched=True)
        return refused

    def delete_files(self, managed: ManagedJob) -> None:
        """Delete a managed job's files from the bucket if all of its results are here."""
        delete_if_complete(managed, self.bucket, self.store)

    # Parts.

    @property
    def bucket(self) -> Bucket:
        """The part of the bucket that holds all files."""
        return self.account.bucket

    @property
    def workspace(self) -> str:
        """The id of this workspace, which distinguishes its folder of states from others."""
        return workspace_id(self.store.models)

    def _live(self) -> set[str]:
        return self.training_jobs.live_managed_jobs()

    def _prepared(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, JobController | None]:
        """Reconcile stored managed jobs with the jobs, plan new managed jobs for the rest, and upload their
        inputs. Return the controller, or None if nothing is left to train after the downloads.
        """
        self.planner.check_device()
        self.bucket.check()
        tick = WorkerEvent("tick", jobs[0].pack)
        self.horizons = {trial.id: job.pack.horizon for job in jobs for trial in job.pack.trials}
        stored, live = list(list_managed_jobs(self.bucket, self.workspace)), self._live()
        reconciled = reconcile(stored, live, self.store, self.horizons)
        for managed in reconciled.past:
            yield tick
            self._download(managed)
            if not managed.pending(self.store):
                delete_if_complete(managed, self.bucket, self.store)
        rest = without_trials_of(unfinished_jobs(jobs, self.store), reconciled.taken)
        new = self.planner.managed_jobs(self.workspace, rest) if rest else []
        managed_jobs = [*reconciled.taken, *new]
        if not managed_jobs:
            return None
        for _ in self._counted(stored, managed_jobs):
            yield tick
        if any(managed.name not in live for managed in managed_jobs):
            self.planner.check(managed_jobs, sum(self.planner.budget.spent.values()))
        for text in startup_notices(
            reconciled, self.planner.estimator.region_notice if self.options.max_cost else ""
        ):
            yield WorkerEvent("message", jobs[0].pack, {"message": text})
        inputs = [*reconciled.known, *new]
        upload = upload_sweep_inputs(
            inputs, live, self.bucket, self.store, self.planner.code, self.machine.data_dir
        )
        for _ in upload:
            yield tick
        attempts = last_attempts(self.list_jobs()) if reconciled.doubles else {}
        for managed in reconciled.doubles:
            self.job_stop.ask(managed.job_name(attempts[managed.name]), self.training_jobs)
        return JobController(
            self,
            managed_jobs,
            self.horizons,
            choices=len(self.planner.estimator.prices),
            at_once=self.options.workers,
            last={managed.name for managed in reconciled.running},
        )

    def _counted(self, stored: Sequence[ManagedJob], watched: Sequence[ManagedJob]) -> Iterator[str]:
        """Charge the budget with earlier jobs of these studies. Yield the name of each job."""
        if self.options.max_cost is None:
            return
        studies = {trial.study for managed in watched for trial in managed.trials}
        mine = {managed.name for managed in stored if any(trial.study in studies for trial in managed.trials)}
        names = {managed.name for managed in watched}
        for job in self.list_jobs():
            parts = parse_job_name(job)
            if parts is not None and parts.managed_job in mine:
                self._book(self.describe_job(job), watched=parts.managed_job in names)
                yield job

    def _book(self, description: Mapping[str, Any], watched: bool) -> None:
        price = self.planner.estimator.price(description["ResourceConfig"]["InstanceType"])
        self.planner.budget.charge(description, price.cost(3600), watched)

    def _download(self, managed: ManagedJob) -> dict[str, str]:
        others = [trial for trial in managed.trials if trial.id not in self.horizons]
        with locks.lock_trials(self.store, others) as leased:
            ours = {trial.id for trial in leased} | self.horizons.keys()
            return download_results(managed, self.bucket, self.store, ours)
