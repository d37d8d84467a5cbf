"""The trainable of Ray Tune, and the names by which it and its driver understand each other.

Imports no torch: the driver trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloud.ray.protocol import Files


def train_pack(config: Mapping[str, Any], *, data: Mapping[str, Files]) -> None:
    """The trainable. config: storage (URI), experiment, device, and what is trained: pack (its id), or
    template and space (of a search: what its configurations share, and the settings of this one).
    data: files by data set.

    Reports once per meta-loop, with a checkpoint whenever the engine has saved; at the end what `done` says
    of a pack, or why it failed. An error of the pack is a result like any other: trying again would end the
    same way. Only what happens to the process or its node is left to Ray's fault tolerance.
    """
    from cloud.ray.pack_worker import run_pack_trial

    run_pack_trial(config, data)
