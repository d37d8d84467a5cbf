"""Probes: their names, their options, and the modules of their classes."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from pydantic import (
    Field,
)

from psa.core.errors import UserError
from psa.core.formatting import pluralize, quote
from psa.core.parsing import check_choice
from psa.core.plugins.registry import Registry

# With its options where it has any: `gradients_online(epochs=1+3,layers=output)`.
ProbeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}(\([a-z0-9_.,=+]{1,200}\))?$")]

ONLINE: Final = "gradients_online"
CHECKPOINT: Final = "gradients"
DETAILS: Final = "sample_details"

# The columns of a file beside `LAYER.delta` and `LAYER.activation`, all int64 [N].
GRADIENT_COLUMNS: Final = ("index", "digit", "label", "prediction")

# name -> module and class, imported when a trial uses the probe
PROBES: Final = {
    "layer_usage": "psa.probes.layers:LayerUsage",
    "early_exit": "psa.probes.layers:EarlyExit",
    "thresholds": "psa.probes.layers:Thresholds",
    "train_accuracy": "psa.probes.train_accuracy:TrainAccuracy",
    "distributions": "psa.probes.distributions:Distributions",
    "gradients": "psa.probes.gradients:Gradients",
    "gradients_online": "psa.probes.gradients:GradientsOnline",
    "calibration": "psa.probes.calibration:Calibration",
    "confusion": "psa.probes.calibration:Confusion",
    "embedding_knn": "psa.probes.embedding_knn:EmbeddingKnn",
    "toggle": "psa.probes.memory:ToggleProbe",
    "retrieval": "psa.probes.memory:RetrievalProbe",
    "sample_details": "psa.probes.sample_details:SampleDetails",
}


@dataclass(frozen=True)
class PluginProbe:
    """A probe of a plugin. make: its class, see psa.probes.register_probe; options: the names of its options;
    follows: it follows the steps of an epoch.
    """

    make: Callable[..., Any]
    options: tuple[str, ...]
    follows: bool


PROBE_PLUGINS: Final = Registry[PluginProbe]("probe", lambda: PROBES)

# The type of each option, for probes with options.
OPTIONS: Final = {
    "gradients": {"layers": "names of layers"},
    "gradients_online": {"epochs": "numbers from 1", "layers": "names of layers"},
}
_VALUES: Final = {"epochs": "[1-9][0-9]{0,8}", "layers": "[a-z0-9_.]+"}
_ANY_VALUE: Final = "[a-z0-9_.]+"  # of an option of a plugin
_TEXT: Final = re.compile(r"([a-z][a-z0-9_]*)(?:\((.*)\))?")

# Probes that follow the steps of an epoch.
TRAINING_PROBES: Final = frozenset({ONLINE})

# Probes that observe the memory of a trial.
MEMORY_PROBES: Final = frozenset({"toggle", "retrieval"})
# Probes that observe the network without its memory, while its scores are those with it.
WITHOUT_MEMORY: Final = frozenset({"train_accuracy", "layer_usage", "early_exit", "distributions"})


def parse_probe(text: str) -> tuple[str, dict[str, tuple[str, ...]]]:
    """Parse the name of a probe and the values of its options. Raises UserError."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise UserError(f"a probe must be NAME or NAME(key=value), got {text!r}", _example())
    name, options = match[1], dict[str, tuple[str, ...]]()
    PROBE_PLUGINS.check_choice(name, "probes")
    plugin = PROBE_PLUGINS.find(name)
    kinds = OPTIONS.get(name, {}) if plugin is None else dict.fromkeys(plugin.options, _ANY_VALUE)
    for part in match[2].split(",") if match[2] is not None else ():
        key, _, values = part.partition("=")
        check_choice(key, set(kinds), f"probe {text!r}", "option")
        if key in options:
            raise UserError(f"probe {text!r}: {key} must be given once, got it twice", "Join values with +")
        options[key] = tuple(values.split("+"))
        pattern = _ANY_VALUE if plugin is not None else _VALUES[key]
        if not all(re.fullmatch(pattern, value) for value in options[key]):
            raise UserError(f"probe {text!r}: {key} must be {kinds[key]}, got {values!r}", _example())
        if len(set(options[key])) < len(options[key]):
            raise UserError(f"probe {text!r}: {key} must have each value once, got {values!r}", _example())
    return name, options


def follows_training(name: str) -> bool:
    """Return True for a probe that follows the steps of an epoch. name: without its options."""
    plugin = PROBE_PLUGINS.find(name)
    return name in TRAINING_PROBES or (plugin is not None and plugin.follows)


def _example() -> str:
    return "For example gradients_online(epochs=1+3,layers=output)"


def check_observations(name: str, seen: object, places: object, count: int) -> None:
    """Check what the probe of a plugin returned for so many networks, and its names of places.

    Raises UserError for what no record can hold, and for numbers that their places do not name.
    """
    if not isinstance(places, dict) or not all(isinstance(names, list | tuple) for names in places.values()):
        raise _unfit(name, "a mapping of lists of names as places", places)
    mappings = isinstance(seen, list | tuple) and all(isinstance(one, dict) for one in seen)
    if not isinstance(seen, list | tuple) or not mappings or len(seen) != count:
        raise _unfit(name, f"a list of {pluralize(count, 'mapping')}, one per network", seen)
    for quantity, numbers in (item for one in seen for item in one.items()):
        if not isinstance(numbers, list | tuple) or not all(map(_is_number, numbers)):
            raise _unfit(name, f"a list of numbers as {quantity!r}", numbers)
        names = places.get(str(quantity).rpartition(".")[2], places.get(""))
        if names is not None and len(names) != len(numbers):
            raise _unfit(name, f"{pluralize(len(names), 'number')} as {quantity!r}, one per place", numbers)


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _unfit(name: str, wanted: str, found: object) -> UserError:
    return UserError(
        f"probe {name!r} of plugin {PROBE_PLUGINS.origin(name)} must return {wanted}, got {quote(found)}"
    )
