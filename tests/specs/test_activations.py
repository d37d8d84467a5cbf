"""psa.specs.activation and psa.nn.activations: parameters act in every layer, samples are never mixed."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from helpers import net_trial, run
from hypothesis import given
from hypothesis import strategies as st

from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.engine.train_step import cross_entropy
from psa.nn.activations import ActivationParams, activate, placed, scales
from psa.nn.dense import Dense
from psa.nn.shared_products import Inputs
from psa.nn.stacked import StackedParams, empty_rows
from psa.specs.activation import ACTIVATIONS, Activation
from psa.specs.model import NetworkSpec

NAMES = sorted(ACTIVATIONS)
# Another value of each parameter, and where it would not act alone, what must stand beside it.
OTHER = {
    "alpha": 0.8, "slope": 0.3, "eps": 0.05, "scale": 7.0, "temperature": 0.5, "initial": 0.7, "min": 0.6,
    "max": 0.8, "sharpness": 2.0, "hard": "false", "threshold": 0.4, "window": 0.6, "initial_scale": 40.0,
    "final_scale": 3.0, "decay_epochs": 3, "schedule": "cosine", "decay_rate": 0.9,
}  # fmt: skip
BESIDE = {
    "min": {"initial": 0.7}, "max": {"initial": 0.7}, "decay_rate": {"schedule": "exponential"},
}  # fmt: skip


def setting(text: str, x: torch.Tensor, epoch: int = 2, *, training: bool = False) -> ActivationParams:
    """An activation as a layer of x's trials would use it."""
    kind = Activation.coerce(text)
    theta = torch.full((len(x), 1, 1), kind.number("initial"), requires_grad=True) if kind.learns else None
    return ActivationParams(kind, theta, scales(kind, [epoch] * len(x), x.device), training)


def inputs(trials: int = 2, width: int = 6, samples: int = 5) -> torch.Tensor:
    """Fixed numbers of both signs, [T, width, B]."""
    return torch.sin(torch.arange(trials * width * samples) * 1.7).view(trials, width, samples) * 3


def written(name: str, **parameters: object) -> str:
    """As a user writes it."""
    return f"{name}({', '.join(f'{key}={value}' for key, value in parameters.items())})"


@pytest.mark.parametrize(
    "text",
    ["relu", "ReLU(", "Tanh(alpha=1)", "LayerwiseSoftmax(temperature=0)", "JumpReLU(initial=9)", "ELU(1, 2)",
     "LayerwiseSoftmax(temperature=x)", "DecayingRescaledReLU(schedule=soon)", "ELU(alpha=1, alpha=2)",
     "DecayingRescaledReLU(decay_epochs=0)", "Threshold(hard=yes)", 3],
)  # fmt: skip
def test_what_is_no_activation_is_refused_in_one_line(text: object) -> None:
    """The name, the parameter and the way out."""
    with pytest.raises(UserError, match="activation"):
        Activation.coerce(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_text_and_its_activation_are_the_same(name: str) -> None:
    """Reading what is written gives the same value, with every parameter in it."""
    kind = Activation.coerce(name)
    assert Activation.coerce(str(kind)) == kind
    assert dict(kind.parameters) == ACTIVATIONS[name]
    assert kind.label == name


def test_other_names() -> None:
    """Hecto is a hundredfold; the names of the study are understood."""
    assert Activation.coerce("HectoRescaledReLU") == Activation.coerce("RescaledReLU(scale=100)")
    assert Activation.coerce("ThresholdActivation(0.1, sharpness=15)").label == (
        "Threshold(initial=0.1, sharpness=15)"
    )
    assert Activation.coerce("None") == Activation.coerce("Identity")


@pytest.mark.parametrize(("name", "key"), [(name, key) for name in NAMES for key in ACTIVATIONS[name]])
def test_every_parameter_of_every_activation_changes_what_is_computed(name: str, key: str) -> None:
    """In the output, or in the gradient of what is learned: an option that changes nothing is a lie."""
    beside = BESIDE.get(key, {})

    def seen(**parameters: object) -> list[torch.Tensor]:
        found = []
        for training in (False, True):
            x = inputs().requires_grad_()
            given = setting(written(name, **parameters), x, training=training)
            y = activate(x, given)
            (y * inputs().cos()).sum().backward()
            theta = given.threshold
            gradients = [x.grad, None if theta is None else theta.grad]
            found += [y.detach(), *(each for each in gradients if each is not None)]
        return found

    first, second = seen(**beside), seen(**beside, **{key: OTHER[key]})
    if key in ("min", "max"):  # a limit acts where the threshold would pass it
        first, second = _beyond(name, {}), _beyond(name, {key: OTHER[key]})
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


def _beyond(name: str, parameters: dict[str, object]) -> list[torch.Tensor]:
    found = []
    for place in (-8.0, 200.0):
        x = inputs()
        kind = Activation.coerce(written(name, initial=0.7, **parameters))
        theta = torch.full((2, 1, 1), place)
        found.append(activate(x, ActivationParams(kind, theta, scales(kind, [2, 2], x.device))))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_is_treated_by_itself(name: str) -> None:
    """Its outputs do not depend on the samples and trials beside it."""
    x = inputs()
    whole = activate(x, setting(name, x))
    for trial in range(2):
        for sample in range(5):
            alone = x[trial : trial + 1, :, sample : sample + 1]
            torch.testing.assert_close(
                activate(alone, setting(name, alone))[0, :, 0], whole[trial, :, sample], rtol=1e-6, atol=1e-7
            )


@pytest.mark.parametrize(
    ("text", "total"),
    [("RescaledReLU", 1), ("LayerwiseSoftmax(temperature=0.3)", 1), ("SparseMax", 1), ("HectoSparseMax", 100),
     ("FixedThreshold", 100), ("RescaledJumpReLU", 1), ("FixedRescaledJumpReLU(scale=100)", 100),
     ("DecayingRescaledReLU", 90.1)],
)  # fmt: skip
def test_what_is_normalised_sums_to_its_scale(text: str, total: float) -> None:
    """Over the width, for every sample."""
    x = inputs()
    y = activate(x, setting(text, x))
    assert (y >= 0).all()
    torch.testing.assert_close(y.sum(dim=1), torch.full((2, 5), float(total)), rtol=1e-5, atol=1e-5)


def test_powers_are_those_of_the_formula() -> None:
    """clamp(relu(x / T) + eps, eps, 1e6) ** alpha over their sum + eps."""
    x = inputs()
    y = activate(x, setting("TemperaturePowerNorm(alpha=0.3, temperature=2, eps=1e-3)", x))
    powers = (torch.relu(x / 2) + 1e-3).clamp(1e-3, 1e6) ** 0.3
    torch.testing.assert_close(y, powers / (powers.sum(1, keepdim=True) + 1e-3))


@given(st.lists(st.integers(-500, 500).map(lambda number: number / 100), min_size=1, max_size=8))
def test_sparsemax_is_the_nearest_point_of_the_simplex(values: list[float]) -> None:
    """By the conditions of optimality: y >= 0, sum 1, and x - y equal where y > 0 and no larger elsewhere."""
    x = torch.tensor(values, dtype=torch.float64).view(1, -1, 1)
    y = activate(x, ActivationParams(Activation.coerce("SparseMax")))[0, :, 0]
    gap = x[0, :, 0] - y
    tau = gap[y > 0].mean()
    assert float(y.sum()) == pytest.approx(1)
    assert torch.allclose(gap[y > 0], tau.expand(int((y > 0).sum())), atol=1e-9)
    assert (gap[y == 0] <= tau + 1e-9).all()


@pytest.mark.parametrize("name", [name for name in NAMES if "Jump" not in name and name != "FixedThreshold"])
def test_gradients_are_those_of_the_function(name: str) -> None:
    """By finite differences, in double precision, where the function has a derivative."""
    x = (inputs().double() + 0.05).requires_grad_()
    kind = Activation.coerce(name)
    theta = torch.full((2, 1, 1), 0.5, dtype=torch.float64, requires_grad=True) if kind.learns else None
    scale = None if not kind.decays else torch.full((2, 1, 1), 3.0, dtype=torch.float64)

    def function(x: torch.Tensor, *theta: torch.Tensor) -> torch.Tensor:
        return activate(x, ActivationParams(kind, theta[0] if theta else None, scale, training=True))

    assert torch.autograd.gradcheck(function, (x, *([] if theta is None else [theta])))


@pytest.mark.parametrize("window", [0.1, 0.25])
def test_the_pseudo_gradient_of_a_jump_is_a_difference_quotient(window: float) -> None:
    """d loss / d theta of JumpReLU is (L(theta + w) - L(theta - w)) / 2w of the same samples, w the window;
    for many samples it is near -theta p(theta), what the smooth expectation has.
    """
    kind = Activation.coerce(f"JumpReLU(initial=0.6, window={window})")
    x = torch.from_numpy(__import__("numpy").random.default_rng(1).normal(size=(1, 1, 400_000)))
    theta = torch.full((1, 1, 1), 0.6, dtype=torch.float64, requires_grad=True)
    weights = torch.linspace(0.5, 1.5, 400_000, dtype=torch.float64)
    (activate(x, ActivationParams(kind, theta)) * weights).mean().backward()

    def loss(at: float) -> float:
        return float(((x * (x >= at)) * weights).mean())

    numeric = (loss(0.6 + window) - loss(0.6 - window)) / (2 * window)
    assert theta.grad is not None
    assert float(theta.grad) == pytest.approx(numeric, rel=1e-9)
    density = math.exp(-(0.6**2) / 2) / math.sqrt(2 * math.pi)
    assert float(theta.grad) == pytest.approx(-0.6 * density, rel=0.05)


def test_a_threshold_outside_its_limits_can_come_back() -> None:
    """It acts as its limit and still has a gradient."""
    x = inputs().abs()
    kind = Activation.coerce("Threshold(initial=0.5, min=0, max=1)")
    theta = torch.full((2, 1, 1), 4.0, requires_grad=True)
    y = activate(x, ActivationParams(kind, theta, training=True))
    limit = activate(x, ActivationParams(kind, torch.ones(2, 1, 1), training=True))
    torch.testing.assert_close(y, limit)
    y.sum().backward()
    assert theta.grad is not None
    assert (theta.grad != 0).all()


@pytest.mark.parametrize(("schedule", "middle"), [("linear", 50.5), ("cosine", 50.5), ("exponential", None)])
def test_scales_fall_from_the_first_epoch_to_the_last(schedule: str, middle: float | None) -> None:
    """100 in epoch 1, 1 from the epoch after `decay_epochs` on, falling in between."""
    kind = Activation.coerce(f"DecayingRescaledReLU(schedule={schedule}, decay_epochs=10)")
    scales = [kind.scale_at(epoch) for epoch in range(1, 14)]
    assert scales[0] == pytest.approx(100)
    assert scales[10:] == [1.0] * 3
    assert all(a > b for a, b in pairwise(scales[:11]))
    if middle is not None:
        assert scales[5] == pytest.approx(middle)
    else:
        end = 0.4**10
        assert scales[5] == pytest.approx(1 + 99 * (0.4**5 - end) / (1 - end))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_pack_gives_every_trial_the_bits_it_has_alone(name: str, small: Splits) -> None:
    """Two epochs of the engine: alone, at any position, and beside other rates."""
    trials = [net_trial("2*7", seed, activation=name, lr=rate) for seed in (1, 2) for rate in (1e-3, 3e-3)]
    together, _ = run(trials, small, 2)
    for place in (0, 3):
        (alone,), _ = run([trials[place]], small, 2)
        assert alone.history == together[place].history
        for tensor in alone.lkg:
            assert alone.lkg[tensor].tobytes() == together[place].lkg[tensor].tobytes(), tensor


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("width", "samples"), [(17, 16), (5, 16), (16, 31), (7, 2), (33, 31), (9, 80)])
def test_no_size_makes_bits_depend_on_the_pack(name: str, width: int, samples: int) -> None:
    """Output and gradient of one of five trials, alone and among them: the ends of runs of numbers go through
    other instructions than their middle.
    """
    x = inputs(5, width, samples)
    kind = Activation.coerce(name)

    def passed(rows: list[int]) -> list[torch.Tensor]:
        h = empty_rows(len(rows), width, samples, device=x.device)
        h.copy_(x[rows])
        h.requires_grad_()
        theta = torch.full((len(rows), 1, 1), kind.number("initial")) if kind.learns else None
        given = ActivationParams(kind, theta, scales(kind, [2] * len(rows), x.device), training=True)
        y = placed(activate(placed(h), given))
        return [y.detach(), *torch.autograd.grad((y * y).sum(), h)]

    whole = passed([0, 1, 2, 3, 4])
    for rows in ([1], [3, 0], [4, 1]):
        for part, all_of_them in zip(passed(rows), whole, strict=True):
            for at, row in enumerate(rows):
                assert torch.equal(part[at], all_of_them[row]), (rows, row)


@pytest.mark.parametrize("scale", [1e-30, 1.0, 4e7, 1e30])
def test_a_projection_of_any_size_is_one(scale: float) -> None:
    """Numbers beside which 1 is lost in single precision, and what is no number at all, stop nobody."""
    y = activate(inputs() * scale, ActivationParams(Activation.coerce("SparseMax")))
    torch.testing.assert_close(y.sum(dim=1), torch.ones(2, 5))
    activate(torch.full((1, 4, 3), math.nan), ActivationParams(Activation.coerce("SparseMax")))


@pytest.mark.parametrize(
    "text",
    ["RescaledReLU(eps=1e-50)", "LayerwiseSoftmax(temperature=1e-60)", "PowerNormalization(alpha=1e9)",
     "FixedThreshold(threshold=0)", "FixedRescaledJumpReLU(threshold=-5)",
     "DecayingRescaledReLU(decay_rate=0.2)"],
)  # fmt: skip
def test_parameters_that_give_no_numbers_or_change_none_are_refused(text: str) -> None:
    """Before anything is trained with them."""
    with pytest.raises(UserError, match="activation"):
        Activation.coerce(text)


def test_parameters_reach_every_layer() -> None:
    """The gradient of each layer's own threshold is its own, and all of them start where asked."""
    model = NetworkSpec(family="mlp", arch="3*6", activation="JumpReLU(initial=0.2, window=1)")
    net = Dense(model, 10)
    rows = StackedParams.stacked([net.initial(0), net.initial(1)])
    gradients = rows.zeros_like()
    x = torch.rand(40, 784, generator=torch.Generator().manual_seed(7))
    logits = net.bind(rows, gradients)(Inputs.same_for_all(x, 2))
    _, gradient = cross_entropy(logits.detach(), torch.zeros(2, 40, dtype=torch.int64))
    logits.backward(gradient)
    state = net.unstack(rows[0:1])
    assert [float(state[f"hidden.{layer}.threshold"]) for layer in range(3)] == pytest.approx([0.2] * 3)
    found = [float(net.layout.threshold(gradients, layer)[0]) for layer in range(3)]  # type: ignore[index]
    assert len(set(found)) == 3
    assert all(found)


def test_temperatures_train_differently(small: Splits) -> None:
    """LayerwiseSoftmax(0.5) is not LayerwiseSoftmax(1): the parameter is not lost on the way."""
    texts = ("LayerwiseSoftmax(temperature=0.5)", "LayerwiseSoftmax")
    (cold,), (warm,) = (run([net_trial("2*8", 1, activation=text)], small, 2)[0] for text in texts)
    assert cold.history["train_loss"] != warm.history["train_loss"]
    assert cold.trial.id != warm.trial.id
