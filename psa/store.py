"""Every path and every stored thing: states under models/, records under results/, and what is pending.

A state has two generations; a record exists only when its trial is done and is never changed, except that
a longer run of the same trial may extend it.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from psa.errors import DamagedFile, UserError
from psa.files import read_bytes, refusal, write_atomically
from psa.trial import Trial, canonical_json

logger = logging.getLogger(__name__)

RECORD_FORMAT: Final = 1
STATE_NAME: Final = "lkg.safetensors"
_MACHINE: Final = ".machine.json"

Record = dict[str, Any]


class StateFile:
    """One trial's state: the present generation, and the one before it beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.previous = path.with_name(f"{path.stem}.previous{path.suffix}")
        self.damaged = path.with_name(f"{path.stem}.damaged{path.suffix}")
        self._sound = False  # whether the present file is known to be whole, so that it may become previous

    def load(self) -> Any:
        """The newest sound TrialState, None where there is no file.

        A damaged present file is reported loudly and the generation before it is used: the loops in
        between are trained again to the same bits. Raises DamagedFile where none is sound; a fresh start
        is never made unasked.
        """
        from psa.state import decode

        content = read_bytes(self.path)
        older = read_bytes(self.previous)
        if content is None and older is None:
            return None
        problem = f"{self.path} is missing"
        if content is not None:
            try:
                state = decode(content, str(self.path))
            except DamagedFile as damage:
                problem = damage.what
            else:
                self._sound = True
                return state
        if older is None:
            raise DamagedFile(problem, _restore(self.path))
        try:
            state = decode(older, str(self.previous))
        except DamagedFile as damage:
            raise DamagedFile(f"{problem}, and {damage.what}", _restore(self.path)) from damage
        logger.warning("%s; going on from the generation before it, loop %d", problem, state.loops)
        return state

    def save(self, state: Any) -> None:
        """Write a new present generation. A present file not known to be whole is set aside, not kept as
        previous: that would push out the last sound one. Raises UserError."""
        from psa.state import encode

        if not self._sound and self.path.exists():
            try:
                self.path.replace(self.damaged)
            except OSError as error:
                raise refusal(error, f"cannot set aside {self.path}") from error
        write_atomically(self.path, encode(state), self.previous)
        self._sound = True


def _restore(path: Path) -> str:
    return f"Restore a copy of it, or remove it with `clean {path.name}` to start anew"


@dataclass(frozen=True)
class Finding:
    """What `verify` says of one file; problem is None where it is sound."""

    path: Path
    problem: str | None


class Store:
    """The two trees: `models` holds states, `results` holds records.

    With `single` the first trial asked for uses that one name in `models` (the checkpoint of `train`), and
    trials of other seeds the same name with their seed.
    """

    def __init__(self, models: Path, results: Path, single: str | None = None) -> None:
        self.models, self.results, self.single = models, results, single
        self._single_seed: int | None = None

    def state_file(self, trial: Trial) -> StateFile:
        """Where a trial's state lives."""
        if self.single is not None:
            if self._single_seed is None:
                self._single_seed = trial.seed
            seed = "" if trial.seed == self._single_seed else f".s{trial.seed:02d}"
            return StateFile(self.models / f"{self.single}{seed}.safetensors")
        return StateFile(self.models / trial.id / STATE_NAME)

    def record_path(self, trial: Trial) -> Path:
        """Where a trial's record lives."""
        return self.results / f"{trial.id}.json"

    def pending(self, trials: Iterable[Trial], horizon: int) -> list[Trial]:
        """The trials whose record does not reach `horizon` yet, in their order."""
        return [trial for trial in trials if not self.done(trial, horizon)]

    def done(self, trial: Trial, horizon: int) -> bool:
        """Whether a record of at least `horizon` loops (or of an early stop) is stored."""
        content = read_bytes(self.record_path(trial))
        if content is None:
            return False
        record = decode_record(content, str(self.record_path(trial)))
        return record["loops"] >= horizon or record["finals"]["stopped_early"]

    def read(self, trial: Trial) -> Record | None:
        """A trial's record, None where it is not done. Raises DamagedFile."""
        path = self.record_path(trial)
        content = read_bytes(path)
        return None if content is None else decode_record(content, str(path))

    def write(self, trial: Trial, record: Record, machine: Record) -> None:
        """Store a record, last of all, and beside it what differs between machines without touching it.

        The same record again changes nothing, a longer run of the same trial extends it; one that differs
        raises UserError: two runs of one trial that disagree are a fault to be found, not to be overwritten.
        """
        path = self.record_path(trial)
        stored = self.read(trial)
        if stored is not None:
            if _extends(stored, record):
                return
            if not _extends(record, stored):
                raise UserError(
                    f"{path} holds a record that differs from the one just made",
                    "Compare the two runs: versions and machine are in the .machine.json beside it",
                )
        write_atomically(path.with_suffix(_MACHINE), canonical_json(machine).encode() + b"\n")
        write_atomically(path, encode_record(record))

    def state_paths(self) -> Iterator[Path]:
        """Every state file, both generations, in a fixed order."""
        yield from sorted(self.models.rglob("*.safetensors")) if self.models.is_dir() else ()

    def record_paths(self) -> Iterator[Path]:
        """Every record, in a fixed order."""
        if self.results.is_dir():
            paths = sorted(self.results.rglob("s[0-9]*-*.json"))
            yield from (path for path in paths if not path.name.endswith(_MACHINE))

    def verify(self) -> Iterator[Finding]:
        """Check the digest of every state and record file."""
        from psa.state import decode

        for path in self.state_paths():
            yield _checked(path, decode)
        for path in self.record_paths():
            yield _checked(path, decode_record)


def _checked(path: Path, decode: Any) -> Finding:
    try:
        content = read_bytes(path)
        if content is not None:
            decode(content, str(path))
    except UserError as error:
        return Finding(path, error.what)
    return Finding(path, None)


def _extends(longer: Record, shorter: Record) -> bool:
    """Whether `longer` is the same trial trained at least as far, with the same rows so far."""
    if longer["loops"] < shorter["loops"]:
        return False
    if longer["loops"] == shorter["loops"]:
        return longer == shorter
    fixed = [key for key in shorter if key not in ("loops", "history", "finals", "events")]
    return all(longer.get(key) == shorter[key] for key in fixed) and all(
        longer["history"][column][: shorter["loops"]] == values
        for column, values in shorter["history"].items()
    )


def encode_record(record: Record) -> bytes:
    """Canonical JSON with the SHA-256 of itself; equal records give equal bytes."""
    body = {**record, "format": RECORD_FORMAT}
    digest = hashlib.sha256(canonical_json(body).encode()).hexdigest()
    return canonical_json({**body, "sha256": digest}).encode() + b"\n"


def decode_record(content: bytes, where: str) -> Record:
    """The record of a file's bytes. Raises DamagedFile where a bit differs from what was written, UserError
    where a newer psa wrote it."""
    try:
        record = json.loads(content)
        newer = record.get("format", 0) > RECORD_FORMAT
        record.pop("sha256")
        sound = newer or encode_record(record) == content
        record.pop("format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedFile(f"{where} is damaged ({type(error).__name__})", "Remove it and run again") from error
    if newer:
        raise UserError(f"{where} was written by a newer psa", "Update psa")
    if not sound:
        raise DamagedFile(f"{where} is damaged (its digest differs)", "Remove it and run again")
    return record  # type: ignore[no-any-return]


def history_rows(history: dict[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """The columns of a history as one dict per loop."""
    for values in zip(*history.values(), strict=True):
        yield dict(zip(history, values, strict=True))
