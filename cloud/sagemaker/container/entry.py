"""The entry point of a training container: train a job's packs on all cores and save checkpoints.

/opt/ml/input/data/line holds the packs and their earlier states, /opt/ml/input/data/data the images. The
worker's folder is /opt/ml/checkpoints, which SageMaker continuously copies to S3, and back before the next
attempt. SIGTERM saves and exits; a restart of finished work exits at once with 0.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psa
from cloud.sagemaker.container.code import unpacked_digest
from psa.core.errors import EXIT_USER_ERROR, UserError
from psa.core.files import read_bytes, write_atomically
from psa.core.stop import StopRequest
from psa.execution.backend import BackendOptions
from psa.execution.cost_model import CostModel
from psa.execution.local import LocalBackend
from psa.execution.machine import Machine
from psa.execution.worker.protocol import EXIT_INTERRUPTED, WorkerEvent, received_pack, stored_pack
from psa.specs.base import canonical_json
from psa.specs.trial import Pack
from psa.storage.checkpoint import trained_loops
from psa.storage.store import STATE_NAME, Store

logger = logging.getLogger(__name__)

ROOT: Final = Path("/opt/ml")
PACKS_FILE: Final = "packs.json"
PROGRESS_FILE: Final = "progress.json"  # pack -> facts of its last loop
FAILURES_FILE: Final = "failures.json"  # the job, and trial id -> why it failed there
MAX_ARTIFACT_BYTES: Final = 384 * 2**20  # of an artifact, which is read into memory if it is needed at all
PROGRESS_SECONDS: Final = 2.0


class _ProgressWriter:
    """A writer of files for the watching sweep, beside the checkpoints: progress of packs, failed trials."""

    def __init__(self, folder: Path, names: dict[int, str], job: str) -> None:
        self.folder, self.names, self.job = folder, names, job
        self.progress: dict[str, dict[str, Any]] = {}
        self.failures: dict[str, str] = {}
        self._written = 0.0

    def handle_event(self, event: WorkerEvent) -> None:
        """Record an event. All events except single loops are logged for CloudWatch."""
        name = self.names[id(event.pack)]
        match event.kind:
            case "loop":
                self.progress[name] = event.facts
            case "failed":
                self.failures |= {trial.id: event.facts["error"] for trial in event.pack.trials}
            case "done":
                self.failures |= event.facts.get("failed", {})
        if event.kind not in ("tick", "loop"):
            logger.info("%s %s %s", name, event.kind, canonical_json(event.facts))
        if time.monotonic() - self._written > PROGRESS_SECONDS:
            self.write()

    def write(self) -> None:
        """Write both files."""
        self._written = time.monotonic()
        failures = {"job": self.job, "trials": self.failures}
        for name, body in ((PROGRESS_FILE, self.progress), (FAILURES_FILE, failures)):
            write_atomically(self.folder / name, canonical_json(body).encode() + b"\n")


def train_packs(root: Path) -> int:
    """Train the packs of a job. Return the exit code. Raises UserError."""
    code = Path(str(psa.__file__)).parents[1]
    logger.info("code %s in %s", unpacked_digest(code), code)
    hyperparameters = json.loads(read_bytes(root / "input/config/hyperparameters.json") or b"{}")
    line, folder = root / "input/data/line", root / "checkpoints"
    packs = parse_packs(read_bytes(line / PACKS_FILE) or b"", str(line / PACKS_FILE), received_pack)
    store = Store(folder / "models", folder / "results")
    _copy_earlier_states(line / "models", store)
    with contextlib.suppress(FileNotFoundError):  # trials that failed in an earlier attempt are tried again
        (folder / FAILURES_FILE).unlink()
    pending = {name: pack for name, pack in packs.items() if store.pending(pack.trials, pack.horizon)}
    names = {id(pack): name for name, pack in pending.items()}
    progress = _ProgressWriter(folder, names, hyperparameters.get("job", ""))
    machine = Machine(root / "input/data/data", hyperparameters.get("device"))
    backend = LocalBackend(store, machine, CostModel(root / "costs.json"), BackendOptions())
    with StopRequest() as stop:
        if pending:
            with contextlib.closing(backend.launch(backend.plan(list(pending.values())))) as events:
                for event in events:
                    progress.handle_event(event)
                    if stop():
                        break
        progress.write()
        if stop():
            logger.info("stopped as asked; every finished loop is saved")
            return EXIT_INTERRUPTED
    _fill_artifact(store, root / "model")
    return 0


def parse_packs(
    content: bytes, where: str, parse: Callable[[Any, str], Pack] = stored_pack
) -> dict[str, Pack]:
    """Parse the packs of a job, by name. parse: `received_pack` to train them. Raises UserError."""
    try:
        bodies = json.loads(content)
        items = sorted(bodies.items())
    except (ValueError, AttributeError, RecursionError):
        raise UserError(f"{where} must hold packs, got none", "Submit the sweep again") from None
    return {name: parse(body, where) for name, body in items}


def _copy_earlier_states(before: Path, store: Store) -> None:
    """Copy earlier states that are further trained than those of a previous attempt, damaged ones as well,
    since these must not be taken for missing ones.
    """
    for path in before.rglob(STATE_NAME):
        here = store.models / path.relative_to(before)
        if not here.exists() or trained_loops(path) > trained_loops(here):
            write_atomically(here, path.read_bytes())


def _fill_artifact(store: Store, model: Path) -> None:
    """Copy records, then states, into the job's artifact, in case the checkpoints did not arrive."""
    left = MAX_ARTIFACT_BYTES
    for root, pattern in ((store.results, "s*.json"), (store.models, STATE_NAME)):
        for path in sorted(root.rglob(pattern)):
            left -= path.stat().st_size
            if left < 0:
                logger.warning("the artifact is full: %s and what comes after it is not in there", path)
                return
            target = model / root.name / path.relative_to(root)
            write_atomically(target, path.read_bytes())


def main(root: Path = ROOT) -> int:
    """Train the packs of a job. Return 0 if done, 2 for a user error (whose message is also written to
    /opt/ml/output/failure), 75 if states were saved and the job must be restarted.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    try:
        return train_packs(root)
    except UserError as error:
        logger.error("%s", error)  # noqa: TRY400 - one line, also in CloudWatch
        with contextlib.suppress(UserError):
            write_atomically(root / "output/failure", str(error)[:1000].encode())
        return EXIT_USER_ERROR


if __name__ == "__main__":
    sys.exit(main())
