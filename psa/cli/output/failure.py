"""The end of a command that fails: a line on standard error, a document with --json, and an exit code."""

from __future__ import annotations

import contextlib
import sys
from typing import Final

from cyclopts import App, CycloptsError, MissingArgumentError

from psa.cli.shadowed import shadowed_library
from psa.core import process
from psa.core.errors import (
    EXIT_USER_ERROR,
    LONGEST,
    RunFailure,
    UserError,
    cut,
    lacks_memory,
    memory_error,
    one_line,
)
from psa.core.files import file_error

EXIT_INTERNAL: Final = 1
EXIT_FAILED: Final = 1
EXIT_STOPPED: Final = 130
EXIT_BROKEN_PIPE: Final = 141
_UNEXPECTED: Final = (
    "What was stored is untouched; run the same command again with --debug to see where it happened"
)
EXPECTED: Final = (CycloptsError, UserError, KeyboardInterrupt, OSError)


def print_failure(error: BaseException, app: App, as_json: bool) -> int:
    """Print an error in one line, with --json also as a document. Return the exit code."""
    if isinstance(error, BrokenPipeError):
        process.discard_output()
        return EXIT_BROKEN_PIPE
    if isinstance(error, OSError):
        process.discard_output()
    shown, prefix, code = _explained(error, app)
    with contextlib.suppress(OSError, ValueError):  # no reader, or a full disk: the exit code still counts
        sys.stderr.write(f"{cut(one_line(f'{prefix}{shown}'), LONGEST + len('error: '))}\n")
        sys.stderr.flush()
    if as_json and not isinstance(error, KeyboardInterrupt):
        from psa.cli.output.document import ErrorDocument, write_document

        with contextlib.suppress(OSError, ValueError):
            write_document(ErrorDocument(error=shown.message, hint=shown.hint))
    return code


def _explained(error: BaseException, app: App) -> tuple[UserError, str, int]:
    """Return an error as a message and a hint, the first word of its line, and the exit code."""
    if isinstance(error, MemoryError | ImportError | OSError | RuntimeError) and lacks_memory(error):
        error = memory_error(error)
    elif isinstance(error, Exception) and not isinstance(error, EXPECTED):
        error = shadowed_library() or error
    match error:
        case CycloptsError():
            called = " ".join(dict.fromkeys((*app.name, *(error.command_chain or ()))))
            return UserError(_syntax(error), f"See `{called} --help`"), "error: ", EXIT_USER_ERROR
        case UserError():
            code = EXIT_FAILED if isinstance(error, RunFailure) else EXIT_USER_ERROR
            return error, "error: ", code
        case KeyboardInterrupt():
            return UserError("stopped; nothing that was stored is lost"), "", EXIT_STOPPED
        case OSError():
            what = f"cannot use {error.filename}" if error.filename else "cannot write the output"
            return file_error(error, what), "error: ", EXIT_USER_ERROR
        case _:
            message = f"unexpected {type(error).__name__}: {str(error)[:300]}"
            return UserError(message, _UNEXPECTED), "", EXIT_INTERNAL


def _syntax(error: CycloptsError) -> str:
    """Return the message of an error in the command line; a missing argument has its name in the help."""
    if type(error) is not MissingArgumentError or error.argument is None:
        return str(error)
    named = error.keyword or next((each.keyword for each in error.argument.tokens if each.keyword), None)
    if named is not None:
        return f"{named} needs a value"
    name = error.argument.name
    positional = error.argument.field_info.is_positional
    return f"missing {name.removeprefix('--').upper() if positional else name}"
