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
from psa.cli.output.document import JsonOption, Outcome
from psa.cli.output.sagemaker_schema import AccountCheckDocument, AccountCheckResult
from psa.core.formatting import pluralize

_STYLES = {"ok": "green", "failed": "red", "skipped": "yellow"}


def check(
    what: Annotated[Literal["aws"], Parameter(help="Check the AWS account of the settings.")],
    *,
    as_json: JsonOption = False,
    policy: Annotated[
        PolicyName | None,
        Parameter(help="Print the minimal IAM policy of the caller or of the role of the jobs, then exit."),
    ] = None,
    region: Region = None,
) -> Outcome:
    """Check an AWS account before the first SageMaker job.

    Checks credentials, region, role, bucket, permissions, quotas, image and logs. Each line says ok
    or what to do. The check writes one small file below the prefix and deletes it. Exit code 0: the account
    is ready; 1: a check failed.

    Example: psa check aws
    """
    del what  # one choice so far
    found = settings.read_partial_settings(region=region)
    if policy is not None:
        print_line(console(), json.dumps(policy_document(policy, found), indent=2))
        return Outcome(0, None)
    out = console(quiet=as_json)
    results = []
    for result in check_account(found):
        results.append(result)
        _print_result(out, result)
    faults = sum(result.status == "failed" for result in results)
    print_line(out, f"{pluralize(faults, 'fault')}" if faults else "The account is ready.")
    checks = [AccountCheckResult.model_validate(result.json) for result in results]
    return Outcome(1 if faults else 0, AccountCheckDocument(ok=not faults, checks=checks))


def _print_result(out: Console, result: CheckResult) -> None:
    line = Text(f"{result.status:<8}", style=_STYLES[result.status])
    line.append(f"{result.name}: {result.text}", style="default")
    out.print(line, soft_wrap=True)
    if result.remedy:
        out.print(Text(f"{'':<8}{result.remedy}"), soft_wrap=True)
