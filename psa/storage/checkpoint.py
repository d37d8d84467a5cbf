"""Checkpoints: the state file of a trial in two generations, and the files of arrays beside it.

Imports no torch.
"""

from __future__ import annotations

import json
import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from psa.core.errors import CorruptFileError, UserError
from psa.core.files import file_error, leftovers, write_atomically
from psa.core.stored_files import open_regular, read_stored
from psa.storage import array_file
from psa.storage.array_file import Arrays, read_header

if TYPE_CHECKING:
    from psa.specs.trial import Trial
    from psa.storage.trial_state import TrialState


def trained_loops(path: Path) -> int:
    """Return the number of loops of a stored state, 0 if none can be read (the worker reports why)."""
    try:
        with open_regular(path) as file:
            return loops_in_header(file) or 0
    except (OSError, UserError):
        return 0


def loops_in_header(file: BinaryIO) -> int | None:
    """Return the number of loops that the beginning of a state file names, None if it names none."""
    try:
        header, _ = read_header(file)
        return max(0, int(json.loads(header["__metadata__"]["psa"])["loops"]))
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return None


logger = logging.getLogger(__name__)


def arrays_beside(state: Path, name: str) -> Path:
    """Return the path of the arrays called `name` beside a state file."""
    return state.with_name(f"{state.stem}.{name}{array_file.ARRAY_SUFFIX}")


def _stored(path: Path) -> TrialState | None:
    """Return the state of a file, None where there is none. Raises UserError."""
    from psa.storage.trial_state import decode_state

    content = read_stored(path)
    return None if content is None else decode_state(content, str(path))


class CheckpointFile:
    """The state file of one trial: the present generation, and the previous one beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self._sound = False  # whether the present file is known to be whole, so that it may become previous
        self._warned = False

    def load(self) -> TrialState | None:
        """Return the newest sound TrialState, None if there is no file.

        For a damaged present file a warning is logged and the generation before it is used: the loops in
        between are trained again to the same bits. Raises CorruptFileError if none is sound, since a trial
        must not start anew by itself.
        """
        self._sound = False
        problem, missing = "", f"{self.path} is missing"
        try:
            state = _stored(self.path)
        except CorruptFileError as damage:
            state, problem = None, damage.message
        if state is not None:
            self._sound = True
            return state
        try:
            state = _stored(self.previous)
        except CorruptFileError as damage:
            raise CorruptFileError(f"{problem or missing}, and {damage.message}", self.hint()) from damage
        if state is not None:
            self._warn(f"{problem or missing}; going on from the generation before it, loop {state.loops}")
        elif problem:
            raise CorruptFileError(problem, self.hint())
        return state

    def arrays_path(self, name: str) -> Path:
        """Return the path of the arrays called `name`, beside the state."""
        return arrays_beside(self.path, name)

    def keep(self, trial: Trial, name: str, arrays: Arrays) -> dict[str, Any]:
        """Store arrays of samples of a trial beside its state. Return the `sha256` and `bytes` of their file.

        They are written before the state that names them. After a kill in between, the epoch is trained again
        and they are replaced: by the same bits, where the processor promises them. Raises UserError.
        """
        facts = {"name": name, "spec": trial.model_dump(mode="json")}
        return array_file.write_arrays(self.arrays_path(name), arrays, facts)

    def _warn(self, message: str) -> None:
        """Log the warning once, however often the file is read."""
        if not self._warned:
            logger.warning("%s", message)
        self._warned = True

    def hint(self) -> str:
        """Return the hint for a state that cannot be used."""
        command = shlex.join(["clean", "--model-dir", str(self.path.parent), self.path.name])
        return f"Put a sound copy in its place, or start anew after `{command}`"

    def save(self, state: TrialState) -> None:
        """Write a new present generation, and keep the one before it. Raises UserError.

        A present file not known to be whole is set aside, not kept as previous: that would push out the
        last sound one.
        """
        from psa.storage.trial_state import encode_state

        if not self._sound and self.path.exists():
            try:
                self.path.replace(self._free_name())
            except OSError as error:
                raise file_error(error, f"cannot set aside {self.path}") from error
        write_atomically(self.path, encode_state(state), self.previous)
        self._sound = True

    def remove(self) -> None:
        """Remove both generations and their temporary files; files set aside as damaged stay."""
        for path in (self.path, self.previous):
            _unlink(path)
        self.clear_leftovers()
        self._sound = False

    def clear_leftovers(self) -> None:
        """Remove temporary files of killed writers, of both generations and of arrays. Raises UserError.

        Only the process that may write them may call this: the holder of the trial's lease or folder's lock.
        """
        for path in leftovers(self.path.parent, f"{self.path.stem}."):
            _unlink(path)

    def _free_name(self) -> Path:
        """Return a free path to move a damaged file to; earlier ones stay."""
        number, stem, suffix = 1, self.path.stem, self.path.suffix
        name = f"{stem}.damaged{suffix}"
        while self.path.with_name(name).exists():
            number += 1
            name = f"{stem}.damaged-{number}{suffix}"
        return self.path.with_name(name)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise file_error(error, f"cannot remove {path}") from error
