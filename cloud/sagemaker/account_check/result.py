"""The result of one check, and the conversion of AWS's refusals to remedies."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from cloud.aws.errors import aws_error, aws_exceptions, error_code

CheckStatus = Literal["ok", "failed", "skipped"]
_DENIED: Final = frozenset({"AccessDenied", "AccessDeniedException", "403", "UnauthorizedOperation"})
_ACTION: Final = re.compile(r"perform: ([a-z0-9-]+:\w+)")


@dataclass(frozen=True)
class CheckResult:
    """A check. text: what was found; remedy: what to do if it failed; a skipped one names what it needs."""

    name: str
    status: CheckStatus
    text: str
    remedy: str = ""

    @property
    def json(self) -> dict[str, str]:
        """The entry of `psa check aws --json`."""
        return asdict(self)


def passed(name: str, text: str) -> CheckResult:
    """Return a check that found what it must."""
    return CheckResult(name, "ok", text)


def failed(name: str, text: str, remedy: str) -> CheckResult:
    """Return a check that found a fault."""
    return CheckResult(name, "failed", text, remedy)


def skipped(name: str, text: str) -> CheckResult:
    """Return a check that could not be made."""
    return CheckResult(name, "skipped", text)


def attempt(name: str, action: str, request: Callable[[], Any]) -> Any | CheckResult:
    """Return the response of a request, or the failed check. action: the permission that it needs."""
    try:
        return request()
    except aws_exceptions() as error:
        reason = aws_error(error, action)
        if error_code(error) in _DENIED:
            named = _ACTION.search(str(error))
            return failed(
                name,
                f"{named[1] if named else action} is not allowed",
                f"Allow {named[1] if named else action}; see `psa check aws --policy caller`",
            )
        return failed(name, reason.message, reason.hint)
