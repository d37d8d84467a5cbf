"""The report of the depth study: everything comes out, gaps show, sentences follow the numbers."""

from __future__ import annotations

import csv
import inspect
import io
import re
import shutil
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up import some_record
from paths import ROOT

from psa.analysis.frame_schema import trials_of
from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.records_frame import load_records_frame
from psa.analysis.stats import Paired
from psa.cli.app import PSA, run
from psa.cli.run_options import RunOptions
from psa.cli.train_study import train_of
from psa.core.errors import UserError
from psa.execution.machine import Machine
from psa.execution.worker.run import run_pack
from psa.experiments.studies.glonet import ALIASES, Settings, from_settings
from psa.reports.contract import ReportContext
from psa.reports.glonet import claims, document, report
from psa.reports.glonet.fallen_trials import fallen_trials_text
from psa.reports.glonet.figures.layers import norms_figure, plot_exits, plot_usage, usage_figure
from psa.reports.glonet.layer_use import Use, uses_of
from psa.reports.glonet.networks import (
    GlonetResults,
    Network,
    Trained,
    glonet_results,
)
from psa.reports.glonet.tables import (
    accuracy_table,
    claims_table,
    convergence_table,
    paired_table,
    seeds_note,
)
from psa.reports.glonet.usage_table import usage_table
from psa.reports.plotting.style import new_figure, notes_in
from psa.specs.trial import Pack, Trial
from psa.storage.records.record import encode_record
from psa.storage.store import Store

EPOCHS = 2
SEEDS = 3


def trials(**changes: object) -> list[list[Trial]]:
    """A tiny grid: two models of two depths, and the packs they make."""
    tiny = {"features": 4, "digits": (0, 1), "val_size": 59_000} | changes
    return [
        [
            from_settings(
                Settings.model_validate({"model": model, "num_layers": layers, **tiny}), seed, "depths"
            )
            for seed in range(SEEDS)
        ]
        for model in ("GloNet", "MLP")
        for layers in (3, 4)
    ]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Store:
    """The records of the tiny grid, really trained."""
    folder = tmp_path_factory.mktemp("depths")
    made = Store(folder / "models", folder / "results")
    for pack in trials():
        run_pack(Pack(trials=tuple(pack), horizon=EPOCHS), made, Machine(data_dir, "cpu", 1))
    return made


@pytest.fixture(scope="module")
def frame(store: Store) -> pd.DataFrame:
    """Their rows."""
    return load_records_frame(store)


@pytest.fixture(scope="module")
def context(store: Store, tmp_path_factory: pytest.TempPathFactory) -> ReportContext:
    """What the command hands a report."""
    return ReportContext(tmp_path_factory.mktemp("page"), observed=load_probe_frame(store), store=store)


def without(frame: pd.DataFrame, model: str, seeds: Sequence[int]) -> pd.DataFrame:
    """The frame as it is where these trials have no record."""
    gone = (frame["family"] == model) & frame["seed"].isin(seeds)
    lost = frame[gone].drop_duplicates("id").copy()
    lost["status"] = "missing"
    results = ("loops", "bounty", "test", "zero_r", "loop", "accuracy", "loss", "train_loss", "validation")
    lost[list(results)] = np.nan
    whole = pd.concat([frame[~gone].astype({"status": "str"}), lost.astype({"status": "str"})])
    return whole.astype({"status": "category"}).reset_index(drop=True)


@pytest.mark.slow
def test_every_table_comes_out(frame: pd.DataFrame, context: ReportContext) -> None:
    """Each in three formats, with a row for each network."""
    found = report.tables(frame, context)
    assert set(found) == {"accuracy", "paired", "convergence", "usage"}
    assert all(table.markdown() and table.latex() and table.csv() for table in found.values())
    assert [len(found[name].rows) for name in ("accuracy", "paired", "usage")] == [4, 2, 4]
    assert all(row[4] == SEEDS for row in found["accuracy"].rows)


def test_the_rows_hold_what_the_records_do(frame: pd.DataFrame, store: Store) -> None:
    """Depth counts the head; accuracies, parameters and epochs are those of the records."""
    depths = glonet_results(frame)
    assert (depths.layers, depths.features, depths.models) == ((3, 4), (4,), ("GloNet", "MLP"))
    one = trials()[1][2]
    record = store.read(one)
    assert record is not None
    found = depths.trained[Network(4, 4, "GloNet")]
    assert found.parameters == record["built"]["parameters"] == 785 * 4 + 2 * 20 + 2 * 5
    assert found.test[2] == pytest.approx(
        100 * record["finals"]["test"]["correct"] / record["samples"]["test"]
    )
    assert found.losses[2].tolist() == record["history"]["loss"]
    assert found.ids[2] == one.id


def test_usage_is_what_the_probes_saw(frame: pd.DataFrame, context: ReportContext, store: Store) -> None:
    """The matrix of a trial is its record's lists, before training and of the final weights."""
    uses = uses_of(glonet_results(frame), context.observed)
    record = store.read(trials()[1][1])
    assert record is not None
    seen, use = record["probes"]["layer_usage"], uses[Network(4, 4, "GloNet")]
    assert use.start[1].tolist() == seen["loops"][0]["mean_output"]
    assert use.end[1].tolist() == seen["last"]["mean_output"]
    assert use.norms[1].tolist() == [loop["parameters_l1"] for loop in seen["loops"]]
    assert use.norms.shape == (SEEDS, EPOCHS + 1, 4)
    assert use.exits[1, -1] == pytest.approx(
        100 * record["finals"]["bounty"]["correct"] / record["samples"]["validation"]
    )
    assert use.shares.sum() == pytest.approx(1)


def test_every_figure_comes_out(frame: pd.DataFrame, context: ReportContext) -> None:
    """Each quantity for each width, and the marks that a reader looks for are in it."""
    found = dict(report.figures(frame, context))
    assert set(found) == {
        "accuracy_by_depth", "curves_4", "usage_4", "early_exit_4", "parameters_glonet_4",
        "parameters_mlp_4",
    }  # fmt: skip
    lines = {line.get_gid() for ax in found["usage_4"].axes for line in ax.lines}
    assert {"usage GloNet", "usage MLP"} <= lines
    drawn = [line for ax in found["curves_4"].axes for line in ax.lines if line.get_gid() == "mean GloNet"]
    assert len(drawn) == 2 * 3
    assert all(len(line.get_xdata()) == EPOCHS for line in drawn)


def test_layers_are_listed(frame: pd.DataFrame, context: ReportContext) -> None:
    """A row for each layer of each network, the head included, of which only its parameters are known."""
    rows = list(csv.DictReader(io.StringIO(report.listings(frame, context)["layers.csv"].decode())))
    assert len(rows) == 2 * (3 + 4)
    assert {row["place"] for row in rows} == {"hidden.0", "hidden.1", "hidden.2", "output"}
    assert all(bool(row["mean_output"]) == (row["place"] != "output") for row in rows)


@pytest.mark.slow
def test_what_is_missing_shows(frame: pd.DataFrame, context: ReportContext) -> None:
    """Some trials of one model, then all: tables, figures and page come out and say so."""
    for gone, text in (((0,), "2 of 12"), ((0, 1, 2), "6 of 12")):
        rows = without(frame, "mlp", gone)
        made = report.tables(rows, context)
        accuracy = {row[:3]: row for row in made["accuracy"].rows}
        assert accuracy["MLP", 4, 3][4] == SEEDS - len(gone)
        assert "Missing" in made["accuracy"].note
        names = {"accuracy_by_depth", "curves_4", "usage_4", "early_exit_4", "parameters_glonet_4"}
        of_mlp = {"parameters_mlp_4"} if len(gone) < SEEDS else set()
        assert set(dict(report.figures(rows, context))) == names | of_mlp
        page = report.page(rows, context, made, {})
        assert f"{text} expected trials have no result" in page.warnings[0]


def test_probes_may_not_have_been_asked(frame: pd.DataFrame) -> None:
    """Without them the report is shorter and says why."""
    context = ReportContext(Path("unused"))
    made = report.tables(frame, context)
    assert "usage" not in made
    assert set(dict(report.figures(frame, context))) == {"accuracy_by_depth", "curves_4"}
    assert report.listings(frame, context) == {}
    texts = [text for section in report.page(frame, context, made, {}).sections for text in section.text]
    assert any("without the probe layer_usage" in text for text in texts)


def test_settings_are_not_mixed(frame: pd.DataFrame) -> None:
    """Trials of another learning rate get a page of their own; forced onto one page they are refused."""
    other = frame.assign(lr=0.01, id=frame["id"].astype(str) + "x")
    both = pd.concat([frame, other])
    names = [name for name, _ in report.parts(both)]
    assert names == ["depths_lr-0.001", "depths_lr-0.01"]
    assert [name for name, _ in report.parts(frame)] == ["depths"]
    with pytest.raises(UserError, match="differ in lr"):
        glonet_results(both)


def made(
    model: str, layers: int, test: Sequence[float], features: int = 256, curve: Sequence[float] = ()
) -> Trained:
    """A network whose trials reached these test accuracies; validation is the same."""
    values = np.array(test, dtype=np.float64)
    curves = np.tile(np.array(curve, dtype=np.float64), (len(values), 1))
    return Trained(
        Network(features, layers, model),
        tuple(f"{model}{layers}s{seed}" for seed in range(len(values))),
        ("done",) * len(values),
        1000,
        values,
        values,
        curves,
        curves,
        curves,
    )


def depths(*networks: Trained) -> GlonetResults:
    """A study of these networks, whose majority class makes 11 %."""
    seeds = tuple(range(len(networks[0].ids)))
    return GlonetResults(
        seeds, {each.network: each for each in networks}, 11.0, 1000, (5,), {"done": len(seeds)}
    )


def use(layers: int, outputs: Sequence[float], exits: Sequence[float], model: str = "GloNet") -> Use:
    """What probes saw of one trial."""
    end, nothing = np.array([outputs], dtype=np.float64), np.empty((1, 0))
    return Use(
        Network(256, layers, model),
        (),
        end,
        end,
        nothing,
        np.empty((1, 1, 0)),
        np.array([exits], dtype=np.float64),
    )


def test_resilience_is_measured() -> None:
    """A loss within a point is resilient, two points are not, a gain is; an interval across is neither."""
    shallow = made("GloNet", 6, [98.0, 98.2, 98.1])
    flat = depths(shallow, made("GloNet", 200, [97.6, 97.8, 97.7]))
    falling = depths(shallow, made("GloNet", 200, [95.6, 95.8, 95.7]))
    assert "costs no more than 1 point" in next(claims.resilience(flat))
    assert "costs more than 1 point" in next(claims.resilience(falling))
    deep = made("GloNet", 200, [97.6, 97.8, 97.7])
    said = next(claims.resilience(depths(made("GloNet", 6, [90.0, 90.2, 90.1]), deep)))
    assert "+7.60 points" in said
    assert "costs no more than" in said
    low = [95.0, 95.2, 95.1]
    hump = depths(made("GloNet", 6, low), made("GloNet", 24, [98.0, 98.2, 98.1]), made("GloNet", 200, low))
    assert "(24 layers): −3.00 points" in next(claims.resilience(hump))
    assert "costs more than 1 point" in next(claims.resilience(hump))
    lucky = replace(made("GloNet", 24, [99.0, 99.2, 99.1]), validation=np.array([97.0, 97.0, 97.0]))
    chosen = next(claims.resilience(depths(shallow, lucky, made("GloNet", 200, low))))
    assert "the best validation accuracy (6 layers): −3.00 points" in chosen
    unclear = depths(shallow, made("GloNet", 200, [97.8, 95.0, 97.7]))
    assert "cannot be told: the interval spans both" in next(claims.resilience(unclear))
    few = depths(made("GloNet", 6, [98.0, 98.2]), made("GloNet", 200, [97.6, 97.8]))
    assert "cannot be told: fewer than 3 pairs of seeds" in next(claims.resilience(few))
    lost = depths(made("GloNet", 6, [11.0, 11.2]), made("GloNet", 200, [11.0, 11.0]))
    assert "learned nothing at any depth" in next(claims.resilience(lost))
    assert "one depth" in next(claims.resilience(depths(made("GloNet", 6, [98.0]))))


def test_chance_is_measured() -> None:
    """At chance from a depth on only if every deeper one is, too, with all its trials."""
    shallow, deep = made("MLP", 10, [96.0, 95.0]), made("MLP", 100, [11.3, 9.8])
    lost = depths(shallow, made("MLP", 50, [10.1, 11.2]), deep)
    assert claims.chance_from(lost, "MLP", 256) == 50
    assert "at chance from 50 layers on" in next(claims.chance(lost))
    partly = depths(shallow, made("MLP", 50, [10.1, 60.0]), deep)
    assert claims.chance_from(partly, "MLP", 256) == 100
    fine = depths(shallow, made("MLP", 50, [95.0, 96.0]))
    assert claims.chance_from(fine, "MLP", 256) is None
    assert "learns at every depth" in next(claims.chance(fine))
    some = depths(shallow, made("MLP", 50, [95.0, 9.0]))
    assert "1 of 4 trials stay at chance (with 50 layers)" in next(claims.chance(some))
    mixed = depths(shallow, made("MLP", 50, [95.0, 9.0, 95.0]), deep)
    assert "with 50 layers its mean test accuracy is 66.33 % (1 of 3 trials at chance)" in next(
        claims.chance(mixed)
    )
    assert "is 95.50 %." in next(claims.chance(depths(shallow, deep)))


@pytest.mark.parametrize(("curve", "fallen"), [([90.0, 88.2, 78.2], True), ([90.0, 91.0, 81.1], False)])
def test_trials_whose_tested_weights_are_far_below_their_best_are_named(
    curve: list[float], fallen: bool
) -> None:
    """Fifty layers had 88 % after seven epochs and were tested at 40 % after ten."""
    rising = made("GloNet", 50, [95.0, 96.0], curve=[90.0, 94.0, 96.0])
    study = depths(rising, made("MLP", 50, [curve[-1], curve[-1]], curve=curve))
    told = list(fallen_trials_text(study))
    assert bool(told) == fallen
    if fallen:
        assert told[0].startswith("2 trials have a validation accuracy 10 points or more below")
        assert "MLP, 50 layers of 256 (2 of 2 trials, by up to 11.8 points)" in told[0]
        assert "GloNet" not in told[0]


def test_the_best_epoch_stands_beside_the_tested_weights() -> None:
    """A trial that learned and fell back to chance is not one that never learned."""
    lost = made("MLP", 50, [11.0, 11.0], curve=[50.0, 88.0, 11.0])
    never = made("MLP", 100, [11.0, 11.0], curve=[11.0, 11.0, 11.0])
    table = accuracy_table(depths(lost, never))
    best = [row[[column.name for column in table.columns].index("Best validation (%)")] for row in table.rows]
    assert [cell.mean for cell in best] == [88.0, 11.0]  # type: ignore[union-attr]
    assert claims.chance_from(depths(lost, never), "MLP", 256) == 100
    (said,) = claims.chance(depths(lost, never))
    assert "from 100 layers on: in 5 epochs no trial was more than 1 point above ZeroR" in said


def test_the_gentle_fall_of_the_earlier_document_is_checked() -> None:
    """Refuted, agrees or cannot be told by the interval; of two trials nothing can."""
    said = {
        name: next(document.degradation(depths(made("MLP", 50, values))))
        for name, values in (
            ("refuted", [11.0, 11.1, 11.0]), ("agrees", [95.2, 95.0, 95.1]),
            ("cannot be told", [95.2, 80.0, 95.0]), ("cannot be told, n = 2", [11.0, 11.0]),
        )
    }  # fmt: skip
    assert all(f"(95 % claimed: {name}" in text for name, text in said.items())
    rows = {row[:2]: row for row in claims_table(depths(made("MLP", 200, [11.0, 11.0]))).rows}
    assert rows[200, "MLP"][5] == pytest.approx(11.0 - 85.0)
    assert rows[6, "GloNet"][3] is None


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-1.0, 1.0, "agrees"), (-1.01, 1.0, "cannot be told"), (-1.0, 1.01, "cannot be told"),
        (1.01, 2.0, "refuted"), (1.0, 2.0, "cannot be told"), (-2.0, -1.01, "refuted"),
        (-2.0, -1.0, "cannot be told"), (float("nan"), float("nan"), "cannot be told"),
    ],
)  # fmt: skip
def test_the_verdict_on_a_claim_at_its_edges(low: float, high: float, said: str) -> None:
    """A point on either side of the claim is the margin."""
    assert document.claim_verdict(low, high) == said


@pytest.mark.parametrize(
    ("changes", "epochs", "features", "lacking"),
    [
        ({}, 50, 256, []),
        ({}, 49, 256, ["at least 50 epochs"]),
        ({}, 50, 64, ["width 256"]),
        ({"dataset": "fashion-mnist"}, 50, 256, ["MNIST"]),
        ({"digits": "0,1"}, 50, 256, ["all ten digits"]),
        ({"train_size": 10_000}, 50, 256, ["all training images"]),
    ],
)
def test_the_earlier_document_is_compared_with_its_equals_alone(
    frame: pd.DataFrame, changes: dict[str, Any], epochs: int, features: int, lacking: list[str]
) -> None:
    """Two epochs of a tenth of the images at another width refute nothing."""
    trials = trials_of(frame.assign(**({"digits": None} | changes)))
    results = replace(depths(made("MLP", 50, [95.0] * 3, features)), epochs=(epochs,))
    assert document.claims_missing(trials, results) == lacking


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-3.0, 1.0, "costs no more than"), (-3.0, 1.01, "spans both"), (1.01, 2.0, "costs more than 1 point"),
        (1.0, 2.0, "spans both"), (float("nan"), float("nan"), "fewer than 3 pairs"),
    ],
)  # fmt: skip
def test_the_verdict_on_depth_at_its_edges(low: float, high: float, said: str) -> None:
    """It follows from the ends of the interval."""
    assert said in claims.cost_verdict(Paired(5, 0.0, low, high, 0.5, 0.0))


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        ([1.0] * 199, "even"),
        ([0.0] * 181 + [1.0] * 18, "leaning to later layers"),  # a ResMLP of 100 blocks was called even
        ([0.4] * 8 + [1.0] * 191, "leaning to later layers"),
        ([0.0] * 8 + [1.0] * 20 + [0.0] * 21, "leaning to later layers"),  # which are not the last ones
        ([0.6] * 8 + [1.0] * 191, "even"),
        ([3.0] * 8 + [1.0] * 191, "leaning to the first layers"),
        ([1.9] * 8 + [1.0] * 191, "even"),
        ([1.0] * 8 + [0.0] * 95 + [4.0] * 48 + [0.0] * 48, "uneven"),
        ([100.0] * 8 + [0.1] * 191, "concentrated"),
        ([1.0] * 7, "short"),
    ],
)
def test_the_verdict_on_the_use_of_layers_at_its_edges(outputs: list[float], said: str) -> None:
    """In a deep network the first eight layers have few percent: the factor counts, not the points alone."""
    assert use(len(outputs) + 1, outputs, [98.0] * len(outputs)).verdict == said


def test_an_exit_is_where_all_later_layers_are_as_good() -> None:
    """The first layer that is good by chance is no exit: layers 2 and 99 were averaged to 50.5 once."""
    one, other = [10.0, 50.0, 10.0, 12.0, 50.0], [50.0] * 5
    assert list(use(6, [1.0] * 5, one).exit) == [5.0]
    assert list(use(6, [1.0] * 5, other).exit) == [1.0]
    assert list(use(6, [1.0] * 5, [10.0, 49.0, 49.5, 49.0, 50.0]).exit) == [2.0]


def test_a_network_at_chance_whose_loss_exploded_is_said_to_have() -> None:
    """A residual stack that does not begin to learn is an unfair rival."""
    shallow, deep = made("ResMLP", 10, [96.0] * 3), made("ResMLP", 100, [9.8] * 3)
    deep = replace(deep, train_losses=np.full((3, 1), 2.9e16))
    said = next(claims.chance(depths(shallow, deep), "ResMLP"))
    assert "Its training loss reached 2.9e+16 with 100 layers" in said
    calm = replace(deep, train_losses=np.full((3, 1), 2.4))
    assert "training loss" not in next(claims.chance(depths(shallow, calm), "ResMLP"))


def test_the_fact_on_chance_counts_trials() -> None:
    """It said that MLPs are at chance at no depth, beside an interval from 0 to 57.86 %."""
    shallow = made("MLP", 10, [96.0, 95.0])
    some = depths(shallow, made("MLP", 50, [95.0, 9.0]))
    assert claims.chance_fact(some, "MLP", 256) == ("in some trials", "1 trial (50 layers); n = 2")
    none = depths(shallow, made("MLP", 50, [95.0, 96.0]))
    assert claims.chance_fact(none, "MLP", 256)[0] == "in no trial"
    lost = depths(shallow, made("MLP", 50, [9.0, 9.5]))
    assert claims.chance_fact(lost, "MLP", 256)[0] == "from 50 layers on"


def test_concentration_is_measured() -> None:
    """Equal outputs of ten layers are not concentrated in the first four, a steep fall is."""
    study = depths(made("GloNet", 10, [98.0] * 3), made("GloNet", 50, [98.0] * 3))
    even = several(10, "GloNet", *[[0.17, 0.2, 0.15, 0.2, 0.18, 0.16, 0.2, 0.17, 0.19]] * 3)
    steep = several(50, "GloNet", *[[2.0**-at for at in range(49)]] * 3)
    assert (even.verdict, steep.verdict) == ("even", "concentrated")
    assert (even.holding, steep.holding) == (8, 4)
    head, line = claims.usage(study, {even.network: even})
    assert "not concentrated in the first layers in any of 1 GloNet" in head
    assert "the first 4 of 9 hidden layers hold 44.4 % of the total (equal use: 44.4 %), even" in line
    assert "mean |h| is 0.15 to 0.2" in line
    assert "is concentrated in the first layers in all 1 GloNet" in next(
        claims.usage(study, {steep.network: steep})
    )
    both = next(claims.usage(study, {even.network: even, steep.network: steep}))
    assert "concentrated in the first layers in 1 of 2 GloNets" in both
    leaning = several(50, "GloNet", *[[*[3.0] * 8, *[1.0] * 41]] * 3)
    assert leaning.verdict == "leaning to the first layers"
    head = next(claims.usage(study, {even.network: even, leaning.network: leaning}))
    assert "not concentrated in the first layers in any of 2 GloNets; it leans to them in 1, by" in head
    short = several(6, "GloNet", *[[1.0] * 5] * 3)
    assert short.verdict == "short"
    study = depths(made("GloNet", 6, [98.0] * 3), made("GloNet", 10, [98.0] * 3))
    head = next(claims.usage(study, {short.network: short, even.network: even}))
    assert "in any of 1 GloNet of 8 or more hidden layers, by" in head  # not all of those that the table has
    assert "Too few layers: fewer than 8 hidden layers." in usage_table(study, {short.network: short}).note


def test_two_trials_give_no_verdict_on_their_layers() -> None:
    """Neither two seeds nor two of three that learned."""
    two, study = several(50, "MLP", *[[1.0] * 49] * 2), depths(made("MLP", 50, [95.0, 96.0]))
    assert used(study, two)["Use"] == "fewer than 3 learned"
    (said,) = claims.usage(study, {two.network: two}, "MLP")
    assert said.startswith("No MLP here learned in 3 or more trials and is deep enough to tell")


def several(layers: int, model: str, *outputs: Sequence[float]) -> Use:
    """Return the probe results of several trials of a network."""
    found = [use(layers, each, [98.0] * len(each), model) for each in outputs]
    names = ("start", "end", "active", "norms", "exits")
    parts = {name: [getattr(each, name) for each in found] for name in names}
    return replace(found[0], **{name: np.concatenate(values) for name, values in parts.items()})


def used(study: GlonetResults, found: Use) -> dict[str, Any]:
    """The row of the table of use, by heading."""
    table = usage_table(study, {found.network: found})
    return dict(zip((column.name for column in table.columns), table.rows[0], strict=True))


def test_the_use_of_layers_is_that_of_the_trials_that_learned() -> None:
    """A trial at chance changes neither the row nor the verdict nor the figure of the others."""
    later, first = [0.1] * 8 + [1.0] * 41, [1.0] * 8 + [0.0] * 41
    mixed, lone = several(50, "MLP", later, first, later, later), several(50, "MLP", *[later] * 3)
    study = depths(made("MLP", 50, [95.0, 11.0, 96.0, 96.0]))
    row, expected = used(study, mixed), used(depths(made("MLP", 50, [95.0, 96.0, 96.0])), lone)
    assert (row.pop("Learned"), expected.pop("Learned")) == ("3 of 4", "3 of 3")
    assert (row.pop("Exit after layer").n, expected.pop("Exit after layer").n) == (3, 3)
    assert row == pytest.approx(expected)
    assert row["Use"] == "leaning to later layers"
    figure = usage_figure(study, {mixed.network: mixed}, 256)
    assert figure is not None
    (line,) = (each for each in figure.axes[0].lines if each.get_gid() == "usage MLP")
    assert np.asarray(line.get_ydata(), dtype=float) == pytest.approx(100 * lone.shares)
    assert any("Learned: MLP with 50 layers in 3 of 4 trials; the" in text for text in notes_in(figure))


def test_trials_that_learned_nothing_get_no_verdict_on_their_layers() -> None:
    """Their numbers are shown; the sentences on use leave them out."""
    outputs = [1.0] * 8 + [0.0] * 41
    lost, study = several(50, "MLP", outputs, outputs), depths(made("MLP", 50, [11.0, 11.2]))
    row = used(study, lost)
    assert (row["Learned"], row["Use"]) == ("0 of 2", "learned nothing")
    assert row["First 8 (%)"] == pytest.approx(100)
    (said,) = claims.usage(study, {lost.network: lost}, "MLP")
    assert said.startswith("No MLP here learned in 3 or more trials and is deep enough")


def test_exits_are_of_networks_that_learned() -> None:
    """The smallest k within a point of the whole; at chance any would do, so none is named."""
    found = use(6, [1.0] * 5, [50.0, 96.0, 97.2, 97.0, 98.0])
    assert found.exit.tolist() == [3]
    learned, lost = depths(made("GloNet", 6, [98.0])), depths(made("GloNet", 6, [11.2]))
    assert "3 of 5 (6 layers of 256)" in next(claims.exits(learned, {found.network: found}))
    assert not list(claims.exits(lost, {found.network: found}))


def test_convergence_counts_those_that_arrived() -> None:
    """A trial that never reaches the target has no part in the mean, and is counted."""
    one = made("GloNet", 6, [96.0, 96.0], curve=[80.0, 91.0, 95.5, 96.0])
    slow = replace(one, accuracies=np.array([[80.0, 91.0, 95.5, 96.0], [20.0, 30.0, 40.0, 50.0]]))
    assert one.reaching(95.0).tolist() == [3, 3]
    row = convergence_table(depths(slow)).rows[0]
    assert row[5] == "1 of 2"
    assert (row[4].mean, row[4].n) == (2, 1)  # type: ignore[union-attr]
    assert row[8].mean == pytest.approx((3 + 4) / 2)  # type: ignore[union-attr]


def test_pairs_are_by_seed() -> None:
    """A seed that lacks one arm is left out."""
    one, other = made("GloNet", 6, [98.0, 97.0, np.nan]), made("MLP", 6, [96.0, 96.0, 99.0])
    row = paired_table(depths(one, other)).rows[0]
    assert row[3] == 2
    assert row[4].value == pytest.approx(1.5)  # type: ignore[union-attr]


@pytest.mark.slow
def test_the_command_writes_page_and_pdf(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`psa report depths --pdf`, twice: the same bytes, and every picture is on the page."""
    pytest.importorskip("typst")
    pages = []
    for folder in ("one", "two"):
        words = ["report", "depths", "--pdf", "--output-dir", str(tmp_path / folder)]
        words += ["--model-dir", str(store.models), "--results-dir", str(store.results)]
        assert run(PSA, words) == 0, capfd.readouterr().err
        pages.append([(tmp_path / folder / f"depths.{kind}").read_bytes() for kind in ("html", "pdf")])
    assert pages[0] == pages[1]
    assert pages[0][1].startswith(b"%PDF")
    assert pages[0][0].count(b"<figure") == 6
    assert "depths.pdf" in capfd.readouterr().out


def test_the_documented_options_exist() -> None:
    """Every option in the right column of the last table is one of the study's or of the report's."""
    page = (ROOT / "docs/glonet.md").read_text()
    rows = re.findall(r"^\| .* \| (.*) \|$", page[page.index("| there | here |") :], re.MULTILINE)
    named = {option for row in rows for option in re.findall(r"`--([a-z-]+)`", row)}
    known = set(inspect.signature(train_of("glonet")).parameters) | set(ALIASES)
    known |= {field.name for field in fields(RunOptions)} | {"output_dir"}
    assert len(named) >= 10
    assert {name.replace("-", "_") for name in named} <= known


def test_what_is_not_done_takes_part_in_nothing(frame: pd.DataFrame, context: ReportContext) -> None:
    """Layers and exits of a trial that is too short are left out, as its accuracy is."""
    short = frame["id"].astype(str) == trials()[1][1].id
    rows = frame.assign(status=frame["status"].astype("str").mask(short, "unfinished"))
    found = glonet_results(rows)
    use = uses_of(found, context.observed)[Network(4, 4, "GloNet")]
    assert np.isnan(use.end).all(axis=1).tolist() == [False, True, False]
    assert np.isnan(use.exits).all(axis=1).tolist() == [False, True, False]


def test_layers_of_models_that_differ_in_number_are_drawn_as_they_are() -> None:
    """A line of equal use for each number of hidden layers; exits join the places that there are."""
    plain = use(4, [1.0] * 3, [50.0, 60.0, 70.0])
    blocks = use(4, [1.0] * 6, [np.nan, 50.0, np.nan, 60.0, np.nan, 70.0], "ResMLP")
    ax = plot_usage(new_figure(2).add_subplot(), [plain, blocks])
    equal = sorted(float(line.get_ydata()[0]) for line in ax.lines if line.get_gid() == "equal use")
    assert equal == pytest.approx([100 / 6, 100 / 3])
    ax = plot_exits(new_figure(2).add_subplot(), [plain, blocks])
    line = next(line for line in ax.lines if line.get_gid() == "exit ResMLP")
    assert list(line.get_xdata()) == [2, 4, 6]
    assert list(line.get_ydata()) == [50.0, 60.0, 70.0]


def changed(factors: Sequence[Sequence[float]]) -> Use:
    """Return the probe results of a trial with these norms of its layers, before training and by epoch."""
    return replace(use(len(factors[0]) + 1, [1.0, 1.0], [50.0, 60.0]), norms=np.array([factors]))


@pytest.mark.parametrize("deep", [1.0, 1.00005, 1.002, 0.98])
def test_a_heat_map_of_parameters_shows_small_changes_or_says_that_there_are_none(deep: float) -> None:
    """On one scale from the least to the greatest, a change of 0.2 % beside one of 25 % had its colour."""
    study = depths(made("GloNet", 3, [95.0] * 3))
    seen = changed([[10.0, 10.0], [10.0 * deep, 10.0 * deep]])
    strong = replace(changed([[10.0, 10.0], [10.2, 12.5]]), network=Network(256, 4, "GloNet"))
    study.trained[strong.network] = replace(made("GloNet", 4, [95.0] * 3), network=strong.network)  # type: ignore[index]
    figure = norms_figure(study, {each.network: each for each in (seen, strong)}, 256, "GloNet")
    assert figure is not None
    panel = figure.axes[0]
    told = [text.get_text() for text in panel.texts]
    (mesh,) = panel.collections
    before, after = (mesh.to_rgba(value)[:3] for value in (0.0, 100 * (deep - 1)))
    if abs(deep - 1) < 1e-4:
        assert told == ["no layer changed\nby 0.01 % or more"]
    else:
        assert told == []
        assert np.abs(np.subtract(before, after)).max() > 0.15


def test_models_that_are_equal_before_training_share_a_line_that_says_so() -> None:
    """A coloured line per model would hide one model behind another."""
    study = depths(made("MLP", 4, [95.0] * 3), made("GloNet", 4, [95.0] * 3))
    uses = [several(4, model, *[[1.0, 2.0, 3.0]] * 3) for model in ("MLP", "GloNet")]
    other = replace(uses[1], start=2 * uses[1].start + [[0.0, 1.0, 5.0]])
    for second, colours, label in (
        (uses[1], 1, "before training, equal for all models"),
        (other, 2, "before training, in the model's colour"),
    ):
        figure = usage_figure(study, {each.network: each for each in (uses[0], second)}, 256)
        assert figure is not None
        start = [line for line in figure.axes[0].lines if line.get_linestyle() == ":"]
        assert len({line.get_color() for line in start}) == colours
        assert label in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_page_states_what_its_trials_share(frame: pd.DataFrame, context: ReportContext) -> None:
    """In the text, and in the title where several pages differ in it; no claims beside two digits."""
    other = frame.assign(lr=0.01, id=frame["id"].astype(str) + "x")
    pages = [
        report.page(rows, context, report.tables(rows, context), {})
        for _, rows in report.parts(pd.concat([frame, other]))
    ]
    assert [page.title for page in pages] == [
        f"depths, lr {rate}: 4 networks of 3 to 4 layers" for rate in ("0.001", "0.01")
    ]
    told = pages[0].sections[0].text[-1]
    assert told.startswith("All trials share: activation ReLU")
    assert "lr 0.001" in told
    assert "digits 0,1" in told
    rows = frame[frame["arch"] == frame["arch"].iloc[0]]
    alone = report.page(rows, context, report.tables(rows, context), {"parameters_mlp_4": Path("x.png")})
    assert alone.title == "depths: 2 networks of 3 layers"
    picture = next(each for section in alone.sections for each in section.pictures)
    assert picture.caption.startswith("L1 norm of each layer's parameters in MLP of width 4")


def test_claims_stand_beside_the_same_data(frame: pd.DataFrame, context: ReportContext) -> None:
    """Mnist with all digits, width and epochs of the document; otherwise the page says what is lacking."""
    rows = frame[frame["family"] == "mlp"].assign(arch="5*256", id=lambda each: each["id"].astype(str))
    rows = rows[rows["id"].str.contains(rows["id"].iloc[0].split("/")[1])]
    assert "claims" not in report.tables(rows, context)
    page = report.page(rows, context, report.tables(rows, context), {})
    assert "these trials lack all ten digits, at least 50 epochs" in str(page.sections[1].text)
    whole = rows.assign(digits=None, loops=50)
    assert "after 50 or 200 epochs" in report.tables(whole, context)["claims"].note
    assert "claims" not in report.tables(whole.assign(dataset="fashion-mnist"), context)


def test_what_is_unknown_is_called_so() -> None:
    """No nan, one epoch is one, and initial weights are shared where they can be."""
    none = replace(depths(made("MLP", 6, [98.0])), zero_r=float("nan"), epochs=(1,))
    assert none.zero_r_shown == "unknown"
    assert "1 epoch." in seeds_note(none)
    assert "where shapes allow" in paired_table(none).note


def test_a_difference_of_models_opens_the_trials_of_both(frame: pd.DataFrame, context: ReportContext) -> None:
    """A difference opens the trials of its row and those of the MLP of the same depth and width. Cells of
    other tables open one arm.
    """
    made = report.tables(frame, context)
    cells = report.page(frame, context, made, {}).cells
    paired = cells[made["paired"].label]
    assert list(paired.others) == [{"Model": "MLP"}] * len(made["paired"].rows)
    assert paired.sides["Difference (points)"] == "both"
    assert not cells[made["accuracy"].label].sides


def test_splits_are_not_mixed(frame: pd.DataFrame) -> None:
    """Trials of another split get a page of their own."""
    other = frame.assign(split_seed=7, id=frame["id"].astype(str) + "x")
    names = [name for name, _ in report.parts(pd.concat([frame, other]))]
    assert names == ["depths_split_seed-1337", "depths_split_seed-7"]


def test_of_trials_that_differ_in_probes_the_most_observed_is_taken(store: Store, tmp_path: Path) -> None:
    """Their numbers are the same; forced onto one page they would be two trials of one seed."""
    copy = Store(store.models, tmp_path / "results")
    shutil.copytree(store.results, copy.results)
    one = trials()[0][0]
    fewer = one.changed(probes=one.probes[:1])
    record = store.read(one)
    assert record is not None
    record |= {"id": fewer.id, "digest": fewer.digest, "spec": fewer.model_dump(mode="json")}
    copy.record_path(fewer).write_bytes(encode_record(record))
    frame = load_records_frame(copy)
    assert one.id in set(frame["id"].astype(str))
    assert fewer.id not in set(frame["id"].astype(str))
    glonet_results(frame)
    assert set(load_records_frame(copy, expected=[fewer])["id"].astype(str)) == {fewer.id}


def test_of_trials_that_differ_in_probes_a_longer_one_is_taken(store: Store, tmp_path: Path) -> None:
    """What was trained further says more than what was observed more closely and ended early."""
    copy = Store(store.models, tmp_path / "results")
    shutil.copytree(store.results, copy.results)
    more = trials()[0][0]
    longer = more.changed(probes=more.probes[:1])
    record = store.read(more)
    assert record is not None
    record |= {"id": longer.id, "digest": longer.digest, "spec": longer.model_dump(mode="json")}
    record["loops"] += 1
    for values in record["history"].values():
        values.append(values[-1])
    record["history"]["loop"][-1] = record["loops"]
    copy.record_path(longer).write_bytes(encode_record(record))
    names = set(load_records_frame(copy)["id"].astype(str))
    assert longer.id in names
    assert more.id not in names


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Store:
    """The records of two networks with the probe of training accuracy, and of two without."""
    folder = tmp_path_factory.mktemp("fitted")
    made = Store(folder / "models", folder / "results")
    for pack in [*trials(probes=("train_accuracy",))[::2], *trials()[1::2]]:
        run_pack(Pack(trials=tuple(pack), horizon=EPOCHS), made, Machine(data_dir, "cpu", 1))
    return made


def test_the_training_accuracy_is_that_of_the_records(fitted: Store, tmp_path: Path) -> None:
    """Every epoch of every trial as a row, a column of the table, a panel where it was measured."""
    rows = load_records_frame(fitted)
    context = ReportContext(tmp_path, observed=load_probe_frame(fitted), store=fitted)
    listed = csv.DictReader(io.StringIO(report.listings(rows, context)["training_accuracy.csv"].decode()))
    found = {
        (row["model"], row["layers"], row["seed"], row["epoch"]): float(row["training_accuracy"])
        for row in listed
    }
    expected, last = {}, {}
    for pack in trials(probes=("train_accuracy",))[::2]:
        for trial in pack:
            record = fitted.read(trial)
            assert record is not None
            model = {"glonet": "GloNet", "mlp": "MLP"}[record["spec"]["model"]["family"]]
            for epoch, seen in enumerate(record["probes"]["train_accuracy"]["loops"]):
                if epoch:
                    share = 100 * seen["correct"][0] / record["samples"]["train"]
                    expected[model, "3", str(trial.seed), str(epoch)] = share
                    last[model, trial.seed] = share
    assert found == pytest.approx(expected)
    assert len(found) == 2 * SEEDS * EPOCHS
    table = report.tables(rows, context)["accuracy"]
    assert table.columns[-1].name == "Training (%)"
    for row in table.rows:
        if row[2] == 3:
            mean = np.mean([share for (model, _), share in last.items() if model == row[0]])
            assert row[-1].mean == pytest.approx(mean)  # type: ignore[union-attr]
        else:
            assert row[-1] is None
    axes = dict(report.figures(rows, context))["curves_4"].axes
    assert len(axes) == 2 * 4 - 1  # nothing was measured of four layers
    assert axes[3].get_title(loc="right").strip() == "training accuracy (%)"


def test_without_the_probe_there_is_no_training_accuracy(frame: pd.DataFrame, context: ReportContext) -> None:
    """No file, no column, no empty panel."""
    assert "training_accuracy.csv" not in report.listings(frame, context)
    assert "Training (%)" not in [column.name for column in report.tables(frame, context)["accuracy"].columns]
    assert len(dict(report.figures(frame, context))["curves_4"].axes) == 2 * 3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"family": "simplemlp", "arch": "2*4"}, "must be of glonet, mlp, residual, got simplemlp 2*4"),
        ({"family": "mlp", "arch": "1*4, 1*5"}, "several widths: mlp 1*4, 1*5"),
    ],
)
def test_networks_of_another_study_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    model: dict[str, str],
    said: str,
) -> None:
    """A study of a plugin may choose this kind for any network: one line, not a KeyError, and no folder."""
    trial = Trial.model_validate({"study": "mine", "kind": "glonet", "model": model})
    made = Store(tmp_path / "models", tmp_path / "results")
    made.write(trial, some_record(2, trial), {})
    monkeypatch.chdir(tmp_path)
    assert run(PSA, ["report", "mine"]) == 2
    assert said in capfd.readouterr().err
    assert not (tmp_path / "results/reports").exists()
