"""Probes: read-only observers of networks, with results in a trial's record (names: psa.specs.probes)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from psa.specs.probes import PROBES, parse_probe

if TYPE_CHECKING:
    from psa.engine.probing import Probe


def probe_named(text: str) -> Probe:
    """Return a probe with its options. Raises UserError with the nearest name."""
    name, options = parse_probe(text)
    module, _, kind = PROBES[name].partition(":")
    found: Probe = getattr(importlib.import_module(module), kind)(**options)
    return found
