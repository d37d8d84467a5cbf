"""The log of a search: every configuration with its curve and its outcome, in one file.

Only trials that were trained to the end have records; a configuration that was stopped early, or failed, is
in the log only.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from pydantic import Field, ValidationError

from psa.core.errors import CorruptFileError
from psa.core.files import write_atomically
from psa.core.stored_files import read_stored
from psa.experiments.search import Search
from psa.specs.base import Spec
from psa.storage.records.record import decode_record, encode_record

ConfigurationStatus = Literal["running", "finished", "stopped early", "failed"]


class Configuration(Spec):
    """Settings that were tried. accuracies: meta-loop -> best validation accuracy so far of each seed, in
    percent, 0 if it has diverged; diverged: for each seed, after the last loop; trials: ids of those trained
    to the end, whose records are stored.
    """

    name: str
    settings: dict[str, Any]
    status: ConfigurationStatus = "running"
    accuracies: dict[int, tuple[float, ...]] = Field(default_factory=dict)
    diverged: tuple[bool, ...] = ()
    trials: tuple[str, ...] = ()
    error: str = ""

    @property
    def loops(self) -> int:
        """The number of meta-loops trained."""
        return max(self.accuracies, default=0)

    @property
    def last(self) -> tuple[float, ...]:
        """The final accuracies, one per seed; empty if no loop was finished."""
        return self.accuracies[self.loops] if self.accuracies else ()

    @property
    def finite(self) -> tuple[float, ...]:
        """The final accuracies of the seeds that have not diverged."""
        return self._kept(self.last)

    @property
    def curve(self) -> dict[int, float]:
        """The mean accuracy after each meta-loop, of the seeds that have not diverged."""
        kept = {loop: self._kept(self.accuracies[loop]) for loop in sorted(self.accuracies)}
        return {loop: fmean(accuracies) for loop, accuracies in kept.items() if accuracies}

    def _kept(self, accuracies: tuple[float, ...]) -> tuple[float, ...]:
        lost = self.diverged or (False,) * len(accuracies)
        return tuple(each for each, is_lost in zip(accuracies, lost, strict=True) if not is_lost)

    @property
    def outcome(self) -> str:
        """Its end as text. A configuration whose seeds all diverged has no result."""
        if not any(self.diverged):
            return self.status
        if all(self.diverged):
            return "diverged"
        return f"{self.status}, {sum(self.diverged)} of {len(self.diverged)} seeds diverged"

    @property
    def mean(self) -> float:
        """The mean of the last accuracies, by which configurations are ranked; NaN where there are none."""
        return sum(self.last) / len(self.last) if self.last else float("nan")


class SearchLog:
    """The configurations of one search, saved whenever one of them ends. Raises UserError."""

    def __init__(self, search: Search, results: Path) -> None:
        self.search = search
        name = search.template.name
        self.path = results / name / f"search-{search.digest[:8]}.json"
        self.configurations = self._read()

    def handle_event(self, event: dict[str, Any]) -> Configuration | None:
        """Process an event of a backend. Return the configuration if the event ends it."""
        name, kind = event.get("pack"), event["event"]
        if name is None:
            return None
        found = self.configurations.get(name) or Configuration(name=name, settings={})
        changes: dict[str, Any] = {"settings": event.get("space", found.settings)}
        if kind == "loop":
            changes["accuracies"] = {
                **{loop: each for loop, each in found.accuracies.items() if loop < event["loop"]},
                event["loop"]: tuple(100 * each for each in event["each"]),
            }
            changes["diverged"] = tuple(event.get("diverged", ()))
        ended: dict[str, ConfigurationStatus] = {
            "done": "finished",
            "stopped": "stopped early",
            "failed": "failed",
        }
        if kind in ended:
            changes["status"] = ended[kind]
            changes["trials"] = tuple(event.get("trials", ()))
            failed = event.get("failed") or {}
            changes["error"] = event.get("error") or next(iter(failed.values()), "")
            if failed:
                changes["status"] = "failed"
        self.configurations[name] = found.model_copy(update=changes)
        if kind not in ended:
            return None
        self.save()
        if found.status == self.configurations[name].status:  # known already
            return None
        return self.configurations[name]

    @property
    def ended(self) -> list[Configuration]:
        """The configurations that have ended, the best first: finished ones by their mean accuracy, then the
        others by the meta-loops trained, since their accuracies are not comparable with the first.
        """
        order = {"finished": 0, "stopped early": 1, "failed": 2}
        found = [each for each in self.configurations.values() if each.status != "running"]
        return sorted(
            found,
            key=lambda each: (
                order[each.status], -each.loops, -each.mean if each.last else 0.0, each.name,
            ),
        )  # fmt: skip

    @property
    def complete(self) -> bool:
        """True if every configuration has ended, and none has failed."""
        ended = self.ended
        return len(ended) == self.search.strategy.samples and all(each.status != "failed" for each in ended)

    def _read(self) -> dict[str, Configuration]:
        content = read_stored(self.path)
        if content is None:
            return {}
        try:
            body = decode_record(content, str(self.path))["configurations"]
            return {each["name"]: Configuration.model_validate(each) for each in body}
        except (ValidationError, KeyError, TypeError) as error:
            raise CorruptFileError(f"{self.path} is damaged ({type(error).__name__})", "Remove it") from None

    def save(self) -> None:
        """Store the log, with the curves of configurations still in training."""
        body = {
            "search": self.search.model_dump(mode="json"),
            "configurations": [each.model_dump(mode="json") for each in self.configurations.values()],
        }
        write_atomically(self.path, encode_record(json.loads(json.dumps(body))))
