"""SageMaker's training jobs, in the four verbs that a sweep needs: submit, list, describe, stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from cloud.bucket import LATER, code_of, refusal
from psa.errors import UserError

Answer = Literal["submitted", "there", "full", "later"]
OVER: Final = frozenset({"Completed", "Failed", "Stopped"})
_FULL: Final = frozenset({"ResourceLimitExceeded"})
_THERE: Final = frozenset({"ResourceInUse"})
_PAGE: Final = 100


@dataclass(frozen=True)
class Status:
    """What the list says of a job."""

    status: str
    secondary: str

    @property
    def over(self) -> bool:
        """Whether it has come to an end, good or bad."""
        return self.status in OVER


class TrainingJobs:
    """The jobs of an account and region. `client`: boto3's, of sagemaker."""

    def __init__(self, client: Any) -> None:
        self.client = client

    def submit(self, request: Mapping[str, Any]) -> Answer:
        """Create a job. there: it had been created before; full: the quota is; later: AWS asks for patience.

        Raises UserError for a request that AWS refuses.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.create_training_job(**request)
        except (ClientError, BotoCoreError) as error:
            code = code_of(error)
            if code in _THERE:
                return "there"
            if code in _FULL:
                return "full"
            if code in LATER:
                return "later"
            raise refusal(error, f"job {request['TrainingJobName']} is refused") from None
        return "submitted"

    def listed(self, beginning: str) -> dict[str, Status]:
        """The jobs whose names contain this, by name. Raises UserError."""
        from botocore.exceptions import BotoCoreError, ClientError

        pages = self.client.get_paginator("list_training_jobs").paginate(
            NameContains=beginning, PaginationConfig={"PageSize": _PAGE}
        )
        try:
            return {
                item["TrainingJobName"]: Status(item["TrainingJobStatus"], item.get("SecondaryStatus", ""))
                for page in pages
                for item in page["TrainingJobSummaries"]
            }
        except (ClientError, BotoCoreError) as error:
            raise refusal(error, "the training jobs cannot be listed") from None

    def described(self, name: str) -> dict[str, Any]:
        """All that is known of a job. Raises UserError."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            found: dict[str, Any] = self.client.describe_training_job(TrainingJobName=name)
        except (ClientError, BotoCoreError) as error:
            raise refusal(error, f"job {name} cannot be described") from None
        return found

    def stop(self, name: str) -> UserError | None:
        """Ask a job to save and end. One that has ended by itself is no fault; what else went wrong is
        returned, since there are others to be stopped.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            self.client.stop_training_job(TrainingJobName=name)
        except (ClientError, BotoCoreError) as error:
            return None if code_of(error) == "ValidationException" else refusal(error, f"job {name} runs on")
        return None
