"""Searches: what a file may say, what is told of each configuration, and real ones on a real Ray."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from helpers import EXPLODING, SMALL
from paths import ROOT
from processes import PATIENCE_SECONDS, psa, until

from psa.analysis.records_frame import load_records_frame
from psa.core.errors import UserError
from psa.experiments.search import Range, Search, load_search
from psa.experiments.search_log import SearchLog
from psa.reports.search import best_lines, search_figure, search_table
from psa.storage.store import Store

DECLARED = ROOT / "reproduction/search.toml"


def written(folder: Path, text: str = SMALL, *changes: tuple[str, str]) -> Path:
    """A declared search with some of its lines changed."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    path = folder / "search.toml"
    path.write_text(text)
    return path


def test_the_search_that_is_shipped_can_be_read() -> None:
    """Its space, and a configuration of it over all seeds as one pack."""
    found = load_search(DECLARED)
    assert found.space["lr"] == Range(low=1e-4, high=1e-2, log=True)
    pack = found.template.pack({"lr": 1e-3, "dropout": 0.2, "mode": "dropout", "arch": "2*16"})
    assert [trial.seed for trial in pack.trials] == [0, 1, 2]
    assert {trial.model.dropout for trial in pack.trials} == {0.2}
    assert pack.horizon == 20


DROPOUT = "dropout = { low = 0.1, high = 0.5 }"


@pytest.mark.parametrize("log", [False, True])
def test_whole_numbers_are_drawn_whole_with_both_ends(log: bool, tmp_path: Path) -> None:
    """By Tune and by Optuna: what is drawn can be trained and written down."""
    pytest.importorskip("ray", reason="the extra search is not installed")
    optuna = pytest.importorskip("optuna", reason="the extra search is not installed")
    from ray.tune.search.optuna import OptunaSearch

    from cloud.ray import search_space

    line = f"batch_size = {{ low = 16, high = 18, log = {str(log).lower()} }}"
    found = load_search(written(tmp_path, SMALL, (DROPOUT, line)))
    assert Search.model_validate(json.loads(found.model_dump_json())) == found
    domain = search_space.tune_search_space(found)["batch_size"]
    drawn = OptunaSearch.convert_search_space({"batch_size": domain})["batch_size"]
    assert drawn == optuna.distributions.IntDistribution(16, 18, log=log)
    values = [domain.sample() for _ in range(200)]
    assert set(map(int, values)) == {16, 17, 18}
    trial = found.template.pack({"lr": 1e-3, "mode": "none", "batch_size": values[0]}).trials[0]
    assert json.dumps(trial.model_dump(mode="json"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("batch_size = { low = 16.5, high = 64 }", "batch_size"),
        ("batch_size = { low = 64, high = 16 }", "low must be below high \\(16\\), got 64"),
        ("val_size = { low = 0, high = 16, log = true }", "low must be above 0 with log = true, got 0"),
    ],
)
def test_mistakes_in_a_range_of_whole_numbers_are_named(line: str, said: str, tmp_path: Path) -> None:
    """In the words of what was written."""
    with pytest.raises(UserError, match=said):
        load_search(written(tmp_path, SMALL, (DROPOUT, line)))


def test_a_range_of_numbers_is_stored_as_it_was(tmp_path: Path) -> None:
    """Searches that were begun before go on: their name is made of what is stored."""
    found = load_search(written(tmp_path, SMALL, ("high = 1e-2", "high = 1")))
    assert found.model_dump(mode="json")["space"]["lr"] == {"low": 1e-5, "high": 1.0, "log": True}
    assert isinstance(Search.model_validate(json.loads(found.model_dump_json())).space["lr"], Range)


def test_a_setting_that_does_nothing_is_known() -> None:
    """Dropout acts in mode dropout only."""
    found = load_search(DECLARED)
    drawn = {"lr": 1e-3, "dropout": 0.2, "mode": "none", "arch": "2*16"}
    assert not found.acts(drawn, "dropout")
    assert found.acts(drawn, "lr")
    assert found.acts(drawn | {"mode": "dropout"}, "dropout")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lr = {", "lrr = {", "space: unknown key 'lrr'. Did you mean lr?"),
        ("low = 1e-5", "low = 1e-1", "low must be below high \\(0.01\\), got 0.1"),
        ("low = 1e-5", "low = 0", "low must be above 0 with log = true, got 0"),
        ("high = 1e-2, log", "high = 100, log", "space: .*lr"),
        ("high = 1e-2", "hihg = 1e-2", "unknown key 'hihg'|high is missing"),
        ('"dropout"]', '"dropuot"]', "mode"),
        ("samples = 6", "samples = 0", "samples must be greater than or equal to 1, got 0"),
        ("grace = 1", "grace = 6", "grace must be below meta_loops \\(6\\), got 6"),
        ('"asha"', '"asah"', "scheduler"),
        ('"asha"', '"pbt"\nsampler = "optuna"', "scheduler pbt must have sampler random"),
        ('"asha"', '"pbt"', ""),
        ('arch = "1*4"', 'arch = "1*4"\nmode = "none"', "mode must be set in one place, got space and base"),
        ("[search]", "[axes]\nseed_ = [1]\n[search]", "unknown key|no axes"),
        ("[search]", "[serach]", "unknown key 'serach'. Did you mean search?"),
        ('mode = ["none", "dropout"]', "mode = []", "mode must have at least one value, got none"),
    ],
)
def test_mistakes_in_a_search_are_named(old: str, new: str, said: str, tmp_path: Path) -> None:
    """In one line, with the file."""
    path = written(tmp_path, SMALL, (old, new))
    if not said:
        assert load_search(path).strategy.scheduler == "pbt"
        return
    with pytest.raises(UserError, match=said) as caught:
        load_search(path)
    assert str(path) in str(caught.value)


def test_pbt_cannot_search_what_the_weights_depend_on(tmp_path: Path) -> None:
    """Another's weights do not fit into another architecture."""
    path = written(
        tmp_path, SMALL, ('"asha"', '"pbt"'), ('arch = "1*4"\n', ""), ("[search]", 'arch = ["1*4"]\n[search]')
    )
    with pytest.raises(UserError, match="pbt copies weights and cannot search arch"):
        load_search(path)


def test_optuna_draws_from_the_space_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """As Ray Tune asks it: settings within their ranges, learnt from what came back."""
    pytest.importorskip("optuna", reason="the extra search is not installed")
    search_space = pytest.importorskip("cloud.ray.search_space", reason="the extra ray is not installed")
    found = load_search(written(tmp_path, SMALL, ('"asha"', '"asha"\nsampler = "optuna"\nseed = 7')))
    drawn = []
    for _ in range(2):
        sampler = search_space.tune_config(found, None).search_alg
        assert sampler.set_search_properties(
            "accuracy", "max", {"space": search_space.tune_search_space(found)}
        )
        drawn.append([])
        for number in range(4):
            settings = sampler.suggest(f"c{number}")["space"]
            drawn[-1].append(settings)
            sampler.on_trial_complete(f"c{number}", {"accuracy": settings["lr"]})
    assert drawn[0] == drawn[1]
    assert all(1e-5 <= each["lr"] <= 1e-2 and each["mode"] in ("none", "dropout") for each in drawn[0])
    assert len({each["lr"] for each in drawn[0]}) == 4


def events(name: str, loops: int, end: str, **facts: Any) -> list[dict[str, Any]]:
    """What is heard of a configuration."""
    space = {"lr": 1e-3 * loops, "dropout": 0.2, "mode": "none"}
    heard = [
        {"event": "loop", "pack": name, "space": space, "loop": loop, "each": [0.9 + loop / 100, 0.92]}
        for loop in range(1, loops + 1)
    ]
    return [*heard, {"event": end, "pack": name, "space": space, **facts}]


@pytest.fixture
def ledger(tmp_path: Path) -> SearchLog:
    """One that has heard of a finished, a stopped and a failed configuration."""
    made = SearchLog(load_search(written(tmp_path)), tmp_path / "results")
    told = [
        *events("c1", 1, "stopped"), *events("c0", 6, "done", trials=["a", "b"]),
        *events("c2", 0, "failed", error="no room"),
    ]  # fmt: skip
    for said in told:
        made.handle_event(said)
    return made


def test_a_ledger_tells_of_each_configuration_what_became_of_it(ledger: SearchLog) -> None:
    """Finished ones first; read again it is the same."""
    assert [(each.name, each.status, each.loops) for each in ledger.ended] == [
        ("c0", "finished", 6), ("c1", "stopped early", 1), ("c2", "failed", 0),
    ]  # fmt: skip
    assert ledger.ended[0].trials == ("a", "b")
    assert ledger.ended[0].last == pytest.approx((96, 92))
    assert math.isnan(ledger.ended[2].mean)
    assert not ledger.complete
    again = SearchLog(ledger.search, ledger.path.parents[1])
    assert again.ended == ledger.ended


def test_a_damaged_ledger_is_named(ledger: SearchLog) -> None:
    """It is not taken for an empty one."""
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b"0.92", b"0.93").replace(b"92.0", b"93.0"))
    with pytest.raises(UserError, match=re.escape(str(ledger.path))):
        SearchLog(ledger.search, ledger.path.parents[1])


def test_the_table_and_the_figure_say_how_each_ended(ledger: SearchLog) -> None:
    """What was drawn for nothing is missing, and nobody is compared with what was stopped."""
    table = search_table(ledger)
    assert [row[0] for row in table.rows] == [1, 2, 3]
    names = [column.name for column in table.columns]
    assert names == [
        "Rank", "lr", "dropout", "mode", "Seeds", "Validation accuracy (%)", "Meta-loops", "Ended",
    ]  # fmt: skip
    assert table.rows[0][2] is None
    assert "3 of 6 configurations ended, 1 of them stopped early and 1 failed" in table.note
    assert len({ax.get_ylim() for ax in search_figure(ledger).axes}) == 1


def test_a_setting_that_diverges_is_called_that(tmp_path: Path) -> None:
    """In place of 0 %: in the table, in the lines, and in what is stored."""
    ledger = SearchLog(load_search(written(tmp_path)), tmp_path / "results")
    for name, end, lost in (
        ("c0", "done", [True, True]),
        ("c1", "done", [True, False]),
        ("c2", "stopped", []),
    ):
        for said in events(name, 6 if end == "done" else 2, end):
            share = {"each": [0.0 if each else 0.9 for each in lost], "diverged": lost} if lost else {}
            ledger.handle_event({**said, **share} if said["event"] == "loop" else said)
    again = {each.name: each for each in SearchLog(ledger.search, ledger.path.parents[1]).ended}
    assert [again[name].outcome for name in ("c0", "c1", "c2")] == [
        "diverged", "finished, 1 of 2 seeds diverged", "stopped early",
    ]  # fmt: skip
    rows = {row[-1]: row for row in search_table(ledger).rows}
    assert rows["diverged"][-4:-1] == (0, None, 6)
    part = rows["finished, 1 of 2 seeds diverged"]
    assert (part[-4], part[-3].value) == (1, pytest.approx(90.0))
    assert "In 2 of them seeds diverged" in search_table(ledger).note
    assert "- after   6 (diverged)" in "\n".join(best_lines(ledger, 3))
    curves = [
        line.get_ydata() for line in search_figure(ledger).axes[0].lines if line.get_linestyle() != "None"
    ]
    last = sorted((len(curve), curve[-1]) for curve in curves if len(curve) > 1)
    assert last == [(2, pytest.approx(92.0)), (6, pytest.approx(90.0))]


def searched(started: list[subprocess.Popen[str]], folder: Path, data_dir: Path) -> subprocess.Popen[str]:
    """Start the search of a folder."""
    pytest.importorskip("ray", reason="the extra search is not installed")
    process = psa(folder, "search", "search.toml", "--data-dir", str(data_dir.absolute()), "--device", "cpu",
                  "--workers", "2")  # fmt: skip
    started.append(process)
    return process


def result(folder: Path) -> tuple[Search, SearchLog]:
    """What is known of it afterwards."""
    search = load_search(folder / "search.toml")
    return search, SearchLog(search, folder / "results")


def messages(err: str) -> str:
    """Standard error without the lines that say what takes long, on a busy machine."""
    return "".join(line for line in err.splitlines(True) if not re.match(r"\d\d:\d\d:\d\d \| ", line))


@pytest.mark.slow
def test_a_search_stops_the_worse_and_records_the_rest(
    started: list[subprocess.Popen[str]], tmp_path: Path, data_dir: Path
) -> None:
    """ASHA on a real Ray: those that finished have records, those that were stopped have none and say so."""
    written(tmp_path, SMALL, ("meta_loops = 6", "meta_loops = 4"))  # a rung of grace 1, reduction 2
    out, err = searched(started, tmp_path, data_dir).communicate(timeout=PATIENCE_SECONDS)
    assert (started[0].returncode, messages(err)) == (0, "")
    search, ledger = result(tmp_path)
    assert all(each.loops == 4 for each in ledger.ended if each.status == "finished")
    assert all(each.loops < 4 for each in ledger.ended if each.status == "stopped early")
    ended = {status: [each for each in ledger.ended if each.status == status] for status in
             ("finished", "stopped early", "failed")}  # fmt: skip
    assert (len(ledger.ended), len(ended["failed"])) == (6, 0)
    assert ended["finished"]
    assert ended["stopped early"]
    frame = load_records_frame(Store(tmp_path / "models", tmp_path / "results"), ["small"])
    done = set(frame["id"][frame["status"] == "done"])
    assert done == {trial for each in ended["finished"] for trial in each.trials}
    for each in ended["finished"]:
        pack = search.template.pack(each.settings)
        assert [trial.id for trial in pack.trials] == list(each.trials)
        bounties = [frame["bounty"][frame["id"] == trial].iloc[0] for trial in each.trials]
        assert each.last == pytest.approx(bounties)
    for name in ("md", "tex", "csv", "png", "pdf"):
        assert (tmp_path / f"results/reports/small_search.{name}").stat().st_size
    assert "1. " in out


@pytest.mark.slow
@pytest.mark.crash  # kills of sweeps on Ray are tested every time
def test_a_search_that_was_killed_goes_on(
    started: list[subprocess.Popen[str]], tmp_path: Path, data_dir: Path
) -> None:
    """What has ended is not tried again; in the end every configuration has ended once."""
    written(tmp_path, SMALL, ("meta_loops = 6", "meta_loops = 12"), ('"asha"', '"none"'))
    first = searched(started, tmp_path, data_dir)
    until(lambda: list((tmp_path / "results").rglob("search-*.json")), first)
    before = {path: path.read_bytes() for path in (tmp_path / "results/small").rglob("s0*.json")}
    first.send_signal(signal.SIGKILL)
    first.communicate()
    out, err = searched(started, tmp_path, data_dir).communicate(timeout=PATIENCE_SECONDS)
    assert (started[1].returncode, messages(err)) == (0, ""), out
    _, ledger = result(tmp_path)
    assert [each.status for each in ledger.ended] == ["finished"] * 6
    assert {path: path.read_bytes() for path in before} == before
    assert len({trial for each in ledger.ended for trial in each.trials}) == 12


@pytest.mark.slow
def test_population_based_training_keeps_the_lineage(
    started: list[subprocess.Popen[str]], tmp_path: Path, data_dir: Path
) -> None:
    """A trial that went on from another's weights says under which settings each loop was trained."""
    written(
        tmp_path,
        SMALL,
        ("meta_loops = 6", "meta_loops = 12"),
        ('"asha"', '"pbt"'),
        ("grace = 1", "grace = 4"),
    )
    out, err = searched(started, tmp_path, data_dir).communicate(timeout=PATIENCE_SECONDS)
    assert (started[0].returncode, messages(err)) == (0, ""), out
    _, ledger = result(tmp_path)
    assert [each.status for each in ledger.ended] == ["finished"] * 6
    store = Store(tmp_path / "models", tmp_path / "results")
    ids = {trial for each in ledger.ended for trial in each.trials}
    records = [path for path in store.record_paths() if "search-" not in path.name]
    assert {str(path.relative_to(store.results))[: -len(".json")] for path in records} >= ids
    assert any(b'"legs":[{' in path.read_bytes() for path in records)


@pytest.mark.slow
@pytest.mark.crash  # half a minute each; the engine's part is tested every time
@pytest.mark.parametrize("scheduler", ["asha", "pbt"])
def test_a_search_with_settings_that_diverge_goes_on(
    scheduler: str, started: list[subprocess.Popen[str]], tmp_path: Path, data_dir: Path
) -> None:
    """On a real Ray: they are marked in the ledger and the table, and do not win. Population-based training
    lets them go on from the weights and near the settings of others, so that none may be left in the end.
    """
    written(
        tmp_path,
        SMALL,
        ("lr = { low = 1e-5, high = 1e-2, log = true }", "lr = [10.0, 1e-3]"),
        ('arch = "1*4"', f'arch = "{EXPLODING}"'),
        ("meta_loops = 6", "meta_loops = 4"),
        ("grace = 1", "grace = 2"),
        ("samples = 6", "samples = 4"),
        ('"asha"', f'"{scheduler}"'),
    )
    out, err = searched(started, tmp_path, data_dir).communicate(timeout=5 * PATIENCE_SECONDS)
    assert (started[0].returncode, messages(err)) == (0, ""), out
    _, ledger = result(tmp_path)
    assert len(ledger.ended) == 4
    assert not any(ledger.ended[0].diverged)
    if scheduler == "asha":
        exploded = [each for each in ledger.ended if each.settings["lr"] == 10.0]
        assert exploded
        assert all(each.outcome == "diverged" for each in exploded)
        assert "diverged" in (tmp_path / "results/reports/small_search.md").read_text()
