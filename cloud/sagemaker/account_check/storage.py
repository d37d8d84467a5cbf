"""Checks of the bucket: region, encryption, and access to files below the prefix."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any, Final

from cloud.aws.errors import error_code
from cloud.aws.settings import DEFAULT_REGION, Settings
from cloud.sagemaker.account_check.result import CheckResult, attempt, failed, passed

_NO_BUCKET: Final = ("404", "NoSuchBucket")
_NOT_ENCRYPTED: Final = "ServerSideEncryptionConfigurationNotFoundError"
_CONTENT: Final = b"psa check aws"


def check_bucket(settings: Settings) -> Iterator[CheckResult]:
    """Yield the checks of the bucket. Each file that is written is deleted again."""
    s3, name = settings.client("s3"), settings.bucket
    found = attempt("bucket", "s3:ListBucket", lambda: _head(s3, name))
    if isinstance(found, CheckResult):
        yield found
        return
    if not found:
        yield failed(
            "bucket",
            f"s3://{name} does not exist",
            f"Create it: aws s3 mb s3://{name} --region {settings.region}",
        )
        return
    yield _region(settings, s3)
    yield _encryption(settings, s3)
    yield from _files(settings, s3)


def _head(s3: Any, name: str) -> bool:
    from botocore.exceptions import ClientError  # of an extra: without it `psa check` must start, and say so

    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        if error_code(error) in _NO_BUCKET:
            return False
        raise
    return True


def _region(settings: Settings, s3: Any) -> CheckResult:
    answer = attempt(
        "bucket region",
        "s3:GetBucketLocation",
        lambda: s3.get_bucket_location(Bucket=settings.bucket),
    )
    if isinstance(answer, CheckResult):
        return answer
    region = answer.get("LocationConstraint") or DEFAULT_REGION  # AWS leaves it out for its first region
    if region != settings.region:
        return failed(
            "bucket region",
            f"s3://{settings.bucket} is in {region}, jobs run in {settings.region}",
            f"Set AWS_REGION={region}, or use a bucket in {settings.region}",
        )
    return passed("bucket region", region)


def _encryption(settings: Settings, s3: Any) -> CheckResult:
    from botocore.exceptions import ClientError

    def asked() -> str:
        try:
            rules = s3.get_bucket_encryption(Bucket=settings.bucket)
        except ClientError as error:
            if error_code(error) == _NOT_ENCRYPTED:
                return ""
            raise
        first = rules["ServerSideEncryptionConfiguration"]["Rules"][0]
        return str(first["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"])

    answer = attempt("bucket encryption", "s3:GetEncryptionConfiguration", asked)
    if isinstance(answer, CheckResult):
        return answer
    return passed("bucket encryption", answer or "none set; S3 encrypts each object with its own keys")


def _files(settings: Settings, s3: Any) -> Iterator[CheckResult]:
    """Yield the check of writing, listing, reading and deleting a small file."""
    key = f"{settings.prefix}/check-{secrets.token_hex(8)}"
    place = {"Bucket": settings.bucket, "Key": key}
    steps = {
        "s3:PutObject": lambda: s3.put_object(**place, Body=_CONTENT),
        "s3:ListBucket": lambda: s3.list_objects_v2(
            Bucket=settings.bucket, Prefix=settings.prefix, MaxKeys=1
        ),
        "s3:GetObject": lambda: bytes(s3.get_object(**place)["Body"].read()),
        "s3:DeleteObject": lambda: s3.delete_object(**place),
    }
    faults = [
        answer
        for action, step in steps.items()
        if isinstance(answer := attempt("bucket files", action, step), CheckResult)
    ]
    yield from faults
    if not faults:
        where = f"s3://{settings.bucket}/{settings.prefix}/"
        yield passed("bucket files", f"written, listed, read and deleted below {where}")
