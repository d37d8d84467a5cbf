"""The names of arms of the study of memory and growth: the settings in which they are unusual."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from psa.experiments.studies.memory import CONTROLS, GROWTH
from psa.specs.base import canonical_json

KNN: Final = "embedding_knn"
# Settings of a memory by their command-line names, where two would otherwise have one name.
_REMEMBERING: Final = {
    "affected.dims": "affected_dims", "query.dims": "projection_dims",
    "gate.temperature": "gate_temperature", "gate.schedule": "gate_schedule",
    **{f"refresh.{name}": f"refresh_{name}" for name in ("rate", "distance", "key", "value")},
}  # fmt: skip
_METHODS: Final = {control: method for method, control in CONTROLS.items()}


def _without_sizes(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of data without the numbers of samples, which belong to the stage."""
    return {key: value for key, value in data.items() if key not in ("train_size", "val_size", "test_size")}


def arm_settings(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings that the trials of an arm share: no seed, no observation, no number of samples."""
    data = _without_sizes(spec["data"])
    kept = {key: value for key, value in spec.items() if key not in ("seed", "probes")}
    return kept | {"data": data, "votes": KNN in spec.get("probes", ())}


@dataclass(frozen=True)
class Usual:
    """The usual settings, of which the arms of a report are variants: memory, growth, and other training."""

    memory: Mapping[str, Any]
    growth: Mapping[str, Any]
    training: Mapping[str, Any]

    @classmethod
    def of(cls, specs: Sequence[Mapping[str, Any]]) -> Usual:
        """Return the medoid of the memories, since every arm may vary it, and the commonest of the others."""
        return cls(
            _medoid([spec["memory"] for spec in specs if spec.get("memory")]),
            _commonest([spec["growth"] for spec in specs if spec.get("growth")]),
            _commonest([_training(spec) for spec in specs]),
        )


def _training(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that distinguish arms beside layers, growth and memory."""
    family = spec["model"]["family"]
    model = {key: value for key, value in spec["model"].items() if key != "arch"}
    # a CNN is named in the network
    model["family"] = "mlp" if family == "cnn" else family
    data = _without_sizes(spec["data"])
    more = {"legs": canonical_json(legs)} if (legs := spec.get("legs")) else {}
    return {
        "model": model, "method": spec["method"], "data": data,
        "intervention": spec["intervention"], **more,
    }  # fmt: skip


def _commonest(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    counts = Counter(canonical_json(each) for each in settings)
    best = min(counts, key=lambda text: (-counts[text], text), default="{}")
    return dict(json.loads(best))


def method_of(spec: Mapping[str, Any]) -> str:
    """Return the method: hybrid or one of its controls, embedding_knn, or nn (a network without a memory)."""
    if spec.get("memory"):
        return _METHODS[spec["memory"]["control"]]
    return KNN if KNN in spec.get("probes", []) else "nn"


def memory_network(spec: Mapping[str, Any], usual: Usual) -> str:
    """Return its hidden layers, whether it grows from there, and unusual settings of training and growth."""
    arch = str(spec["model"]["arch"]).strip("[]")
    arch = f"cnn {arch}" if spec["model"]["family"] == "cnn" else arch
    arch = f"growing {arch}" if spec.get("growth") else arch
    return ", ".join(
        [
            arch,
            *_differences(spec.get("growth") or usual.growth, usual.growth, GROWTH),
            *_differences(_training(spec), usual.training, {"data.name": "dataset"}),
        ]
    )


def _differences(mine: Mapping[str, Any], theirs: Mapping[str, Any], names: Mapping[str, str]) -> list[str]:
    """Return `site=early` for each setting of mine that differs from theirs; names: replace dotted names."""
    flat = _flat(mine)
    return [
        f"{names.get(key, key.rpartition('.')[2])}={_shown(flat.get(key))}"
        for key in changed_in(mine, theirs)
    ]


def label_of(spec: Mapping[str, Any], usual: Usual) -> str:
    """Return the label of an arm: its method, its network, and the unusual settings of its memory."""
    parts = [f"{method_of(spec)} {memory_network(spec, usual)}"]
    if spec.get("memory"):
        parts += _differences(spec["memory"], usual.memory, _REMEMBERING)
    return ", ".join(parts)


def changed_in(settings: Mapping[str, Any] | None, usual: Mapping[str, Any]) -> list[str]:
    """Return the unusual settings, by dotted names; being a control does not count."""
    mine, theirs = _flat(settings or usual), _flat(usual)
    keys = sorted({*mine, *theirs} - {"control"})
    return [key for key in keys if mine.get(key) != theirs.get(key)]


def _shown(value: Any) -> str:
    return "none" if value is None else str(value)


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested settings by dotted names."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


def _medoid(memories: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the memory that has most in common with the others, from which variants are derived; of several
    the commonest.
    """
    counts = Counter(canonical_json(each | {"control": "none"}) for each in memories)
    unique = {text: json.loads(text) for text in counts}

    def apart(one: dict[str, Any]) -> int:
        return sum(len(set(_flat(one).items()) ^ set(_flat(other).items())) for other in unique.values())

    best = min(unique, key=lambda text: (apart(unique[text]), -counts[text], text), default=None)
    return {} if best is None else dict(unique[best])


def without_control(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that an arm shares with its controls."""
    memory = dict(spec["memory"]) | {"control": None} if spec.get("memory") else None
    trained = {"arch": spec["model"]["arch"], "family": spec["model"]["family"], **_training(spec)}
    return {**trained, "growth": spec.get("growth"), "memory": memory}
