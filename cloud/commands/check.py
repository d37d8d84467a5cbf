"""`psa check`: what an account lacks before the first job."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.text import Text

from cloud.aws import settings
from cloud.commands.common import Region
from cloud.sagemaker.account_check.policy_documents import PolicyName, policy_document
from cloud.sagemaker.account_check.result import CheckResult
from cloud.sagemaker.account_check.run import check_account
from psa.cli.console import console, print_line
from psa.core.formatting import pluralize

_STYLES = {"ok": "green", "failed": "red", "skipped": "yellow"}


def check(
    what: Annotated[Literal["aws"], Parameter(help="What to check: the AWS account of the settings.")],
    *,
    json_output: Annotated[
        bool, Parameter(name="--json", help="Print the results as one JSON document.", negative="")
    ] = False,
    policy: Annotated[
        PolicyName | None,
        Parameter(help="Print the least IAM policy of the caller, or of the jobs' role, and check nothing."),
    ] = None,
    region: Region = None,
) -> int:
    """Check an AWS account before the first SageMaker job.

    Checks credentials, region, role, bucket, permissions, quotas, image and logs. Each line is ok or says
    what to do. It writes one small file below the prefix and deletes it. Exit code 0: all is well; 1:
    something failed.

    Example: psa check aws
    """
    del what  # one choice so far
    found = settings.read_partial_settings(region=region)
    out = console()
    if policy is not None:
        print_line(out, json.dumps(policy_document(policy, found), indent=2))
        return 0
    results = []
    for result in check_account(found):
        results.append(result)
        if not json_output:
            _print_result(out, result)
    faults = sum(result.status == "failed" for result in results)
    if json_output:
        print_line(out, json.dumps({"ok": not faults, "checks": [result.json for result in results]}))
    else:
        print_line(out, f"{pluralize(faults, 'fault')}" if faults else "The account is ready.")
    return 1 if faults else 0


def _print_result(out: Console, result: CheckResult) -> None:
    line = Text(f"{result.status:<8}", style=_STYLES[result.status])
    line.append(f"{result.name}: {result.text}", style="default")
    out.print(line, soft_wrap=True)
    if result.remedy:
        out.print(Text(f"{'':<8}{result.remedy}"), soft_wrap=True)
