"""IAM policies: their names, the actions that they allow, and the same policy without one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, get_args

from cloud.sagemaker.account_check.policy_documents import PolicyName

POLICIES: Final[tuple[PolicyName, ...]] = get_args(PolicyName)


def without_action(document: Mapping[str, Any], action: str) -> dict[str, Any]:
    """Return a policy that no longer lists an action."""
    statements = []
    for statement in document["Statement"]:
        left = [each for each in _listed(statement["Action"]) if each != action]
        if left:
            statements.append({**statement, "Action": left})
    return {**document, "Statement": statements}


def actions_of(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield every action that a policy allows."""
    for statement in document["Statement"]:
        yield from _listed(statement["Action"])


def _listed(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value
