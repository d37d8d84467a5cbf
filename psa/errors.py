"""The errors a user may meet: one line each that says what is wrong, where, and what to do."""


class UserError(Exception):
    """Something the user can mend. The command line prints it as one line and exits with 2.

    what: what is wrong and where (names the option, key or file); way_out: what to do about it.
    """

    def __init__(self, what: str, way_out: str = "") -> None:
        self.what = what
        self.way_out = way_out
        super().__init__(f"{what}. {way_out}" if way_out else what)


class DamagedFile(UserError):
    """A stored file whose bytes are not what was written (torn, truncated, bits flipped)."""


class Interrupted(Exception):
    """A stop was asked for (Ctrl-C, SIGTERM); every finished loop is safe on disk."""
