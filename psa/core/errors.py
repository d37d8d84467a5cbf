"""The errors shown to users, on one line each: what is wrong, where, and what to do."""

import unicodedata
from typing import Final

EXIT_USER_ERROR: Final = 2
LONGEST: Final = 1_000  # characters of a message, whatever is quoted in it
_LONGEST_HINT: Final = 600


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with 2.

    message: what is wrong and where (names the option, key or file); hint: what to do about it. Both are
    brought onto one line here, for what they quote may be anything.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = cut(one_line(hint), _LONGEST_HINT)
        self.message = cut(one_line(message), LONGEST - len(self.hint) - 2)
        stop = "" if self.message.endswith((".", "?")) else "."
        super().__init__(f"{self.message}{stop} {self.hint}" if hint else self.message)


class CorruptFileError(UserError):
    """A stored file whose bytes are not what was written (torn, truncated, bits flipped)."""


class RunFailure(UserError):
    """A run that failed for a reason outside of psa and of what the user wrote, such as a killed process.

    The command line exits with 1, as after a sweep with failed trials.
    """


class Interrupted(Exception):
    """A stop was requested (Ctrl-C, SIGTERM); every finished loop is safe on disk."""


_OF_MEMORY: Final = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "bad_alloc",
    "failed to map segment",  # of a library, by the dynamic loader
)


def lacks_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out. torch and the loader report it in several ways."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OF_MEMORY)


def memory_error(error: BaseException) -> UserError:
    """Return the one line for memory that ran out."""
    detail = f" ({one_line(str(error))[:200]})" if str(error) else ""
    return UserError(
        f"this process ran out of memory{detail}",
        "Free memory, raise the limit (`ulimit -v`, container or job), or use fewer workers",
    )


def one_line(text: str) -> str:
    """Return a text on one line, without characters that a terminal would interpret."""
    return printable(" ".join(text.split()))


def named_error(error: BaseException) -> str:
    """Return the kind and the text of an error on one line."""
    return one_line(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)


def printable(text: str) -> str:
    """Return lines of text with escapes in place of characters that a terminal obeys or has no glyph for.

    ESC, C1 and bidi controls, halves of surrogate pairs, line separators, private and unassigned characters.
    """
    if text.isprintable():
        return text
    return "".join(char if _is_harmless(char) else char.encode("unicode_escape").decode() for char in text)


def _is_harmless(char: str) -> bool:
    """Return whether a terminal only shows a character: spaces of any width and line ends are harmless."""
    return char == "\n" or char.isprintable() or unicodedata.category(char) == "Zs"


def cut(text: str, most: int) -> str:
    """Return the beginning and the end of a text that is too long: the fault stands in one of them."""
    half = most // 2 - 3
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"
