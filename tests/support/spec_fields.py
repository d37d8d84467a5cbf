"""The fields of the spec of a trial, at any depth, for tests that cover them all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel

from psa.specs.trial import Trial


def specs_in(annotation: Any) -> list[type[BaseModel]]:
    """The specs that an annotation holds, also as members of a union or in a tuple."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [spec for part in get_args(annotation) for spec in specs_in(part)]


def fields_of(spec: type[BaseModel], place: str) -> Iterator[str]:
    """The dotted place of every field that is not a spec itself, such as `spec.method.lr`."""
    for name, field in spec.model_fields.items():
        inner = specs_in(field.annotation)
        if not inner:
            yield f"{place}.{name}"
        for each in inner:
            yield from fields_of(each, f"{place}.{name}")


FIELDS = sorted(set(fields_of(Trial, "spec")))
