"""The protocol between the Ray driver and the nodes: names of results and of stored inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from cloud.object_store import ObjectStore
from psa.core.errors import UserError
from psa.specs.base import first_error
from psa.specs.trial import Pack

Files = Mapping[str, npt.NDArray[np.uint8]]
INPUTS_FOLDER: Final = "inputs"
FACTS_KEY: Final = "psa"  # key of an event's facts in a Tune result
METRIC_KEY: Final = "accuracy"  # key of the metric that a search maximizes


@dataclass(frozen=True)
class RayExperiment:
    """Packs by name, as stored in an experiment."""

    name: str
    packs: dict[str, Pack]


def read_pack(inputs: ObjectStore, name: str) -> Pack:
    """Read a pack that a sweep has uploaded. Raises UserError if it has been removed."""
    content = inputs.read(f"{name}.json")
    if content is None:
        raise UserError(
            f"--storage {inputs.uri}: {name}.json has been removed",
            "Run the same command again: downloaded results are kept, the rest is uploaded again",
        )
    try:
        return Pack.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"--storage {inputs.uri}: {name}.json: {first_error(error)}") from None
