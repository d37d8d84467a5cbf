"""Probes: read-only observers of networks, with results in a trial's record (names: psa.specs.probes)."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from psa.core.formatting import quote
from psa.core.plugins.identity import PluginError, plugin_code
from psa.specs.probes import PROBE_PLUGINS, PROBES, PluginProbe, parse_probe

if TYPE_CHECKING:
    from psa.engine.probing import Probe

_METHODS: Final = ("places", "on_loop_end", "on_finish")


def probe_named(text: str) -> Probe:
    """Return a probe with its options. Raises UserError with the nearest name."""
    name, options = parse_probe(text)
    if name not in PROBES:
        with plugin_code(f"probe {name!r}", PROBE_PLUGINS.origin(name)):
            made: Probe = PROBE_PLUGINS.get(name).make(**options)
        return made
    module, _, kind = PROBES[name].partition(":")
    found: Probe = getattr(importlib.import_module(module), kind)(**options)
    return found


def register_probe(make: Callable[..., Probe], options: Sequence[str] = ()) -> None:
    """Register a probe.

    Args:
        make: A class of the protocol `psa.engine.probing.Probe`, whose attribute `name` is the name in grids
            and records. A class that also has `follow` (`TrainingProbe`) follows the steps of training.
        options: The names of the options of `NAME(key=a+b)`. Each is passed to the class by its name, as the
            tuple of its values, texts of a-z, 0-9, _ and dots.

    Raises:
        PluginError: The name is missing, invalid, built into psa, or registered already, or a method is
            missing.

    Example:
        >>> from psa.probes.base import NetworkProbe
        >>> class WeightNorm(NetworkProbe):
        ...     name = "weight_norm"
        ...
        ...     def _of(self, probe_input, row):
        ...         return {"norm": [float(probe_input.weights.rest[row].norm())]}
        >>> def register():
        ...     register_probe(WeightNorm)

    """
    name = getattr(make, "name", None)
    if not isinstance(name, str) or re.fullmatch("[a-z][a-z0-9_]{0,39}", name) is None:
        raise PluginError(
            f"the attribute name of a probe must be up to 40 of a-z, 0-9 and _, got {quote(name)}",
            f"Set it in {getattr(make, '__name__', make)}",
        )
    missing = [method for method in _METHODS if not callable(getattr(make, method, None))]
    if missing:
        raise PluginError(
            f"a probe must have the methods {', '.join(_METHODS)}, got {name} without {', '.join(missing)}",
            "See psa.engine.probing.Probe",
        )
    follows = callable(getattr(make, "follow", None))
    PROBE_PLUGINS.add(name, PluginProbe(make, tuple(options), follows))
