"""Checks of the region, of the quotas of the instance types, of the container image and of the logs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from cloud.aws.cloudwatch import LOG_GROUP
from cloud.aws.settings import Settings
from cloud.sagemaker.account_check.result import CheckResult, attempt, failed, passed, skipped
from cloud.sagemaker.request import container_image
from psa.core.formatting import pluralize

_ECR: Final = re.compile(r"(\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^:@]+)(?:[:@](.+))?")


def check_service(settings: Settings) -> CheckResult:
    """Check that SageMaker answers in the region."""
    answer = attempt(
        "region",
        "sagemaker:ListTrainingJobs",
        lambda: settings.client("sagemaker").list_training_jobs(NameContains="psa-", MaxResults=1),
    )
    return (
        answer
        if isinstance(answer, CheckResult)
        else passed("region", f"{settings.region}, SageMaker answers")
    )


def check_quotas(settings: Settings) -> Iterator[CheckResult]:
    """Yield a check of each instance type: how many of its jobs may run at once."""
    usage = "spot training job" if settings.spot else "training job"
    wanted = {f"{instance} for {usage} usage": instance for instance in settings.instances}
    answer = attempt("quota", "servicequotas:ListServiceQuotas", lambda: _quotas(settings, wanted))
    if isinstance(answer, CheckResult):
        yield answer
        return
    for name, instance in wanted.items():
        found = answer.get(name)
        if found is None:
            yield failed(
                f"quota {instance}",
                f"{settings.region} has no quota {name!r}",
                "Set INSTANCE_TYPE to a type that this region offers",
            )
        elif found["Value"] < 1:
            yield failed(
                f"quota {instance}",
                f"{name} is 0",
                "Request an increase: aws service-quotas request-service-quota-increase --service-code "
                f"sagemaker --quota-code {found['QuotaCode']} --desired-value 4 --region {settings.region}",
            )
        else:
            yield passed(f"quota {instance}", f"{pluralize(int(found['Value']), 'job')} at once")


def _quotas(settings: Settings, wanted: dict[str, str]) -> dict[str, Any]:
    pages = settings.client("service-quotas").get_paginator("list_service_quotas")
    return {
        quota["QuotaName"]: quota
        for page in pages.paginate(ServiceCode="sagemaker")
        for quota in page["Quotas"]
        if quota["QuotaName"] in wanted
    }


def check_image(settings: Settings, gpu: bool) -> CheckResult:
    """Check that the container image exists."""
    image = container_image(settings, gpu)
    match = _ECR.fullmatch(image)
    if match is None:
        return skipped("image", f"{image} is of a registry that is not checked")
    registry, region, repository, tag = match.groups()
    answer = attempt(
        "image",
        "ecr:BatchGetImage",
        lambda: settings.client("ecr", region).batch_get_image(
            registryId=registry, repositoryName=repository, imageIds=[{"imageTag": tag or "latest"}]
        ),
    )
    if isinstance(answer, CheckResult):
        return answer
    if not answer["images"]:
        return failed("image", f"{image} does not exist", "Correct TRAINING_IMAGE, or leave it out")
    return passed("image", image)


def check_logs(settings: Settings) -> CheckResult:
    """Check that logs can be read. SageMaker creates the log group with the first job of an account."""
    answer = attempt(
        "logs",
        "logs:DescribeLogGroups",
        lambda: settings.client("logs").describe_log_groups(logGroupNamePrefix=LOG_GROUP),
    )
    if isinstance(answer, CheckResult):
        return answer
    there = any(group["logGroupName"] == LOG_GROUP for group in answer["logGroups"])
    return passed("logs", LOG_GROUP if there else f"{LOG_GROUP}, created with the first job")
