"""The protocol between the Ray driver and the nodes: names of results and of stored inputs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from cloud.object_store import ObjectStore
from psa.core.errors import UserError
from psa.specs.base import first_error
from psa.specs.trial import Pack

Files = Mapping[str, npt.NDArray[np.uint8]]
INPUTS_FILE: Final = "inputs"
FACTS: Final = "psa"  # key of an event's facts in a Tune result
METRIC: Final = "accuracy"  # key of the metric that a search maximizes


def pack_in(inputs: ObjectStore, name: str) -> Pack:
    """Read a pack that a sweep has uploaded. Raises UserError if it has been removed."""
    content = inputs.read(f"{name}.json")
    if content is None:
        raise UserError(
            f"--storage {inputs.uri}: {name}.json is not there any more",
            "Run the same command again: what has come home is kept, the rest is laid out anew",
        )
    try:
        return Pack.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"--storage {inputs.uri}: {name}.json: {first_error(error)}") from None
