"""The stop of a sweep's jobs, or the decision to leave them running."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, Protocol

from cloud.sagemaker.jobs.job_state import JobState
from psa.core.errors import UserError
from psa.core.formatting import join_names, pluralize

logger = logging.getLogger(__name__)

_SHOWN: Final = 5  # jobs named in one message


class JobStopper(Protocol):
    """A client that asks jobs to stop."""

    def stop(self, name: str) -> bool:
        """Ask a job to save and stop. Return False if it has ended already. Raises UserError."""


class JobStop:
    """The stop of the jobs of a sweep. leaves: jobs continue when the sweep stops watching them."""

    def __init__(self) -> None:
        self.leaves = False
        self._asked = self._left = 0
        self._not_reached: list[str] = []  # jobs that keep running, since the request to stop failed

    def end(self, states: Sequence[JobState], client: JobStopper) -> None:
        """Ask the running jobs to save and stop, or leave them running."""
        running = [state.job_name for state in states if state.running]
        if self.leaves:
            self._left = len(running)
            return
        for name in running:
            self.ask(name, client)

    def ask(self, name: str, client: JobStopper) -> None:
        """Ask a job to save and stop; the next sweep continues from what it has saved."""
        try:
            self._asked += client.stop(name)
        except UserError as error:
            self._not_reached.append(name)
            logger.warning("%s", error.message)

    @property
    def message(self) -> str:
        """The jobs left running, or those that were asked to stop and those that were not reached."""
        if self._left:
            return f"{pluralize(self._left, 'job')} left running, which may cause further costs."
        running = ""
        if self._not_reached:
            jobs = pluralize(len(self._not_reached), "job")
            running = (
                f" {jobs} could not be stopped and may cause further costs: "
                f"{join_names(self._not_reached, _SHOWN)}. "
                "Stop them with `aws sagemaker stop-training-job --training-job-name NAME`."
            )
        if not self._asked:
            return running.lstrip() or "No job was running."
        return f"{pluralize(self._asked, 'job')} stopping after a save, which may take two minutes.{running}"
