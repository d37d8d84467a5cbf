"""ListTrainingJobs: filters, order and pages."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cloud.emulator.refusals import Refusal

_PAGE: Final = 10
_KEYS: Final = {"Name": "TrainingJobName", "CreationTime": "CreationTime", "Status": "TrainingJobStatus"}
_Test = Callable[[dict[str, Any], Any], bool]
_FILTERS: Final[dict[str, _Test]] = {
    "NameContains": lambda job, value: value in job["TrainingJobName"],
    "StatusEquals": lambda job, value: bool(job["TrainingJobStatus"] == value),
    "CreationTimeAfter": lambda job, value: bool(job["CreationTime"] > value),
    "CreationTimeBefore": lambda job, value: bool(job["CreationTime"] < value),
    "LastModifiedTimeAfter": lambda job, value: bool(job["LastModifiedTime"] > value),
    "LastModifiedTimeBefore": lambda job, value: bool(job["LastModifiedTime"] < value),
    "WarmPoolStatusEquals": lambda job, value: False,  # the rehearsal keeps no machine warm
    "TrainingPlanArnEquals": lambda job, value: False,  # nor has it reserved any
}


def listed(jobs: Iterable[dict[str, Any]], request: Mapping[str, Any]) -> dict[str, Any]:
    """The answer, of the jobs' summaries: a page of those that pass all filters, cut afterwards.

    A page begins after the last job of the one before, wherever that is now. Raises Refusal.
    """
    key = _KEYS[request.get("SortBy", "CreationTime")]
    descending = request.get("SortOrder", "Ascending") == "Descending"

    def place(job: dict[str, Any]) -> tuple[Any, str]:
        return job[key], job["TrainingJobName"]

    wanted = [name for name in _FILTERS if name in request]
    found = [job for job in jobs if all(_FILTERS[name](job, request[name]) for name in wanted)]
    found.sort(key=place, reverse=descending)
    if "NextToken" in request:
        last = _read(request["NextToken"])
        found = [job for job in found if (place(job) < last if descending else place(job) > last)]
    size = request.get("MaxResults", _PAGE)
    answer: dict[str, Any] = {"TrainingJobSummaries": found[:size]}
    if len(found) > size:
        answer["NextToken"] = _token(place(found[size - 1]))
    return answer


def _token(place: tuple[Any, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode()


def _read(token: str) -> tuple[Any, str]:
    try:
        key, name = json.loads(base64.urlsafe_b64decode(token))
    except (binascii.Error, ValueError, TypeError):
        raise Refusal("ValidationException", "The NextToken is not one of this service") from None
    return key, name
