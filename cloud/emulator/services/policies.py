"""IAM policies: which calls they allow, and a record of the calls that were made.

Only what identity policies of this project use is understood: Allow statements, wildcards in actions and
resources, and the conditions StringEquals and StringLike.
"""

from __future__ import annotations

import fnmatch
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from cloud.emulator.jobs import ACCOUNT
from cloud.emulator.services.api import ApiError

Principal = Literal["caller", "role"]
PolicyDocument = Mapping[str, Any]
CALLER_ARN: Final = f"arn:aws:iam::{ACCOUNT}:user/rehearsal"
_CONDITIONS: Final = ("StringEquals", "StringLike")


class ApiCall(NamedTuple):
    """A call that needs a permission. resource: an ARN, or "*" where the action takes none."""

    principal: Principal
    action: str
    resource: str = "*"


_LOGS: Final = f"arn:aws:logs:us-east-1:{ACCOUNT}:log-group:/aws/sagemaker/TrainingJobs:*"
_IMAGES: Final = "arn:aws:ecr:us-east-1:763104351884:repository/pytorch"
# What SageMaker does as the role of a job, beside S3: it pulls the image, and writes logs and metrics.
ROLE_CALLS: Final = (
    ApiCall("role", "ecr:GetAuthorizationToken"),
    *(
        ApiCall("role", f"ecr:{name}", _IMAGES)
        for name in ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
    ),
    *(
        ApiCall("role", f"logs:{name}", _LOGS)
        for name in ("CreateLogGroup", "CreateLogStream", "DescribeLogStreams", "PutLogEvents")
    ),
    ApiCall("role", "cloudwatch:PutMetricData"),
)


class AccessDenied(ApiError):
    """A call that no policy of its principal allows."""


@dataclass
class Authorizer:
    """The policies of caller and role, and the calls so far. A principal without a policy may do all."""

    policies: Mapping[str, PolicyDocument] = field(default_factory=dict)
    calls: set[ApiCall] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def check(self, call: ApiCall, context: Mapping[str, str] | None = None) -> None:
        """Record a call. Raises AccessDenied unless the policy of its principal allows it."""
        with self._lock:
            self.calls.add(call)
        if not self.allows(call, context):
            arn = CALLER_ARN if call.principal == "caller" else f"arn:aws:iam::{ACCOUNT}:role/psa-rehearsal"
            raise AccessDenied(
                "AccessDeniedException",
                f"User: {arn} is not authorized to perform: {call.action} on resource: {call.resource} "
                f"because no identity-based policy allows the {call.action} action",
            )

    def allows(self, call: ApiCall, context: Mapping[str, str] | None = None) -> bool:
        """Return whether the policy of a principal allows a call."""
        document = self.policies.get(call.principal)
        return document is None or policy_allows(document, call.action, call.resource, context or {})


def policy_allows(document: PolicyDocument, action: str, resource: str, context: Mapping[str, str]) -> bool:
    """Return whether a policy allows an action on a resource. context: condition keys and their values."""
    return any(
        any(fnmatch.fnmatchcase(action.lower(), each.lower()) for each in _listed(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, each) for each in _listed(statement["Resource"]))
        and _condition_holds(statement.get("Condition", {}), context)
        for statement in document["Statement"]
        if statement["Effect"] == "Allow"
    )


def _condition_holds(condition: Mapping[str, Mapping[str, Any]], context: Mapping[str, str]) -> bool:
    for operator, keys in condition.items():
        if operator not in _CONDITIONS:
            raise ValueError(f"the condition {operator} is not emulated")
        for key, allowed in keys.items():
            value = context.get(key)
            if value is None or not any(fnmatch.fnmatchcase(value, each) for each in _listed(allowed)):
                return False
    return True


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def simulate(
    authorizer: Authorizer, principal: Principal, request: Mapping[str, Any]
) -> Iterable[tuple[str, str, bool]]:
    """Yield action, resource and decision of a SimulatePrincipalPolicy request."""
    context = {
        entry["ContextKeyName"]: entry["ContextKeyValues"][0] for entry in request.get("ContextEntries", [])
    }
    for action in request["ActionNames"]:
        for resource in request.get("ResourceArns", ["*"]):
            yield action, resource, authorizer.allows(ApiCall(principal, action, resource), context)
