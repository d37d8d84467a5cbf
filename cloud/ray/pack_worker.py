"""A pack as a Ray Tune trial: psa.execution.worker.run on a node, with states as checkpoints.

A pack's data travel through the storage: its definition and earlier states are read from there, and its
results are written there as checkpoints, the last one with the records. The data sets come through Ray's
object store, once per node.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyarrow import ArrowException
from ray import tune

from cloud.aws.errors import Unreachable, is_transient_in_storage
from cloud.aws.settings import redact
from cloud.cache import private_temp_folder
from cloud.object_store import ObjectStore
from cloud.ray.node_errors import NODE_PAUSE_SECONDS, NodeRetries, is_node_error
from cloud.ray.protocol import FACTS_KEY, INPUTS_FOLDER, METRIC_KEY, Files, read_pack
from cloud.retry import retry_until_reachable
from psa.core.errors import lacks_memory, one_line
from psa.core.files import write_atomically
from psa.core.plugins.transfer import load_payloads
from psa.engine.loop import LoopReport
from psa.engine.save_interval import SaveInterval
from psa.execution.machine import Machine
from psa.execution.worker.halving import describe_failure, train_by_halves
from psa.execution.worker.protocol import received_pack
from psa.execution.worker.run import RunHooks
from psa.execution.worker.server import loop_facts, loops_to_train
from psa.experiments.search import SearchTemplate
from psa.specs.trial import Pack
from psa.storage.records.divergence import training_diverged
from psa.storage.store import STATE_NAME, Store
from psa.storage.trial_state import TrialState, decode_state

logger = logging.getLogger(__name__)

MODELS, RESULTS = "models", "results"


def run_pack_trial(config: Mapping[str, Any], data: Files) -> None:
    """Train the pack that the configuration names, in a folder of its own. An error of the node is raised, so
    that Tune retries the pack, and only after a pause: a node without disk space would fail pack after pack.
    """
    try:
        _run_pack_trial(config, data)
    except Exception as error:
        if is_node_error(error):
            logger.exception("the node failed a pack")
            time.sleep(NODE_PAUSE_SECONDS)
        raise


def _run_pack_trial(config: Mapping[str, Any], data: Files) -> None:
    retries = NodeRetries(config)
    with tempfile.TemporaryDirectory(prefix="psa-") as folder:
        work = PackTrial(_pack_of(config), Path(folder), retries, often=config.get("often", False))
        checkpoint = tune.get_checkpoint()
        try:
            if checkpoint is not None:
                retry_until_reachable(functools.partial(_download, checkpoint, work.folder))
            elif "pack" in config:
                retry_until_reachable(lambda: work.load_inputs(_inputs(config), config["pack"]))
            if "template" in config:
                work.adopt_checkpoint()
            facts = work.train(Machine(_on_this_node(data), config["device"], threads=1))
        except UploadFailed:  # Tune retries the pack, which first waits until the storage is reachable
            raise
        except Exception as error:  # a failing pack must not end the others
            if retries.allow(error):
                raise
            facts = {"error": describe_failure(error)}
        work.report_end(facts)


class UploadFailed(Exception):
    """A checkpoint that could not be stored for now. Training since the last one is repeated."""


def _download(checkpoint: tune.Checkpoint, folder: Path) -> None:
    """Copy a checkpoint into a folder. Raises Unreachable if the error is transient."""
    try:
        checkpoint.to_directory(folder)
    except (ArrowException, OSError) as error:
        if not is_transient_in_storage(error):
            raise
        raise Unreachable(f"a checkpoint cannot be read: {redact(one_line(str(error)))[:300]}") from None


def _inputs(config: Mapping[str, Any]) -> ObjectStore:
    return ObjectStore.at(ObjectStore.at(config["storage"]).under(f"{config['experiment']}/{INPUTS_FOLDER}"))


def _pack_of(config: Mapping[str, Any]) -> Pack:
    if "pack" in config:
        return retry_until_reachable(lambda: read_pack(_inputs(config), config["pack"], received_pack))
    load_payloads(config.get("plugins"))
    return SearchTemplate.model_validate(config["template"]).pack(config["space"])


def _diverged(state: TrialState) -> bool:
    return training_diverged(state.trial.method, state.history, state.lkg_loop)


class PackTrial:
    """A pack that is being trained in a folder of its own. often: save after every loop."""

    def __init__(self, pack: Pack, folder: Path, retries: NodeRetries, *, often: bool) -> None:
        self.pack, self.folder, self.retries, self.often = pack, folder, retries, often
        self.store = Store(folder / MODELS, folder / RESULTS)
        self.left = 0
        self.accuracy = 0.0  # mean over the trials of the best accuracy so far
        self.unreported: dict[str, Any] | None = None  # facts of the last loop, not reported yet

    def load_inputs(self, inputs: ObjectStore, name: str) -> None:
        """Copy the earlier states of the pack into the folder."""
        for path in inputs.tree(name):
            write_atomically(self.folder / path, inputs.read(f"{name}/{path}") or b"")

    def adopt_checkpoint(self) -> None:
        """Adopt a checkpoint of a search, which may be another configuration's (population-based training).
        Each seed then continues from those weights under this configuration's settings, and its id records
        that.
        """
        paths = self.store.models.rglob(STATE_NAME)
        states = [decode_state(path.read_bytes(), str(path)) for path in paths]
        there = {state.trial.seed: state for state in states}
        trials = []
        for trial in self.pack.trials:
            state = there.get(trial.seed)
            later = trial if state is None else state.trial.continued_by(trial, state.loops)
            if state is not None and later != state.trial:
                state.trial = later
                self.store.state_file(later).save(state)
            trials.append(later)
        self.pack = Pack(trials=tuple(trials), horizon=self.pack.horizon)

    def train(self, machine: Machine) -> dict[str, Any]:
        """Train the pack. Return the facts of its last report."""

        def started(states: Sequence[TrialState]) -> None:
            self.left = loops_to_train(states, self.pack.horizon)

        hooks = RunHooks(
            on_start=started,
            on_loop=self._listen,
            on_save=self._saved,
            save_interval=SaveInterval(failure_every=0.0, share=math.inf) if self.often else None,
        )
        divide = not self.retries.is_search  # the seeds of a configuration are compared together
        outcome = train_by_halves(self.pack, self.store, machine, hooks, self._must_raise, divide=divide)
        return {**dataclasses.asdict(outcome), "trials": [trial.id for trial in self.pack.trials]}

    def _must_raise(self, error: BaseException, part: Pack) -> bool:
        """Return whether an error ends the whole trial: one of the storage, or one of the node while Tune may
        retry it. A smaller pack may fit into memory.
        """
        if isinstance(error, UploadFailed):
            return True
        is_divisible = lacks_memory(error) and len(part.trials) > 1
        return not is_divisible and self.retries.allow(error)

    def report_end(self, facts: dict[str, Any]) -> None:
        """Report the last loop and the end of the pack, with all of its files."""
        # in one report: a scheduler that stops the trial at the last loop stops a finished one
        last, self.unreported = self.unreported or {}, None
        self._report({**last, "final": facts}, keep=True)

    def _listen(self, reports: Sequence[LoopReport]) -> None:
        # A loop is reported together with the next one: until then the engine may save it, and a checkpoint
        # must belong to its loop.
        self._flush()
        self.left -= len(reports)
        each = [report.score for report in reports]
        self.accuracy = statistics.fmean(each)
        lost = [_diverged(report.state) for report in reports]
        self.unreported = {**loop_facts(reports), "left": self.left, "each": each, "diverged": lost}

    def _saved(self) -> None:
        """Report stored states. The upload time counts for the engine's checkpoint interval."""
        if self.left:  # after the last loop they are stored with the records
            self._flush(keep=True)

    def _flush(self, keep: bool = False) -> None:
        facts, self.unreported = (
            self.unreported,
            None,
        )  # first, since Tune ends a stopped trial inside the report
        if facts is not None:
            self._report(facts, keep)

    def _report(self, facts: dict[str, Any], keep: bool) -> None:
        metrics = {FACTS_KEY: facts, METRIC_KEY: self.accuracy}
        kept = self._kept() if keep else []
        if not kept:
            tune.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="psa-", dir=self.folder.parent) as staged:
            for path in kept:
                target = Path(staged) / path.relative_to(self.folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, target)
            checkpoint = tune.Checkpoint.from_directory(staged)
            try:
                tune.report(metrics, checkpoint=checkpoint)
            except (ArrowException, OSError) as error:
                if not is_transient_in_storage(error):
                    raise
                # reporting again would count the loop twice
                raise UploadFailed(redact(one_line(str(error)))[:300]) from None

    def _kept(self) -> list[Path]:
        """Return the files to keep: existing states, their arrays, records and sidecars."""
        states = (self.store.state_file(trial).path for trial in self.pack.trials)
        there = [path for path in states if path.exists()]
        return [*there, *self.store.array_paths(), *self.store.results.rglob("s*.json")]


def _on_this_node(data: Files) -> Path:
    """Return a data folder on this node that holds these files; the first caller writes them.

    Existing files are verified by digest when they are loaded, as in any data folder.
    """
    folder = private_temp_folder("psa-data")
    for file, content in data.items():
        path = folder / file
        if not path.exists() or path.stat().st_size != content.size:
            write_atomically(path, content.tobytes())
    return folder
