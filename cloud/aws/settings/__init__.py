"""AWS settings, read from .env and the environment; no other package reads them."""

from __future__ import annotations

from cloud.aws.settings.identity import DEFAULT_REGION, ENV_FILE, redact
from cloud.aws.settings.job_settings import VOLUME_GB, JobSettings
from cloud.aws.settings.reader import (
    DEFAULTS,
    RUN_SECONDS_LIMIT,
    Settings,
    check_installed,
    read_partial_settings,
    read_settings,
)

__all__ = [
    "DEFAULTS",
    "DEFAULT_REGION",
    "ENV_FILE",
    "RUN_SECONDS_LIMIT",
    "VOLUME_GB",
    "JobSettings",
    "Settings",
    "check_installed",
    "read_partial_settings",
    "read_settings",
    "redact",
]
