"""The backend `ray`: each pack is a trial of Ray Tune, on this machine or a cluster.

Tune runs in a process of its own (cloud.ray.driver). Its storage holds <experiment>/inputs (the packs and
their earlier states) and <experiment>/<pack>/checkpoint_* (their results). A downloaded experiment is
removed. Does not import ray.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final

from cloud.aws.errors import Unreachable
from cloud.object_store import ObjectStore
from cloud.ray.driver_process import Driver, check_socket_folder
from cloud.ray.protocol import INPUTS_FOLDER, RayExperiment
from cloud.results_sync import pending_trials, sync_results
from cloud.retry import retry_with_ticks
from cloud.workspace import workspace_id
from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.core.plugins.identity import PluginId
from psa.core.plugins.transfer import plugin_payloads
from psa.core.stored_files import read_stored
from psa.execution.backend import STOP_MESSAGE, BackendOptions, Job, describe_jobs, plan_jobs
from psa.execution.cost_model import CostModel
from psa.execution.eta import loops_left
from psa.execution.machine import Machine
from psa.execution.worker.protocol import WorkerEvent, pack_body, stored_pack
from psa.experiments.search import Search
from psa.specs.base import canonical_json
from psa.specs.trial import Pack, Trial
from psa.storage import locks
from psa.storage.store import STATE_NAME, Store

logger = logging.getLogger(__name__)
_PACKS: Final = f"{INPUTS_FOLDER}/packs.json"


class RayBackend:
    """A Ray cluster, or this machine as a cluster of one node."""

    stopped = STOP_MESSAGE

    def __init__(self, store: Store, machine: Machine, costs: CostModel, options: BackendOptions) -> None:
        if importlib.util.find_spec("ray") is None:
            raise UserError("--backend ray: Ray is not installed", how_to_install("ray"))
        _check_gpus(options.gpus_per_pack)
        self.store, self.machine, self.costs, self.options = store, machine, costs, options
        self.storage = ObjectStore.at(options.storage or str(store.models / ".ray"))
        self.storage.check_writable()
        self.prefix = f"psa-{workspace_id(store.models)}-"
        # the first is started at once, since importing Ray takes seconds
        self._ready: Driver | None = Driver(store.models)

    def plan(self, packs: Sequence[Pack]) -> list[Job]:
        """Return one Tune trial per pack, the longest first; or an interrupted experiment's unfinished packs
        if they hold exactly these trials.
        """
        stored = self._interrupted(packs)
        if stored is not None:
            packs = [pack for pack in stored.packs.values() if pending_trials(self.store, [pack])]
        return plan_jobs(packs, self.costs)

    def preview(self, jobs: Sequence[Job]) -> Iterator[str]:
        """Yield the number of packs and their estimated time."""
        workers = self.options.workers
        at = "" if workers else " for each CPU of the cluster"
        yield f"{describe_jobs(jobs, workers or 1)}{at}"

    def launch(self, jobs: Sequence[Job]) -> Generator[WorkerEvent, None, None]:
        """Run the jobs to their end; a tick comes at least once a second. Closing the generator stops Tune,
        which stores its state for a restore.
        """
        self._check_room_for_sockets()
        packs = [job.pack for job in jobs]
        tick = WorkerEvent("tick", packs[0])
        stored = yield from retry_with_ticks(lambda: self._interrupted(packs), tick)
        if stored is not None:
            if (yield from self._run(stored, restore=True)):
                return
            # an experiment that a kill left incomplete cannot be restored, but its checkpoints can
            yield from self._settled(stored)
        new = yield from retry_with_ticks(lambda: self._prepared(packs), tick)
        try:
            yield from self._run(new, restore=False)
        except UserError:
            with contextlib.suppress(Unreachable):
                # a refused experiment leaves nothing to resume
                if not self._is_restorable(new.name):
                    self.storage.remove(new.name)
            raise

    def _run(self, experiment: RayExperiment, restore: bool) -> Generator[WorkerEvent, None, bool]:
        """Run an experiment to its end. Return whether it could be started or restored."""
        left = {name: loops_left(self.store, pack) for name, pack in experiment.packs.items()}
        what = {"packs": list(experiment.packs)}
        driver = self._driver()
        with contextlib.closing(driver.events(self._task(experiment.name, restore, what))) as events:
            for event in events:
                if event is not None and event["event"] == "unrestorable":
                    return False
                yield from self._events(experiment, event, left)
        if not (driver.taken or driver.interrupted):  # it ran to its end
            yield from self._settled(experiment)
        return True

    def _settled(self, experiment: RayExperiment) -> Generator[WorkerEvent, None, None]:
        """Download the results that are not here yet, and remove the experiment."""
        first = next(iter(experiment.packs.values()))
        yield from retry_with_ticks(lambda: self._settle(experiment), WorkerEvent("tick", first))

    def _settle(self, experiment: RayExperiment) -> None:
        self._download_pending(experiment)
        self.storage.remove(experiment.name)

    def _download_pending(self, experiment: RayExperiment) -> None:
        for name, pack in experiment.packs.items():
            if pending_trials(self.store, [pack]):
                self.download_pack(experiment.name, name)

    def _events(
        self, experiment: RayExperiment, event: dict[str, Any] | None, left: dict[str, int]
    ) -> Iterator[WorkerEvent]:
        """Yield the events of a pack. Its results are downloaded before it is reported as done."""
        first = next(iter(experiment.packs))
        facts = event or {"event": "tick"}
        kind, name = facts.pop("event"), facts.pop("pack", first)
        if kind == "begun":
            facts["left"] = left[name] if facts["left"] is None else facts["left"]
        if kind in ("done", "failed"):
            tick = WorkerEvent("tick", experiment.packs[name])
            yield from retry_with_ticks(lambda: self.download_pack(experiment.name, name), tick)
        yield WorkerEvent(kind, experiment.packs[name], facts)

    def search(self, search: Search) -> Generator[dict[str, Any] | None, None, None]:
        """Try the configurations of a search. Yield the event of each, and None at least once a second."""
        if search.strategy.sampler == "optuna" and importlib.util.find_spec("optuna") is None:
            raise UserError('sampler = "optuna": Optuna is not installed', how_to_install("search"))
        self._check_room_for_sockets()
        name = f"{self.prefix}{search.digest[:16]}"
        begun = yield from retry_with_ticks(lambda: self._is_restorable(name), None)
        ended = begun and (yield from self._searched(name, search, restore=True))
        if not ended:
            yield from retry_with_ticks(lambda: self.storage.remove(name), None)
            yield from self._searched(name, search, restore=False)
        yield from retry_with_ticks(lambda: self.storage.remove(name), None)

    def _searched(
        self, experiment: str, search: Search, restore: bool
    ) -> Generator[dict[str, Any] | None, None, bool]:
        """Run a search to its end. Return whether it could be started or restored."""
        driver, what = self._driver(), dict[str, Any](search=search.model_dump(mode="json"))
        if search.template.plugins:
            what["plugins"] = plugin_payloads(PluginId(*each) for each in search.template.plugins)
        with contextlib.closing(driver.events(self._task(experiment, restore, what))) as events:
            for event in events:
                if event is not None and event["event"] == "unrestorable":
                    return False
                if event is not None and event["event"] == "done":
                    download = functools.partial(self.download_pack, experiment, event["pack"])
                    yield from retry_with_ticks(download, None)
                yield event
        if driver.interrupted:
            raise UserError("Ray was stopped by a signal", "Run the same command again to resume")
        return True

    def _is_restorable(self, experiment: str) -> bool:
        """Return whether Tune has stored enough of an experiment to restore it."""
        files = [name for name in self.storage.tree(experiment) if "/" not in name]
        states = [name for name in files if name.startswith("experiment_state-")]
        if "tuner.pkl" not in files or not states:
            return False
        with contextlib.suppress(ValueError):
            json.loads(self.storage.read(f"{experiment}/{states[-1]}") or b"")
            return True
        return False

    def fetch(self) -> None:
        """Download records and further trained states of interrupted sweeps from the storage."""
        for experiment in self._experiments():
            if self._is_ours(experiment):
                self._download_pending(experiment)

    def download_pack(self, experiment: str, name: str) -> None:
        """Download the content of a Tune trial's newest checkpoint into the store."""
        folder = self._newest(experiment, name)
        if folder:
            sync_results(self.storage, folder, self.store)

    def _check_room_for_sockets(self) -> None:
        if self._address == "local":
            check_socket_folder()

    @property
    def _address(self) -> str:
        """The address of the cluster, or "local" for a Ray instance that is started here."""
        return self.options.address or "local"

    def _driver(self) -> Driver:
        """Return the idle driver, or a new one: each drives one experiment."""
        driver, self._ready = self._ready or Driver(self.store.models), None
        return driver

    def _task(self, experiment: str, restore: bool, what: Mapping[str, Any]) -> dict[str, Any]:
        """Return the task that is sent to a driver."""
        return {
            "address": self._address,
            "storage": self.storage.uri,
            "experiment": experiment,
            "restore": restore,
            "workers": self.options.workers,
            "gpus": self.options.gpus_per_pack,
            "device": self.machine.device,
            "data_dir": str(self.machine.data_dir.absolute()),
            "models": str(self.store.models.absolute()),
            "results": str(self.store.results.absolute()),
            **what,
        }

    def _newest(self, experiment: str, name: str) -> str:
        """Return the folder of a Tune trial's last checkpoint, or "" without any."""
        folder = f"{experiment}/{name}"
        found = [each for each in self.storage.folders(folder) if each.startswith("checkpoint_")]
        return f"{folder}/{found[-1]}" if found else ""

    def _experiments(self) -> Iterator[RayExperiment]:
        """Yield this workspace's experiments that are still in the storage."""
        for name in self.storage.folders():
            content = self.storage.read(f"{name}/{_PACKS}") if name.startswith(self.prefix) else None
            if content is not None:
                try:
                    packs = {key: stored_pack(body, name) for key, body in json.loads(content).items()}
                except (UserError, ValueError, AttributeError):
                    logger.warning("%s: %s/%s is damaged and left out", self.storage.uri, name, _PACKS)
                    continue
                yield RayExperiment(name, dict(sorted(packs.items())))

    def _is_ours(self, experiment: RayExperiment) -> bool:
        """Return whether no other sweep works on the trials of an experiment."""
        left = self._left(experiment)
        return len(locks.unlocked_trials(self.store, left)) == len(left)

    def _left(self, experiment: RayExperiment) -> list[Trial]:
        return pending_trials(self.store, experiment.packs.values())

    def _interrupted(self, packs: Sequence[Pack]) -> RayExperiment | None:
        """Return the stored experiment whose unfinished trials are exactly those of these packs, or None."""
        wanted = {trial.id for pack in packs for trial in pack.trials}
        for experiment in self._experiments():
            same = {pack.horizon for pack in experiment.packs.values()} == {pack.horizon for pack in packs}
            if same and {trial.id for trial in self._left(experiment)} == wanted:
                is_open = self._is_restorable(experiment.name) and self._is_ours(experiment)
                return experiment if is_open else None
        return None

    def _prepared(self, packs: Sequence[Pack]) -> RayExperiment:
        """Upload the inputs of the packs as a new experiment, and return it. Experiments that it replaces are
        removed; their results have been downloaded.
        """
        wanted = {trial.id for pack in packs for trial in pack.trials}
        for old in self._experiments():
            if wanted.issuperset(trial.id for trial in self._left(old)) and self._is_ours(old):
                self.storage.remove(old.name)
        experiment = RayExperiment(
            f"{self.prefix}{_digest(packs)}", {f"p{number:04d}": pack for number, pack in enumerate(packs)}
        )
        bodies = {name: pack_body(pack) for name, pack in experiment.packs.items()}
        for name, pack in experiment.packs.items():
            place = f"{experiment.name}/{INPUTS_FOLDER}/{name}"
            for trial in pack.trials:
                content = read_stored(self.store.state_file(trial).path)
                if content is not None:
                    self.storage.write(f"{place}/models/{trial.id}/{STATE_NAME}", content)
            self.storage.write(f"{place}.json", canonical_json(bodies[name]).encode())
        self.storage.write(f"{experiment.name}/{_PACKS}", canonical_json(bodies).encode())  # completes it
        return experiment


def _check_gpus(asked: float | None) -> None:
    """Raise UserError unless `asked` is a fraction of one GPU or a whole number, as Ray requires."""
    if asked is not None and not (0 <= asked <= 1 or (asked > 1 and asked.is_integer())):
        raise UserError(
            f"--gpus-per-pack must be 0 to 1, or a whole number, got {asked:g}", "See `psa sweep --help`"
        )


def _digest(packs: Sequence[Pack]) -> str:
    digests = [[pack.horizon, [trial.digest for trial in pack.trials]] for pack in packs]
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()[:16]
