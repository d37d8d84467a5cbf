"""Checks of credentials, of the role, and of what the policies of both allow."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from cloud.aws.settings import Settings
from cloud.sagemaker.account_check.policy_documents import PolicyName, policy_document
from cloud.sagemaker.account_check.result import CheckResult, attempt, failed, passed
from psa.core.formatting import pluralize

_ASSUMED: Final = re.compile(r"arn:(aws[a-z-]*):sts::(\d{12}):assumed-role/([^/]+)/.+")
_SERVICE: Final = "sagemaker.amazonaws.com"
_CONTEXT: Final = [
    {"ContextKeyName": "iam:PassedToService", "ContextKeyValues": [_SERVICE], "ContextKeyType": "string"}
]
_OF: Final[Mapping[PolicyName, str]] = {"caller": "permissions", "role": "permissions of the role"}


def check_credentials(settings: Settings) -> tuple[CheckResult, str]:
    """Return the check of the credentials, and the ARN whose policies count, "" if there is none."""
    answer = attempt(
        "credentials",
        "sts:GetCallerIdentity",
        lambda: settings.client("sts").get_caller_identity(),
    )
    if isinstance(answer, CheckResult):
        return failed("credentials", answer.text, "Run `aws configure` or `aws sso login`"), ""
    arn = str(answer["Arn"])
    account = settings.role.split(":")[4]
    if "AWS_SAGEMAKER_ROLE" not in settings.missing and account != answer["Account"]:
        return failed(
            "credentials",
            f"{arn} is of another account than the role, {account}",
            "Use credentials of the role's account, or correct AWS_SAGEMAKER_ROLE",
        ), ""
    return passed("credentials", arn), _policy_source(arn)


def _policy_source(arn: str) -> str:
    """Return the ARN of the user or role whose policies a session has."""
    match = _ASSUMED.fullmatch(arn)
    return arn if match is None else f"arn:{match[1]}:iam::{match[2]}:role/{match[3]}"


def check_role(settings: Settings) -> CheckResult:
    """Check that the role exists, and that SageMaker may assume it."""
    name = settings.role.rpartition("/")[2]
    answer = attempt("role", "iam:GetRole", lambda: settings.client("iam").get_role(RoleName=name)["Role"])
    if isinstance(answer, CheckResult):
        if "NoSuchEntity" in answer.text:
            return failed(
                "role",
                f"{settings.role} does not exist",
                "Create it (see docs/sagemaker.md), or correct AWS_SAGEMAKER_ROLE",
            )
        return answer
    if _SERVICE not in _trusted(answer.get("AssumeRolePolicyDocument", {})):
        return failed(
            "role",
            f"{settings.role} cannot be assumed by {_SERVICE}",
            f"Add the principal {_SERVICE} to its trust policy",
        )
    return passed("role", f"{settings.role}, which {_SERVICE} may assume")


def _trusted(document: Any) -> set[str]:
    """Return the services that a trust policy names."""
    parsed = json.loads(unquote(document)) if isinstance(document, str) else document
    found: set[str] = set()
    for statement in parsed.get("Statement", []):
        services = statement.get("Principal", {}).get("Service", [])
        found.update([services] if isinstance(services, str) else services)
    return found


def check_permissions(settings: Settings, principal: PolicyName, arn: str) -> Iterator[CheckResult]:
    """Check the policies of the caller or of the role against the documented one, by IAM's own simulator."""
    name = _OF[principal]
    if arn.endswith(":root"):
        yield passed(name, "the root user of an account may do everything")
        return
    denied, count = list[str](), 0
    iam = settings.client("iam")
    for statement in policy_document(principal, settings)["Statement"]:
        request = functools.partial(_simulated, iam, arn, statement)
        answer = attempt(name, "iam:SimulatePrincipalPolicy", request)
        if isinstance(answer, CheckResult):
            yield answer
            return
        count += len(answer)
        denied += [action for action, allowed in answer.items() if not allowed]
    if not denied:
        yield passed(name, f"{pluralize(count, 'action')} allowed")
    for action in denied:
        yield failed(
            name,
            f"{action} is not allowed",
            f"Add it to the policy of {arn}; `psa check aws --policy {principal}` prints the whole one",
        )


def _simulated(iam: Any, arn: str, statement: Mapping[str, Any]) -> dict[str, bool]:
    """Return for each action of a statement whether it is allowed on all of its resources."""
    resources = statement["Resource"]
    pages = iam.get_paginator("simulate_principal_policy").paginate(
        PolicySourceArn=arn,
        ActionNames=statement["Action"],
        ResourceArns=[each.replace("*", "x") if each != "*" else each for each in _listed(resources)],
        ContextEntries=_CONTEXT,
    )
    results = itertools.chain.from_iterable(page["EvaluationResults"] for page in pages)
    allowed: dict[str, bool] = {}
    for result in results:
        action = result["EvalActionName"]
        allowed[action] = allowed.get(action, True) and result["EvalDecision"] == "allowed"
    return allowed


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
