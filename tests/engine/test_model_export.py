"""Exported networks: ordinary modules and files that give the logits of psa."""

from __future__ import annotations

import dataclasses
import importlib.util
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import some_state
from safetensors.numpy import load as read_tensors

import psa
from psa.cli import app
from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.engine.device_pack import fresh_state
from psa.engine.model_export import exported_model
from psa.nn.dense import Dense
from psa.nn.ordinary import OrdinaryNetwork
from psa.nn.shared_products import Inputs
from psa.specs.data import DataSpec
from psa.specs.memory import Memory
from psa.specs.model import NetworkSpec, PublishedModelSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial
from psa.storage.store import Store

Model = PublishedModelSpec | NetworkSpec
EPOCH = 3
MODELS: dict[str, Model] = {
    "simplemlp": PublishedModelSpec(family="simplemlp", arch="2*16, 1*7"),
    "resmlp": PublishedModelSpec(family="resmlp", arch="2*16, 2*7"),
    "resmlp as wide as the images": PublishedModelSpec(family="resmlp", arch="1*784"),
    "glonet": NetworkSpec(family="glonet", arch="4*9", dropout=0.1),
    "cnn": NetworkSpec(family="cnn", arch="1*3, 1*4, 1*8"),
    "simplex": NetworkSpec(family="mlp", arch="2*8", simplex="all", temperature=0.5, activation="Identity"),
    "simplex inside": NetworkSpec(family="residual", arch="2*8", simplex="inner"),
    **{
        activation: NetworkSpec(family="mlp", arch="2*12", activation=activation)
        for activation in (
            "Tanh", "ELU(alpha=0.5)", "LayerwiseSoftmax(temperature=0.5)", "PowerNormalization", "SparseMax",
            "Threshold(initial=0.2)", "Threshold(hard=false)", "JumpReLU(initial=0.1)", "RescaledJumpReLU",
            "FixedRescaledJumpReLU", "DecayingRescaledReLU(decay_epochs=5)", "DecayingRescaledJumpReLU",
        )
    },
}  # fmt: skip


def logits_of(net: Dense, seed: int, images: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Logits [B, 10] of an initial network in a pack of two, as psa evaluates it, and its state dict."""
    rows = net.initial(seed).repeat(2)
    with torch.no_grad():
        found = net.bind(rows, loops=[EPOCH, EPOCH])(Inputs.same_for_all(images, 2))
    return found[1].T, net.unstack(rows[1:])


def check(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """Equal up to rounding, and in what they decide."""
    assert torch.isfinite(ours).all()
    assert len(ours.unique()) > 10
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert torch.equal(ours.argmax(dim=1), theirs.argmax(dim=1))


@pytest.mark.parametrize("name", MODELS)
def test_an_ordinary_network_gives_the_logits_of_psa(name: str, splits: Splits) -> None:
    """Every family and kind of activation; names of the state dict are those of the state file."""
    net, images = Dense(MODELS[name], 10), splits.test.images[:100]
    ours, weights = logits_of(net, 1, images)
    network = OrdinaryNetwork.with_weights(net.model, net.shape, weights, EPOCH)
    with torch.no_grad():
        check(ours, network(images))
    assert list(network.state_dict()) == list(weights)
    check(ours, network(images).detach())  # where gradients are wanted, too


@pytest.mark.parametrize("name", ["resmlp", "cnn", "SparseMax", "JumpReLU(initial=0.1)", "glonet"])
def test_gradients_reach_every_parameter(name: str, splits: Splits) -> None:
    """It can be trained further, as any module."""
    net = Dense(MODELS[name], 10)
    _, weights = logits_of(net, 1, splits.test.images[:100])
    network = OrdinaryNetwork.with_weights(net.model, net.shape, weights, EPOCH).train()
    torch.nn.functional.cross_entropy(network(splits.test.images[:100]), splits.test.labels[:100]).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert any(parameter.grad.abs().sum() > 0 for parameter in network.parameters())


def stored(folder: Path, name: str) -> Trial:
    """Store the initial state of a trial with one of these models."""
    model = MODELS[name]
    method: dict[str, Any] = {} if isinstance(model, PublishedModelSpec) else {"method": StandardTraining()}
    data = DataSpec(scaling="simplex" if name == "simplex" else "standard")
    trial = Trial(study="mine", data=data, model=model, **method)
    state = fresh_state(trial, Dense(model, 10), 2)
    assert state.loops == 0
    Store(folder / "models", folder / "results").state_file(trial).save(state)
    return trial


@pytest.mark.parametrize("name", ["simplemlp", "resmlp", "cnn"])
def test_a_stored_trial_is_loaded_by_trial_id_and_path(name: str, tmp_path: Path, splits: Splits) -> None:
    """From Python, in evaluation mode."""
    trial, images = stored(tmp_path, name), splits.test.images[:50]
    path = tmp_path / "models" / trial.id / "lkg.safetensors"
    ours, _ = logits_of(Dense(trial.model, 10), trial.seed, images)
    for given in (trial, trial.id, path, str(path)):
        network = psa.load(given, model_dir=tmp_path / "models")
        assert not network.training
        with torch.no_grad():
            check(ours, network(images))


@pytest.mark.parametrize("name", MODELS)
def test_a_torchscript_program_gives_the_same_logits(name: str, tmp_path: Path, splits: Splits) -> None:
    """For another number of samples than it was traced with."""
    trial = stored(tmp_path, name)
    _, content = exported_model(trial, "torchscript", model_dir=tmp_path / "models")
    images = splits.test.images[:33]
    with pytest.warns(FutureWarning):
        program = torch.jit.load(io.BytesIO(content))
    with torch.no_grad():
        theirs = program(images)
        assert torch.allclose(theirs, psa.load(trial, model_dir=tmp_path / "models")(images), atol=1e-5)
    assert "psa" not in type(program).__module__


def test_a_safetensors_file_has_the_tensors_and_the_settings(tmp_path: Path) -> None:
    """The same bytes each time; another program needs nothing of psa to read it."""
    trial = stored(tmp_path, "resmlp")
    found, content = exported_model(trial.id, "safetensors", model_dir=tmp_path / "models")
    assert found == trial
    assert content == exported_model(trial, "safetensors", model_dir=tmp_path / "models")[1]
    state = Store(tmp_path / "models", tmp_path / "results").load_state(trial)
    assert state is not None
    tensors = read_tensors(content)
    assert tensors.keys() == state.lkg.keys()
    assert all(np.array_equal(tensors[name], state.lkg[name]) for name in tensors)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    facts = json.loads(header["__metadata__"]["psa"])
    assert Trial.model_validate(facts["spec"]) == trial
    assert (facts["id"], facts["loop"]) == (trial.id, 0)


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    """No state, another trial's, and a memory, whose entries the logits depend on."""
    models = tmp_path / "models"
    with pytest.raises(UserError, match="the trial must have a stored state, got none at"):
        psa.load("mine/x/none/s00-000000", model_dir=models)
    trial = stored(tmp_path, "simplemlp")
    other = trial.changed(seed=1)
    (models / other.id).mkdir(parents=True)
    (models / trial.id / "lkg.safetensors").rename(models / other.id / "lkg.safetensors")
    with pytest.raises(UserError, match=f"must hold {other.id}, got {trial.id}"):
        psa.load(other, model_dir=models)
    model = NetworkSpec(family="mlp", arch="1*1")
    remembering = Trial(study="mine", model=model, method=StandardTraining(), memory=Memory())
    state = dataclasses.replace(some_state(), trial=remembering)
    Store(models, tmp_path / "results").state_file(remembering).save(state)
    with pytest.raises(UserError, match="must have no hidden-state memory"):
        psa.load(remembering, model_dir=models)


def test_the_command_writes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its place, or where --output says."""
    trial = stored(tmp_path, "simplemlp")
    monkeypatch.chdir(tmp_path)
    assert app.run(app.PSA, ["export-model", trial.id]) == 0
    path = Path("results/exported") / f"{trial.id}.safetensors"
    assert path.read_bytes() == exported_model(trial, "safetensors")[1]
    assert app.run(app.PSA, ["export-model", trial.id, "--format", "torchscript", "--output", "net.pt"]) == 0
    assert Path("net.pt").stat().st_size > 1000
    assert "net.pt (" in capsys.readouterr().out
    assert app.run(app.PSA, ["export-model", "mine/none"]) == 2
    assert "error: the trial must have a stored state" in capsys.readouterr().err


def test_a_missing_package_for_onnx_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    trial, here = stored(tmp_path, "simplemlp"), importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnx" else here(name))
    with pytest.raises(
        UserError, match=r"--format onnx needs onnx, which is not installed\. Install it with"
    ):
        exported_model(trial, "onnx", model_dir=tmp_path / "models")


@pytest.mark.parametrize("name", ["simplemlp", "resmlp", "cnn", "glonet", "SparseMax"])
def test_an_onnx_graph_gives_the_same_logits(name: str, tmp_path: Path, splits: Splits) -> None:
    """For another number of samples than it was exported with."""
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    onnx = pytest.importorskip("onnx.reference", reason="the extra onnx is not installed")
    trial = stored(tmp_path, name)
    _, content = exported_model(trial, "onnx", model_dir=tmp_path / "models")
    images = splits.test.images[:5]
    (theirs,) = onnx.ReferenceEvaluator(content).run(None, {"samples": images.numpy()})
    with torch.no_grad():
        ours = psa.load(trial, model_dir=tmp_path / "models")(images)
    assert np.allclose(ours.numpy(), theirs, atol=1e-4)
