"""Trained networks for other programs: as a module of torch, and as files of other formats."""

from __future__ import annotations

import importlib.util
import io
import os
import tempfile
import warnings
from pathlib import Path
from typing import Final, Literal

import numpy as np
import torch
from safetensors.numpy import save as encode_tensors

from psa.core.errors import UserError
from psa.core.extras import how_to_install
from psa.core.parsing import as_path
from psa.core.plugins.registry import check_loaded
from psa.nn.ordinary import OrdinaryNetwork
from psa.specs.base import canonical_json
from psa.specs.shapes import shape_of
from psa.specs.trial import Trial
from psa.storage.checkpoint import CheckpointFile
from psa.storage.layout import STATE_NAME
from psa.storage.trial_state import TrialState, model_now

ModelFormat = Literal["safetensors", "torchscript", "onnx"]
MODEL_SUFFIXES: Final[dict[ModelFormat, str]] = {
    "safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx",
}  # fmt: skip
_ONNX: Final = ("onnx", "onnxscript")


def load(
    trial: Trial | str | os.PathLike[str], *, model_dir: str | os.PathLike[str] = "models"
) -> OrdinaryNetwork:
    """Load the network of a trial: an ordinary module with its last known good weights.

    Args:
        trial: The trial, its id (`study/network/mode/s00-0a1b2c`), or the path of its state file.
        model_dir: The folder of states; not used for a path.

    Returns:
        The network in evaluation mode. It takes samples [B, features], scaled as the trial's data were (see
        `psa.data.splits.load_splits`), and returns logits [B, classes].

    Raises:
        UserError: There is no such state, it has a hidden-state memory, or a plugin that it uses is missing.

    Example:
        >>> network = load("ablation/resmlp-4x8/hidden/s07-3fa9c1")  # doctest: +SKIP
        >>> network(torch.zeros(1, 784)).shape  # doctest: +SKIP
        torch.Size([1, 10])

    """
    return _network(_state(trial, as_path(model_dir, "model_dir")))


def exported_model(
    trial: Trial | str | os.PathLike[str], kind: ModelFormat, *, model_dir: str | os.PathLike[str] = "models"
) -> tuple[Trial, bytes]:
    """Return a trial and its network as the bytes of a file.

    safetensors: the tensors by the names of the module, with the settings of the trial as JSON under the
    metadata key `psa`. torchscript: a traced program for `torch.jit.load`. onnx: a graph whose input
    `samples` [batch, features] and output `logits` [batch, classes] have a free number of rows.

    Raises:
        UserError: As `load`; or the format needs a package that is not installed.

    """
    if kind == "onnx":
        _check_onnx()
    state = _state(trial, as_path(model_dir, "model_dir"))
    network = _network(state)
    if kind == "safetensors":
        return state.trial, _safetensors(state, network)
    example = torch.zeros(2, network.features)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both libraries announce their successors
        content = _torchscript(network, example) if kind == "torchscript" else _onnx(network, example)
    return state.trial, content


def _state(trial: Trial | str | os.PathLike[str], models: Path) -> TrialState:
    """Return the newest sound state of a trial. Raises UserError."""
    if isinstance(trial, Trial):
        path = models / trial.id / STATE_NAME
    else:
        path = as_path(trial, "trial")
        path = path if path.suffix == ".safetensors" else models / path / STATE_NAME
    state = CheckpointFile(path).load()
    if state is None:
        raise UserError(
            f"the trial must have a stored state, got none at {path}",
            "`psa status GRID` shows what is done; name its folder with --model-dir",
        )
    if isinstance(trial, Trial) and state.trial.digest != trial.digest:
        raise UserError(f"{path} must hold {trial.id}, got {state.trial.id}", "Use another --model-dir")
    check_loaded(state.trial.plugins, str(path))
    if state.trial.memory is not None:
        raise UserError(
            f"{state.trial.id} must have no hidden-state memory to be an ordinary module, got one",
            "Its logits depend on the entries of the memory; psa.interventions.memory applies them",
        )
    return state


def _network(state: TrialState) -> OrdinaryNetwork:
    model = model_now(state)
    weights = {name: torch.from_numpy(tensor.copy()) for name, tensor in state.lkg.items()}
    shape = shape_of(model, state.trial.data.classes, state.trial.data.shape)
    return OrdinaryNetwork.with_weights(model, shape, weights, max(1, state.lkg_loop))


def _safetensors(state: TrialState, network: OrdinaryNetwork) -> bytes:
    trial = state.trial
    facts = {
        "id": trial.id,
        "digest": trial.digest,
        "loop": state.lkg_loop,
        "spec": trial.model_dump(mode="json"),
    }
    tensors = {
        name: np.ascontiguousarray(tensor.numpy(force=True)) for name, tensor in network.state_dict().items()
    }
    # one entry of metadata: the order of several is not defined, and the bytes would differ from run to run
    return encode_tensors(tensors, metadata={"psa": canonical_json(facts)})


def _torchscript(network: OrdinaryNetwork, example: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(network, example), buffer)
    return buffer.getvalue()


def _check_onnx() -> None:
    missing = [name for name in _ONNX if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"--format onnx needs {missing[0]}, which is not installed", how_to_install("onnx"))


def _onnx(network: OrdinaryNetwork, example: torch.Tensor) -> bytes:
    with tempfile.TemporaryDirectory(prefix="psa-") as folder:
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            network, (example,), path, input_names=["samples"], output_names=["logits"], dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},), external_data=False, verbose=False,
        )  # fmt: skip
        return path.read_bytes()
