"""The process that drives Ray Tune for a sweep: a task as one JSON line in, events as JSON lines out.

A process of its own, because Tune wants the main thread for its signals, and because it must outlive
nothing: when its standard input ends, it tells Tune to stop, which keeps what is needed to go on.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import ray
from filelock import FileLock, Timeout
from ray import tune

import cloud
import psa
from cloud.ray_trial import FACTS, INPUTS, Files, train_pack
from cloud.storage import Storage
from psa import fetch, leases
from psa.errors import UserError
from psa.events import EXIT_INTERRUPTED, EXIT_USER_ERROR, Events
from psa.search import Search
from psa.sources import DATASETS
from psa.store import Store
from psa.trial import Pack

logger = logging.getLogger(__name__)

ERRORS_ALLOWED: Final = 20  # of a pack's process or node: on spot machines many are nobody's fault
PACKS_SHARING_A_GPU: Final = 4
ANSWER_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.2
Tell = Callable[[dict[str, Any]], None]
tell: Tell = print  # of this process; Tune pickles its callbacks, and a function of a module travels by name


class Listener(tune.Callback):
    """Turns what Tune sees of its trials into events.

    mailbox: the name of the actor that takes them, where Tune runs on the cluster (ray://) and not here.
    """

    def __init__(self, mailbox: str) -> None:
        self.mailbox = mailbox

    def on_trial_start(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """A process has it in hand, for the first time or again."""
        self._tell(trial, "begun", left=_last(trial).get("left"))

    def on_trial_result(self, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        """A loop is over."""
        facts = {key: value for key, value in result.get(FACTS, {}).items() if key != "final"}
        if "loop" in facts:
            self._tell(trial, "loop", **facts)

    def on_trial_recover(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its process or node has gone; it is given out again."""
        self._tell(trial, "died", error=_reason(trial))

    def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """It has come to its end, good or bad, or to that which a scheduler set."""
        final = _last(trial).get("final")
        if final is None:
            self._tell(trial, "stopped")
        else:
            self._tell(trial, "failed" if "error" in final else "done", **final)

    def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
        """Its process or node has gone too often."""
        self._tell(trial, "failed", error=_reason(trial))

    def _tell(self, one: Any, kind: str, /, **facts: Any) -> None:
        if "space" in one.config:
            facts["space"] = one.config["space"]
        said = {**facts, "event": kind, "pack": _name_of(one)}
        if self.mailbox:
            ray.get_actor(self.mailbox).put.remote(said)
        else:
            tell(said)


class Mailbox:
    """On the cluster: what Tune has said there and nobody here has heard yet."""

    def __init__(self) -> None:
        self.waiting: list[dict[str, Any]] = []

    def put(self, said: dict[str, Any]) -> None:
        """Keep it."""
        self.waiting.append(said)

    def taken(self) -> list[dict[str, Any]]:
        """Hand it over."""
        waiting, self.waiting = self.waiting, []
        return waiting


@contextlib.contextmanager
def _mail(name: str) -> Iterator[None]:
    """Hear what a mailbox is told, to its end; nothing to do where there is no name."""
    if not name:
        yield
        return
    box: Any = ray.remote(num_cpus=0)(Mailbox).options(name=name).remote()
    over = threading.Event()

    def listen() -> None:
        while not over.wait(POLL_SECONDS):
            for said in ray.get(box.taken.remote()):
                tell(said)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    yield
    over.set()
    listener.join()
    for said in ray.get(box.taken.remote()):
        tell(said)


def _name_of(trial: Any) -> str:
    """Its folder: the pack, or the number of the configuration."""
    return str(trial.config.get("pack") or f"c{trial.trial_id.rpartition('_')[2]}")


def _last(trial: Any) -> dict[str, Any]:
    """What a trial last said of itself."""
    return dict((trial.last_result or {}).get(FACTS, {}))


def _reason(trial: Any) -> str:
    """The last line of its error."""
    try:
        text = Path(trial.error_file).read_text(errors="replace") if trial.error_file else ""
    except OSError:
        text = ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "its process or node has gone"


def connect(address: str, gpus_per_pack: float) -> None:
    """Join a cluster, or start one of this machine. Raises UserError."""
    _check_answers(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == "local":
            ray.init(address="local", include_dashboard=False, **quiet)
        else:
            modules = [str(Path(str(package.__file__)).parent) for package in (psa, cloud)]
            ray.init(address=address, runtime_env={"py_modules": modules}, **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise _nobody(address, error) from None
    _check_room(gpus_per_pack)


def _check_answers(address: str) -> None:
    """Raise UserError where nobody listens: Ray itself would try again for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon:
        return
    try:
        with socket.create_connection((host, int(port)), ANSWER_SECONDS):
            pass
    except (OSError, ValueError, OverflowError) as error:
        raise _nobody(address, error) from None


def _nobody(address: str, error: Exception) -> UserError:
    reason = " ".join(str(error).split())[:300]
    return UserError(
        f"--address {address}: no Ray cluster answers there ({reason})",
        "Start one with `ray start --head`, or name a running one: auto, HOST:PORT or ray://HOST:10001",
    )


def _check_room(gpus_per_pack: float) -> None:
    """Raise UserError where no node could ever hold a pack."""
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


def gpus_of(asked: float | None, device: str | None) -> float:
    """The share of a GPU that a pack takes: where none is named a quarter, if the cluster has any."""
    if asked is not None:
        return asked
    there = any(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"])
    return 1 / PACKS_SHARING_A_GPU if there and device != "cpu" else 0.0


def slots(gpus_per_pack: float) -> int:
    """How many packs the cluster trains at once."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not gpus_per_pack:
        return int(sum(node.get("CPU", 0) for node in nodes))
    return int(sum(min(node.get("CPU", 0), node.get("GPU", 0) // gpus_per_pack) for node in nodes))


def data_of(names: Iterable[str], data_dir: Path) -> dict[str, Files]:
    """The files of these data sets, by name. Raises UserError."""
    return {
        name: {
            file: np.frombuffer(content, np.uint8)
            for file, content in fetch.fetch(DATASETS[name], data_dir).items()
        }
        for name in sorted(set(names))
    }


def drive(task: Mapping[str, Any]) -> None:
    """Train what the task names. Raises UserError."""
    if "search" in task:
        search = Search.model_validate(task["search"])
        names = {trial.data.name for trial in search.first.trials}
        lock = FileLock(Path(task["models"]) / f".{task['experiment']}.lock", timeout=0)
        try:
            with lock:
                _tuned(task, names, search.strategy.samples, functools.partial(_searched, task, search))
        except Timeout:
            raise UserError("this search is at work in another process", "Wait until it has ended") from None
        return
    inputs = Storage.at(Storage.at(task["storage"]).under(f"{task['experiment']}/{INPUTS}"))
    packs = [Pack.model_validate_json(inputs.read(f"{name}.json") or b"") for name in task["packs"]]
    trials = [trial for pack in packs for trial in pack.trials]
    with leases.held(Store(Path(task["models"]), Path(task["results"])), trials) as got:
        if len(got) < len(trials):
            tell({"event": "taken"})
        else:
            names = {trial.data.name for trial in trials}
            _tuned(task, names, len(packs), functools.partial(_swept, task))


def _tuned(
    task: Mapping[str, Any], names: Iterable[str], most: int, experiment: Callable[[], dict[str, Any]]
) -> None:
    """Run an experiment of Tune to its end: a new one, or a stored one that goes on."""
    data = data_of(names, Path(task["data_dir"]))
    connect(task["address"], task["gpus"] or 0.0)
    gpus = gpus_of(task["gpus"], task["device"])
    tell({"event": "ready", "workers": max(1, min(slots(gpus), task["workers"] or most))})
    trainable = tune.with_resources(
        tune.with_parameters(train_pack, data=data), {"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}
    )
    storage = Storage.at(task["storage"])
    mailbox = f"psa-{task['experiment']}" if task["address"].startswith("ray://") else ""
    if task["restore"]:
        where = storage.under(task["experiment"])
        try:
            restored = tune.Tuner.restore(where, trainable, resume_unfinished=True, resume_errored=True)
        except Exception:  # whatever Ray makes of what a kill has left half written
            logger.exception("the experiment cannot be restored")
            tell({"event": "unrestorable"})
            return
        with _mail(mailbox):
            restored.fit()
        return
    run = tune.RunConfig(
        name=task["experiment"],
        storage_path=storage.uri,
        failure_config=tune.FailureConfig(max_failures=ERRORS_ALLOWED),
        checkpoint_config=tune.CheckpointConfig(num_to_keep=None if _is_pbt(task) else 2),
        callbacks=[Listener(mailbox)],
        verbose=0,
    )
    with _mail(mailbox):
        tune.Tuner(trainable, run_config=run, **experiment()).fit()


def _is_pbt(task: Mapping[str, Any]) -> bool:
    """Whether Tune's trials go on from each other's checkpoints, and so none may be removed meanwhile."""
    return "search" in task and task["search"]["strategy"]["scheduler"] == "pbt"


def _swept(task: Mapping[str, Any]) -> dict[str, Any]:
    """One Tune trial per pack, in their order."""
    return {
        "param_space": {**_common(task), "pack": tune.grid_search(task["packs"])},
        "tune_config": tune.TuneConfig(
            max_concurrent_trials=task["workers"],
            reuse_actors=True,  # torch is imported and the data are read once a process, not once a pack
            trial_name_creator=_name_of,
            trial_dirname_creator=_name_of,
        ),
    }


def _searched(task: Mapping[str, Any], search: Search) -> dict[str, Any]:
    """One Tune trial per configuration."""
    from cloud import ray_space

    config = ray_space.config_of(search, task["workers"])
    config.trial_name_creator = config.trial_dirname_creator = _name_of
    shared = {"template": search.template.model_dump(mode="json"), "space": ray_space.space(search)}
    return {"param_space": {**_common(task), **shared, "often": _is_pbt(task)}, "tune_config": config}


def _common(task: Mapping[str, Any]) -> dict[str, Any]:
    return {key: task[key] for key in ("storage", "experiment", "device")}


def _stop_with_the_parent() -> None:
    """When standard input ends, interrupt Tune as Ctrl-C would: it stores how far everything is."""
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGINT)


def main() -> int:
    """Entry: one task, its events, 0; 2 where the task cannot be begun."""
    global tell  # noqa: PLW0603 - see above
    logging.basicConfig(level=logging.ERROR)
    events = Events()
    tell = functools.partial(_say, events)
    line = sys.stdin.readline()
    if not line:  # there was nothing to do
        return 0
    task = json.loads(line)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a study's machine does not phone home unasked
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the older reporter is silent when asked
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # records are what is kept, not logs of rows
    threading.Thread(target=_stop_with_the_parent, daemon=True).start()
    try:
        drive(task)
    except UserError as error:
        tell({"event": "unusable", "what": error.what, "way_out": error.way_out})
        return EXIT_USER_ERROR
    except KeyboardInterrupt:  # before Tune has begun; nothing has been done
        return EXIT_INTERRUPTED
    return 0


def _say(events: Events, facts: dict[str, Any]) -> None:
    events.say(facts.pop("event"), **facts)


if __name__ == "__main__":
    # not as __main__: what is pickled refers to its module by name
    sys.exit(importlib.import_module("cloud.ray_driver").main())
