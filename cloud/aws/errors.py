"""Errors of AWS and of the network, each converted to one line for the user.

The only module that reads the exceptions of botocore and pyarrow. pyarrow passes on errors of the AWS SDK for
C++ as text. Most of botocore's own exceptions carry no answer of AWS: some have `response = None`, some the
half-read HTTP response, some nothing at all.
"""

from __future__ import annotations

import contextlib
import email.utils
import errno
import re
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

from cloud.aws.settings import redact
from psa.core.errors import UserError, one_line

_Result = TypeVar("_Result")
_TRIES: Final = 3  # of a request whose response is malformed
NOT_FOUND: Final = frozenset({"NoSuchKey", "404"})
RETRYABLE: Final = frozenset(
    {
        "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequests", "SlowDown",
        "ServiceUnavailable", "InternalFailure", "InternalServerError", "InternalError", "RequestTimeout",
        "RequestTimeoutException", "RequestThrottled", "TooManyRequestsException", "ServerBusy",
    }
)  # fmt: skip
_RETRYABLE_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_WRONG_CLOCK: Final = frozenset({"RequestTimeTooSkewed", "RequestExpired", "RequestInTheFuture"})
_SIGNATURE_TIMES: Final = ("signature expired", "signature not yet current")
_REFUSED_STATUS: Final = frozenset({400, 401, 403})
CLOCK_SECONDS: Final = 900.0  # by which S3, which alone answers HEAD, lets a clock be wrong
CHECK_SETTINGS: Final = "Check the region, the bucket and the credentials (see .env.example)"
_NETWORK_HINT: Final = "Check the network and the region; run the same command again to resume"
_SDK_ERROR: Final = re.compile(r"AWS Error ([A-Z0-9_]+)(?: \(HTTP status ([0-9]{3})\))?")
_SDK_NETWORK: Final = "NetworkConnection"
_TRANSIENT_ERRNO: Final = frozenset(
    {
        errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EINTR, errno.ECONNRESET, errno.ECONNREFUSED,
        errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH,
    }
)  # fmt: skip
_LOGIN_HINT: Final = (
    "Renew the credentials (`aws sso login`, `aws login`); run the same command again to resume"
)


class Unreachable(UserError):
    """A failure to reach AWS, or throttling by AWS: the same request may succeed later."""


class MalformedResponse(Exception):
    """A response without a member that AWS always sends, for example one made by a proxy."""


@contextlib.contextmanager
def aws_errors(action: str) -> Iterator[None]:
    """Convert errors of AWS clients to a one-line UserError that begins with `action`."""
    try:
        yield
    except aws_exceptions() as error:
        raise aws_error(error, action) from None


def aws_error(error: Exception, action: str) -> UserError:
    """Convert an exception of an AWS client to a UserError, or to Unreachable if it is transient."""
    answer = _answer(error)
    skew = _clock_skew(answer)
    if skew:
        return Unreachable(
            f"{action}: the clock of this machine is wrong ({skew})",
            "Set the clock (for example with NTP); AWS refuses requests from another time",
        )
    details = answer.get("Error", {})
    reason = (
        f"{details.get('Code')}: {details.get('Message')}" if details else str(error) or type(error).__name__
    )
    kind = Unreachable if is_transient(error) else UserError
    return kind(f"{action}: {redact(one_line(reason))[:300]}", _hint(error, kind))


def error_code(error: Exception) -> str:
    """Return AWS's error code, or "" if AWS did not respond."""
    return str(_answer(error).get("Error", {}).get("Code", ""))


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later: network faults, throttling, AWS's own faults."""
    answer = _answer(error)
    if not answer:
        return isinstance(error, (*_network_errors(), *_login_errors()))
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return error_code(error) in RETRYABLE or status in _RETRYABLE_STATUS


def is_transient_in_storage(error: Exception) -> bool:
    """Return whether an error in a pyarrow file system (S3 or another one on the network) is transient."""
    found = _SDK_ERROR.search(str(error))
    if found is None:
        return isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO
    code = "".join(word.capitalize() for word in found[1].split("_"))  # SLOW_DOWN is SlowDown of S3
    return code in RETRYABLE | _WRONG_CLOCK | {_SDK_NETWORK} or int(found[2] or 0) in _RETRYABLE_STATUS


def retry_malformed(request: Callable[[], _Result]) -> _Result:
    """Call a function and return its result. Repeat the call while the response is malformed: botocore takes
    a response whose headers are cut off for a complete, empty one.
    """
    for _ in range(_TRIES - 1):
        with contextlib.suppress(MalformedResponse):
            return request()
    return request()


def require_member(answer: Mapping[str, Any], member: str) -> Any:
    """Return a member that AWS always sends. Raises MalformedResponse."""
    if member not in answer:
        raise MalformedResponse(f"an answer has no {member}: a proxy or another server may have sent it")
    return answer[member]


def _answer(error: Exception) -> Mapping[str, Any]:
    """Return AWS's response in an exception, or an empty mapping if AWS did not respond."""
    found = getattr(error, "response", None)
    return found if isinstance(found, Mapping) else {}


def aws_exceptions() -> tuple[type[Exception], ...]:
    """Return every type of exception that an AWS client raises, for use in `except`."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    # reading a body bypasses botocore: its TLS and decoding errors are urllib3's
    return (ClientError, BotoCoreError, ResponseParserError, HTTPError, MalformedResponse)


def _network_errors() -> tuple[type[Exception], ...]:
    from botocore import exceptions
    from botocore.parsers import ResponseParserError
    from urllib3.exceptions import HTTPError

    return (
        exceptions.HTTPClientError,
        exceptions.ConnectionError,
        exceptions.IncompleteReadError,
        exceptions.ChecksumError,
        exceptions.FlexibleChecksumError,
        exceptions.CapacityNotAvailableError,
        exceptions.MetadataRetrievalError,
        ResponseParserError,
        HTTPError,
        MalformedResponse,
    )


def _login_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of an expired login. A running sweep waits, since its owner can log in again."""
    from botocore import exceptions

    return (
        exceptions.SSOError,
        exceptions.LoginError,
        exceptions.TokenRetrievalError,
        exceptions.CredentialRetrievalError,
    )


def _hint(error: Exception, kind: type[UserError]) -> str:
    if isinstance(error, _login_errors()):
        return _LOGIN_HINT
    return _NETWORK_HINT if kind is Unreachable and not _answer(error) else CHECK_SETTINGS


def _clock_skew(answer: Mapping[str, Any]) -> str:
    """Return the error of this machine's clock as text if it is why a request was refused, else ""."""
    details = answer.get("Error", {})
    about = answer.get("ResponseMetadata", {})
    seconds = _seconds_ahead(about.get("HTTPHeaders", {}).get("date", ""))
    by = f"{abs(seconds):,.0f} s {'ahead of' if seconds > 0 else 'behind'} AWS"
    message = str(details.get("Message", "")).lower()
    if details.get("Code") in _WRONG_CLOCK or any(words in message for words in _SIGNATURE_TIMES):
        return by if abs(seconds) > 1 else str(details.get("Code"))
    # The response to HEAD has no body: botocore uses its status as the code, and only the time in it
    # distinguishes a wrong clock from a missing permission.
    status = about.get("HTTPStatusCode")
    is_bare = status in _REFUSED_STATUS and details.get("Code") == str(status)
    return by if is_bare and abs(seconds) > CLOCK_SECONDS else ""


def _seconds_ahead(date: str) -> float:
    """Return the seconds by which this machine's clock is ahead of a Date header; 0 without one."""
    try:
        return time.time() - email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return 0.0
