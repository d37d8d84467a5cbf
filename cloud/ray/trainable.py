"""The trainable of Ray Tune, which trains one pack or one configuration of a search.

Does not import torch, since the driver does not train.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloud.ray.protocol import Files


def train_pack(config: Mapping[str, Any], *, data: Files) -> None:
    """Train one pack or configuration; this is Tune's trainable.

    config: storage (URI), experiment, device, and either pack (its id) or, for a search, template and space
    (the shared settings and this configuration's). data: files by their paths in a data folder.

    Reports once per meta-loop, with a checkpoint whenever the engine has saved, and at the end the `done`
    facts of the pack or its error. An error of the pack is a result: a retry would fail again. The loss of a
    process or node, and errors of memory, devices and files, are left to Ray's fault tolerance.
    """
    from cloud.ray.pack_worker import run_pack_trial

    run_pack_trial(config, data)
