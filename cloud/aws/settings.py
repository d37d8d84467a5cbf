"""AWS settings, read from .env and the environment; no other module reads them.

Names are those of the original study (AWS_SAGEMAKER_ROLE, S3_BUCKET_NAME, ...); the environment takes
precedence over the file. Keys are passed to boto3 and to nothing else.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from psa.core.errors import UserError, one_line
from psa.core.extras import how_to_install
from psa.core.parsing import nearest
from psa.core.text_file import decode_text

ENV_FILE: Final = Path(".env")
BUCKET_HINT: Final = "3 to 63 of a-z, 0-9, dot and hyphen: the name of a bucket that you own"
DEFAULT_REGION: Final = "us-east-1"  # used if neither the settings nor AWS's own files name a region
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
_TRUTHS: Final = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
_keys_read: Final[set[str]] = set()  # from .env
_REGIONS: Final = ("AWS_REGION", "AWS_DEFAULT_REGION")
_PROFILES: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
_SECRETS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@dataclass(frozen=True)
class Settings:
    """The settings of a submission. instances: types in the order in which they are tried; image: of the
    container, "" for AWS's own with PyTorch; profile and keys: from .env; keys go to boto3 only and are never
    shown.
    """

    role: str
    region: str
    bucket: str
    prefix: str
    instances: tuple[str, ...]
    spot: bool
    max_run_seconds: int
    image: str = ""
    profile: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)

    def client(self, service: str) -> Any:
        """Return a boto3 client that retries throttled requests."""
        import boto3
        from botocore.config import Config

        named = {key.lower(): value for key, value in self.keys.items()}
        session = boto3.Session(region_name=self.region, profile_name=self.profile, **named)
        retries = {"mode": "adaptive", "max_attempts": 10}
        return session.client(service, config=Config(retries=retries, connect_timeout=10, read_timeout=30))


def redact(text: str) -> str:
    """Return a text of AWS with any key of .env that it quotes removed."""
    for secret in filter(None, (*_keys_read, *(os.environ.get(name, "") for name in _SECRETS))):
        text = text.replace(secret, "***")
    return text


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
    check_installed()
    found = _found(folder / ENV_FILE)
    profile, keys = _identity(found)
    found["AWS_REGION"] = _region(found, profile)
    if not submits:
        found.pop("AWS_SAGEMAKER_ROLE", None)
    names = [name for name in _RULES if submits or name != "AWS_SAGEMAKER_ROLE"]
    faults = [fault for name in names if (fault := _fault(name, found.get(name, "")))]
    faults += _region_faults(found["AWS_REGION"])
    if faults:
        raise UserError("; ".join(faults), f"Set it in {ENV_FILE} or the environment (see .env.example)")
    settings = Settings(
        role=_role_of(found["AWS_SAGEMAKER_ROLE"], found.get("AWS_ACCOUNT_ID", "")) if submits else "",
        region=found["AWS_REGION"],
        bucket=found["S3_BUCKET_NAME"],
        prefix=found["S3_PREFIX"].strip("/"),
        instances=tuple(name.strip() for name in found["INSTANCE_TYPE"].split(",")),
        spot=_TRUTHS[found["USE_SPOT_INSTANCES"].lower()],
        max_run_seconds=int(found["MAX_RUN_SECONDS"]),
        image=found.get("TRAINING_IMAGE", ""),
        profile=profile,
        keys=keys,
    )
    _keys_read.update(settings.keys.values())
    _check_account(settings, found.get("AWS_ACCOUNT_ID", ""))
    _check_keys(settings)
    return settings


def _found(path: Path) -> dict[str, str]:
    """Return every name in a .env file that has a value."""
    from dotenv import dotenv_values

    try:
        content = path.read_bytes() if path.is_file() else b""
        text = io.StringIO(decode_text(content, str(path)))
        file = dotenv_values(stream=text, interpolate=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}", "Correct it") from None
    values = {**file, **{name: os.environ[name] for name in _known(file) if name in os.environ}}
    return {**DEFAULTS, **{name: value.strip() for name, value in values.items() if value and value.strip()}}


def _known(file: Mapping[str, Any]) -> set[str]:
    return {*_RULES, *DEFAULTS, *_SECRETS, *_REGIONS, "AWS_ACCOUNT_ID", "TRAINING_IMAGE", *file}


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
    "USE_SPOT_INSTANCES": (lambda value: value.lower() in _TRUTHS, "true or false"),
    "MAX_RUN_SECONDS": (_is_run_time, f"from 60 to {RUN_SECONDS_LIMIT} (28 days)"),
}


def _fault(name: str, value: str) -> str:
    """Return the error of a setting, or "" if it is valid."""
    is_valid, expected = _RULES[name]
    if not value:
        return f"{name} must be set"
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
    session = _session(None)
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


def _check_keys(settings: Settings) -> None:
    """Raise UserError if boto3 finds no keys. An instance's own role cannot be detected here."""
    with _own_files():
        if settings.keys or _session(settings.profile).get_credentials() is not None:
            return
    raise UserError(
        "AWS credentials must be set, got none",
        "Run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )


def _identity(found: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """Return the profile and the keys of .env, or neither if the environment names one of them: keys of one
    source must not be combined with the session token of another.
    """
    if any(os.environ.get(name, "").strip() for name in ("AWS_ACCESS_KEY_ID", *_PROFILES)):
        return None, {}
    keys = {name: found[name] for name in _SECRETS if found.get(name)}
    if keys and not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= keys.keys():
        raise UserError(
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together, got {' and '.join(keys)} alone",
            f"Set both in {ENV_FILE}, or none",
        )
    return (None, keys) if keys else (found.get("AWS_PROFILE") or None, {})


def _region(found: Mapping[str, str], profile: str | None) -> str:
    """Return the region in the order of AWS's own tools: explicit, AWS_DEFAULT_REGION, the profile's."""
    named = found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION")
    return named or _session(profile).region_name or DEFAULT_REGION


def _session(profile: str | None) -> Any:
    """Return a boto3 session. Raises UserError for an invalid profile or an unreadable AWS file."""
    import boto3

    with _own_files():
        return boto3.Session(profile_name=profile)


@contextlib.contextmanager
def _own_files() -> Iterator[None]:
    from botocore.exceptions import BotoCoreError

    try:
        yield
    except BotoCoreError as error:
        raise UserError(
            f"AWS's own settings cannot be used: {redact(one_line(str(error)))[:300]}",
            "Correct AWS_PROFILE, ~/.aws/config or ~/.aws/credentials (`aws configure list` shows them)",
        ) from None
