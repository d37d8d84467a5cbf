"""The process that drives Ray Tune for a sweep: it reads one task and writes events, as JSON lines.

A separate process, because Tune needs the main thread for its signals, and because it must not outlive its
parent: when standard input ends, it stops Tune, which stores its state for a later restore.
"""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from ray import tune

import cloud
import psa
from cloud.object_store import ObjectStore
from cloud.ray import callbacks
from cloud.ray.protocol import INPUTS_FOLDER, Files, read_pack
from cloud.ray.trainable import train_pack
from cloud.retry import retry_until_reachable
from psa.core.errors import EXIT_USER_ERROR, UserError, one_line
from psa.core.file_locks import locked
from psa.core.plugins.transfer import load_payloads
from psa.core.stop import heeded, let_through
from psa.data.files import data_files
from psa.execution.worker.protocol import EXIT_INTERRUPTED, EventWriter
from psa.experiments.search import Search
from psa.specs.data import DataSpec
from psa.storage import locks
from psa.storage.store import Store

logger = logging.getLogger(__name__)

ERRORS_ALLOWED: Final = 20  # of a pack's process or node: many failures on spot machines are nobody's fault
PACKS_SHARING_A_GPU: Final = 4
_ANSWER_SECONDS: Final = 10.0
_TRIES: Final = 3  # to join a cluster from outside: its head starts a process per client, and may be slow


def connect(address: str, gpus_per_pack: float) -> None:
    """Connect to a cluster, or start one on this machine. Raises UserError."""
    _check_answers(address)
    modules = [str(Path(str(package.__file__)).parent) for package in (psa, cloud)]
    how = {"include_dashboard": False} if address == "local" else {"runtime_env": {"py_modules": modules}}
    for left in reversed(range(_TRIES)):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **how)
            break
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            logger.exception("joining %s failed", address)
            if not (left and address.startswith("ray://")):
                raise _no_cluster(address, error) from None
    _handle_signals()
    _check_room(gpus_per_pack)


def _check_answers(address: str) -> None:
    """Raise UserError if nothing listens at the address: Ray itself would retry for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), _ANSWER_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise _no_cluster(address, error) from None


def _no_cluster(address: str, error: Exception) -> UserError:
    reason = one_line(str(error))[:300]
    if address == "local":
        return UserError(
            f"Ray does not start on this machine ({reason})",
            "If a path is too long, set RAY_TMPDIR to a folder with a shorter path",
        )
    return UserError(
        f"--address {address}: no Ray cluster answers ({reason})",
        "Start one with `ray start --head`, or name a running one: auto, HOST:PORT or ray://HOST:10001",
    )


def _check_room(gpus_per_pack: float) -> None:
    """Raise UserError if no node is large enough for a pack."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if any(node.get("CPU", 0) >= 1 and node.get("GPU", 0) >= gpus_per_pack for node in nodes):
        return
    cpus, gpus = (sum(node.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    wants = f"1 CPU and {gpus_per_pack:g} GPU" if gpus_per_pack else "1 CPU"
    raise UserError(
        f"a pack needs {wants} on one node, and none of the {len(nodes)} nodes has that "
        f"({cpus:g} CPUs and {gpus:g} GPUs in all)",
        "Choose a smaller --gpus-per-pack, or add nodes to the cluster",
    )


def choose_gpus_per_pack(requested: float | None, device: str | None) -> float:
    """Return the share of a GPU per pack: by default a quarter, if the cluster has any GPU."""
    if requested is not None:
        return requested
    there = any(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
    return 1 / PACKS_SHARING_A_GPU if there and device != "cpu" else 0.0


def count_parallel_packs(gpus_per_pack: float) -> int:
    """Return the number of packs that the cluster trains at once."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not gpus_per_pack:
        return int(sum(node.get("CPU", 0) for node in nodes))
    return int(sum(min(node.get("CPU", 0), node.get("GPU", 0) // gpus_per_pack) for node in nodes))


def load_data_files(specs: Iterable[DataSpec], data_dir: Path) -> Files:
    """Return the files of these data sets, by their paths in a data folder. Raises UserError."""
    return {file: np.frombuffer(content, np.uint8) for file, content in data_files(specs, data_dir).items()}


def run_task(task: Mapping[str, Any]) -> None:
    """Run a task. Raises UserError."""
    if "search" in task:
        load_payloads(task.get("plugins"))
        search = Search.model_validate(task["search"])
        specs = [trial.data for trial in search.first.trials]
        lock = Path(task["models"]) / f".{task['experiment']}.lock"
        with locked(lock, what="this search is at work in another process"):
            _tuned(task, specs, search.strategy.samples, functools.partial(_searched, task, search))
        return
    inputs = retry_until_reachable(functools.partial(_inputs_of, task))
    packs = [retry_until_reachable(functools.partial(read_pack, inputs, name)) for name in task["packs"]]
    trials = [trial for pack in packs for trial in pack.trials]
    with locks.lock_trials(Store(Path(task["models"]), Path(task["results"])), trials) as got:
        if len(got) < len(trials):
            callbacks.emit({"event": "taken"})
        else:
            specs = [trial.data for trial in trials]
            _tuned(task, specs, len(packs), functools.partial(_swept, task))


def _inputs_of(task: Mapping[str, Any]) -> ObjectStore:
    """Open the inputs of a sweep. Opening them asks S3 for the region of the bucket."""
    return ObjectStore.at(ObjectStore.at(task["storage"]).under(f"{task['experiment']}/{INPUTS_FOLDER}"))


def _tuned(
    task: Mapping[str, Any], specs: Iterable[DataSpec], most: int, experiment: Callable[[], dict[str, Any]]
) -> None:
    """Run a Tune experiment to its end, either a new one or a stored one that is restored."""
    data = load_data_files(specs, Path(task["data_dir"]))
    connect(task["address"], task["gpus"] or 0.0)
    gpus = choose_gpus_per_pack(task["gpus"], task["device"])
    callbacks.emit(
        {"event": "ready", "workers": max(1, min(count_parallel_packs(gpus), task["workers"] or most))}
    )
    trainable = tune.with_resources(
        tune.with_parameters(train_pack, data=data), {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}
    )
    storage = retry_until_reachable(functools.partial(ObjectStore.at, task["storage"]))
    mailbox = f"psa-{task['experiment']}" if task["address"].startswith("ray://") else ""
    if task["restore"]:
        where = storage.under(task["experiment"])
        try:
            restored = tune.Tuner.restore(where, trainable, resume_unfinished=True, resume_errored=True)
        except Exception:  # any error that Ray raises for files that a kill left incomplete
            logger.exception("the experiment cannot be restored")
            callbacks.emit({"event": "unrestorable"})
            return
        with callbacks.forward_events(mailbox):
            results = restored.fit()
        if "search" in task:  # some may have ended while the driver was not running
            for result in (results[at] for at in range(len(results))):
                callbacks.emit_result(Path(result.path).name, result.config, result.metrics)
        return
    run = tune.RunConfig(
        name=task["experiment"],
        storage_path=storage.uri,
        failure_config=tune.FailureConfig(max_failures=ERRORS_ALLOWED),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=None if _is_pbt(task) else 2),
        callbacks=[callbacks.EventCallback(mailbox)],
        verbose=0,
    )
    with callbacks.forward_events(mailbox):
        tune.Tuner(trainable, run_config=run, **experiment()).fit()


def _is_pbt(task: Mapping[str, Any]) -> bool:
    """Return whether Tune trials continue from each other's checkpoints, so that none may be deleted."""
    return "search" in task and task["search"]["strategy"]["scheduler"] == "pbt"


def _swept(task: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of an experiment with one Tune trial per pack, in their order."""
    return {
        "param_space": {**_common(task), "pack": tune.grid_search(task["packs"])},
        "tune_config": tune.TuneConfig(
            max_concurrent_trials=task["workers"],
            reuse_actors=True,  # import torch and read the data once per process, not once per pack
            trial_name_creator=callbacks.trial_folder_name,
            trial_dirname_creator=callbacks.trial_folder_name,
        ),
    }


def _searched(task: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """Return the settings of an experiment with one Tune trial per configuration."""
    from cloud.ray import search_space

    config = search_space.tune_config(search, task["workers"])
    config.trial_name_creator = config.trial_dirname_creator = callbacks.trial_folder_name
    shared = {
        "template": search.template.model_dump(mode="json"),
        "space": search_space.tune_search_space(search),
        **({"plugins": task["plugins"]} if "plugins" in task else {}),
    }
    return {"param_space": {**_common(task), **shared, "often": _is_pbt(task)}, "tune_config": config}


def _common(task: Mapping[str, Any]) -> dict[str, Any]:
    return {key: task[key] for key in ("storage", "experiment", "device")}


_signals: Final[list[int]] = []  # received by this process, not by its parent


def _stopped_by(number: int, _frame: object) -> None:
    """Interrupt Tune once for a signal that a batch system sends to every process."""
    _signals.append(number)
    if len(_signals) == 1:
        os.kill(os.getpid(), signal.SIGINT)


def _handle_signals() -> None:
    """Handle termination signals like Ctrl-C. Call this after Ray's start, which sets a SIGTERM handler."""
    for number in heeded():
        if number != signal.SIGINT:
            signal.signal(number, _stopped_by)


def _stop_with_the_parent() -> None:
    """Wait for the end of standard input, then interrupt Tune like Ctrl-C: it stores its state."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Run one task and write its events. Return 0, or 2 if the task cannot be started."""
    logging.basicConfig(level=logging.ERROR)
    events = EventWriter()
    callbacks.emit = functools.partial(_say, events)
    _handle_signals()
    let_through()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage reports unless the user enables them
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the older reporter can be silenced
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # psa's records replace Tune's logs
    try:
        line = sys.stdin.readline()
        if not line:  # no task was sent
            return 0
        threading.Thread(target=_stop_with_the_parent, daemon=True).start()
        run_task(json.loads(line))
    except UserError as error:
        callbacks.emit({"event": "unusable", "what": error.message, "way_out": error.hint})
        return EXIT_USER_ERROR
    except KeyboardInterrupt:  # before Tune started; nothing has been done
        return EXIT_INTERRUPTED
    return EXIT_INTERRUPTED if _signals else 0


def _say(events: EventWriter, facts: dict[str, Any]) -> None:
    events.emit(facts.pop("event"), **facts)


if __name__ == "__main__":
    # not as __main__: what is pickled refers to its module by name
    sys.exit(importlib.import_module("cloud.ray.driver").main())
