"""One trial's stored state, in two generations: the present file and the one before it beside it."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from psa import arrayfile
from psa.arrayfile import Arrays
from psa.errors import DamagedFile
from psa.files import read_bytes, refusal, write_atomically

if TYPE_CHECKING:
    from psa.state import TrialState
    from psa.trial import Trial

logger = logging.getLogger(__name__)


def arrays_beside(state: Path, name: str) -> Path:
    """The file of the arrays called `name` beside a state file."""
    return state.with_name(f"{state.stem}.{name}{arrayfile.SUFFIX}")


class StateFile:
    """One trial's state: the present generation, and the one before it beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self._sound = False  # whether the present file is known to be whole, so that it may become previous
        self._warned = False

    def load(self) -> TrialState | None:
        """The newest sound TrialState, None where there is no file.

        A damaged present file is reported loudly and the generation before it is used: the loops in
        between are trained again to the same bits. Raises DamagedFile where none is sound; a fresh start
        is never made unasked.
        """
        from psa.state import decode

        self._sound = False
        content = read_bytes(self.path)
        problem = f"{self.path} is missing"
        if content is not None:
            try:
                state = decode(content, str(self.path))
            except DamagedFile as damage:
                problem = damage.what
            else:
                self._sound = True
                return state
        older = read_bytes(self.previous)
        if older is None:
            if content is None:
                return None
            raise DamagedFile(problem, self.way_out())
        try:
            state = decode(older, str(self.previous))
        except DamagedFile as damage:
            raise DamagedFile(f"{problem}, and {damage.what}", self.way_out()) from damage
        self._warn(f"{problem}; going on from the generation before it, loop {state.loops}")
        return state

    def arrays_path(self, name: str) -> Path:
        """Where arrays of that name lie: beside the state."""
        return arrays_beside(self.path, name)

    def keep(self, trial: Trial, name: str, arrays: Arrays) -> dict[str, Any]:
        """Store arrays of samples of a trial beside its state; the `sha256` and `bytes` of their file.

        They are written before the state that names them. After a kill in between, the epoch is trained again
        and they are replaced: by the same bits, where the processor promises them. Raises UserError.
        """
        facts = {"name": name, "spec": trial.model_dump(mode="json")}
        return arrayfile.write(self.arrays_path(name), arrays, facts)

    def _warn(self, message: str) -> None:
        """Say it once, however often the file is read."""
        if not self._warned:
            logger.warning("%s", message)
        self._warned = True

    def way_out(self) -> str:
        """Return the hint for a state of no use."""
        command = shlex.join(["clean", "--model-dir", str(self.path.parent), self.path.name])
        return f"Put a sound copy in its place, or start anew after `{command}`"

    def save(self, state: TrialState) -> None:
        """Write a new present generation, and keep the one before it. Raises UserError.

        A present file not known to be whole is set aside, not kept as previous: that would push out the
        last sound one.
        """
        from psa.state import encode

        if not self._sound and self.path.exists():
            try:
                self.path.replace(self._free_name())
            except OSError as error:
                raise refusal(error, f"cannot set aside {self.path}") from error
        write_atomically(self.path, encode(state), self.previous)
        self._sound = True

    def remove(self) -> None:
        """Remove both generations and what a kill left of them; what was set aside as damaged stays."""
        folder, both = self.path.parent, (self.path, self.previous)
        leftovers = [left for path in both for left in folder.glob(f".{path.name}.*.tmp")]
        for path in (*both, *leftovers):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise refusal(error, f"cannot remove {path}") from error
        self._sound = False

    def _free_name(self) -> Path:
        """Where a damaged file goes; an earlier one stays."""
        number, stem, suffix = 1, self.path.stem, self.path.suffix
        name = f"{stem}.damaged{suffix}"
        while self.path.with_name(name).exists():
            number += 1
            name = f"{stem}.damaged-{number}{suffix}"
        return self.path.with_name(name)
