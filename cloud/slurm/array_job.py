"""The stored job arrays of a folder of states: MODELS/.slurm/<job name>/, with the packs of their tasks.

job.json: folders, device and packs. script.sh: what sbatch runs. <index>.jsonl: events of a task.
<index>.log: its output.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from cloud.slurm.request import batch_script
from psa.core.errors import UserError, one_line
from psa.core.file_locks import locked
from psa.core.files import read_bytes, write_atomically
from psa.execution.machine import Machine
from psa.execution.worker.protocol import pack_body, received_pack, stored_pack
from psa.specs.base import canonical_json
from psa.specs.trial import Pack
from psa.storage.store import Store

logger = logging.getLogger(__name__)

ARRAYS_FOLDER: Final = ".slurm"  # in the folder of states
ENDED_KEPT: Final = 5  # ended arrays whose logs are kept
_LOCK_SECONDS: Final = 30.0  # another sweep may be submitting
_JOB: Final = "job.json"
_KEYS: Final = frozenset({"packs", "models", "results", "data_dir", "device"})


@dataclass(frozen=True)
class ArrayJob:
    """A job array: its folder, whose name is the name of the job, and what it was told."""

    folder: Path
    body: dict[str, Any]

    @property
    def name(self) -> str:
        """The name of the job."""
        return self.folder.name

    @property
    def script(self) -> Path:
        """The script that sbatch runs."""
        return self.folder / "script.sh"

    @cached_property
    def packs(self) -> list[Pack]:
        """The pack of each task. Raises UserError."""
        return [stored_pack(body, str(self.folder / _JOB)) for body in self.body["packs"]]

    def load_plugins(self, index: int) -> None:
        """Load the plugins that the pack of a task carries. Raises UserError."""
        received_pack(self.body["packs"][index], str(self.folder / _JOB))

    @property
    def store(self) -> Store:
        """The states and records that the tasks write."""
        return Store(Path(self.body["models"]), Path(self.body["results"]))

    @property
    def machine(self) -> Machine:
        """The data folder and the device of the tasks."""
        return Machine(Path(self.body["data_dir"]), self.body["device"])

    def events_path(self, index: int) -> Path:
        """Return the path of the events of a task."""
        return self.folder / f"{index}.jsonl"

    def last_output(self, index: int) -> str:
        """Return the last line that a task has printed, "" for none."""
        try:
            text = (self.folder / f"{index}.log").read_text(errors="replace")
        except OSError:
            return ""
        lines = [one_line(line) for line in text.splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


def read_array_job(folder: Path) -> ArrayJob:
    """Return a stored job array. Raises UserError."""
    path = folder / _JOB
    body: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        body = json.loads(read_bytes(path) or b"")
    if not isinstance(body, dict) or not body.keys() >= _KEYS:
        raise UserError(f"{path} must describe a job array, and is damaged", "Remove its folder")
    return ArrayJob(folder, body)


class ArrayJobFolder:
    """The job arrays of one folder of states."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.path = store.models.absolute() / ARRAYS_FOLDER
        self._known: dict[str, ArrayJob] = {}

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock under which arrays are submitted and removed, on any host that shares the folder."""
        with locked(self.path / "lock", _LOCK_SECONDS, what=f"another sweep is submitting from {self.path}"):
            yield

    def create(self, prefix: str, packs: Sequence[Pack], machine: Machine) -> ArrayJob:
        """Write a new job array. Its name is unique. Raises UserError."""
        folder = self.path / f"{prefix}{secrets.token_hex(4)}"
        body = {
            "models": str(self.store.models.absolute()),
            "results": str(self.store.results.absolute()),
            "data_dir": str(machine.data_dir.absolute()),
            "device": machine.device,
            "packs": [pack_body(pack) for pack in packs],
        }
        array = ArrayJob(folder, body)
        array.__dict__["packs"] = list(packs)  # the objects of the sweep: events refer to them
        write_atomically(array.script, batch_script(folder).encode())
        write_atomically(folder / _JOB, canonical_json(body).encode() + b"\n")
        self._known[array.name] = array
        return array

    def find(self, names: Collection[str]) -> list[ArrayJob]:
        """Return the stored arrays with these names; the same objects on every call."""
        for name in sorted(set(names) - self._known.keys()):
            try:
                array = read_array_job(self.path / name)
                if array.packs:
                    self._known[name] = array
            except UserError as error:
                logger.warning("%s", error)
        return [self._known[name] for name in sorted(names) if name in self._known]

    def remove_ended(self, live: Collection[str]) -> None:
        """Remove this user's arrays that have ended, but for the newest, whose logs may still be of use.

        Those of others stay: a Slurm that shows users only their own jobs lists none of them as live.
        """
        if not self.path.is_dir():
            return
        ended = []
        for path in self.path.iterdir():
            with contextlib.suppress(OSError):  # another sweep has removed it
                found = path.stat()
                if path.is_dir() and path.name not in live and found.st_uid == os.geteuid():
                    ended.append((found.st_mtime, path.name))
        self.remove([name for _, name in sorted(ended, reverse=True)[ENDED_KEPT:]])

    def remove(self, names: Collection[str]) -> None:
        """Remove the folders of arrays."""
        for name in names:
            shutil.rmtree(self.path / name, ignore_errors=True)
