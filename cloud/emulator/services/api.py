"""Errors of the emulated APIs, and the check of their requests by AWS's own model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloud.aws.request_validation import request_errors


class ApiError(Exception):
    """An error response (HTTP 400). code: the name of AWS's exception."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


def check_api_request(service: str, operation: str, request: Mapping[str, Any]) -> None:
    """Raise ApiError unless AWS's own model of the service accepts a request."""
    found = request_errors(operation, request, service)
    if found:
        count = f"{len(found)} validation error{'s' if len(found) > 1 else ''} detected"
        raise ApiError("ValidationException", f"{count}: {'; '.join(found)}")
