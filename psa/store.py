"""Every path and every stored thing: states under models/, records under results/, and what is pending.

A state has two generations; a record exists only when its trial is done and is never changed, except that
a longer run of the same trial may extend it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from psa import arrayfile
from psa.divergence import diverged
from psa.errors import DamagedFile, UserError, one_line
from psa.files import read_bytes, refusal, write_atomically
from psa.records import Record, decode_record, difference, encode_record, reaches
from psa.statefile import StateFile, arrays_beside
from psa.trial import Trial
from psa.trial_records import decode_trial_record

__all__ = ["Finding", "Record", "Store", "decode_record", "encode_record"]

STATE_NAME: Final = "lkg.safetensors"
_MACHINE: Final = ".machine.json"
_FAILURE: Final = ".failed.json"
_BESIDE: Final = (_MACHINE, _FAILURE)  # how files end that lie beside records
_LONGEST_REASON: Final = 500
_SET_ASIDE: Final = re.compile(r".*\.damaged(-[0-9]+)?\.safetensors")


@dataclass(frozen=True)
class Finding:
    """What `verify` says of one file; problem is None where it is sound."""

    path: Path
    problem: str | None


@dataclass(frozen=True)
class Survey:
    """How far some trials are. damaged: why the record of a trial (by id) cannot be read. diverged: those of
    the trials that are done whose record says so (see psa.divergence).
    """

    done: list[Trial]
    pending: list[Trial]
    damaged: dict[str, str]
    diverged: list[Trial]

    @property
    def counts(self) -> str:
        """Return `6 of 8 trials done`, and how many of the 6 diverged where any did."""
        trials = len(self.done) + len(self.pending) + len(self.damaged)
        lost = f" ({len(self.diverged):,} diverged)" if self.diverged else ""
        return f"{len(self.done):,} of {trials:,} trials done{lost}"


class _Listing:
    """Which files there are in a tree, by relative name; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root, self._names = root, dict[str, frozenset[str]]()

    def __contains__(self, name: str) -> bool:
        folder, _, file = name.rpartition("/")
        if folder not in self._names:
            try:
                self._names[folder] = frozenset(path.name for path in (self.root / folder).iterdir())
            except FileNotFoundError:
                self._names[folder] = frozenset()
            except OSError as error:
                raise refusal(error, f"cannot read {self.root}/{folder}") from error
        return file in self._names[folder]


class Store:
    """The two trees: `models` holds states, `results` holds records.

    With `single` the trial of seed `plain_seed` uses that one name in `models` (the checkpoint of `train`),
    those of other seeds the same name with their seed.
    """

    def __init__(self, models: Path, results: Path, single: str | None = None, plain_seed: int = 0) -> None:
        self.models, self.results, self.single, self.plain_seed = models, results, single, plain_seed
        self._files: dict[str, StateFile] = {}

    def state_file(self, trial: Trial) -> StateFile:
        """Where a trial's state lives; the same object each time it is asked for."""
        name = f"{trial.id}/{STATE_NAME}"
        if self.single is not None:
            seed = "" if trial.seed == self.plain_seed else f".s{trial.seed:02d}"
            name = f"{self.single}{seed}.safetensors"
        if name not in self._files:
            self._files[name] = StateFile(self.models / name)
        return self._files[name]

    def has_states_of(self, trial: Trial) -> bool:
        """Whether there may be a state of any trial of this one's network."""
        network = trial.id.rsplit("/", 2)[0]
        return self.single is not None or (self.models / network).is_dir()

    def record_path(self, trial: Trial) -> Path:
        """Where a trial's record lives."""
        return self.results / f"{trial.id}.json"

    def pending(self, trials: Iterable[Trial], horizon: int) -> list[Trial]:
        """The trials whose record does not reach `horizon` yet, in their order. Raises DamagedFile."""
        return [trial for trial in trials if not self.done(trial, horizon)]

    def survey(self, trials: Iterable[Trial], horizon: int) -> Survey:
        """What is done, what is pending, and which records are damaged, each record read once."""
        found, there = Survey([], [], {}, []), _Listing(self.results)
        for trial in trials:
            if f"{trial.id}.json" not in there:  # of thousands most may be missing: no file is tried in vain
                found.pending.append(trial)
                continue
            try:
                record = self.read(trial)
            except DamagedFile as damage:
                found.damaged[trial.id] = str(damage)
                continue
            done = record is not None and reaches(record, horizon)
            (found.done if done else found.pending).append(trial)
            if done and record is not None and diverged(record):
                found.diverged.append(trial)
        return found

    def done(self, trial: Trial, horizon: int) -> bool:
        """Whether a record of at least `horizon` loops (or of an early stop) is stored."""
        record = self.read(trial)
        return record is not None and reaches(record, horizon)

    def read(self, trial: Trial) -> Record | None:
        """A trial's record, None where it is not done. Raises DamagedFile, also for another trial's."""
        path = self.record_path(trial)
        content = read_bytes(path)
        if content is None:
            return None
        record = decode_trial_record(content, str(path))
        if record.get("digest") != trial.digest:
            raise DamagedFile(
                f"{path} holds the record of another trial, {record.get('id')}",
                "Give the grid another name, or use another --results-dir",
            )
        return record

    def machine_of(self, trial: str) -> Record | None:
        """What stands beside the record of a trial (by id): the machine, the time its pack took, and other
        things that differ from run to run. None where there is none, or it is damaged.
        """
        content = read_bytes(self.results / f"{trial}{_MACHINE}")
        try:
            return None if content is None else decode_record(content, "")
        except UserError:
            return None

    def write(self, trial: Trial, record: Record, machine: Record) -> None:
        """Store a record, last of all, and beside it what differs between machines without touching it.

        The same record again changes nothing, a longer run of the same trial extends it; one that differs
        raises UserError: two runs of one trial that disagree are a fault to be found, not to be overwritten.
        """
        path = self.record_path(trial)
        content = encode_record(record)
        made, stored = decode_trial_record(content, str(path)), self.read(trial)
        if stored is not None:
            found = difference(*sorted((made, stored), key=lambda each: each["loops"]))
            if found is not None:
                raise UserError(
                    f"{path} holds a record of this trial that differs from the one just made ({found})",
                    f"Compare the two machines ({path.with_suffix(_MACHINE).name} is the stored one's), then "
                    "remove the stored record or use another --results-dir, and run the same command again",
                )
            if stored["loops"] >= made["loops"]:
                return
        write_atomically(path.with_suffix(_MACHINE), encode_record(machine))
        write_atomically(path, content)
        path.with_suffix(_FAILURE).unlink(missing_ok=True)

    def failure(self, trial: Trial) -> str | None:
        """Why a trial's last try failed, None where it did not."""
        content = read_bytes(self.record_path(trial).with_suffix(_FAILURE))
        try:
            return (
                None
                if content is None
                else one_line(str(decode_record(content, "")["error"])[:_LONGEST_REASON])
            )
        except (UserError, KeyError):
            return "unknown: what was written of it is damaged"

    def write_failure(self, trial: Trial, error: str) -> None:
        """Remember why a trial failed, until it is done."""
        write_atomically(self.record_path(trial).with_suffix(_FAILURE), encode_record({"error": error}))

    def traces(self, start: str) -> Literal["missing", "failed", "damaged"]:
        """What there is of a trial without a sound record, by its id or the beginning of it."""
        found = self.results / start
        names = [path.name for path in found.parent.glob(f"{found.name}*.json")]
        if any(not name.endswith(_BESIDE) for name in names):
            return "damaged"
        return "failed" if any(name.endswith(_FAILURE) for name in names) else "missing"

    def state_paths(self) -> Iterator[Path]:
        """Every state file, both generations, in a fixed order; not what was set aside as damaged."""
        yield from (path for path in self._state_files() if _SET_ASIDE.fullmatch(path.name) is None)

    def set_aside_paths(self) -> Iterator[Path]:
        """The damaged state files that a later save has put out of the way."""
        yield from (path for path in self._state_files() if _SET_ASIDE.fullmatch(path.name) is not None)

    def array_paths(self) -> Iterator[Path]:
        """Every file of arrays that lies beside a state, in a fixed order."""
        yield from sorted(self.models.rglob(f"*{arrayfile.SUFFIX}")) if self.models.is_dir() else ()

    def _state_files(self) -> list[Path]:
        found = sorted(self.models.rglob("*.safetensors")) if self.models.is_dir() else []
        return [path for path in found if not path.name.endswith(arrayfile.SUFFIX)]

    def record_paths(self) -> Iterator[Path]:
        """Every record, in a fixed order."""
        yield from (path for path in self._record_files() if not path.name.endswith(_BESIDE))

    def _record_files(self) -> list[Path]:
        return sorted(self.results.rglob("s[0-9]*-*.json")) if self.results.is_dir() else []

    def verify(self) -> Iterator[Finding]:
        """Check the digest of every state and record file, and of what is stored beside either.

        Arrays must be those that a state or a record names; of those that none names yet (a kill came between
        them and their state) nothing can be said but that they are whole files.
        """
        from psa.state import decode

        named: dict[Path, set[str]] = {}

        def of_state(content: bytes, where: str) -> None:
            _name(named, Path(where), decode(content, where).files)

        def of_record(content: bytes, where: str) -> None:
            if where.endswith(_BESIDE):
                decode_record(content, where)
            else:
                record = decode_trial_record(content, where)
                _name(named, self.models / str(record["id"]) / STATE_NAME, record.get("files", {}))

        for path in self.state_paths():
            yield _checked(path, of_state)
        for path in self._record_files():
            yield _checked(path, of_record)
        for path in self.array_paths():
            yield _checked_arrays(path, named.get(path))


def _name(named: dict[Path, set[str]], state: Path, files: dict[str, Any]) -> None:
    """Note the digests of the arrays beside a state file, whichever generation of it says so."""
    present = state.with_name(f"{state.stem.removesuffix('.previous')}{state.suffix}")
    for name, entry in files.items():
        named.setdefault(arrays_beside(present, name), set()).add(entry["sha256"])


def _checked(path: Path, decode: Callable[[bytes, str], object]) -> Finding:
    try:
        content = read_bytes(path)
        if content is not None:
            decode(content, str(path))
    except UserError as error:
        return Finding(path, error.what)
    return Finding(path, None)


def _checked_arrays(path: Path, digests: set[str] | None) -> Finding:
    try:
        arrayfile.read(path)
        if digests is not None and arrayfile.sha256_of(path) not in digests:
            return Finding(path, f"{path} is damaged (its SHA-256 is not the recorded one)")
    except UserError as error:
        return Finding(path, error.what)
    return Finding(path, None)
