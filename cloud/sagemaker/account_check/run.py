"""All checks of an account, in the order in which a first job would meet its faults."""

from __future__ import annotations

from collections.abc import Iterator

from cloud.aws.pricing import price_table
from cloud.aws.settings import Settings
from cloud.sagemaker.account_check.capacity import check_image, check_logs, check_quotas, check_service
from cloud.sagemaker.account_check.identity import check_credentials, check_permissions, check_role
from cloud.sagemaker.account_check.result import CheckResult, failed, passed, skipped
from cloud.sagemaker.account_check.storage import check_bucket


def check_account(settings: Settings) -> Iterator[CheckResult]:
    """Yield the result of each check. settings: of `read_partial_settings`.

    What needs credentials is skipped without them; the role and the bucket are skipped if they are not set.
    """
    for name in settings.missing:
        yield failed(
            "settings", f"{name} must be set", "Set it in .env or the environment (see .env.example)"
        )
    if not settings.missing:
        yield passed("settings", "complete")
    credentials, caller = check_credentials(settings)
    yield credentials
    if not caller:
        yield skipped("everything else", "needs credentials")
        return
    yield check_service(settings)
    role = check_role(settings) if "AWS_SAGEMAKER_ROLE" not in settings.missing else None
    yield from filter(None, [role])
    if "S3_BUCKET_NAME" not in settings.missing:
        yield from check_bucket(settings)
    if not settings.missing:
        yield from check_permissions(settings, "caller", caller)
        if role is not None and role.status == "ok":
            yield from check_permissions(settings, "role", settings.role)
    yield from check_quotas(settings)
    first = price_table(region=settings.region).price_of(settings.instances[0])
    yield check_image(settings, gpu=first.gpus > 0)
    yield check_logs(settings)
