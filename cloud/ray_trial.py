"""The trainable of Ray Tune, and the names by which it and its driver understand each other.

Imports no torch: the driver trains nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from cloud.object_store import Storage
from psa.core.errors import UserError
from psa.specs.base import first_fault
from psa.specs.trial import Pack

Files = Mapping[str, npt.NDArray[np.uint8]]
INPUTS: Final = "inputs"
FACTS: Final = "psa"  # of a Tune result: what an event says
METRIC: Final = "accuracy"  # and what a search looks at


def pack_in(inputs: Storage, name: str) -> Pack:
    """Return a pack that a sweep has laid into the storage. Raises UserError where it has been removed."""
    content = inputs.read(f"{name}.json")
    if content is None:
        raise UserError(
            f"--storage {inputs.uri}: {name}.json is not there any more",
            "Run the same command again: what has come home is kept, the rest is laid out anew",
        )
    try:
        return Pack.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"--storage {inputs.uri}: {name}.json: {first_fault(error)}") from None


def train_pack(config: Mapping[str, Any], *, data: Mapping[str, Files]) -> None:
    """The trainable. config: storage (URI), experiment, device, and what is trained: pack (its id), or
    template and space (of a search: what its configurations share, and the settings of this one).
    data: files by data set.

    Reports once per meta-loop, with a checkpoint whenever the engine has saved; at the end what `done` says
    of a pack, or why it failed. An error of the pack is a result like any other: trying again would end the
    same way. Only what happens to the process or its node is left to Ray's fault tolerance.
    """
    from cloud.ray_work import work_on

    work_on(config, data)
