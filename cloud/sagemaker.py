"""The backend `sagemaker`: packs grouped into training jobs, watched, and brought home.

Everything is decided before anything is sent: `preview` shows each request, its hours, dollars and bytes, and
needs no network. A job's name follows from what it trains, so that submitting twice submits once.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

from cloud import artifact, settings
from cloud.bootstrap import PROGRESS
from cloud.bucket import Bucket
from cloud.budget import Budget
from cloud.code import NAME, Code, packed
from cloud.cost import Price, price_table
from cloud.homecoming import bring_home, records_from
from cloud.homes import home_of
from cloud.line import Line, job_parts, lay_in, lines_of, stored_lines, without
from cloud.quotes import START_SECONDS, Quotes
from cloud.request import DATA, check, request_of
from cloud.training_jobs import Answer, Status, TrainingJobs
from cloud.watch import Course, Watch, progress_in
from psa import fetch, leases
from psa.backend import Job, Where, jobs_of
from psa.cost import CostModel
from psa.errors import UserError
from psa.events import Event
from psa.machine import Machine, allow_open_files
from psa.sources import DATASETS
from psa.store import Store
from psa.trial import Pack, Trial
from psa.words import counted

logger = logging.getLogger(__name__)

JOB_SECONDS: Final = 4 * 3600.0  # of work in one job, where nobody says how many jobs there shall be
SLACK: Final = 2.0  # times the estimate that a job may take out of a budget


class SageMaker:
    """Training jobs of one account, region and bucket."""

    def __init__(self, store: Store, machine: Machine, costs: CostModel, where: Where) -> None:
        self.store, self.machine, self.costs, self.where = store, machine, costs, where
        found = settings.read()
        self.settings = found.with_spot(True) if where.spot else found
        self.quotes = Quotes(price_table(where.prices), self.settings, costs, where.max_cost)
        self.code: Code = packed()
        self.clients: dict[str, Any] = {}
        self.budget = Budget(where.max_cost)

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """What each pack takes on a core like one of this machine, the longest first."""
        return jobs_of(packs, self.costs)

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Each request, checked against AWS's own model, and what they are expected to take. Raises UserError
        for what AWS or the budget would refuse.
        """
        lines = self._lines(jobs)
        for line in lines:
            request = self._request(Course(line, attempt=1), self._longest(line))
            check(request)
            yield json.dumps(request)
        yield from self.quotes.said([self.quotes.of(line) for line in lines], len(self.code.content))

    def launch(self, jobs: Sequence[Job]) -> Generator[Event, None, None]:
        """Submit the jobs and watch them to their end; a tick comes several times a second. Closing it asks
        the jobs that are running to save and stop, unless they were to be left alone.
        """
        allow_open_files()  # a lease per trial
        trials = [trial for job in jobs for trial in job.pack.trials]
        with leases.held(self.store, trials) as got:
            if len(got) < len(trials):
                yield Event("taken", jobs[0].pack)
                return
            lines = self._prepared(jobs)
            watch = Watch(self, lines, len(self.quotes.prices), self.where.workers)
            yield Event("ready", jobs[0].pack, {"workers": self._cores(len(lines))})
            try:
                yield from watch.events(detach=self.where.detach)
            except GeneratorExit:
                self._stop(watch)
                raise
            except UserError as error:
                raise _going_on(error, watch) from None
            if self.where.detach:
                yield Event("detached", jobs[0].pack, {"said": _detached(watch)})

    def fetch(self) -> None:
        """Bring home whatever the jobs of this folder have left in the bucket so far."""
        for line in stored_lines(self.bucket, self.home_name):
            pending = line.pending(self.store)
            if pending and len(leases.free(self.store, pending)) == len(pending):
                bring_home(self.bucket, f"{line.folder}/checkpoints", self.store)

    def status(self) -> Iterator[str]:
        """The last job of each line that is not at home yet, and how far its packs are."""
        jobs = self.listed()
        for line in stored_lines(self.bucket, self.home_name):
            pending = line.pending(self.store)
            if pending:
                yield _how_far(line, len(pending), jobs, self.told(line, PROGRESS))

    # What the watch asks.

    def submit(self, course: Course) -> Answer:
        """Submit the present job of a course, for as long as the budget allows."""
        price = self._instance(course)
        seconds = self.budget.seconds(price.hourly, self._longest(course.line))
        if not seconds:
            return "full"
        if course.attempt > 1:  # it goes on from what is at home, should the bucket have lost it
            lay_in(course.line, self.bucket, self.store)
        request = self._request(course, seconds)
        check(request)
        answer = self.jobs.submit(request)
        if answer in ("submitted", "there"):
            self.budget.begun(course.job, price.dollars(seconds))
        return answer

    def listed(self) -> dict[str, Status]:
        """The jobs of this home, by name."""
        return self.jobs.listed(f"psa-{self.home_name}-")

    def described(self, name: str) -> dict[str, Any]:
        """All that is known of a job."""
        return self.jobs.described(name)

    def told(self, line: Line, name: str) -> bytes | None:
        """A file that the running job keeps beside its states."""
        return self.bucket.read(f"{line.folder}/checkpoints/{name}")

    def home(self, line: Line, job: str) -> None:
        """Bring home what a job has left: by its checkpoints, or its artifact where those are missing."""
        bring_home(self.bucket, f"{line.folder}/checkpoints", self.store)
        if line.pending(self.store):
            name = f"{line.folder}/output/{job}/output/model.tar.gz"
            content = self.bucket.read(name)
            if content is not None:
                where = self.bucket.under(name)
                try:
                    records_from(artifact.contents(content), where, self.store)
                except UserError as error:
                    logger.warning("%s", error.what)
        if self.where.max_cost is not None:
            said = self.described(job)
            price = self.quotes.price(said["ResourceConfig"]["InstanceType"])
            self.budget.ended(job, price.dollars(said.get("BillableTimeInSeconds", 0)))

    def dropped(self, line: Line) -> None:
        """Remove what a line held in the bucket; what it was stays, for the reports of costs."""
        for part in ("checkpoints", "output", "inputs/models"):
            self.bucket.remove(f"{line.folder}/{part}")

    # Parts.

    @property
    def bucket(self) -> Bucket:
        """Where everything lies."""
        return Bucket(self._client("s3"), self.settings.bucket, self.settings.prefix)

    @property
    def jobs(self) -> TrainingJobs:
        """The account's training jobs."""
        return TrainingJobs(self._client("sagemaker"))

    @property
    def home_name(self) -> str:
        """What tells this folder of states from all others."""
        return home_of(self.store.models)

    def _client(self, service: str) -> Any:
        if service not in self.clients:
            self.clients[service] = self.settings.client(service)
        return self.clients[service]

    def _lines(self, jobs: Sequence[Job]) -> list[Line]:
        """As many as were asked for, or as hold about four hours of work each, or half of what is allowed."""
        each = min(JOB_SECONDS, self.settings.max_run_seconds / 2) * self.quotes.prices[0].vcpus
        count = self.where.jobs or max(1, round(sum(job.seconds for job in jobs) / each))
        return lines_of(self.home_name, jobs, count)

    def _prepared(self, jobs: Sequence[Job]) -> list[Line]:
        """The lines that the bucket knows already, and new ones for the rest; all they need is uploaded."""
        self.bucket.check()
        wanted = {trial.id for job in jobs for trial in job.pack.trials}
        horizons = {trial.id: job.pack.horizon for job in jobs for trial in job.pack.trials}
        known = [
            line
            for line in stored_lines(self.bucket, self.home_name)
            if _is_wanted(line, line.pending(self.store), wanted, horizons)
        ]
        new = self._lines(rest) if (rest := without(jobs, known)) else []
        self.quotes.check([self.quotes.of(line) for line in (*known, *new)])
        self.bucket.write_new(f"{self.code.folder}/{NAME}", self.code.content)
        for name in sorted({trial.data.name for line in new for trial in line.trials}):
            for file, content in fetch.fetch(DATASETS[name], self.machine.data_dir).items():
                self.bucket.write_new(f"{DATA}/{name}/{file}", content)
        for line in (*known, *new):  # a state may have been mended here, or have got further elsewhere
            lay_in(line, self.bucket, self.store)
        return [*known, *new]

    def _instance(self, course: Course) -> Price:
        """The type that it is the turn of."""
        return self.quotes.prices[course.choice % len(self.quotes.prices)]

    def _longest(self, line: Line) -> int:
        """After how many seconds a job is stopped; with a budget sooner, so that one cannot eat it all."""
        longest = self.settings.max_run_seconds
        if self.where.max_cost is None:
            return longest
        return min(longest, int(SLACK * self.quotes.of(line).seconds + START_SECONDS))

    def _request(self, course: Course, seconds: int) -> dict[str, Any]:
        price = self._instance(course)
        # when no type has had spot capacity, the rest is trained on demand
        spot = self.settings.spot and course.choice < len(self.quotes.prices)
        return request_of(
            self.settings.with_spot(spot),
            course.line,
            course.attempt,
            self.bucket_name,
            self.code,
            instance=price.instance,
            gpu=price.gpus > 0,
            seconds=seconds,
            device=self.machine.device,
        )

    @property
    def bucket_name(self) -> Bucket:
        """The bucket without a client, for what needs its addresses alone."""
        return Bucket(None, self.settings.bucket, self.settings.prefix)

    def _cores(self, lines: int) -> int:
        return self.quotes.prices[0].vcpus * min(lines, self.where.workers or lines)

    def _stop(self, watch: Watch) -> None:
        """Ask the jobs to save and stop; what each has saved is gone on from by the next sweep."""
        if self.where.detach:
            return
        for course in watch.courses:
            if course.running:
                error = self.jobs.stop(course.job)
                if error is not None:
                    logger.warning("%s", error.what)


def _is_wanted(line: Line, pending: list[Trial], wanted: set[str], horizons: dict[str, int]) -> bool:
    """Whether a stored line trains nothing but what is asked for, as far as it is asked for."""
    asked = all(trial.id in wanted for trial in pending)
    same = all(
        horizons.get(trial.id) == pack.horizon
        for pack in line.packs.values()
        for trial in pack.trials
        if trial.id in wanted
    )
    return bool(pending) and asked and same


def _how_far(line: Line, pending: int, jobs: Mapping[str, Status], progress: bytes | None) -> str:
    names = sorted(name for name in jobs if (parts := job_parts(name)) and parts[1] == line.name)
    left = f"{pending:,} of {counted(len(line.trials), 'trial')} not at home"
    if not names:
        return f"{line.job(1)}: not submitted; {left}"
    status = jobs[names[-1]]
    said = status.status if status.over else f"{status.status}, {status.secondary}"
    loops = [last["loop"] for last in progress_in(progress).values()]
    horizon = max(pack.horizon for pack in line.packs.values())
    at = f", loop {min(loops)} to {max(loops)} of {horizon}" if loops and not status.over else ""
    return f"{names[-1]}: {said}{at}; {left}"


def _going_on(error: UserError, watch: Watch) -> UserError:
    """The same, with what must be known of jobs that this sweep leaves behind."""
    running = sum(course.running for course in watch.courses)
    if not running:
        return error
    said = (
        f"{counted(running, 'job')} may still be at work: the same command watches again, Ctrl-C there stops"
    )
    return UserError(error.what, f"{error.way_out}. {said}")


def _detached(watch: Watch) -> str:
    waiting = sum(not course.running for course in watch.courses)
    said = f"{counted(len(watch.courses) - waiting, 'job')} at work without this sweep"
    if waiting:
        said += f", {counted(waiting, 'job')} not submitted since the quota is reached"
    return f"{said}. The same command watches them and goes on; `psa fetch` brings home what is there."
