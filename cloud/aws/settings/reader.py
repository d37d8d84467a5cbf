"""AWS settings, read from .env and the environment; no other module reads them.

Names are those of the original study (AWS_SAGEMAKER_ROLE, S3_BUCKET_NAME, ...); the environment takes
precedence over the file. Keys are passed to boto3 and to nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cloud.aws.settings.identity import ENV_FILE, SECRETS, check_keys, identity_of, region_of, session_of
from cloud.aws.settings.job_settings import (
    JOB_SETTINGS,
    TRUTHS,
    JobSettings,
    job_setting_faults,
    parse_job_settings,
)
from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.core.parsing import nearest
from psa.core.text_file import decode_text

logger = logging.getLogger(__name__)

OLD_ENV_FILE: Final = Path("aws/sagemaker/.env")  # where the original study kept it
BUCKET_HINT: Final = "3 to 63 of a-z, 0-9, dot and hyphen: the name of a bucket that you own"
DEFAULTS: Final = {
    "S3_PREFIX": "psa-experiment",
    "INSTANCE_TYPE": "ml.c5.xlarge",
    "USE_SPOT_INSTANCES": "false",
    "MAX_RUN_SECONDS": "172800",
}
RUN_SECONDS_LIMIT: Final = 28 * 86_400
_ROLE: Final = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+")
_ROLE_NAME: Final = re.compile(r"[\w+=,.@-]{1,64}")
_BUCKET: Final = re.compile(r"(?!xn--)(?!\d+\.\d+\.\d+\.\d+$)(?!.*\.\.)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX: Final = re.compile(r"[A-Za-z0-9!_.*'()-]+(/[A-Za-z0-9!_.*'()-]+)*")
# Stand in a dry run for what is not set: AWS's own model accepts them, and AWS itself would not.
_PLACEHOLDERS: Final = {
    "AWS_SAGEMAKER_ROLE": "arn:aws:iam::000000000000:role/AWS_SAGEMAKER_ROLE",
    "S3_BUCKET_NAME": "S3_BUCKET_NAME",
}
_REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")


@dataclass(frozen=True)
class Settings:
    """The settings of a submission. instances: types in the order in which they are tried; image: of the
    container, "" for AWS's own with PyTorch; profile and keys: from .env; keys go to boto3 only and are never
    shown; jobs: what a company may require of its jobs; missing: settings that placeholders stand for.
    """

    role: str
    region: str
    bucket: str
    prefix: str
    instances: tuple[str, ...]
    spot: bool
    max_run_seconds: int
    image: str = ""
    jobs: JobSettings = JobSettings()  # noqa: RUF009 -- frozen
    profile: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    missing: tuple[str, ...] = ()

    def client(self, service: str, region: str | None = None) -> Any:
        """Return a boto3 client that retries throttled requests. region: by default that of the settings."""
        import boto3
        from botocore.config import Config

        named = {key.lower(): value for key, value in self.keys.items()}
        session = boto3.Session(region_name=region or self.region, profile_name=self.profile, **named)
        retries = {"mode": "adaptive", "max_attempts": 10}
        return session.client(service, config=Config(retries=retries, connect_timeout=10, read_timeout=30))


def check_installed() -> None:
    """Raise UserError if the extra `aws` is not installed."""
    import importlib.util

    if importlib.util.find_spec("boto3") is None or importlib.util.find_spec("dotenv") is None:
        raise UserError("boto3 is not installed", how_to_install("aws"))


def read_settings(folder: Path = Path(), *, submits: bool = True) -> Settings:
    """Read the settings of a folder's .env and the environment, and check what needs no network. The role is
    required only if `submits`; else it may be "".

    Raises UserError that lists everything missing or invalid.
    """
    found, (profile, keys) = _read(folder)
    if not submits:
        found.pop("AWS_SAGEMAKER_ROLE", None)
    unset = [name for name in _unset(found) if submits or name != "AWS_SAGEMAKER_ROLE"]
    _raise([*(f"{name} must be set" for name in unset), *_faults(found)])
    settings = _settings(found, profile, keys)
    _check_account(settings, found.get("AWS_ACCOUNT_ID", ""))
    check_keys(profile, keys)
    return settings


def read_partial_settings(folder: Path = Path(), *, region: str | None = None) -> Settings:
    """Read the settings, with a placeholder for each required one that is not set; `missing` lists those.
    region: instead of that of the settings. Credentials are not looked for, so that no network is needed.

    Raises UserError that lists everything invalid.
    """
    found, (profile, keys) = _read(folder)
    found |= {} if region is None else {"AWS_REGION": region}
    unset = _unset(found)
    _raise(_faults(found))
    settings = _settings(found, profile, keys)
    _check_account(settings, found.get("AWS_ACCOUNT_ID", ""))
    return dataclasses.replace(
        settings,
        role=settings.role or _PLACEHOLDERS["AWS_SAGEMAKER_ROLE"],
        bucket=settings.bucket or _PLACEHOLDERS["S3_BUCKET_NAME"],
        missing=tuple(unset),
    )


def _read(folder: Path) -> tuple[dict[str, str], tuple[str | None, dict[str, str]]]:
    """Return every setting that has a value, the region resolved, and the profile and the keys."""
    check_installed()
    found = _found(folder)
    profile, keys = identity_of(found)
    found["AWS_REGION"] = region_of(found, profile)
    return found, (profile, keys)


def _unset(found: Mapping[str, str]) -> list[str]:
    return [name for name in _PLACEHOLDERS if not found.get(name)]


def _faults(found: Mapping[str, str]) -> list[str]:
    faults = [fault for name in _RULES if (value := found.get(name)) and (fault := _fault(name, value))]
    return [*faults, *_region_faults(found["AWS_REGION"]), *job_setting_faults(found)]


def _raise(faults: list[str]) -> None:
    if faults:
        raise UserError("; ".join(faults), f"Set it in {ENV_FILE} or the environment (see .env.example)")


def _settings(found: Mapping[str, str], profile: str | None, keys: dict[str, str]) -> Settings:
    role = found.get("AWS_SAGEMAKER_ROLE", "")
    return Settings(
        role=role and _role_of(role, found.get("AWS_ACCOUNT_ID", "")),
        region=found["AWS_REGION"],
        bucket=found.get("S3_BUCKET_NAME", ""),
        prefix=found["S3_PREFIX"].strip("/"),
        instances=tuple(name.strip() for name in found["INSTANCE_TYPE"].split(",")),
        spot=TRUTHS[found["USE_SPOT_INSTANCES"].lower()],
        max_run_seconds=int(found["MAX_RUN_SECONDS"]),
        image=found.get("TRAINING_IMAGE", ""),
        jobs=parse_job_settings(found),
        profile=profile,
        keys=keys,
    )


def _found(folder: Path) -> dict[str, str]:
    """Return every name in a folder's .env file, or in the environment, that has a value."""
    from dotenv import dotenv_values

    path = folder / ENV_FILE
    if not path.is_file() and (folder / OLD_ENV_FILE).is_file():
        path = folder / OLD_ENV_FILE
        logger.warning("the settings are read from %s; move the file to %s", OLD_ENV_FILE, ENV_FILE)
    try:
        content = path.read_bytes() if path.is_file() else b""
        text = io.StringIO(decode_text(content, str(path)))
        file = dotenv_values(stream=text, interpolate=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "Correct it") from None
    values = {**file, **{name: os.environ[name] for name in _known(file) if name in os.environ}}
    return {**DEFAULTS, **{name: value.strip() for name, value in values.items() if value and value.strip()}}


def _known(file: Mapping[str, Any]) -> set[str]:
    others = ("AWS_ACCOUNT_ID", "TRAINING_IMAGE")
    return {*_RULES, *DEFAULTS, *SECRETS, *_REGIONS, *JOB_SETTINGS, *others, *file}


def _is_run_time(value: str) -> bool:
    is_number = re.fullmatch("[0-9]{1,9}", value, re.ASCII) is not None
    return is_number and 60 <= int(value) <= RUN_SECONDS_LIMIT


# name -> whether a value is valid, and what it must be
_RULES: Final[Mapping[str, tuple[Callable[[str], Any], str]]] = {
    "AWS_SAGEMAKER_ROLE": (
        lambda value: _ROLE.fullmatch(value) or _ROLE_NAME.fullmatch(value),
        "a role (arn:aws:iam::123456789012:role/NAME)",
    ),
    "S3_BUCKET_NAME": (_BUCKET.fullmatch, f"a bucket ({BUCKET_HINT})"),
    "S3_PREFIX": (lambda value: _PREFIX.fullmatch(value.strip("/")), "words separated by /"),
    "USE_SPOT_INSTANCES": (lambda value: value.lower() in TRUTHS, "true or false"),
    "MAX_RUN_SECONDS": (_is_run_time, f"from 60 to {RUN_SECONDS_LIMIT} (28 days)"),
}


def _fault(name: str, value: str) -> str:
    """Return the error of a setting that is set, or "" if it is valid."""
    is_valid, expected = _RULES[name]
    return "" if is_valid(value) else f"{name} must be {expected}, got {value!r}"


def _region_faults(region: str) -> list[str]:
    """Check a region against botocore's list; needs no network."""
    known = _known_regions()
    if region in known:
        return []
    near = nearest(region, known, likeness=0.5)
    hint = f"; did you mean {near}?" if near else ""
    return [f"AWS_REGION must be a region of SageMaker, got {region!r}{hint}"]


@functools.cache
def _known_regions() -> frozenset[str]:
    session = session_of(None)
    return frozenset(
        name
        for partition in session.get_available_partitions()
        for name in session.get_available_regions("sagemaker", partition)
    )


def _role_of(value: str, account: str) -> str:
    """Return the role's ARN, made from a name if the account is known."""
    if _ROLE.fullmatch(value):
        return value
    if not re.fullmatch(r"\d{12}", account):
        raise UserError(
            f"AWS_ACCOUNT_ID must have 12 digits if AWS_SAGEMAKER_ROLE is a name, got {account!r}",
            "Set the role as an ARN, arn:aws:iam::123456789012:role/NAME, or the account",
        )
    return f"arn:aws:iam::{account}:role/{value}"


def _check_account(settings: Settings, account: str) -> None:
    found = _ROLE.fullmatch(settings.role)
    if account and found and found[1] != account:
        raise UserError(
            f"AWS_SAGEMAKER_ROLE must be of account {account} (AWS_ACCOUNT_ID), got account {found[1]}",
            "Correct one of them",
        )
