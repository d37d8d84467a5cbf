"""psa.specs.memory: what may be asked for, and that everything that is asked for does something."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from memories import WIDTH, memory, trained
from pydantic import ValidationError

from psa.core.errors import UserError
from psa.specs.memory import Memory, check_room, footprint_bytes
from psa.specs.memory_sites import site_of

ABSOLUTE: dict[str, Any] = {"value": "absolute", "construction": "current_hidden"}
CENTROID: dict[str, Any] = {"value": "absolute", "construction": "class_centroid"}
WARM: dict[str, Any] = {"schedule": "linear_warmup"}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mode": "overwrite"}, "choose residual"),
        ({"mode": "residual", "target": ABSOLUTE}, "residual must have delta values"),
        ({"target": {"value": "delta", "construction": "current_hidden"}}, "is 0"),
        (
            {"target": {"value": "absolute", "construction": "grad_delta"}},
            "target grad_delta must have delta values",
        ),
        ({"target": {"value": "delta", "construction": "grad_target"}}, "is grad_delta"),
        (
            {"target": CENTROID | {"step_size": 0.3}},
            "step_size must be left out unless target is grad_delta or grad_target",
        ),
        (
            {"target": {"centroid_momentum": 0.3}},
            "centroid_momentum must be left out unless target is class_centroid",
        ),
        (
            {"mode": "overwrite", "target": {"value": "absolute", "construction": "grad_target"}},
            "no gradient",
        ),
        ({"mode": "residual", "gate": {"alpha": 0.2}}, "must be left out unless memory_mode is gated"),
        ({"gate": {"rise_epochs": 3}}, "rise_epochs must be left out unless gate_schedule is linear_warmup"),
        ({"gate": {"temperature": 3.0}}, "gate_temperature must be left out unless uncertainty is on"),
        ({"gate": {"bias": 0.1}}, "add it to alpha"),
        (
            {"retrieval": {"weighting": "uniform", "temperature": 0.2}},
            "temperature must be left out unless weighting is softmax",
        ),
        ({"retrieval": {"metric": "cosine", "normalize_keys": False}}, "must be on with metric cosine"),
        (
            {"retrieval": {"normalize_values": True}, "target": {"step_size": 0.3}},
            "step_size must be left out unless normalize_values is off",
        ),
        ({"retrieval": {"k": 25}}, r"k must be at most memory_size \(24\), got 25"),
        ({"query": {"dims": 5}}, "projection_dims must be left out unless query is projection"),
        ({"forgetting": {"policy": "ttl"}}, "ttl_steps must be set with forgetting ttl, and only then"),
        (
            {"forgetting": {"policy": "fifo", "ttl_steps": 3}},
            "ttl_steps must be set with forgetting ttl, and only then",
        ),
        (
            {"forgetting": {"policy": "fifo", "age_weight": 0.3}},
            "age_weight must be left out unless forgetting is helpfulness_age",
        ),
        ({"forgetting": {"policy": "helpfulness_age", "age_weight": 0.0}}, "greater than 0"),
        ({"train": False, "inference": False}, "choose method hybrid_inactive"),
        ({"control": "inactive", "train": False}, "train_use and inference_use must be on"),
        (
            {"fill_during_warmup": False},
            "fill_during_warmup must be left out unless warmup_epochs is above 0",
        ),
        ({"retrieval": {"class_conditional": True}}, "Extra inputs"),
        ({"strength": True}, "valid number"),
        ({"clip": -1.0}, "greater than or equal to 0"),
        ({"site": "Nowhere!"}, "match pattern"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    """Two names for one computation, or an option that would do nothing, are errors."""
    with pytest.raises(ValidationError, match=sentence):
        memory(**changes)


# (what both have, what the other one has as well): every option, moved off its default.
PAIRS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"capacity": 16}),
    ({}, {"retrieval": {"k": 5}}),
    ({}, {"retrieval": {"metric": "cosine"}}),
    ({}, {"retrieval": {"weighting": "uniform"}}),
    ({}, {"retrieval": {"weighting": "inverse_distance"}}),
    ({}, {"retrieval": {"temperature": 0.5}}),
    ({}, {"retrieval": {"normalize_keys": False}}),
    ({}, {"retrieval": {"normalize_queries": False}}),
    ({}, {"retrieval": {"normalize_values": True}}),
    ({}, {"query": {"source": "untouched"}}),
    ({}, {"query": {"source": "projection", "dims": 5}}),
    ({"query": {"source": "projection", "dims": 5}}, {"query": {"source": "projection", "dims": 6}}),
    ({}, {"target": {"step_size": 0.5}}),
    ({}, {"target": {"construction": "class_centroid"}}),
    ({"target": {"construction": "class_centroid"}}, {"target": CENTROID}),
    ({"target": CENTROID}, {"target": CENTROID | {"centroid_momentum": 0.5}}),
    ({"target": CENTROID}, {"target": ABSOLUTE}),
    ({"target": ABSOLUTE}, {"target": {"value": "absolute", "construction": "grad_target"}}),
    ({"target": ABSOLUTE}, {"target": ABSOLUTE, "mode": "overwrite"}),
    ({}, {"mode": "residual"}),
    ({}, {"gate": {"alpha": 0.9}}),
    ({}, {"gate": WARM}),
    ({"gate": WARM}, {"gate": WARM | {"rise_epochs": 3}}),
    ({"gate": WARM}, {"gate": WARM | {"bias": 0.1}}),
    ({}, {"gate": {"uncertainty": True}}),
    ({"gate": {"uncertainty": True}}, {"gate": {"uncertainty": True, "temperature": 0.3}}),
    ({"gate": {"uncertainty": True}}, {"gate": {"uncertainty": True, "bias": -0.1}}),
    ({}, {"strength": 0.5}),
    ({}, {"clip": 0.01}),
    ({"clip": 0.02}, {"clip": 0.01}),
    ({}, {"affected": {"dims": 6}}),
    ({}, {"affected": {"selection": "random"}}),
    ({}, {"train": False}),
    ({}, {"inference": False}),
    ({}, {"warmup_epochs": 1}),
    ({"warmup_epochs": 1}, {"warmup_epochs": 1, "fill_during_warmup": False}),
    ({}, {"insertion": "loss_above_mean"}),
    ({}, {"refresh": {}}),
    ({"refresh": {}}, {"refresh": {"rate": 0.9}}),
    ({"refresh": {}}, {"refresh": {"distance": 0.05}}),
    ({"refresh": {}}, {"refresh": {"key": 0.1}}),
    ({"refresh": {}}, {"refresh": {"value": 0.1}}),
    ({}, {"control": "inactive"}),
    ({}, {"control": "random"}),
    ({}, {"forgetting": {"policy": "ttl", "ttl_steps": 2}}),
    (
        {"forgetting": {"policy": "ttl", "ttl_steps": 1}},
        {"forgetting": {"policy": "ttl", "ttl_steps": 2}},
    ),
    ({}, {"forgetting": {"policy": "reservoir"}}),
    ({}, {"forgetting": {"policy": "usage"}}),
    ({}, {"forgetting": {"policy": "helpfulness"}}),
    ({"forgetting": {"policy": "helpfulness"}}, {"forgetting": {"policy": "helpfulness_age"}}),
    (
        {"forgetting": {"policy": "helpfulness_age", "age_weight": 0.9}},
        {"forgetting": {"policy": "helpfulness_age", "age_weight": 0.1}},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]} | {pair[1]}".replace("'", ""))
def test_every_option_changes_what_comes_out(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """Hidden vectors of nine training steps and one evaluation are not the same with another value."""
    one, other = (trained(memory(**changes), [3])[1] for changes in pair)
    assert not torch.equal(one, other)


def test_every_option_is_among_those_tested() -> None:
    """A new field needs a pair above (site only names a place, and is tested below)."""

    def fields(spec: Any) -> set[str]:
        return set(type(spec).model_fields)

    full = memory(refresh={})
    expected = fields(full) - {"site", "retrieval", "query", "target", "gate", "affected", "refresh"}
    named = {name for _, changes in PAIRS for name in changes}
    assert expected <= named
    for part in ("retrieval", "query", "target", "gate", "affected", "refresh", "forgetting"):
        mine = {name for _, changes in PAIRS if isinstance(changes.get(part), dict) for name in changes[part]}
        assert fields(getattr(full, part)) <= mine | {"value"}, part


def test_policy_none_keeps_all_and_says_so_when_it_cannot() -> None:
    """Too many arrivals are an error before training, and at the latest when they come."""
    spec = memory(capacity=72, forgetting={"policy": "none"})
    hidden, _ = trained(spec, [3])
    assert int(hidden.bank.size[0]) == 72
    check_room(spec, 24, 3)
    with pytest.raises(UserError, match=r"memory_size must be at least 73 with forgetting none, got 72"):
        check_room(spec, 73, 1)
    with pytest.raises(UserError, match="memory_size must hold all entries with forgetting none, got 72"):
        trained(spec, [3], steps=10)


def test_residual_is_gated_at_alpha_1() -> None:
    """The equivalence that the docstring names: alpha x strength is one number."""
    _, gated = trained(memory(gate={"alpha": 0.5}), [3])
    _, residual = trained(memory(mode="residual", strength=0.5), [3])
    assert torch.allclose(gated, residual, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("site", "meant"),
    [
        ("early", "hidden_0"),
        ("middle", "hidden_1"),
        ("late", "hidden_1"),
        ("penultimate", "penultimate"),
        ("hidden_0", "hidden_0"),
    ],
)
def test_sites_by_place_and_by_name(site: str, meant: str) -> None:
    """The first, the one half-way, the last before the penultimate; or any by its name."""
    assert site_of(site, ["hidden_0", "hidden_1", "penultimate"]) == meant


def test_an_unknown_site_is_an_error_that_lists_the_others() -> None:
    """Also in a network of one hidden layer the words have a meaning."""
    assert site_of("late", ["hidden_0", "penultimate"]) == "hidden_0"
    assert site_of("early", ["penultimate"]) == site_of("late", ["penultimate"]) == "penultimate"
    with pytest.raises(UserError, match="hidden_0, penultimate"):
        site_of("hidden_7", ["hidden_0", "penultimate"])


def test_queries_that_cannot_be_made_are_refused_by_name() -> None:
    """Nothing left untouched, or a projection to everything."""
    with pytest.raises(UserError, match="all 12 of the site"):
        trained(memory(query={"source": "untouched"}, affected={"dims": WIDTH}), [1])
    with pytest.raises(UserError, match="projection_dims must be below"):
        trained(memory(query={"source": "projection", "dims": WIDTH}), [1])


def test_the_published_footprint() -> None:
    """20,000 entries of (80 + 80) floats and five fields of 28 bytes are 12.741 MB (of 2^20 bytes)."""
    assert round(footprint_bytes(20_000, 80, 80) / 2**20, 3) == 12.741


def test_the_warm_up_is_the_first_so_many_epochs() -> None:
    """warmup_epochs = 2: epochs 1 and 2 fill and do not act; the gate rises from the third on."""
    spec = memory(warmup_epochs=2, gate=WARM | {"rise_epochs": 3, "alpha": 0.8})
    assert [spec.acts(epoch, training=True) for epoch in (1, 2, 3)] == [False, False, True]
    assert [spec.alpha(epoch) for epoch in (3, 4, 5, 6, 7)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 0.8])
    assert Memory().alpha(1) == 0.4
