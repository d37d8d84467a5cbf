"""psa.nn.relu.unit_chain: compiled chains of one-unit layers give the bits of the same layers one by one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from helpers import arms, assert_same_bits, net_trial, two_epochs

from psa.data.splits import Splits
from psa.nn.dense import Dense
from psa.nn.relu import compiled, pass_layout
from psa.nn.relu.unit_chain import find_chain

pytest.importorskip("numba", reason="the extra `fast` is not installed")


def chain_of(arch: str, family: str = "mlp") -> slice | None:
    """The chain of a network."""
    net = Dense(net_trial(arch, family=family).model, 10)
    return find_chain(net.bind(net.initial(0)).plan)


@pytest.mark.parametrize(
    ("arch", "family", "expected"),
    [
        ("20*1", "mlp", slice(1, 20)),
        ("9*1", "mlp", slice(1, 9)),
        ("8*1", "mlp", None),  # too short
        ("20*2", "mlp", None),
        ("[1*3,12*1,2*4]", "mlp", slice(2, 13)),  # the first layer of one unit has three inputs
        ("[12*1,1*2,20*1]", "mlp", slice(14, 33)),  # the longer one of two
    ],
)
def test_the_longest_run_of_one_unit_layers_is_found(arch: str, family: str, expected: slice | None) -> None:
    """Each has one input, too."""
    assert chain_of(arch, family) == expected


@pytest.mark.parametrize("arch", ["12*1", "[2*3,12*1]", "[12*1,2*4]"])
def test_a_chain_holds_whole_residual_blocks(arch: str) -> None:
    """So that no skip connection crosses its border."""
    net = Dense(net_trial(arch, family="residual").model, 10)
    plan = net.bind(net.initial(0)).plan
    chain = find_chain(plan)
    assert chain is not None
    roles = [role for _, role in plan[chain]]
    assert roles == ["enter", "leave"] * (len(roles) // 2)


def test_without_numba_there_is_no_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers are computed one by one."""
    monkeypatch.setattr(compiled, "is_installed", lambda: False)
    assert chain_of("20*1") is None


@pytest.mark.parametrize("batch", [64, 61])
@pytest.mark.parametrize(
    ("family", "arch", "seeds"),
    [
        ("simplemlp", "30*1", 2),
        ("simplemlp", "[1*3,12*1,2*4]", 2),
        ("resmlp", "12*1", 2),
        ("resmlp", "[2*3,12*1]", 1),
        ("resmlp", "[12*1,2*4]", 3),
    ],
)
def test_bits_are_those_without_numba(
    family: str, arch: str, seeds: int, batch: int, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All modes, dropout included; whole and short batches; training and evaluation."""
    trials = arms(arch, range(seeds), family)
    used: list[slice] = []

    def seen(plan: Sequence[object]) -> slice | None:
        found = find_chain(plan)  # type: ignore[arg-type]
        used.extend([found] if found is not None else [])
        return found

    monkeypatch.setattr(pass_layout, "find_chain", seen)
    with_numba = two_epochs(trials, small, batch)
    assert used
    monkeypatch.setattr(compiled, "is_installed", lambda: False)
    one_by_one = two_epochs(trials, small, batch)
    assert_same_bits(with_numba, one_by_one)


def test_infinite_and_missing_numbers_pass_through(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """A diverging network has the same infinities, and NaN at the same places."""
    trials = [each.changed(method=each.method.model_copy(update={"lr": 1e18})) for each in arms("20*1", [0])]
    with_numba = two_epochs(trials, small, 64)
    assert any(values.isnan().any() for values in with_numba)
    monkeypatch.setattr(compiled, "is_installed", lambda: False)
    for one, other in zip(with_numba, two_epochs(trials, small, 64), strict=True):
        assert torch.equal(one.nan_to_num(nan=-1.5), other.nan_to_num(nan=-1.5))


@pytest.mark.parametrize(
    ("family", "arch", "seeds"),
    [
        ("resmlp", "12*1", 1),
        ("resmlp", "[12*1,2*4]", 3),
        ("simplemlp", "[1*3,12*1,2*4]", 2),
        ("simplemlp", "[12*1,1*2,20*1]", 2),
    ],
)
def test_parts_of_any_size_give_the_same_bits(
    family: str, arch: str, seeds: int, small: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a part ends between the two layers of a block, and with layers behind the chain."""
    trials = arms(arch, range(seeds), family)
    results = []
    for at_once in (1, 3 * 2 * 6 * seeds * 64, 1 << 30):
        monkeypatch.setattr(pass_layout, "_AT_ONCE", at_once)
        results.append(two_epochs(trials, small, 64))
    for other in results[1:]:
        assert all(torch.equal(*pair) for pair in zip(results[0], other, strict=True))
