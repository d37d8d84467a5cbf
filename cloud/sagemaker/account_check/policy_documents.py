"""The least IAM policies with which psa works: of whoever runs its commands, and of the role of its jobs.

`tools/policies.py` writes the statements from the calls that psa makes in a rehearsal.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Mapping
from string import Template
from typing import Any, Literal

from cloud.aws.settings import Settings

PolicyName = Literal["caller", "role"]


def policy_template(name: PolicyName) -> str:
    """Return a policy as JSON, with ${ACCOUNT}, ${REGION}, ${BUCKET}, ${PREFIX}, ${ROLE} and ${PARTITION}."""
    folder = importlib.resources.files("cloud.sagemaker.account_check") / "policies"
    return (folder / f"{name}.json").read_text()


def policy_document(name: PolicyName, settings: Settings) -> dict[str, Any]:
    """Return a policy with the names of an account, region, bucket, prefix and role filled in."""
    filled = Template(policy_template(name)).substitute(policy_names(settings))
    document: dict[str, Any] = json.loads(filled)
    return document


def policy_names(settings: Settings) -> Mapping[str, str]:
    """Return the values of the names in a policy."""
    _, partition, *_, account, role = settings.role.split(":")
    return {
        "ACCOUNT": account,
        "REGION": settings.region,
        "BUCKET": settings.bucket,
        "PREFIX": settings.prefix,
        "ROLE": settings.role,
        "PARTITION": partition,
    } | {"ROLE_NAME": role.rpartition("/")[2]}
