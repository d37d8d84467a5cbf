"""Settings as text: a value of the command line, parsed by the type of its setting."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from psa.core.errors import UserError
from psa.core.parsing import parse_int, parse_values, split_top_level, strip_brackets


def parse_setting(annotation: Any, text: str, where: str) -> Any:
    """Parse a text from the command line by the type of its setting: lr=1e-4 is a number, and a list may
    have a name. Limits are left to the setting. Raises UserError.
    """
    kind = unwrap_annotation(annotation)
    if get_origin(kind) is tuple:
        inner, item = strip_brackets(text), get_args(kind)[0]
        if unwrap_annotation(item) is int and inner.isidentifier():
            return inner
        return [parse_setting(item, part, where) for part in split_top_level(inner, ",")]
    if kind is bool:
        if text not in ("true", "false"):
            raise UserError(f"{where} must be true or false, got {text!r}", "Write one of them")
        return text == "true"
    if kind is int:
        return parse_int(text, where)
    if kind is float:
        try:
            return float(text)
        except ValueError:
            raise UserError(f"{where} must be a number, got {text!r}", "For example lr=1e-3") from None
    return text


def axis_values(value: Any, setting: FieldInfo | None, folder: Path, where: str) -> list[Any]:
    """Return the values of an axis. Lines of a file are texts, and become numbers where the setting is one.

    setting: None for a name that no setting has. Raises UserError.
    """
    found = parse_values(value, folder, where)
    kind = None if setting is None else unwrap_annotation(setting.annotation)
    if kind not in (int, float, bool) or not (isinstance(value, str) and value.startswith("@")):
        return found
    return [parse_setting(kind, text, where) for text in found]


def is_list_setting(annotation: Any) -> bool:
    """Return True if one value of a setting is itself a list, such as digits."""
    return get_origin(unwrap_annotation(annotation)) is tuple


def unwrap_annotation(annotation: Any) -> Any:
    """Return a type without its limits, and without None if it is optional."""
    if get_origin(annotation) is Annotated:
        return unwrap_annotation(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return unwrap_annotation(next(each for each in get_args(annotation) if each is not type(None)))
    return annotation
