"""The bases of probes that observe one network after the other."""

from __future__ import annotations

from typing import Final

from psa.engine.probing import ProbeInput
from psa.nn.dense import Dense
from psa.storage.trial_state import Observation

SPLITS: Final = ("validation", "test")


class NetworkProbe:
    """The base of probes that observe every network in the same way, after each loop and in the end. `_of`
    returns the observation of one; a probe without names of numbers leaves out `places`.
    """

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return no names: each quantity has one number."""
        return {}

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe each network, as the class describes."""
        return [self._of(probe_input, row) for row in range(len(probe_input.loops))]

    def on_finish(self, probe_input: ProbeInput) -> list[Observation]:
        """Do the same for the LKG."""
        return self.on_loop_end(probe_input)

    def _of(self, probe_input: ProbeInput, row: int) -> Observation:
        """Return the observation of one network."""
        raise NotImplementedError


class LkgProbe(NetworkProbe):
    """The base of probes that observe only the LKG, on both splits unless `places` is overridden."""

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return the splits."""
        return {"": list(SPLITS)}

    def on_loop_end(self, probe_input: ProbeInput) -> list[Observation]:
        """Return nothing: only the LKG is observed."""
        return [{} for _ in probe_input.loops]

    def on_finish(self, probe_input: ProbeInput) -> list[Observation]:
        """Observe the LKG of each trial, as the class describes."""
        return super().on_loop_end(probe_input)


class FileProbe(LkgProbe):
    """The base of probes whose numbers are all in files of arrays, so that the record names only the file."""

    def places(self, net: Dense) -> dict[str, list[str]]:
        """Return no names: all results are in files."""
        return {}

    def on_finish(self, probe_input: ProbeInput) -> list[Observation]:
        """Return nothing: all results are in files."""
        return self.on_loop_end(probe_input)
