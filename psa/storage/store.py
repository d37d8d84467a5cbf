"""The store of a study: states under models/, records under results/, and the trials still pending.

A state has two generations; a record exists only when its trial is done and is never changed, except that
a longer run of the same trial may extend it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from psa.core.errors import CorruptFileError, UserError, one_line
from psa.core.files import remove_leftovers, write_atomically
from psa.core.parsing import as_path
from psa.core.stored_files import files_below, read_stored
from psa.specs.trial import Trial
from psa.storage import layout
from psa.storage.checkpoint import CheckpointFile
from psa.storage.layout import FAILURE_SUFFIX, SIDECAR_SUFFIX, STATE_NAME
from psa.storage.records.bundle import is_bundle_name
from psa.storage.records.divergence import diverged
from psa.storage.records.record import Record, decode_record, difference, encode_record, reaches
from psa.storage.records.record_store import RecordStore
from psa.storage.records.trial_record import decode_trial_record
from psa.storage.verification import Check, Finding

if TYPE_CHECKING:
    from psa.storage.trial_state import TrialState

__all__ = ["STATE_NAME", "Finding", "Record", "Store", "decode_record", "encode_record"]

logger = logging.getLogger(__name__)

_LONGEST_REASON: Final = 500


@dataclass(frozen=True)
class StoreProgress:
    """The progress of some trials.

    damaged: the reason why the record of a trial (by id) cannot be read. diverged: the trials that are done
    and whose record says that they diverged (see psa.storage.records.divergence). loops: those in the records
    of pending trials that have one.
    """

    done: list[Trial]
    pending: list[Trial]
    damaged: dict[str, str]
    diverged: list[Trial]
    loops: list[int]

    @property
    def counts(self) -> str:
        """Return `6 of 8 trials done`, and how many of the 6 diverged where any did."""
        trials = len(self.done) + len(self.pending) + len(self.damaged)
        lost = f" ({len(self.diverged):,} diverged)" if self.diverged else ""
        return f"{len(self.done):,} of {trials:,} trials done{lost}"


class Store:
    """The two trees: `models` holds states, `results` holds records.

    With `single` the trial of seed `plain_seed` uses that one name in `models` (the checkpoint of `train`),
    those of other seeds the same name with their seed.
    """

    def __init__(
        self, models: Path | str, results: Path | str, single: str | None = None, plain_seed: int = 0
    ) -> None:
        self.models, self.results = as_path(models, "models"), as_path(results, "results")
        self.single, self.plain_seed = single, plain_seed
        self.records = RecordStore(self.results)
        self._files: dict[str, CheckpointFile] = {}

    def state_file(self, trial: Trial) -> CheckpointFile:
        """Return the state file of a trial; the same object on every call."""
        name = f"{trial.id}/{STATE_NAME}"
        if self.single is not None:
            seed = "" if trial.seed == self.plain_seed else f".s{trial.seed:02d}"
            name = f"{self.single}{seed}.safetensors"
        if name not in self._files:
            self._files[name] = CheckpointFile(self.models / name)
        return self._files[name]

    def has_states_of(self, trial: Trial) -> bool:
        """Return True if there may be a state of any trial with this trial's network."""
        network = trial.id.rsplit("/", 2)[0]
        return self.single is not None or (self.models / network).is_dir()

    def record_path(self, trial: Trial) -> Path:
        """Return the path of a trial's record."""
        return self.records.path(trial.id)

    def pending(self, trials: Iterable[Trial], horizon: int) -> list[Trial]:
        """Return the trials whose record does not reach `horizon` yet, in order. Raises CorruptFileError."""
        return [trial for trial in trials if not self.done(trial, horizon)]

    def check_folders(self) -> None:
        """Raise UserError if a folder is a file; the results may be a bundle."""
        for option, folder in (("--model-dir", self.models), ("--results-dir", self.results)):
            is_bundle = folder == self.results and is_bundle_name(folder.name) and folder.is_file()
            if folder.exists() and not folder.is_dir() and not is_bundle:
                raise UserError(f"{option} must be a folder, got the file {folder}", "Name one that exists")

    def progress(self, trials: Iterable[Trial], horizon: int) -> StoreProgress:
        """Return the trials that are done or pending and the damaged records. Each record is read once."""
        found, read = StoreProgress([], [], {}, [], []), self.records.reader()
        for trial in trials:
            try:
                record = read(trial)
            except CorruptFileError as damage:
                found.damaged[trial.id] = str(damage)
                continue
            done = record is not None and reaches(record, horizon)
            (found.done if done else found.pending).append(trial)
            if done and record is not None and diverged(record):
                found.diverged.append(trial)
            elif not done and record is not None:
                found.loops.append(record["loops"])
        return found

    def done(self, trial: Trial, horizon: int) -> bool:
        """Return True if a record of at least `horizon` loops (or of an early stop) is stored."""
        record = self.read(trial)
        return record is not None and reaches(record, horizon)

    def read(self, trial: Trial) -> Record | None:
        """Return a trial's record, None if it has none. Raises CorruptFileError, also for another trial's."""
        return self.records.read(trial)

    def load_state(self, trial: Trial) -> TrialState | None:
        """Return the newest sound state of exactly this trial, None where there is none.

        Raises CorruptFileError where none is sound, Misplaced where the file holds another trial.
        """
        file = self.state_file(trial)
        state = file.load()
        if state is not None:
            layout.check_digest(file.path, (state.trial.id, state.trial.digest), trial, "--model-dir")
        return state

    def sidecar(self, trial: str) -> Record | None:
        """Return the sidecar of a trial's record, by id: see RecordStore.sidecar."""
        return self.records.sidecar(trial)

    def write(self, trial: Trial, record: Record, machine: Record) -> None:
        """Store a record, last of all, and beside it what differs between machines without touching it.

        The same record again changes nothing, a longer run of the same trial extends it; one that differs
        raises UserError: two runs of one trial that disagree are a fault to be found, not to be overwritten.
        """
        path, content = self.record_path(trial), encode_record(record)
        made = decode_trial_record(content, str(path))
        stored = self.records.locate(trial.id, trial)
        if stored is not None:
            found = difference(*sorted((made, stored.record), key=lambda each: each["loops"]))
            if found is not None:
                own = "it" if stored.place == str(path) else "the bundle"
                raise UserError(
                    f"{stored.place} holds a record of this trial that differs from the one just made "
                    f"({found})",
                    f"Compare the two machines (the stored one is beside the record), then move {own} "
                    "away or use another --results-dir, and run the same command again",
                )
        if stored is None or stored.record["loops"] < made["loops"]:
            write_atomically(path.with_suffix(SIDECAR_SUFFIX), encode_record(machine))
            write_atomically(path, content)
        path.with_suffix(FAILURE_SUFFIX).unlink(missing_ok=True)

    def clear_leftovers(self, trial: Trial) -> None:
        """Remove the temporary files that killed writers of a trial have left. Raises UserError.

        Only for the holder of its lease. Failures are written without a lease: theirs stay.
        """
        self.state_file(trial).clear_leftovers()
        record = self.record_path(trial)
        remove_leftovers(record.parent, f"{record.stem}.", but=FAILURE_SUFFIX)

    def failure(self, trial: Trial) -> str | None:
        """Return why a trial's last attempt failed, None if it did not."""
        try:
            content = read_stored(self.record_path(trial).with_suffix(FAILURE_SUFFIX))
            return (
                None
                if content is None
                else one_line(str(decode_record(content, "")["error"])[:_LONGEST_REASON])
            )
        except (UserError, KeyError):
            return "unknown: what was written of it is damaged"

    def write_failure(self, trial: Trial, error: str) -> None:
        """Store why a trial failed, until it is done."""
        write_atomically(self.record_path(trial).with_suffix(FAILURE_SUFFIX), encode_record({"error": error}))

    def state_paths(self) -> Iterator[Path]:
        """Return every state file, both generations, in a fixed order, without those set aside as damaged."""
        yield from (path for path in self._state_files() if not layout.is_set_aside(path.name))

    def set_aside_paths(self) -> Iterator[Path]:
        """Return the damaged state files that a later save has set aside."""
        yield from (path for path in self._state_files() if layout.is_set_aside(path.name))

    def array_paths(self) -> Iterator[Path]:
        """Return every file of arrays beside a state, in a fixed order."""
        yield from files_below(self.models, layout.is_arrays).files

    def _state_files(self) -> list[Path]:
        return files_below(self.models, layout.is_state).files

    def record_paths(self, studies: Sequence[str] = ()) -> list[Path]:
        """Return the paths of loose records of some studies (all, if none is named), in a fixed order.

        Files like records that lie elsewhere, and folders that cannot be read, are named in a warning.
        """
        return self.records.loose_paths(studies)

    def warn_of_strays(self, studies: Sequence[str]) -> None:
        """Log one warning that names copies of records in places where psa keeps none."""
        self.records.loose_paths(studies)

    def verify(self) -> Iterator[Finding]:
        """Check the digest and the place of every state and record, and of what is stored beside either."""
        yield from Check(self.models, self.results).findings()
