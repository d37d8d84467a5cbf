"""Networks of which every part is named: wiring, initial weights, simplex layers, and what trains them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import net_trial, run
from paths import ROOT
from pydantic import ValidationError
from torch import Tensor, nn

from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.engine.batches import RowSettings
from psa.engine.optimizer import optimizer_for
from psa.engine.train_step import cross_entropy
from psa.experiments.grid import load_grid
from psa.nn.dense import Dense
from psa.nn.layers import effective
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams
from psa.specs.data import DataSpec
from psa.specs.model import NetworkSpec
from psa.specs.shapes import shape_of
from psa.specs.training import RatchetTraining
from psa.specs.trial import Trial
from psa.storage.trial_state import decode_state, encode_state

SHAPES = {"mlp": "3*7", "residual": "2*6", "glonet": "4*5"}


def twin(net: Dense, state: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits [B, classes] as one would write them, of an ordinary state dict."""
    h, total = x, torch.zeros(())
    linears = net.shape.linears
    skip = x
    for linear in linears:
        weight, bias = state[f"{linear.name}.weight"], state.get(f"{linear.name}.bias")
        if linear.simplex:
            weight = torch.softmax(weight / net.model.temperature, dim=0)  # type: ignore[union-attr]
        if linear.role == "output":
            return nn.functional.linear(total if net.shape.summed else h, weight, bias)
        if linear.role == "enter":
            skip = h
        h = nn.functional.linear(h, weight, bias)
        h = torch.relu(h + skip) if linear.role == "leave" else torch.relu(h)
        total = total + h
    raise AssertionError


@pytest.mark.parametrize(
    ("family", "init", "simplex"),
    [("mlp", "torch", "none"), ("mlp", "he", "none"), ("glonet", "he", "none"), ("residual", "he", "none"),
     ("mlp", "torch", "all"), ("glonet", "torch", "all"), ("residual", "torch", "inner")],
)  # fmt: skip
def test_a_stacked_network_is_the_one_that_one_would_write(family: str, init: str, simplex: str) -> None:
    """Logits and every gradient, of two trials at once."""
    temperature = 1.0 if simplex == "none" else 0.3
    model = NetworkSpec(
        family=family, arch=SHAPES[family], init=init, simplex=simplex, temperature=temperature
    )  # type: ignore[arg-type]
    net = Dense(model, 10)
    rows = StackedParams.stacked([net.initial(3), net.initial(4)])
    gradients = rows.zeros_like()
    x, labels = torch.rand(20, 784, generator=torch.Generator().manual_seed(5)), torch.arange(20) % 10
    logits = net.bind(rows, gradients)(Inputs.same_for_all(x, 2))
    _, gradient = cross_entropy(logits.detach(), labels.expand(2, -1))
    logits.backward(gradient)
    for trial in range(2):
        state = {
            name: tensor.requires_grad_() for name, tensor in net.unstack(rows[trial : trial + 1]).items()
        }
        expected = twin(net, state, x)
        torch.testing.assert_close(logits[trial].T, expected, rtol=1e-4, atol=1e-5)
        nn.functional.cross_entropy(expected, labels).backward()
        mine = net.unstack(gradients[trial : trial + 1])
        assert mine.keys() == state.keys()
        for name, tensor in state.items():
            assert tensor.grad is not None
            # entries that are small differences of large numbers carry the rounding of those
            rounding = 1e-6 + 1e-5 * float(tensor.grad.abs().max())
            torch.testing.assert_close(mine[name], tensor.grad, rtol=1e-3, atol=rounding, msg=name)


def test_depth_counts_as_in_the_study() -> None:
    """785 f + (L - 2)(f^2 + f) + 10 (f + 1) parameters: 729,866 of 10 layers, 3,361,546 of 50, 13,230,346 of
    200, with and without the sum; the original's document says three times as many.
    """
    for family in ("glonet", "mlp"):
        for depth, parameters in ((10, 729_866), (50, 3_361_546), (200, 13_230_346)):
            shape = shape_of(NetworkSpec(family=family, arch=f"{depth - 1}*256"))
            assert shape.parameters == parameters
            assert len(shape.linears) == depth


@pytest.mark.parametrize(("init", "share"), [("he", 1.0), ("he-cut", 0.8796)])
def test_he_weights_are_a_cut_normal(init: str, share: float) -> None:
    """Variance 2 / inputs (of `he-cut` what cutting leaves of it), nothing beyond two deviations of the
    normal, biases 0.
    """
    net = Dense(NetworkSpec(family="glonet", arch="3*256", init=init), 10)  # type: ignore[arg-type]
    state = net.unstack(net.initial(5))
    for name, tensor in state.items():
        if name.endswith("bias"):
            assert not tensor.any()
            continue
        std = share * math.sqrt(2 / tensor.shape[1])
        assert float(tensor.std()) == pytest.approx(std, rel=0.05)
        assert float(tensor.abs().max()) <= 2 * std / 0.8796
        assert float(tensor.abs().max()) > 1.9 * std / 0.8796


@pytest.mark.parametrize("temperature", [0.01, 0.5, 1.0])
def test_the_columns_of_a_simplex_layer_sum_to_one_and_outputs_to_100(
    temperature: float, data_dir: object
) -> None:
    """At every layer of a network of such layers, whatever its depth, of images that sum to 100."""
    net = Dense(NetworkSpec(family="mlp", arch="1*60, 1*40, 1*30", activation="Identity", simplex="all",
                        temperature=temperature), 10)  # fmt: skip
    rows = net.initial(1)
    x = torch.rand(25, 784, generator=torch.Generator().manual_seed(6)) ** 4
    x = 100 * x / x.sum(dim=1, keepdim=True)
    sums: list[Tensor] = []
    bound = net.bind(rows)
    for layer, _ in bound.plan:
        weight = effective(layer)
        assert (weight >= 0).all()
        torch.testing.assert_close(weight.sum(dim=1), torch.ones(1, weight.shape[2]), rtol=1e-5, atol=1e-5)
    logits = bound(Inputs.same_for_all(x, 1), tap=lambda layer, before, after: sums.append(after.sum(dim=1)))
    for total in (*sums, logits.sum(dim=1)):
        torch.testing.assert_close(total, torch.full((1, 25), 100.0), rtol=1e-4, atol=1e-3)
    assert len(sums) == 3
    assert shape_of(net.model).parameters == 784 * 60 + 60 * 40 + 40 * 30 + 30 * 10  # no biases


@pytest.mark.slow
def test_images_on_the_simplex_are_not_negative_and_sum_to_100(data_dir: object) -> None:
    """What simplex layers read."""
    from psa.data.splits import load_splits

    splits = load_splits(DataSpec(scaling="simplex", val_size=59_000), data_dir)  # type: ignore[arg-type]
    for split in (splits.train, splits.val, splits.test):
        assert float(split.images.min()) >= 0
        total = split.images.sum(dim=1)
        torch.testing.assert_close(total, torch.full_like(total, 100), rtol=1e-5, atol=1e-3)


PACKS = [
    {"family": "glonet", "arch": "3*5", "init": "he"},
    {"family": "mlp", "arch": "2*9", "init": "he", "method": {"optimizer": "sgd", "momentum": 0.9}},
    {"family": "residual", "arch": "2*5", "simplex": "inner", "temperature": 0.2},
    {"family": "mlp", "arch": "2*7", "simplex": "all", "temperature": 0.05, "activation": "Identity"},
    {"family": "glonet", "arch": "2*1", "activation": "Tanh"},
    {"family": "mlp", "arch": "1*6", "dropout": 0.3, "activation": "RescaledReLU(scale=10)"},
]


@pytest.mark.slow
@pytest.mark.parametrize("parts", PACKS, ids=lambda parts: "-".join(map(str, parts.values())))
def test_a_pack_gives_every_trial_the_bits_it_has_alone(parts: dict[str, object], small: Splits) -> None:
    """Weights, books, what probes see, and the test: alone, and at every position of a pack."""
    probes = ("layer_usage", "early_exit", "train_accuracy", "distributions")
    trials = [net_trial(seed=seed, probes=probes, lr=lr, **parts) for seed in (1, 2) for lr in (1e-3, 4e-3)]  # type: ignore[arg-type]
    small = on_simplex(small) if parts.get("simplex") == "all" else small
    together, outcomes = run(trials, small, 3)
    for place, trial in enumerate(trials):
        (alone,), (outcome,) = run([trial], small, 3)
        assert alone.history == together[place].history
        assert alone.observed == together[place].observed
        assert outcome == outcomes[place]
        for name in alone.lkg:
            assert alone.lkg[name].tobytes() == together[place].lkg[name].tobytes(), name


def on_simplex(splits: Splits) -> Splits:
    """The same images, non-negative and with a sum of 100."""
    from dataclasses import replace

    def moved(split: object) -> object:
        images = split.images - split.images.min()  # type: ignore[attr-defined]
        return replace(split, images=100 * images / images.sum(dim=1, keepdim=True))  # type: ignore[type-var]

    return replace(splits, train=moved(splits.train), val=moved(splits.val), test=moved(splits.test))  # type: ignore[arg-type]


def test_what_probes_saw_survives_a_stop(small: Splits) -> None:
    """Two loops, through a file, and two more are four: books, weights and observations, to the byte."""
    trial = net_trial("3*5", 1, "glonet", probes=("layer_usage", "early_exit"), init="he")
    (whole,), whole_end = run([trial], small, 4)
    (half,), _ = run([trial], small, 2)
    state = decode_state(encode_state(half), "here")
    assert state.observed == half.observed
    (rest,), rest_end = run([trial], small, 4, states=[state])
    rest.horizon = whole.horizon
    assert encode_state(rest) == encode_state(whole)
    assert rest_end == whole_end
    assert len(whole.observed["layer_usage"]) == 5  # before the first loop, and after each


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_is_torchs(momentum: float, decay: float) -> None:
    """Five steps of fixed gradients, with and without momentum and decay, to the bit."""
    net = Dense(NetworkSpec(family="mlp", arch="1*9"), 10)
    rows = StackedParams.stacked([net.initial(0)])
    gradients = rows.zeros_like()
    hand = [nn.Parameter(part.clone()) for part in rows.parts]
    torchs = torch.optim.SGD(hand, lr=0.05, momentum=momentum, weight_decay=decay, fused=True)
    mine = optimizer_for("sgd", [RowSettings(0, 1, 0.0, 0.05, decay, momentum)], rows, gradients)
    for step in range(5):
        for part, parameter in zip(gradients.parts, hand, strict=True):
            part.copy_(torch.sin(torch.arange(part.numel()) * (step + 1.3)).view_as(part))
            parameter.grad = part.clone()
        torchs.step()
        mine.step()
    for part, parameter in zip(rows.parts, hand, strict=True):
        assert torch.equal(part, parameter.detach())


def test_sgd_carries_its_momentum_from_epoch_to_epoch(small: Splits) -> None:
    """One epoch, then another from its state, is two; without momentum it is another training."""
    fast, slow = (
        net_trial("1*8", 2, lr=0.01, method={"optimizer": "sgd", "momentum": momentum})
        for momentum in (0.9, 0.0)
    )
    (two,), _ = run([fast], small, 2)
    (one,), _ = run([fast], small, 1)
    (rest,), _ = run([fast], small, 2, states=[decode_state(encode_state(one), "here")])
    assert rest.history == two.history
    (other,), _ = run([slow], small, 2)
    assert other.history["train_loss"] != two.history["train_loss"]


def test_usage_is_that_of_the_formula(small: Splits) -> None:
    """Entrywise L1 of weights and biases; mean output after the activation over the validation split."""
    trial = net_trial("2*6", 1, "glonet", probes=("layer_usage", "early_exit"), init="he")
    (state,), (outcome,) = run([trial], small, 1)
    net = Dense(trial.model, 10)
    weights = {name: torch.from_numpy(array) for name, array in state.lkg.items()}
    h, total, exits = small.val.images, torch.zeros(()), []
    usage = outcome.probes["layer_usage"]
    for layer in range(2):
        weight, bias = weights[f"hidden.{layer}.weight"], weights[f"hidden.{layer}.bias"]
        l1 = float(weight.abs().double().sum() + bias.abs().double().sum())
        assert usage["parameters_l1"][layer] == pytest.approx(l1, rel=1e-9)
        h = torch.relu(h @ weight.T + bias)
        total = total + h
        assert usage["mean_output"][layer] == pytest.approx(float(h.double().mean()), rel=1e-5)
        assert usage["active_share"][layer] == pytest.approx(float((h > 0).double().mean()), rel=1e-9)
        logits = total @ weights["output.weight"].T + weights["output.bias"]
        exits.append(int((logits.argmax(dim=1) == small.val.labels).sum()))
    assert outcome.probes["early_exit"]["correct"] == exits
    assert exits[-1] == state.best_correct  # leaving behind the last layer is not leaving early
    assert net.shape.summed


def test_a_probe_changes_nothing(small: Splits) -> None:
    """The same trial with and without probes: books and weights are the same bits."""
    seen, blind = (
        net_trial("2*6", 1, probes=probes, activation="JumpReLU")
        for probes in (("thresholds", "layer_usage", "distributions", "train_accuracy"), ())
    )
    (watched,), _ = run([seen], small, 2)
    (alone,), _ = run([blind], small, 2)
    assert watched.history == alone.history
    assert all(np.array_equal(watched.lkg[name], alone.lkg[name]) for name in alone.lkg)
    assert seen.digest != blind.digest  # what is recorded is part of what was asked


def test_thresholds_are_recorded_after_every_epoch(small: Splits) -> None:
    """Where they began, and where each epoch left them: those of the weights themselves."""
    trial = net_trial("2*6", 1, probes=("thresholds",), activation="JumpReLU(initial=0.3)", lr=0.01)
    (state,), (outcome,) = run([trial], small, 3)
    seen = [look["threshold"] for look in state.observed["thresholds"]]
    assert seen[0] == pytest.approx([0.3, 0.3])
    assert len({tuple(each) for each in seen}) == 4
    last = [float(state.lkg[f"hidden.{layer}.threshold"][0]) for layer in range(2)]
    assert outcome.probes["thresholds"]["threshold"] == pytest.approx(last)


@pytest.mark.parametrize("mode", ["full", "hidden", "output"])
def test_the_ratchet_ablates_a_summed_network(small: Splits, mode: str) -> None:
    """What no earlier system could: damage before every epoch, on GloNet's wiring."""
    trial = Trial(
        model=NetworkSpec(family="glonet", arch="4*6", init="he"),
        method=RatchetTraining(lr=1e-3, batch_size=64),
        intervention={"mode": mode},  # type: ignore[arg-type]
        probes=("layer_usage",),
        seed=1,
    )
    (state,), _ = run([trial], small, 3)
    assert state.history["unit"][1:] != [None, None]
    kept = [
        correct for correct, keep in zip(state.history["correct"], state.history["kept"], strict=True) if keep
    ]
    assert kept == sorted(kept)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"family": "glonet", "arch": "1*4, 1*5"}, "one width"),
        ({"family": "mlp", "temperature": 0.5}, "temperature must be left out with simplex none"),
        ({"family": "mlp", "simplex": "inner"}, "residual"),
        ({"family": "mlp", "simplex": "all", "init": "he"}, "init must be left out with simplex all"),
    ],
)
def test_parts_that_would_change_nothing_are_refused(changes: dict[str, object], said: str) -> None:
    """An option without effect is an error, not a silence."""
    with pytest.raises(ValidationError, match=said):
        NetworkSpec.model_validate({"arch": "2*4", **changes})


def test_simplex_layers_read_the_simplex_and_are_not_ablated() -> None:
    """Their inputs must sum to 100, and a weight of theirs cannot be 0."""
    model = NetworkSpec(family="mlp", arch="2*4", simplex="all")
    with pytest.raises(ValidationError, match="scaling must be simplex with simplex all"):
        Trial(model=model)
    with pytest.raises(ValidationError, match="cannot be set to 0"):
        Trial(model=model, data=DataSpec(scaling="simplex"), intervention={"mode": "full"})  # type: ignore[arg-type]


def test_the_trials_of_before_are_the_same_trials() -> None:
    """What was added since leaves the digest of a trial of the published study as it was."""
    assert Trial().digest == "2d0088f78455c61c0237116aed7ea922300e434460c812266c0cf1434e339653"
    assert "probes" not in Trial().model_dump(mode="json")


def test_the_order_of_probes_makes_no_other_trial() -> None:
    """Nor does naming one twice make two of it."""
    first, second = (
        net_trial("1*4", probes=probes)
        for probes in (("layer_usage", "early_exit"), ("early_exit", "layer_usage"))
    )
    assert first == second
    assert first.id == second.id


def test_the_ratchet_takes_no_optimizer(tmp_path: Path) -> None:
    """It has one of its own: an option that would change nothing is one line."""
    grid = ROOT / "reproduction" / "glonet.toml"
    with pytest.raises(UserError, match="policy ratchet, which uses AdamW"):
        load_grid(grid, ["policy=ratchet", "optimizer=sgd"])
    assert load_grid(grid, ["policy=ratchet", "mode=full", "num_layers=6"]).trials
