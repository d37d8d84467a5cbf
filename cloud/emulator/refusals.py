"""A request that SageMaker does not carry out."""

from __future__ import annotations


class Refusal(Exception):
    """What is answered with HTTP 400. code: the exception's name on AWS."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")
