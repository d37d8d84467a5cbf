"""Memory and growth in the engine: idle arms, packs, resumes, and what a grown network computes."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run
from memories import memory
from torch import nn

from psa.core.errors import Interrupted, UserError
from psa.data.splits import Splits
from psa.execution.worker.record import build_record
from psa.nn.dense import Dense
from psa.specs.arch import Arch
from psa.specs.growth import Growth
from psa.specs.memory import Memory
from psa.specs.model import NetworkSpec
from psa.specs.training import StandardTraining
from psa.specs.trial import Trial
from psa.storage.records.record import difference
from psa.storage.trial_state import TrialState, decode_state, encode_state

WIDE = Growth(width=5, depth=1, max_depth=3, stop_epoch=3)
PLATEAU = Growth(schedule="plateau", width=3, min_delta=0.02)


def arm(
    seed: int = 1, arch: str = "1*21, 1*13", dropout: float = 0.2, batch_size: int = 64, **parts: Any
) -> Trial:
    """A trial of a plain network, with or without interventions; an odd width, so that nothing is aligned."""
    return Trial(
        model=NetworkSpec(family="mlp", arch=Arch.coerce(arch), dropout=dropout),
        method=StandardTraining(optimizer="adam", lr=1e-3, batch_size=batch_size),
        seed=seed,
        **parts,
    )


def fixed(**changes: Any) -> Memory:
    """A memory that overflows and refreshes within an epoch of the small data."""
    return memory(**({"capacity": 200, "refresh": {"rate": 0.3}} | changes))


def weights_of(state: TrialState) -> dict[str, Any]:
    """What training made, without the spec and the books."""
    return {**state.lkg, **{f"{k}/{n}": t for k, part in state.carried.items() for n, t in part.items()}}


def assert_same(one: TrialState, other: TrialState) -> None:
    """Equal weights, moments and scores, to the bit."""
    mine, theirs = weights_of(one), weights_of(other)
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        assert np.array_equal(tensor, theirs[name]), name
    assert one.history == other.history


@pytest.mark.parametrize("site", ["hidden_0", "hidden_1", "penultimate"])
@pytest.mark.parametrize(
    "nothing",
    [{"strength": 0.0}, {"gate": {"alpha": 0.0}}, {"control": "inactive"}],
    ids=["strength", "alpha", "inactive"],
)
def test_a_memory_that_does_nothing_is_no_memory(small: Splits, site: str, nothing: dict[str, Any]) -> None:
    """Weights, moments, losses and the test are those of the network without it, to the bit."""
    (plain,), (tested,) = run([arm()], small, 2)
    (state,), (outcome,) = run([arm(memory=fixed(site=site, **nothing))], small, 2)
    assert_same(state, plain)
    assert (outcome.correct, outcome.loss) == (tested.correct, tested.loss)
    assert int(state.memory["size"]) == 200
    assert not plain.memory


@pytest.mark.parametrize("site", ["early", "middle", "penultimate"])
def test_a_memory_that_acts_changes_the_training(small: Splits, site: str) -> None:
    """And the arms of a seed begin alike: the first step of the first epoch finds nothing."""
    (plain,), _ = run([arm()], small, 2)
    (state,), _ = run([arm(memory=fixed(site=site))], small, 2)
    assert not np.array_equal(state.lkg["hidden.0.weight"], plain.lkg["hidden.0.weight"])
    assert state.history["train_loss"][0] == pytest.approx(plain.history["train_loss"][0], rel=0.2)


def test_inference_off_evaluates_the_network_alone(small: Splits) -> None:
    """Toggles act in their passes: trained with the memory, tested without it; and the other way round."""
    (plain,), _ = run([arm()], small, 1)
    both, trained, inferred = (
        run([arm(memory=fixed(**toggles))], small, 1)[0][0]
        for toggles in ({}, {"inference": False}, {"train": False})
    )
    assert np.array_equal(both.lkg["output.weight"], trained.lkg["output.weight"])
    assert both.history["loss"] != trained.history["loss"]
    assert np.array_equal(plain.lkg["output.weight"], inferred.lkg["output.weight"])
    assert plain.history["loss"] != inferred.history["loss"]


INTERVENED: dict[str, dict[str, Any]] = {
    "memory": {"memory": fixed()},
    "centroid": {"memory": fixed(target={"value": "absolute", "construction": "class_centroid"})},
    "growth": {"growth": WIDE},
    "plateau": {"growth": PLATEAU},
    "both": {"memory": fixed(site="hidden_1"), "growth": WIDE},
}


@pytest.mark.slow
@pytest.mark.parametrize("parts", INTERVENED.values(), ids=INTERVENED.keys())
def test_a_trial_is_the_same_in_any_pack_and_in_parts(small: Splits, parts: dict[str, Any]) -> None:
    """Alone, among others, and from a file after every epoch: one sequence of bits."""
    (alone,), (outcome,) = run([arm(4, **parts)], small, 4)
    together, outcomes = run([arm(seed, **parts) for seed in (9, 4, 2)], small, 4)
    assert encode_state(together[1]) == encode_state(alone)
    assert outcomes[1] == outcome
    states: list[TrialState] | None = None
    for loops in range(1, 5):
        states, outcomes = run([arm(4, **parts)], small, loops, states=states)
        states = [decode_state(encode_state(state), "state") for state in states]
        states[0].horizon = 4
    assert states is not None
    assert encode_state(states[0]) == encode_state(alone)
    assert outcomes[0] == outcome


def test_a_lone_trial_with_batches_of_one_has_the_bits_of_a_pack(small: Splits) -> None:
    """600 samples in batches of 599 leave one over: the trial is computed beside a copy of itself."""
    trials = [arm(seed, batch_size=599, memory=fixed()) for seed in (4, 5)]
    (alone,), _ = run(trials[:1], small, 2)
    together, _ = run(trials, small, 2)
    assert encode_state(together[0]) == encode_state(alone)


def test_an_interruption_right_after_growth_leaves_the_state_of_the_loop_before(small: Splits) -> None:
    """No file holds a network that has grown and not been trained since."""
    saved: list[bytes] = []
    stops = iter([False] * 10 + [True] * 99)

    def save(states: Sequence[TrialState]) -> None:
        saved[:] = [encode_state(state) for state in states]

    from psa.engine import loop
    from psa.engine.device_pack import fresh_state
    from psa.engine.policies import policy_for

    trial = arm(growth=WIDE)
    net = Dense(trial.model, 10)
    with pytest.raises(Interrupted):
        loop.run_loops(
            net, small, [fresh_state(trial, net, 3)], 3, policy_for(trial, net, small),
            device=torch.device("cpu"), save=save, stop=lambda: next(stops),
        )  # fmt: skip
    state = decode_state(saved[0], "state")
    (after,), _ = run([trial], small, 1)
    after.horizon = 3
    assert encode_state(state) == encode_state(after)
    assert not state.events


def module_of(state: TrialState) -> nn.Sequential:
    """An ordinary network with the state dict of a trial."""
    names = [name.removesuffix(".weight") for name in state.lkg if name.endswith(".weight")]
    ordered = [*sorted(name for name in names if name != "output"), "output"]
    layers: list[nn.Module] = []
    for name in ordered:
        weight, bias = (torch.from_numpy(state.lkg[f"{name}.{part}"]) for part in ("weight", "bias"))
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def test_growth_changes_no_answer_and_carries_the_optimiser_over(small: Splits) -> None:
    """Before and after the first growth an ordinary module answers alike; moments stay where they were."""
    from psa.interventions.growth import apply_growth, growth_due

    (state,), _ = run([arm(dropout=0.0, growth=WIDE)], small, 1)
    before = copy.deepcopy(state)
    event = growth_due(state, 10, len(small.val))
    assert event is not None
    apply_growth(state, event)
    assert growth_due(state, 10, len(small.val)) is None
    with torch.no_grad():
        one, other = (module_of(each)(small.val.images) for each in (before, state))
    assert torch.allclose(one, other, atol=1e-5)
    assert state.lkg["hidden.0.weight"].shape == (26, 784)
    assert len(module_of(state)) == 7
    for kind in ("exp_avg", "exp_avg_sq"):
        old, new = before.carried[kind]["hidden.1.weight"], state.carried[kind]["hidden.1.weight"]
        assert np.array_equal(new[:13, :21], old)
        assert not new[13:].any()


def test_the_record_tells_when_and_to_what_a_network_grew(small: Splits) -> None:
    """Events with parameter counts, the first and the last network; a longer run extends the record."""
    records = []
    for loops in (2, 4):
        trial = arm(growth=WIDE)
        states, (outcome,) = run([trial], small, loops)
        records.append(build_record(states[0], Dense(trial.model, 10), small, outcome))
        with torch.no_grad():
            answers = module_of(states[0])(small.test.images).argmax(dim=1)
        assert int((answers == small.test.labels).sum()) == outcome.correct
    short, long = records
    assert [event["epoch"] for event in short["events"]] == [1]
    assert [event["new_hidden_sizes"] for event in long["events"]] == [[26, 18, 18], [31, 23, 23]]
    assert long["events"][0]["param_count_after"] == long["events"][1]["param_count_before"]
    assert long["built"]["parameters"] == long["events"][1]["param_count_after"]
    assert long["built"]["initial"]["parameters"] == long["events"][0]["param_count_before"]
    assert difference(short, long) is None
    assert difference({**short, "events": [{}]}, long) == "events"


def test_a_memory_stays_with_its_network_as_it_grows(small: Splits) -> None:
    """No reset: entries go on being added, and their keys keep the width that the site began with."""
    (state,), _ = run([arm(memory=fixed(capacity=5_000), growth=WIDE)], small, 3)
    assert len(state.events) == 2
    assert state.memory["keys"].shape[1] == 13
    assert int(state.memory["arrived"]) > 1_000
    assert int(state.memory["size"]) == len(state.memory["keys"])


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"memory": fixed(site="hidden_7")}, "unknown site 'hidden_7'"),
        (
            {"memory": fixed(query={"source": "projection", "dims": 13})},
            "projection_dims must be below the 13 dimensions",
        ),
        ({"growth": Growth(width=5, max_width=13)}, None),
        ({"growth": Growth(width=5, max_width=3)}, "must leave room to grow"),
    ],
)
def test_what_does_not_fit_its_network_is_refused_at_once(parts: dict[str, Any], said: str | None) -> None:
    """Before anything is trained."""
    if said is None:
        with pytest.raises(ValueError, match="must leave room to grow"):
            arm(arch="2*13", **parts)
        return
    with pytest.raises((UserError, ValueError), match=said):
        arm(**parts)


def test_interventions_want_ordinary_training_of_a_plain_network() -> None:
    """Under the ratchet a discarded copy would leave entries behind; a residual network has no such sites."""
    with pytest.raises(ValueError, match="policy must be keep and patience left out"):
        Trial(model=NetworkSpec(family="mlp"), memory=Memory())
    with pytest.raises(ValueError, match="family must be mlp or simplemlp to grow, got residual"):
        Trial(model=NetworkSpec(family="residual"), method=StandardTraining(), growth=WIDE)


def test_arms_are_trials_of_their_own_and_share_no_pack() -> None:
    """Spec, identity and pack key; without either a trial is what it was before there were any."""
    plain, with_memory, growing = arm(), arm(memory=Memory()), arm(growth=WIDE)
    assert len({plain.digest, with_memory.digest, growing.digest}) == 3
    assert "memory" not in plain.model_dump(mode="json")
    assert "/mlp-1x21-1x13-dropout0.2-memory-gated-penultimate/" in with_memory.id
    assert "-growing/" in growing.id
    from psa.execution.packing import groups_of

    assert len(groups_of([plain, with_memory, growing, arm(2, memory=Memory())])) == 3
    for trial in (with_memory, growing):
        with pytest.raises(UserError, match=r"(memory|growth) must be that of the checkpoint, none, got one"):
            plain.continued_by(trial, 1)
