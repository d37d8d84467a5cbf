"""Arms beside the modes: what frames and pages of the ablation study make of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import run
from made_up_study import SAMPLES, frame
from questions import EXAMPLES, question

from psa.analysis.frame_schema import build_frame, trials_of
from psa.analysis.records_frame import load_records_frame
from psa.analysis.stats import holm, paired
from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.execution.worker.record import build_record
from psa.experiments.tracking.base import curves
from psa.nn.dense import Dense
from psa.reports.ablation import report
from psa.reports.ablation.cells import cells_of
from psa.reports.ablation.effects import arm_tables, bounties_after
from psa.reports.contract import ReportContext
from psa.storage.store import Store

ARCHS = ("1*16", "2*30", "4*4")
MODE_OF = {"none": "none", "hidden": "hidden", "hidden, units 4": "hidden", "none, patience 3": "none"}


def arms_frame(scores: dict[tuple[str, str], list[float]], **columns: Any) -> pd.DataFrame:
    """A frame of the bounties in percent of (arm, arch), one per seed, in three loops."""
    rows = []
    for (arm, arch), bounties in scores.items():
        for seed, bounty in enumerate(bounties):
            (one,) = frame({(arch, MODE_OF[arm]): [bounty]}).to_dict("records")[:1]
            correct = [round(bounty * 90), round(bounty * 100), round(bounty * 80)]
            history = {
                "loop": [1, 2, 3], "mode": [MODE_OF[arm]] * 3, "layer": [None] * 3, "unit": [None] * 3,
                "correct": correct, "loss": [1.0] * 3, "train_loss": [1.0] * 3, "kept": [True, True, False],
            }  # fmt: skip
            kept = {key: one[key] for key in ("study", "family", "arch", "mode", "parameters", "source")}
            found = {"arm": arm, "seed": seed, "id": f"ablation/{arch}/{arm}/s{seed}", "status": "done"}
            results = {
                "loops": 3,
                "validation_size": SAMPLES,
                "bounty_correct": correct[1],
                "history": history,
            }
            rows.append(kept | found | results | columns)
    return build_frame(rows)


def scores() -> dict[tuple[str, str], list[float]]:
    """Bounties of four arms on three architectures, five seeds each."""
    draws = np.random.Generator(np.random.Philox(key=3))
    lift = {"none": 0.0, "hidden": 0.5, "hidden, units 4": 2.0, "none, patience 3": -1.0}
    return {
        (arm, arch): [round(80 + more + float(draws.normal()) / 10, 2) for _ in range(5)]
        for arm, more in lift.items()
        for arch in ARCHS
    }


def test_arms_are_compared_over_architectures() -> None:
    """The mean of each architecture's pairs, the interval and p over architectures, Holm over the table."""
    told = scores()
    table = arm_tables(arms_frame(told))["arms_minus_none_3"]
    found = {row[0]: row[1:] for row in table.rows}
    assert set(found) == {"hidden", "hidden, units 4", "none, patience 3"}

    def means(arm: str) -> list[float]:
        return [float(np.mean(told[arm, arch])) for arch in ARCHS]

    expected = {arm: paired(means(arm), means("none")) for arm in found}
    adjusted = dict(zip(found, holm([expected[arm].p for arm in found]), strict=True))
    for arm, (n, interval, p, p_holm, *_) in found.items():
        assert n == len(ARCHS)
        assert interval.value == pytest.approx(expected[arm].difference)
        assert (interval.low, interval.high) == pytest.approx((expected[arm].low, expected[arm].high))
        assert (p, p_holm) == pytest.approx((expected[arm].p, adjusted[arm]))


def test_arms_are_compared_with_the_published_arm_of_their_mode() -> None:
    """Seed by seed, for each architecture."""
    told = scores()
    tables = arm_tables(arms_frame(told))
    assert {row[0] for row in tables["arms_minus_mode_3"].rows} == {"hidden, units 4", "none, patience 3"}
    for arch, arm, n, interval, *_ in tables["arms_by_architecture_3"].rows:
        other = told[MODE_OF[arm], arch]
        expected = np.mean(told[arm, arch]) - np.mean(other)
        assert (n, interval.value) == (5, pytest.approx(expected))
    assert len(tables["arms_by_architecture_3"].rows) == 2 * len(ARCHS)


def test_a_bounty_after_fewer_loops_is_of_those() -> None:
    """A longer trial counts as it was at that loop."""
    told = {("none", "1*16"): [80.0]}
    found = arms_frame(told)
    assert bounties_after(found, 3).tolist() == [pytest.approx(80)]
    assert bounties_after(found, 1).tolist() == [pytest.approx(72)]
    assert bounties_after(found, 4).empty


def test_pages_keep_arms_apart() -> None:
    """The modes on the page of the study, all arms on one of their own; cells never mix them."""
    rows = arms_frame(scores())
    pages = dict(report.parts(rows))
    assert list(pages) == ["ablation_simplemlp", "ablation_simplemlp_arms"]
    assert set(trials_of(pages["ablation_simplemlp"])["arm"].astype(str)) == {"none", "hidden"}
    context = ReportContext(Path("reports"))
    arms = pages["ablation_simplemlp_arms"]
    made = report.tables(arms, context)
    assert list(made) == ["arms_minus_none_3", "arms_minus_mode_3", "arms_by_architecture_3"]
    assert list(report.figures(arms, context)) == []
    assert report.listings(arms, context) == {}
    page = report.page(arms, context, made, {})
    assert [section.title for section in page.sections] == ["After 3 loops"]
    assert all(table.markdown() and table.latex() and table.csv() for table in made.values())
    with pytest.raises(UserError, match="must hold arms of modes alone, got hidden, units 4"):
        cells_of(arms)
    only = rows[rows["arm"] == "hidden, units 4"]
    assert [name for name, _ in report.parts(only)] == ["ablation_simplemlp_arms"]
    assert not report.tables(only, context)["arms_minus_mode_3"].rows


def test_an_arm_of_two_experiments_is_refused() -> None:
    """Another rate, or the same seed twice."""
    told = {("hidden, units 4", "1*16"): [80.0, 81.0]}
    one, other = arms_frame(told, lr=1e-3), arms_frame(told, lr=1e-4)
    with pytest.raises(UserError, match="'hidden, units 4' of 1\\*16 with more than one lr"):
        arm_tables(pd.concat([one, other.assign(id=other["id"].astype(str) + "b")], ignore_index=True))
    with pytest.raises(UserError, match="seed 0 more than once"):
        arm_tables(pd.concat([one, one.assign(id=one["id"].astype(str) + "b")], ignore_index=True))


def test_frames_show_the_lkg_and_all_that_was_ablated(tmp_path: Path, small: Splits) -> None:
    """From records: with patience the LKG falls, the bounty does not."""
    trials = [question(**EXAMPLES[name]) for name in ("impatience", "units_hidden", "layer", "together")]
    trials.append(question(mode="hidden"))
    store = Store(tmp_path / "models", tmp_path / "results")
    for each in trials:
        (state,), (test,) = run([each], small, 7)
        store.write(each, build_record(state, Dense(each.model, 10), small, test), {})
    rows = load_records_frame(store)
    by_arm = {str(arm): part for arm, part in rows.groupby("arm", observed=True)}
    assert set(by_arm) == {each.arm for each in trials}
    worse = by_arm["none, patience 1"]
    assert worse["lkg"].tolist() == worse["accuracy"].tolist()
    assert worse["bounty"].iloc[0] == worse["accuracy"].max() > worse["lkg"].iloc[-1]
    assert worse["accepted"].all()
    shown = curves(store.read(trials[0]))  # type: ignore[arg-type]
    assert [point["validation/lkg"] for _, point in shown.points] == pytest.approx(worse["lkg"].tolist())
    layer = by_arm["full, target layer"]
    assert layer["ablated"].iloc[1:].str.fullmatch(r"\d+:all").all()
    several = by_arm["hidden, units 3"]
    assert several["units"].tolist() == [3] * 7
    assert several["ablated"].iloc[1:].str.count(",").ge(0).all()
    plain = by_arm["hidden"]
    assert plain["ablated"].isna().all()
    assert plain["accepted"].tolist() == plain["kept"].tolist()
    assert plain["units"].isna().all()
