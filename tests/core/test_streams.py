"""psa.core.rng: a random number is a function of seed, purpose and loop, and of nothing else."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers import arms, run

from psa.core.rng import PURPOSES, generator, hash_seed
from psa.data.splits import Split, Splits
from psa.engine import loop as engine
from psa.engine.batches import Batches, RowSettings
from psa.engine.device_pack import fresh_state
from psa.nn.dense import Dense
from psa.specs.training import MODES, Mode

ALL = sorted(PURPOSES)


def raw(seed: int, purpose: str, loop: int = 0, count: int = 8) -> list[int]:
    """The first 64-bit draws of a stream."""
    draws = generator(seed, purpose, loop).bit_generator.random_raw(count)  # type: ignore[attr-defined]
    return [int(draw) for draw in draws]


def test_the_derivation_is_the_one_that_stored_trials_were_made_with() -> None:
    """Draws and keys pinned: another derivation, or another generator, would be other trials."""
    assert raw(7, "ablate", 3, 3) == [7636905929525743871, 5674544614233926483, 5310589891333532577]
    assert hash_seed(7, "dropout", 3) == 1593501472


def test_the_ways_in_which_the_engine_draws_are_pinned() -> None:
    """numpy promises raw draws for ever, but not what is made of them: that is pinned here as well."""
    assert generator(7, "ablate", 3).integers(1000, size=3).tolist() == [95, 413, 974]
    assert generator(7, "shuffle", 3).permutation(6).tolist() == [3, 1, 5, 2, 0, 4]
    expected = np.array([0.3625788, 0.3318376, 0.9919073], np.float32)
    assert np.array_equal(generator(7, "init").random(3, dtype=np.float32), expected)


@pytest.mark.parametrize("purpose", ["", "Init", "init ", "shufle", "weather"])
def test_an_unknown_purpose_is_an_error(purpose: str) -> None:
    """A misspelt purpose raises, naming those there are, instead of drawing from a stream of its own."""
    for draw in (generator, hash_seed):
        with pytest.raises(ValueError, match=r"unknown random purpose .*ablate.*dropout.*init.*shuffle"):
            draw(0, purpose, 1)


@pytest.mark.parametrize("purpose", ALL)
def test_the_same_names_give_the_same_numbers(purpose: str) -> None:
    """However often it is asked, whatever was drawn in between, and whatever the global generators hold."""
    first = raw(3, purpose, 5), hash_seed(3, purpose, 5)
    generator(3, purpose, 5).random(1000)
    np.random.seed(0)  # noqa: NPY002 (to show that it does not matter)
    torch.manual_seed(0)
    assert (raw(3, purpose, 5), hash_seed(3, purpose, 5)) == first


def test_any_other_name_gives_other_numbers() -> None:
    """No two of 4 purposes x 20 seeds x 20 loops share a single draw or key."""
    names = [(seed, purpose, loop) for purpose in ALL for seed in range(20) for loop in range(20)]
    draws = [draw for name in names for draw in raw(*name)]
    assert len(set(draws)) == len(draws)
    keys = {hash_seed(*name) for name in names}
    assert len(keys) == len(names)


def test_numbers_written_one_behind_the_other_are_not_confused() -> None:
    """Seed 1 in loop 11 is not seed 11 in loop 1, and the greatest seeds are seeds of their own."""
    names = [(1, "shuffle", 11), (11, "shuffle", 1), (111, "shuffle", 0), (2**63 - 1, "shuffle", 1)]
    names += [(2**63 - 2, "shuffle", 1), (2**32, "shuffle", 1), (0, "shuffle", 1)]
    assert len({tuple(raw(*name)) for name in names}) == len(names)


def test_streams_are_uncorrelated() -> None:
    """Neighbouring loops and seeds: no correlation beyond 4 standard errors in 20,000 uniform draws."""
    names = [(seed, "init", loop) for seed in range(4) for loop in range(4)]
    draws = [generator(*name).random(20_000) for name in names]
    for one, other in pairwise(draws):
        assert abs(np.corrcoef(one, other)[0, 1]) < 4 / np.sqrt(20_000)


def test_another_process_draws_the_same() -> None:
    """Nothing depends on the process (its hash seed, for one)."""
    code = "from psa.core.rng import generator; print(generator(7, 'ablate', 3).bit_generator.random_raw())"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(shown) == raw(7, "ablate", 3, 1)[0]


def test_all_arms_of_a_seed_start_from_the_same_weights() -> None:
    """Dropout, decay and ablation shift no bit of the initial LKG; another seed shifts all of it."""
    trials = arms("2*4", [5, 6])
    net = Dense(trials[0].model, 10)
    first, *others = [fresh_state(each, net, 1).lkg for each in trials]
    for lkg in others[: len(MODES) - 1]:
        assert all(np.array_equal(lkg[name], first[name]) for name in first)
    for lkg in others[len(MODES) - 1 :]:
        assert all(np.all(lkg[name] != first[name]) for name in first)


def test_all_arms_of_a_seed_see_the_same_batches(small: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every loop, alone or in a pack, the order is the one the shuffle stream gives to seed and loop."""
    seen: dict[tuple[int, int], list[list[int]]] = {}

    class Noted(Batches):
        def __init__(self, rows: list[RowSettings], split: Split, batch_size: int) -> None:
            super().__init__(rows, split, batch_size)
            for group, run_of_rows in enumerate(self.rows):
                row = rows[run_of_rows.start]
                seen.setdefault((row.seed, row.loop), []).append(self.order[group].tolist())

    monkeypatch.setattr(engine, "Batches", Noted)
    modes: tuple[Mode, ...] = ("none", "dropout", "hidden")
    trials = arms("1*4", [5, 6], modes=modes)
    for each in trials:
        run([each], small, 2)
    run(trials, small, 2)
    assert set(seen) == {(seed, loop) for seed in (5, 6) for loop in (1, 2)}
    for (seed, loop), orders in seen.items():
        expected = generator(seed, "shuffle", loop).permutation(len(small.train)).tolist()
        assert orders == [expected] * (len(modes) + 1)
    assert len({tuple(orders[0]) for orders in seen.values()}) == len(seen)
