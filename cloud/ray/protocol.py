"""The protocol between the Ray driver and the nodes: names of results and of stored inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from cloud.object_store import ObjectStore
from psa.core.errors import UserError
from psa.execution.worker.protocol import stored_pack
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


def read_pack(inputs: ObjectStore, name: str, parse: Callable[[Any, str], Pack] = stored_pack) -> Pack:
    """Read a pack that a sweep has uploaded. parse: `received_pack` to train it.

    Raises UserError if it has been removed.
    """
    content = inputs.read(f"{name}.json")
    if content is None:
        raise UserError(
            f"--storage {inputs.uri}: {name}.json has been removed",
            "Run the same command again: downloaded results are kept, the rest is uploaded again",
        )
    where = f"--storage {inputs.uri}: {name}.json"
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{where} must be JSON ({type(error).__name__})", "Run the same command again"
        ) from None
    return parse(body, where)
