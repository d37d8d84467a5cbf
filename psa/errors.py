"""The errors a user may meet: one line each that says what is wrong, where, and what to do."""

from typing import Final

LONGEST: Final = 1_000  # characters of a message, whatever is quoted in it
_LONGEST_WAY_OUT: Final = 600


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with 2.

    what: what is wrong and where (names the option, key or file); way_out: what to do about it. Both are
    brought onto one line here, for what they quote may be anything.
    """

    def __init__(self, what: str, way_out: str = "") -> None:
        self.way_out = cut(one_line(way_out), _LONGEST_WAY_OUT)
        self.what = cut(one_line(what), LONGEST - len(self.way_out) - 2)
        super().__init__(f"{self.what}. {self.way_out}" if way_out else self.what)


class DamagedFile(UserError):
    """A stored file whose bytes are not what was written (torn, truncated, bits flipped)."""


class Interrupted(Exception):
    """A stop was asked for (Ctrl-C, SIGTERM); every finished loop is safe on disk."""


def one_line(text: str) -> str:
    """The text on one line, and with nothing in it that a terminal would obey."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode()
        for char in " ".join(text.split())
    )


def cut(text: str, most: int) -> str:
    """Its beginning and its end, where it is longer: what is wrong stands at one of them."""
    half = most // 2 - 3
    return text if len(text) <= most else f"{text[:half]} ... {text[-half:]}"
