"""Checks of a device: how they run, and what they result in."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from gpu.setting import Setting
from psa.core.errors import named_error

Figures = dict[str, float | int]


class CheckFailure(Exception):
    """A check whose condition does not hold. figures: the numbers that show it."""

    def __init__(self, message: str, figures: Figures | None = None) -> None:
        self.figures = figures or {}
        super().__init__(message)


@dataclass(frozen=True)
class CheckResult:
    """The result of one check, with a sentence and its figures. seconds: the time that it took."""

    name: str
    status: Literal["ok", "failed", "skipped"]
    detail: str
    figures: Figures = field(default_factory=dict)
    seconds: float = 0.0


Check = Callable[[Setting], tuple[str, Figures] | None]


def run_checks(setting: Setting, checks: Sequence[tuple[str, Check]]) -> list[CheckResult]:
    """Run checks one after the other. One that raises has failed; one that returns None is skipped."""
    return [_result(name, check, setting) for name, check in checks]


def _result(name: str, check: Check, setting: Setting) -> CheckResult:
    begun = time.perf_counter()
    try:
        found = check(setting)
    except CheckFailure as error:
        return CheckResult(name, "failed", str(error), error.figures, time.perf_counter() - begun)
    except Exception as error:  # noqa: BLE001 - whatever a device cannot do is a finding, and the others go on
        return CheckResult(name, "failed", named_error(error), {}, time.perf_counter() - begun)
    seconds = time.perf_counter() - begun
    if found is None:
        return CheckResult(name, "skipped", f"does not apply to {setting.device.type}", {}, seconds)
    return CheckResult(name, "ok", *found, seconds)


def require(condition: bool, message: str, figures: Figures) -> None:
    """Raise CheckFailure unless the condition holds."""
    if not condition:
        raise CheckFailure(message, figures)
