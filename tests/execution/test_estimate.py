"""The time left counts what is really left, at the speed it really has, and is never absurd."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from helpers import trial
from made_up import some_state

from psa.core.formatting import format_bytes, format_duration, format_range, pluralize
from psa.execution.cost_model import CostModel, WorkloadKey
from psa.execution.eta import EtaEstimator, loops_left
from psa.specs.trial import Pack, Trial
from psa.storage.store import Store

SECONDS = 2.0  # of a trial-loop, as the cost model below has it


class Even(CostModel):
    """Every trial-loop costs the same."""

    def loop_seconds(self, trials: object) -> float:
        """Seconds of one loop of a pack."""
        assert isinstance(trials, tuple)
        return SECONDS * len(trials)


def left_of(folder: Path, packs: list[Pack], workers: int = 1) -> EtaEstimator:
    """The time left of some packs that are about to begin."""
    found = EtaEstimator(Even(folder / "costs.json"), workers)
    found.plan(packs, store_of(folder))
    return found


def store_of(folder: Path) -> Store:
    """The trees of a folder."""
    return Store(folder / "models", folder / "results")


def pack_of(seeds: range, horizon: int) -> Pack:
    """A pack of small trials."""
    return Pack(trials=tuple(trial("1*4", "hidden", seed) for seed in seeds), horizon=horizon)


def stored(folder: Path, one: Trial, loops: int) -> Path:
    """Store a state after some loops."""
    file = store_of(folder).state_file(one)
    file.save(some_state(loops, trial=one))
    return file.path


def test_what_is_stored_already_is_not_left(tmp_path: Path) -> None:
    """Before anything runs, too: a resumed pack counts from where its states are."""
    pack = pack_of(range(3), 10)
    assert loops_left(store_of(tmp_path), pack) == 30
    stored(tmp_path, pack.trials[0], 9)
    stored(tmp_path, pack.trials[1], 12)
    assert loops_left(store_of(tmp_path), pack) == 1 + 0 + 10
    assert left_of(tmp_path, [pack]).remaining() == 11 * SECONDS


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}", b"\x03\0\0\0\0\0\0\0[3]x"])
def test_a_state_that_cannot_be_read_counts_as_none(content: bytes, tmp_path: Path) -> None:
    """This is an estimate; the worker says what is wrong."""
    pack = pack_of(range(1), 10)
    stored(tmp_path, pack.trials[0], 5).write_bytes(content)
    assert loops_left(store_of(tmp_path), pack) == 10


def test_a_first_loop_that_is_high_was_not_done_just_now(tmp_path: Path) -> None:
    """A worker that begins at loop 90 of 100 has ten loops to do, and the first takes what a loop takes."""
    pack = pack_of(range(2), 100)
    left = left_of(tmp_path, [pack])
    assert left.remaining() == 200 * SECONDS
    left.start(pack, 20)
    assert left.remaining() == 20 * SECONDS
    left.advance(pack, 2)
    # two trial-loops in no time: faster than estimated, and far from a tenth of all in no time
    assert 18 * SECONDS * 0.5 < left.remaining() < 18 * SECONDS


def test_what_a_dead_worker_had_not_saved_is_to_be_done_again(tmp_path: Path) -> None:
    """The next worker begins where the last save was: the time left grows again, and stays sensible."""
    pack = pack_of(range(2), 10)
    left = left_of(tmp_path, [pack])
    left.start(pack, 20)
    for _ in range(9):
        left.advance(pack, 2)
    before = left.remaining()
    left.start(pack, 20)
    assert before < left.remaining() <= 20 * SECONDS
    for _ in range(10):
        left.advance(pack, 2)
        assert left.remaining() >= 0
    assert left.remaining() == 0
    left.finish(pack)
    assert left.remaining() == 0


def test_more_than_was_left_is_not_less_than_nothing(tmp_path: Path) -> None:
    """Whatever is reported: never below zero, and packs nobody planned count for nothing."""
    pack, other = pack_of(range(2), 10), pack_of(range(5, 6), 10)
    left = left_of(tmp_path, [pack])
    left.advance(pack, 2)  # before it has begun
    left.start(other, 7)
    left.advance(other, 1)
    left.finish(other)
    assert left.remaining() == 20 * SECONDS
    left.start(pack, 4)
    left.advance(pack, 50)
    assert left.remaining() == 0


def test_the_speed_is_the_measured_one(tmp_path: Path) -> None:
    """A machine that is faster than estimated is believed by and by; waiting between packs is no work."""
    packs = [pack_of(range(seed, seed + 1), 1000) for seed in range(2)]
    left = left_of(tmp_path, packs)
    left.start(packs[0], 1000)
    for _ in range(1000):
        left.advance(packs[0], 1)
    left.finish(packs[0])
    assert left.remaining() < 0.02 * 1000 * SECONDS
    before = left.remaining()
    time.sleep(0.3)
    assert left.remaining() == before


def test_workers_share_the_work_but_not_the_longest_pack(tmp_path: Path) -> None:
    """Four packs on two workers take half; one long one takes what it takes."""
    even = [pack_of(range(seed, seed + 1), 10) for seed in range(4)]
    assert left_of(tmp_path, even, workers=2).remaining() == 20 * SECONDS
    assert left_of(tmp_path, [*even, pack_of(range(8, 16), 10)], workers=8).remaining() == 80 * SECONDS
    assert left_of(tmp_path, []).remaining() == 0


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "0 s"),
        (0.3, "less than 1 s"),
        (59.6, "1 min 00 s"),
        (250, "4 min 10 s"),
        (11_100, "3 h 05 min"),
        (3_600_000, "1,000 h 00 min"),
    ],
)
def test_durations(seconds: float, said: str) -> None:
    """In the units that fit."""
    assert format_duration(seconds) == said


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (14_040, "14.0 kB"),
        (727_300, "727 kB"),
        (999_960, "1.0 MB"),
        (2_340_000, "2.3 MB"),
        (17_749_000_000, "17.7 GB"),
        (3.2e12, "3,200 GB"),
    ],
)
def test_sizes(count: float, said: str) -> None:
    """Three figures, in the unit that fits."""
    assert format_bytes(count) == said


def test_counted_things() -> None:
    """One trial, two trials."""
    assert [pluralize(count, "trial") for count in (0, 1, 5880)] == ["0 trials", "1 trial", "5,880 trials"]


@pytest.mark.parametrize(("counts", "text"), [([3], "3"), ([4, 4.0], "4"), ([5, 2, 3], "2 to 5")])
def test_a_range_of_counts_has_two_ends_where_they_differ(counts: list[float], text: str) -> None:
    """Counts may be whole numbers of any type, in any order."""
    assert format_range(counts) == text


def test_the_start_of_the_workers_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until the first pack starts; a start that takes longer than expected goes on for a while."""
    clock = [100.0]
    monkeypatch.setattr("psa.execution.eta.time.monotonic", lambda: clock[0])
    pack = pack_of(range(1), 10)
    left = left_of(tmp_path, [pack])
    left.launch(startup=20.0)
    assert left.remaining() == 10 * SECONDS + 20
    clock[0] += 15
    assert left.remaining() == 10 * SECONDS + 5
    clock[0] += 45
    assert left.remaining() == 10 * SECONDS + 15
    left.start(pack, 10)
    assert left.remaining() == 10 * SECONDS
    assert left.startup_taken == 60


def test_a_loop_that_takes_too_long_counts_before_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the first loop of a slow machine shows the estimate for as long as it takes."""
    clock = [100.0]
    monkeypatch.setattr("psa.execution.eta.time.monotonic", lambda: clock[0])
    pack = pack_of(range(1), 10)
    left = left_of(tmp_path, [pack])
    left.start(pack, 10)
    clock[0] += SECONDS
    before = left.remaining()
    clock[0] += 9 * SECONDS
    assert left.remaining() > before
    left.advance(pack, 1)
    assert left.remaining() > 9 * SECONDS


@pytest.mark.parametrize("times", [0.01, 0.5, 20, 5_000])
@pytest.mark.parametrize("estimate", [0.0005, 0.05, 5.0])
def test_half_a_pack_of_more_than_a_minute_tells_the_rest(
    estimate: float, times: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However wrong the estimate was, also if it was of less than a second."""
    clock = [100.0]
    monkeypatch.setattr("psa.execution.eta.time.monotonic", lambda: clock[0])
    monkeypatch.setitem(globals(), "SECONDS", estimate)
    loops = min(10_000_000, 20 * (1 + round(6 / (estimate * times))))
    pack = pack_of(range(1), loops)
    left = left_of(tmp_path, [pack])
    left.start(pack, loops)
    for _ in range(10):
        clock[0] += estimate * times * loops / 20
        left.advance(pack, loops // 20)
    truth = estimate * times * loops / 2
    assert truth / 2 < left.remaining() < 2 * truth


def test_the_measured_start_is_kept(tmp_path: Path) -> None:
    """Beside the step times of the machine, which stay as they are."""
    costs = CostModel(tmp_path / "costs.json")
    kind = WorkloadKey("net", 64, 10)
    costs.update(kind, {1: 0.5})
    costs.update_startup(12.5)
    again = CostModel(tmp_path / "costs.json")
    assert again.startup_seconds == 12.5
    assert again.steps == {kind.key: {1: 0.5}}
