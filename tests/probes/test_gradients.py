"""Gradients of samples while training: whose they are, that they are right, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import net_trial, run
from torch import Tensor, nn

from psa.analysis.gradients.vmap import per_sample_gradients
from psa.core.errors import CorruptFileError, UserError
from psa.data.splits import Splits
from psa.engine.batches import Batches
from psa.engine.device_pack import fresh_state
from psa.engine.loop import row_of
from psa.execution.worker.record import probes_for
from psa.nn.dense import Dense
from psa.specs.probes import parse_probe
from psa.storage import array_file
from psa.storage.array_file import Arrays
from psa.storage.trial_state import TrialState, decode_state, encode_state

PROBES = ("gradients_online", "gradients")


class Kept:
    """Where arrays go in tests: into memory, by trial and name."""

    def __init__(self) -> None:
        self.arrays: dict[tuple[str, str], Arrays] = {}

    def __call__(self, state: TrialState, name: str, arrays: Arrays) -> dict[str, Any]:
        self.arrays[state.trial.id, name] = {key: array.copy() for key, array in arrays.items()}
        return {"sha256": name, "bytes": 1}


def forward(net: Dense, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits of a plain network as one would write them."""
    for linear in net.shape.linears:
        x = nn.functional.linear(x, state[f"{linear.name}.weight"], state[f"{linear.name}.bias"])
        x = x if linear.role == "output" else torch.relu(x)
    return x


def test_a_hundred_samples_computed_one_by_one_have_the_gradients_that_were_kept(small: Splits) -> None:
    """Drawn from all of an epoch, the short last batch among them: the weights before each step are those of
    an ordinary loop in float64, and every sample alone is differentiated with them.

    Tolerance: the kept ones are float32. After 10 steps of Adam the two runs' weights differ by a few 1e-6,
    and a dot product over 784 inputs of order 1 rounds by some 1e-6: 1e-4 of the largest number of a
    gradient is far above both, and far below what another sample's gradient would differ by (order 1).
    """
    trial = net_trial("1*12", seed=5, probes=("gradients_online",))
    kept = Kept()
    run([trial], small, 1, keep=kept)
    arrays = kept.arrays[trial.id, "gradients_online-1"]
    net = Dense(trial.model, 10)
    state = {
        name: torch.from_numpy(array).double().requires_grad_()
        for name, array in fresh_state(trial, net, 1).lkg.items()
    }
    adam = torch.optim.Adam(state.values(), lr=1e-3)
    batches = Batches([row_of(fresh_state(trial, net, 1))], small.train, 64)
    asked = set(np.random.Generator(np.random.Philox(1)).choice(600, 100, replace=False).tolist()) | {599}
    place = {int(index): at for at, index in enumerate(small.train.index)}
    for step in range(len(batches)):
        for row in range(step * 64, step * 64 + batches.size(step)):
            if row in asked:
                _check_one(net, state, small, place[int(arrays["index"][row])], arrays, row)
        chosen = batches.chosen(step)[0]
        adam.zero_grad()
        logits = forward(net, state, small.train.images[chosen].double())
        nn.functional.cross_entropy(logits, small.train.labels[chosen]).backward()
        adam.step()


def _check_one(
    net: Dense, state: dict[str, Tensor], splits: Splits, sample: int, arrays: Arrays, row: int
) -> None:
    split = splits.train
    logits = forward(net, state, split.images[sample].double())
    loss = nn.functional.cross_entropy(logits, split.labels[sample])
    found = dict(zip(state, torch.autograd.grad(loss, list(state.values())), strict=True))
    assert arrays["digit"][row] == split.digits[sample]
    assert arrays["label"][row] == split.labels[sample]
    assert arrays["prediction"][row] == splits.digits[int(logits.argmax())]
    inputs = {"hidden.0": split.images[sample].numpy(), "output": arrays["output.activation"][row]}
    for layer, activation in inputs.items():
        delta = arrays[f"{layer}.delta"][row]
        for name, mine in ((f"{layer}.weight", np.outer(delta, activation)), (f"{layer}.bias", delta)):
            expected = found[name].numpy()
            atol = 1e-4 * max(1.0, float(np.abs(expected).max()))
            np.testing.assert_allclose(mine, expected, rtol=0, atol=atol, err_msg=name)


def test_every_sample_is_there_once(small: Splits) -> None:
    """In the order of training, and of another one in the next epoch."""
    trial = net_trial("1*6", probes=("gradients_online",))
    kept = Kept()
    (state,), _ = run([trial], small, 2, keep=kept)
    first, second = (kept.arrays[trial.id, f"gradients_online-{loop}"]["index"] for loop in (1, 2))
    assert sorted(first) == sorted(second) == sorted(small.train.index.tolist())
    assert (first != second).any()
    assert list(state.files) == ["gradients_online-1", "gradients_online-2"]
    assert decode_state(encode_state(state), "here").files == state.files


MODELS: list[dict[str, Any]] = [
    {"arch": "2*7"},
    {"arch": "2*6", "family": "residual"},
    {"arch": "3*5", "family": "glonet"},
    {"arch": "1*8", "activation": "Tanh"},
]


@pytest.mark.parametrize("parts", MODELS, ids=lambda parts: "-".join(map(str, parts.values())))
def test_those_of_the_checkpoint_are_those_of_any_function(parts: dict[str, Any], small: Splits) -> None:
    """The factored ones of every layer, also behind skips, sums and other activations, against torch.func on
    the same network; float32 on both sides, so 1e-4 of the largest number.
    """
    trial = net_trial(**parts, probes=("gradients",), lr=3e-3)
    kept = Kept()
    (state,), _ = run([trial], small, 2, keep=kept)
    arrays, net = kept.arrays[trial.id, "gradients-2"], Dense(trial.model, 10)
    np.testing.assert_array_equal(arrays["index"], small.train.index.numpy())
    lkg = {name: torch.from_numpy(array) for name, array in state.lkg.items()}
    some = torch.arange(0, 600, 37)
    expected = per_sample_gradients(
        lambda weights, x: _logits(net, weights, x), lkg, small.train.images[some], small.train.labels[some]
    )
    assert expected.keys() == lkg.keys()
    for number, linear in enumerate(net.shape.linears):
        delta = torch.from_numpy(arrays[f"{linear.name}.delta"])[some]
        stored = arrays.get(f"{linear.name}.activation")
        assert (stored is None) == (number == 0)
        inputs = (small.train.images if stored is None else torch.from_numpy(stored))[some]
        weight = torch.einsum("no,ni->noi", delta, inputs)
        for name, mine in (("weight", weight), ("bias", delta)):
            theirs = expected[f"{linear.name}.{name}"]
            atol = 1e-4 * max(1.0, float(theirs.abs().max()))
            torch.testing.assert_close(mine, theirs, rtol=0, atol=atol, msg=f"{linear.name}.{name}")


def _logits(net: Dense, weights: dict[str, Tensor], x: Tensor) -> Tensor:
    """[classes] of one image [784]."""
    tanh = net.activation.name == "Tanh"
    h, skip, total = x, x, torch.zeros(())
    for linear in net.shape.linears:
        read = total if linear.role == "output" and net.shape.summed else h
        z = nn.functional.linear(read, weights[f"{linear.name}.weight"], weights[f"{linear.name}.bias"])
        if linear.role == "output":
            return z
        skip = h if linear.role == "enter" else skip
        z = z + skip if linear.role == "leave" else z
        h = z.tanh() if tanh else z.relu()
        total = total + h
    raise AssertionError


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3}, {"family": "residual"}])
def test_looking_changes_nothing(options: dict[str, Any], small: Splits) -> None:
    """The same weights, moments and books to the bit with the probes and without."""
    seen = net_trial("2*9", probes=PROBES, **options)
    blind = net_trial("2*9", **options)
    (with_probes,), _ = run([seen], small, 2, keep=Kept())
    (without,), _ = run([blind], small, 2)
    for name, tensor in without.lkg.items():
        assert tensor.tobytes() == with_probes.lkg[name].tobytes(), name
    for kind, parts in without.carried.items():
        for name, tensor in parts.items():
            assert tensor.tobytes() == with_probes.carried[kind][name].tobytes(), (kind, name)
    assert without.history == with_probes.history


def test_a_pack_keeps_of_every_trial_what_it_keeps_alone(small: Splits) -> None:
    """To the bit, also of trials that share their batches and of one that is a unit wide."""
    for arch in ("1*8", "2*1"):
        trials = [net_trial(arch, seed, probes=PROBES, lr=lr) for seed in (1, 2) for lr in (1e-3, 4e-3)]
        together = Kept()
        run(trials, small, 2, keep=together)
        for trial in trials:
            alone = Kept()
            run([trial], small, 2, keep=alone)
            for (_, name), arrays in alone.arrays.items():
                for key, array in arrays.items():
                    assert array.tobytes() == together.arrays[trial.id, name][key].tobytes(), (name, key)


def test_an_interrupted_epoch_is_kept_as_if_nothing_had_happened(small: Splits) -> None:
    """One loop, then another from the stored state: the files of two in one go."""
    trial = net_trial("1*8", probes=PROBES)
    whole, parts = Kept(), Kept()
    run([trial], small, 2, keep=whole)
    (state,), _ = run([trial], small, 1, keep=parts)
    again = decode_state(encode_state(state), "here")
    again.horizon = 2
    run([trial], small, 2, [again], keep=parts)
    for name in ("gradients_online-1", "gradients_online-2", "gradients-2"):
        for key, array in whole.arrays[trial.id, name].items():
            assert array.tobytes() == parts.arrays[trial.id, name][key].tobytes(), (name, key)


def test_options_choose_epochs_and_layers(small: Splits) -> None:
    """Only what was asked for is kept."""
    trial = net_trial("2*6", probes=("gradients_online(epochs=2,layers=output+hidden.1)",))
    kept = Kept()
    run([trial], small, 3, keep=kept)
    assert [name for _, name in kept.arrays] == ["gradients_online-2"]
    arrays = kept.arrays[trial.id, "gradients_online-2"]
    assert {name for name in arrays if "." in name} == {
        "output.delta", "output.activation", "hidden.1.delta", "hidden.1.activation"
    }  # fmt: skip


def test_labels_are_digits_again(splits: Splits, small: Splits) -> None:
    """Of 3 and 8: labels 0 and 1, predictions of digits."""
    of_two = (small.train.digits == 3) | (small.train.digits == 8)

    def part(split: Any) -> Any:
        rows = ((split.digits == 3) | (split.digits == 8)).nonzero().squeeze(1)
        labels = (split.digits[rows] == 8).long()
        return type(split)(split.images[rows], labels, split.digits[rows], split.index[rows])

    two = Splits(part(small.train), part(small.val), part(small.test), 2, (3, 8))
    trial = net_trial("1*6", probes=("gradients_online",))
    kept = Kept()
    run([trial], two, 1, keep=kept)
    arrays = kept.arrays[trial.id, "gradients_online-1"]
    assert set(arrays["prediction"]) <= {3, 8}
    assert len(arrays["index"]) == int(of_two.sum())
    np.testing.assert_array_equal(arrays["digit"] == 8, arrays["label"] == 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("gradient_online", "Did you mean gradients_online?"),
        ("gradients_online(epoch=1)", "Did you mean epochs?"),
        ("gradients_online(epochs=0)", "epochs must be numbers from 1, got '0'"),
        ("gradients(epochs=1)", "unknown option 'epochs'"),
        ("gradients()", "unknown option ''"),
        ("gradients(layers=)", "layers must be names of layers, got "),
        ("layer_usage(layers=output)", "unknown option 'layers'"),
        ("gradients(layers=hidden 0)", "layers must be names of layers, got "),
        (
            "gradients_online(epochs=1,epochs=2)",
            "epochs must be given once, got it twice. Join values with +",
        ),
        ("gradients_online(epochs=2+1+2)", "epochs must have each value once, got '2+1+2'"),
        ("gradients(layers=output+output)", "layers must have each value once, got 'output+output'"),
        ("gradients(", "a probe must be NAME or NAME(key=value), got "),
    ],
)
def test_mistakes_in_options_are_named(text: str, said: str) -> None:
    """With what would be right."""
    with pytest.raises(UserError) as caught:
        parse_probe(text)
    assert said in str(caught.value)


def test_a_layer_that_there_is_not_and_a_stochastic_one_are_refused(small: Splits) -> None:
    """Before anything is trained with them in vain."""
    with pytest.raises(UserError, match=r"unknown layer 'hidden.7'.*Known: hidden.0, output"):
        run([net_trial("1*4", probes=("gradients_online(layers=hidden.7)",))], small, 1, keep=Kept())
    stochastic = net_trial("1*4", probes=("gradients_online",), simplex="all", activation="Identity")
    with pytest.raises(UserError, match="stochastic"):
        run([stochastic], small, 1, keep=Kept())
    assert {probe.name for probe in probes_for(net_trial("1*4", probes=PROBES))} >= {"gradients_online"}


def test_a_file_of_arrays_says_when_it_is_not_what_was_written(tmp_path: Path) -> None:
    """Equal arrays give equal bytes; a flipped bit, a cut and another file are told."""
    arrays = {
        "a": np.arange(12, dtype=np.float32).reshape(4, 3),
        "index": np.arange(4),
        "none": np.empty((0, 2), np.float32),
    }
    path = tmp_path / f"x{array_file.ARRAY_SUFFIX}"
    entry = array_file.write_arrays(path, arrays, {"name": "x"})
    assert array_file.write_arrays(tmp_path / "y", arrays, {"name": "x"}) == entry
    assert entry["bytes"] == path.stat().st_size
    assert entry["sha256"] == array_file.sha256_of(path)
    found = array_file.read_arrays(path, entry["sha256"])
    assert found.facts == {"name": "x"}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found.arrays[name], array)
    from safetensors.numpy import load_file

    assert load_file(path).keys() == arrays.keys()
    content = path.read_bytes()
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(CorruptFileError, match="not the file that was recorded"):
        array_file.read_arrays(path, entry["sha256"])
    for damaged in (content[:-4], content[:3], b"", b"\xff" * 50):
        path.write_bytes(damaged)
        with pytest.raises(CorruptFileError):
            array_file.read_arrays(path)
    with pytest.raises(UserError, match="does not exist"):
        array_file.read_arrays(tmp_path / "z")
