"""JSON documents on standard output: the base of their models, errors, and the stream reserved for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from psa.cli.options import OUTPUT_FILES, flag
from psa.core import process

JSON_OPTION: Final = "--json"
JsonOption = Annotated[
    bool,
    flag(
        OUTPUT_FILES,
        "Print one JSON document instead of text. Messages go to standard error. See docs/json.md.",
        name=JSON_OPTION,
        show_default=False,
    ),
]


class Document(BaseModel):
    """A JSON object with documented fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorDocument(Document):
    """The document in place of the others when a command ends with an error."""

    error: Annotated[str, Field(description="What must hold and what was given instead.")]
    hint: Annotated[str, Field(description="What to do about it; may be empty.")]


@dataclass(frozen=True)
class Outcome:
    """The result of a command with a document: its exit code, and the document that --json prints;
    None if the command has printed its documents itself.
    """

    code: int
    document: Document | None


def write_document(document: Document, *, lines: bool = False) -> None:
    """Write a document to standard output; lines: on one line, since others follow.

    In ASCII: any terminal or pipe takes that, and stored text cannot control a terminal.
    """
    stream = process.document_stream()
    stream.write(json.dumps(document.model_dump(), indent=None if lines else 2, allow_nan=False) + "\n")
    stream.flush()
