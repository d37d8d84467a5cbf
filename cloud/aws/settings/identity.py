"""The AWS identity of .env and of AWS's own files: profile, keys and region."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from psa.core.errors import UserError, one_line

ENV_FILE: Final = Path(".env")
DEFAULT_REGION: Final = "us-east-1"  # used if neither the settings nor AWS's own files name a region
PROFILES: Final = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
SECRETS: Final = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_keys_read: Final[set[str]] = set()  # from .env


def redact(text: str) -> str:
    """Return a text of AWS with any key of .env that it quotes removed."""
    for secret in filter(None, (*_keys_read, *(os.environ.get(name, "") for name in SECRETS))):
        text = text.replace(secret, "***")
    return text


def check_keys(profile: str | None, keys: Mapping[str, str]) -> None:
    """Raise UserError if boto3 finds no keys. An instance's own role cannot be detected here."""
    with _own_files():
        if keys or session_of(profile).get_credentials() is not None:
            return
    raise UserError(
        "AWS credentials must be set, got none",
        "Run `aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    )


def identity_of(found: Mapping[str, str]) -> tuple[str | None, dict[str, str]]:
    """Return the profile and the keys of .env, or neither if the environment names one of them: keys of one
    source must not be combined with the session token of another.
    """
    if any(os.environ.get(name, "").strip() for name in ("AWS_ACCESS_KEY_ID", *PROFILES)):
        return None, {}
    keys = {name: found[name] for name in SECRETS if found.get(name)}
    if keys and not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= keys.keys():
        raise UserError(
            f"AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together, got {' and '.join(keys)} alone",
            f"Set both in {ENV_FILE}, or none",
        )
    _keys_read.update(keys.values())
    return (None, keys) if keys else (found.get("AWS_PROFILE") or None, {})


def region_of(found: Mapping[str, str], profile: str | None) -> str:
    """Return the region in the order of AWS's own tools: explicit, AWS_DEFAULT_REGION, the profile's."""
    named = found.get("AWS_REGION") or found.get("AWS_DEFAULT_REGION")
    return named or session_of(profile).region_name or DEFAULT_REGION


def session_of(profile: str | None) -> Any:
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
