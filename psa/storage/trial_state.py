"""The state of one trial between two loops, which is all that a resume needs, and its file format.

The file is an ordinary safetensors file: the LKG under the names of an ordinary module, and one metadata
entry with the rest. Its bytes are a function of the state alone, so reading it back and writing it again must
give the same bytes: that, and a digest over everything, is how damage is found. Nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, NotRequired

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load as decode_tensors
from safetensors.numpy import save as encode_tensors
from typing_extensions import TypedDict

from psa.core.errors import CorruptFileError, UserError
from psa.core.plugins.identity import PluginError
from psa.core.plugins.registry import check_loaded, plugin_uses
from psa.specs.arch import Arch
from psa.specs.base import canonical_json, first_error
from psa.specs.model import NetworkSpec, PublishedModelSpec
from psa.specs.shapes import shape_of
from psa.specs.trial import Trial
from psa.storage.records.schema import (
    STRICT,
    FileEntry,
    FileName,
    Grown,
    History,
    NonNegativeInt,
    Some,
    StrictInt,
)

STATE_FORMAT: Final = 1
HISTORY_COLUMNS: Final = ("loop", "mode", "layer", "unit", "correct", "loss", "train_loss", "kept")

_MEMORY: Final = "memory"  # before the names of a memory's tensors
_PICKLES: Final = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # torch.save, pickle
# What reading bytes that nobody wrote may raise, in json, numpy, safetensors and here.
_NOT_AS_WRITTEN: Final = (
    SafetensorError,
    ValidationError,
    UserError,
    KeyError,
    TypeError,
    ValueError,
    AttributeError,
    OverflowError,
    RecursionError,
)


class _Facts(TypedDict):
    __pydantic_config__ = STRICT  # type: ignore[misc]  # pydantic's own way to configure a TypedDict
    format: Some
    spec: dict[str, Any]
    horizon: Annotated[int, Field(ge=1)]
    loops: NonNegativeInt
    lkg_loop: NonNegativeInt
    best_correct: StrictInt
    best_loss: float | None
    stopped: bool
    devices: list[str]
    history: dict[str, list[Any]]
    observed: NotRequired[dict[str, list[dict[str, list[Any]]]]]
    files: NotRequired[dict[FileName, FileEntry]]
    events: NotRequired[list[Grown]]


_FACTS: Final = TypeAdapter(_Facts)
_HISTORY: Final = TypeAdapter(History)

Tensors = dict[str, NDArray[np.float32]]
Observation = dict[str, list[Any]]


def empty_history() -> dict[str, list[Any]]:
    """Return the history before the first loop: one empty list per column."""
    return {column: [] for column in HISTORY_COLUMNS}


@dataclass
class TrialState:
    """A trial after `loops` finished loops on its way to `horizon`.

    lkg, lkg_loop: the last known good weights (ordinary names, weights [outputs, inputs]) and the loop that
    made them, 0 before the first. best_correct, best_loss: their validation score, -1 and infinity before
    any. history: one value per finished loop and column. carried: further buffers, those in `carried` of the
    method; with patience the LKG is among them, and `lkg` is the best state. stopped: ended early by itself.
    devices: the kinds of device that trained its loops, in the order they came in. observed: what each probe
    saw, by its name: one mapping of quantities to lists of numbers for before the first loop and each loop.
    files: the arrays of samples kept beside this state, by name, each with `sha256` and `bytes`.
    memory: all that its hidden-state memory holds (see psa.interventions.memory.bank). events: how its
    network grew.
    """

    trial: Trial
    horizon: int
    lkg: Tensors
    loops: int = 0
    lkg_loop: int = 0
    best_correct: int = -1
    best_loss: float = float("inf")
    history: dict[str, list[Any]] = field(default_factory=empty_history)
    carried: dict[str, Tensors] = field(default_factory=dict)
    stopped: bool = False
    devices: list[str] = field(default_factory=list)
    observed: dict[str, list[Observation]] = field(default_factory=dict)
    files: dict[str, dict[str, Any]] = field(default_factory=dict)
    memory: dict[str, NDArray[Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)

    def finished(self, horizon: int) -> bool:
        """Return True if nothing is left to train up to `horizon`."""
        return self.stopped or self.loops >= horizon

    @property
    def finite(self) -> bool:
        """Return True if all numbers of the LKG are finite, as the engine has it."""
        return all(bool(np.isfinite(tensor).all()) for tensor in self.lkg.values())


def encode_state(state: TrialState) -> bytes:
    """Return the bytes of a state file. Equal states give equal bytes."""
    tensors: dict[str, NDArray[Any]] = dict(state.lkg)
    tensors |= {f"{_MEMORY}/{name}": tensor for name, tensor in state.memory.items()}
    for kind, parts in state.carried.items():
        tensors |= {f"{kind}/{name}": tensor for name, tensor in parts.items()}
    facts = {
        "format": STATE_FORMAT,
        "spec": state.trial.model_dump(mode="json"),
        "horizon": state.horizon,
        "loops": state.loops,
        "lkg_loop": state.lkg_loop,
        "best_correct": state.best_correct,
        "best_loss": state.best_loss if math.isfinite(state.best_loss) else None,
        "stopped": state.stopped,
        "devices": state.devices,
        "history": state.history,
    }
    if state.observed:  # left out where there is nothing, as in states of before there were probes
        facts["observed"] = state.observed
    if state.files:
        facts["files"] = state.files
    if state.events:
        facts["events"] = state.events
    facts["sha256"] = _digest(facts, tensors)
    # One metadata entry: the order of several is not defined, and the bytes would differ from run to run.
    return encode_tensors(tensors, metadata={"psa": canonical_json(facts)})


def _digest(facts: dict[str, Any], tensors: dict[str, NDArray[Any]]) -> str:
    total = hashlib.sha256(canonical_json(facts).encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        total.update(canonical_json([name, str(tensor.dtype), list(tensor.shape)]).encode())
        total.update(tensor.reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def decode_state(content: bytes, where: str) -> TrialState:
    """Return the state in the bytes of a file. `where` names the file in errors.

    Raises CorruptFileError where a single bit differs from what was written, and UserError where the file is
    sound but not ours to read (another program's, a pickle, a newer format).
    """
    facts = _facts(content, where)
    try:
        tensors = decode_tensors(content)
        digest = facts.pop("sha256")
        _FACTS.validate_python(facts)
        state = _state(facts, tensors)
        sound = digest == _digest(facts, tensors) and encode_state(state) == content
        fits = _consistent(state)
    except PluginError as error:  # whether its weights fit its family, only the plugin knows
        check_loaded(plugin_uses(facts["spec"]), where)
        raise PluginError(f"{where}: {error.message}", error.hint) from None
    except _NOT_AS_WRITTEN as error:
        reason = first_error(error) if isinstance(error, ValidationError) else type(error).__name__
        raise CorruptFileError(f"{where} is damaged ({reason})") from error
    if not sound:
        raise CorruptFileError(f"{where} is damaged (its digest differs)")
    if not fits:
        raise CorruptFileError(
            f"{where} is damaged (its weights or its history do not fit its arch and loops)"
        )
    return state


def _facts(content: bytes, where: str) -> dict[str, Any]:
    """Return the metadata entry, which is checked before anything else is read."""
    metadata = _metadata(content, where)
    if "psa" not in metadata:
        raise UserError(
            f"{where} is a safetensors file, but not one of psa's",
            "Move it away, or use another --model-dir",
        )
    try:
        facts: dict[str, Any] = json.loads(metadata["psa"])
        newer = facts["format"] > STATE_FORMAT
    except _NOT_AS_WRITTEN as error:
        raise CorruptFileError(f"{where} is damaged (its metadata cannot be read)") from error
    if newer:
        raise UserError(
            f"{where} was written by a newer psa (format {facts['format']}; this one reads up to "
            f"{STATE_FORMAT})",
            "Update psa, or use another --model-dir",
        )
    return facts


def _metadata(content: bytes, where: str) -> dict[str, Any]:
    """Return the metadata of a safetensors header: a length of 8 bytes, then JSON of that length."""
    size = int.from_bytes(content[:8], "little")
    try:
        metadata = json.loads(content[8 : 8 + size] if size <= len(content) - 8 else b"").get(
            "__metadata__", {}
        )
        return dict(metadata)
    except _NOT_AS_WRITTEN as error:
        # Asked only now and so: the length of a header may begin with the very bytes of a pickle.
        if content.startswith(_PICKLES) and content[8:10] != b'{"':
            raise UserError(
                f"{where} is a pickle (an old torch.save checkpoint), which could run any code when opened",
                "psa does not open it: move it away, or use another --model-dir",
            ) from None
        raise CorruptFileError(f"{where} is damaged (its header cannot be read)") from error


def _state(facts: dict[str, Any], tensors: Tensors) -> TrialState:
    carried: dict[str, Tensors] = {}
    memory: dict[str, NDArray[Any]] = {}
    for name in [name for name in tensors if "/" in name]:
        kind, _, inner = name.partition("/")
        (memory if kind == _MEMORY else carried.setdefault(kind, {}))[inner] = tensors[name]
    return TrialState(
        trial=Trial.model_validate(facts["spec"]),
        horizon=facts["horizon"],
        lkg={name: tensor for name, tensor in tensors.items() if "/" not in name},
        loops=facts["loops"],
        lkg_loop=facts["lkg_loop"],
        best_correct=facts["best_correct"],
        best_loss=float("inf") if facts["best_loss"] is None else facts["best_loss"],
        history=facts["history"],
        carried=carried,
        stopped=facts["stopped"],
        devices=facts["devices"],
        observed=facts.get("observed", {}),
        files=facts.get("files", {}),
        memory=memory,
        events=facts.get("events", []),
    )


def model_now(state: TrialState) -> PublishedModelSpec | NetworkSpec:
    """Return the network of a trial at its present size."""
    model = state.trial.model
    if not state.events:
        return model
    widths = state.events[-1]["new_hidden_sizes"]
    return model.model_copy(update={"arch": Arch.of_stacks([(1, width) for width in widths])})


def _is_history(history: dict[str, list[Any]]) -> bool:
    try:
        _HISTORY.validate_python(history)
    except ValidationError:
        return False
    return True


def _consistent(state: TrialState) -> bool:
    """Return True if the parts fit each other, as they always do in a file that psa wrote."""
    sizes: dict[str, tuple[int, ...]] = {}
    for linear in shape_of(model_now(state), state.trial.data.classes, state.trial.data.shape).linears:
        sizes |= linear.tensors
    return (
        all(
            {name: tensor.shape for name, tensor in part.items()} == sizes
            for part in (state.lkg, *state.carried.values())
        )
        and _is_history(state.history)
        and all(len(values) == state.loops for values in state.history.values())
        and all(len(seen) == state.loops + 1 for seen in state.observed.values())
    )
