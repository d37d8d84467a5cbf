"""Write the tables of docs/json.md: the fields of every JSON document.

    python tools/json_page.py [--check]

A test checks that the page is up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from psa.cli.output import sagemaker_schema, schema
from psa.cli.output.document import Document, ErrorDocument

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs/json.md"
PLACE: Final = re.compile(r"(?<=<!-- documents -->\n).*?(?=<!-- /documents -->)", re.DOTALL)
NAMES: Final[dict[Any, str]] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    Any: "value",
}
PATTERNS: Final[dict[Any, Callable[[list[str]], str]]] = {
    Annotated: lambda names: names[0],
    Union: " or ".join,
    types.UnionType: " or ".join,
    list: lambda names: f"list of {names[0]}",
    tuple: lambda names: f"list [{', '.join(names)}]",
    dict: lambda names: f"object with values of type {names[1]}",
}


def models() -> Iterator[type[Document]]:
    """Yield every document and every object in one, in the order of the source."""
    yield ErrorDocument
    for module in (schema, sagemaker_schema):
        for model in vars(module).values():
            if inspect.isclass(model) and issubclass(model, Document) and model.__module__ == module.__name__:
                yield model


def type_name(kind: Any) -> str:
    """Return the JSON type of an annotation, as a reader of the page would write it."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f'`"{part}"`' for part in parts)
    names = list(map(type_name, parts if origin is not Annotated else parts[:1]))
    if origin in PATTERNS:
        return PATTERNS[origin](names)
    if inspect.isclass(kind) and issubclass(kind, Document):
        return f"[{kind.__name__}](#{kind.__name__.lower()})"
    return NAMES[kind]


def section(model: type[Document]) -> str:
    """Return the section of a model: its purpose, and a table of its fields."""
    rows = [
        f"| `{name}` | {type_name(field.annotation)} | {field.description} |"
        for name, field in model.model_fields.items()
    ]
    purpose = inspect.cleandoc(model.__doc__ or "")
    return "\n".join(
        [f"### {model.__name__}\n\n{purpose}\n", "| field | type | meaning |", "|---|---|---|", *rows]
    )


def page() -> str:
    """Return the page with the tables in place."""
    text, count = PLACE.subn(lambda _: "\n" + "\n\n".join(map(section, models())) + "\n\n", PAGE.read_text())
    if count != 1:
        sys.exit(f"{PAGE} must hold the two marks of the documents once, got {count} times")
    return text


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(f"{PAGE} is behind: run {sys.argv[0]}" if page() != PAGE.read_text() else 0)
    PAGE.write_text(page())
