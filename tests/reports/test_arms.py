"""Arms beside the modes: what frames and pages of the ablation study make of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers import run
from made_up_study import SAMPLES, frame, stored
from matplotlib.axes import Axes
from questions import EXAMPLES, question

from psa.analysis.frame_schema import build_frame, trials_of
from psa.analysis.records_frame import load_records_frame
from psa.analysis.stats import holm, paired
from psa.core.errors import UserError
from psa.data.splits import Splits
from psa.execution.worker.record import build_record
from psa.experiments.grid import load_grid
from psa.experiments.tracking.base import curves
from psa.nn.dense import Dense
from psa.reports.ablation import report
from psa.reports.ablation.arms.figure import arms_figure
from psa.reports.ablation.arms.page import arm_figures
from psa.reports.ablation.arms.pairs import accuracies_after, bounties_after, common_seeds
from psa.reports.ablation.arms.tables import arm_tables, only_tested
from psa.reports.ablation.cells import cells_of
from psa.reports.ablation.effects import paired_table
from psa.reports.ablation.numbers import unequal_arms_note
from psa.reports.activations.arms import Arm
from psa.reports.activations.tables import ArmComparison, paired_note
from psa.reports.contract import ReportContext
from psa.reports.plotting.style import notes_in
from psa.reports.rendering.paired import (
    CORRECTIONS,
    arm_findings,
    effect_note,
    paired_cells,
    paired_columns,
    paired_notes,
    restriction_note,
    sign_flip_interval_note,
    sign_flip_test_note,
    with_marks,
)
from psa.reports.rendering.tables import Bold, Column, Interval, Table, in_markdown
from psa.storage.store import Store

ARCHS = ("1*16", "2*30", "4*4")
CONTEXT = ReportContext(Path("page"), (), (), None)
MODE_OF = {"none": "none", "hidden": "hidden", "hidden, units 4": "hidden", "none, patience 3": "none"}


def arms_frame(scores: dict[tuple[str, str], list[float]], **columns: Any) -> pd.DataFrame:
    """A frame of the bounties in percent of (arm, arch), one per seed, in three loops."""
    rows = []
    for (arm, arch), bounties in scores.items():
        mode = MODE_OF.get(arm, "hidden")
        for seed, bounty in enumerate(bounties):
            (one,) = frame({(arch, mode): [bounty]}).to_dict("records")[:1]
            correct = [round(bounty * 90), round(bounty * 100), round(bounty * 80)]
            history = {
                "loop": [1, 2, 3], "mode": [mode] * 3, "layer": [None] * 3, "unit": [None] * 3,
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


def test_a_mode_of_a_plugin_is_compared_with_mode_none_on_each_architecture() -> None:
    """Over few architectures the means alone would hide on which of them it helps."""
    told = {(arm, arch): values for (arm, arch), values in scores().items() if arm in ("none", "hidden")}
    told |= {("input", arch): [value + 1 for value in told["none", arch]] for arch in ARCHS}
    rows = arms_frame(told)
    plugin = rows["arm"] == "input"
    rows["mode"] = rows["mode"].astype(str).where(~plugin, "input").astype("category")
    tables = arm_tables(rows)
    table = tables["modes_by_architecture_3"]
    assert table.caption == "Bounty of each arm after 3 loops minus mode none, seed by seed"
    assert [row[:3] for row in table.rows] == [(arch, "input", 5) for arch in ARCHS]
    assert all(row[3].value == pytest.approx(1) for row in table.rows)
    assert "arms_by_architecture_3" not in tables  # neither mode has further settings


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


def test_a_significant_difference_whose_interval_includes_0_is_explained() -> None:
    """All differences have one sign, and one is far greater: p is small, and the t interval includes 0."""
    base = [90.0] * 8
    skewed = paired([89.9] * 7 + [80.0], base)
    assert skewed.p < 0.05
    assert skewed.low < 0 < skewed.high
    even = paired([89.0 + 0.1 * step for step in range(8)], base)
    noisy = paired([89.0, 91.0] * 4, base)
    assert "Where an interval includes 0 beside p < 0.05" in sign_flip_interval_note([even, skewed])
    assert sign_flip_interval_note([even, noisy, paired(base, base), paired(base[:2], base[:2])]) == ""
    archs = [f"1*{2**power}" for power in range(8)]
    told = {("none", arch): [90.0, 90.0] for arch in archs}
    told |= {("hidden", arch): [89.9, 89.9] for arch in archs[1:]} | {("hidden", archs[0]): [80.0, 80.0]}
    assert "the differences are skewed" in arm_tables(arms_frame(told))["arms_minus_none_3"].note


def test_means_over_different_architectures_do_not_rank_arms() -> None:
    """A stage keeps an arm on some architectures only; the table and the figure of all of them say so."""
    said, same = "means over different architectures", scores()
    more = same | {("none", "5*5"): [75.0] * 5, ("hidden", "5*5"): [70.0] * 5}
    for told, expected in ((same, False), (more, True)):
        ((_, figure),) = arm_figures(arms_frame(told))
        assert (said in arm_tables(arms_frame(told))["arms_minus_none_3"].note) == expected
        assert any(said in note for note in notes_in(figure)) == expected


def test_arms_are_compared_over_the_seeds_that_all_of_them_have() -> None:
    """Further seeds of some arms would make rows incomparable; without a common seed all of them count."""
    told = scores()
    more = told | {("hidden", "1*16"): [*told["hidden", "1*16"], 60.0], ("none", "1*16"): [80.0] * 6}
    table = arm_tables(arms_frame(more))["arms_minus_none_3"]
    assert "Of 6 seeds those that all arms have: 0, 1, 2, 3, 4." in table.note
    assert "do not rank" not in table.note
    found = {row[0]: row[2].value for row in table.rows}
    without = arm_tables(arms_frame(more | {cell: more[cell][:5] for cell in more}))["arms_minus_none_3"]
    assert found == pytest.approx({row[0]: row[2].value for row in without.rows})
    ((_, figure),) = arm_figures(arms_frame(more))
    assert any("those that all arms have" in note for note in notes_in(figure))
    rows = arms_frame(more)
    page = report.page(rows, CONTEXT, report.tables(rows, CONTEXT), {})
    heading = "After 3 loops, common seeds (%)"
    assert {cells.needs for cells in page.cells.values()} == {heading, "After 3 loops (%)"}
    assert sum(names[heading] is None for names in page.trial_names.values()) == 2
    alone = arms_frame({("none", "1*16"): [80.0, 81.0], ("hidden", "1*16"): [80.0, 81.0]})
    assert common_seeds(bounties_after(alone, 3))[1] == ""


def test_an_arm_that_did_nothing_is_counted() -> None:
    """By pairs with equal histories, and by architectures without any other; its zeros stay in the means."""
    told = scores()
    told |= {("none, patience 3", arch): list(told["none", arch]) for arch in ARCHS}
    told["none, patience 3", "4*4"][0] += 1
    (row,) = (r for r in arm_tables(arms_frame(told))["arms_minus_none_3"].rows if r[0] == "none, patience 3")
    assert row[-3:] == (15, 14, 2)
    assert row[2].value == pytest.approx(1 / 15, abs=1e-3)


def test_arms_are_compared_by_test_accuracy_too() -> None:
    """Only trials that end after these loops are compared, with the same statistics as the bounties."""
    told = scores()
    rows = arms_frame(told)
    assert "arms_minus_none_test_3" not in arm_tables(rows)
    rows = rows.assign(test=rows.groupby("id", observed=True)["accuracy"].transform("max") - 1)
    table, bounties = (arm_tables(rows)[f"arms_minus_none_{name}3"] for name in ("test_", ""))
    assert table.caption == "Test accuracy of each arm after 3 loops minus that of mode none"
    assert [row[:2] for row in table.rows] == [row[:2] for row in bounties.rows]
    for one, other in zip(table.rows, bounties.rows, strict=True):
        assert one[2].value == pytest.approx(other[2].value)
    assert accuracies_after(trials_of(rows), 2).empty
    page = report.page(rows, CONTEXT, report.tables(rows, CONTEXT), {})
    assert any(text.startswith("Test accuracy: ") for text in page.sections[0].text)
    assert page.cells[table.label].needs == "Test after 3 loops (%)"


def test_a_page_leaves_out_comparisons_without_a_test() -> None:
    """The files keep these rows, and the note counts them. If no row has a test, the page shows all rows."""
    told = scores()
    few = told | {("hidden, units 4", arch): told["hidden, units 4", arch][:2] for arch in ARCHS}
    full = arm_tables(arms_frame(few))["arms_by_architecture_3"]
    shown = only_tested(full)
    assert (len(full.rows), len(shown.rows)) == (6, 3)
    assert {row[1] for row in shown.rows} == {"none, patience 3"}
    assert shown.note.endswith("The files of this table also have 3 comparisons without a test.")
    none = arm_tables(arms_frame({cell: values[:2] for cell, values in told.items()}))
    assert only_tested(none["arms_by_architecture_3"]) == none["arms_by_architecture_3"]


def test_arms_far_apart_are_shown_once_more_enlarged() -> None:
    """One arm that loses dozens of points pressed all others onto a line; both panels have one order."""
    told = scores()
    far = told | {("hidden, units 4", arch): [30.0] * 5 for arch in ARCHS}
    far |= {("hidden, units 2", arch): [80.3] * 5 for arch in ARCHS}
    ((_, figure),) = arm_figures(arms_frame(far))
    whole, near, _ = figure.axes
    assert whole.get_xlim()[0] < -40
    low, high = near.get_xlim()
    assert -4.5 < low < 0 < high < 4.5
    means = shown(whole, "mean")
    assert shown(near, "mean") == {row: at for row, at in means.items() if at[0] > -4}
    assert len(means) == len(shown(near, "mean")) + 1
    assert near.get_title(loc="left") == "enlarged"
    assert any("Right: the arms with means within 4 points" in note for note in notes_in(figure))
    ((_, figure),) = arm_figures(arms_frame(told))
    assert len(figure.axes) == 2  # a panel and the bar of colours


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


def test_architectures_are_in_the_order_of_their_size() -> None:
    """By depth, then by width as a number: 1*8 before 1*16."""
    archs = ("2*30", "1*64", "1*8", "1*16")
    told = {(arm, arch): [90.0, 91.0] for arm in ("none", "none, patience 3") for arch in archs}
    rows = arm_tables(arms_frame(told))["arms_by_architecture_3"].rows
    assert [row[0] for row in rows] == ["1*8", "1*16", "1*64", "2*30"]


def test_an_effect_far_beyond_the_scatter_is_not_a_number() -> None:
    """Differences that hardly scatter have a g of hundreds, which three of them cannot show; the note says
    so, also where they do not scatter at all, and is empty where there is no such effect.
    """
    few = [paired([95.0, 95.2, 95.1 + more], [11.35] * 3) for more in (0.0, 900.0)]
    columns = paired_columns()
    texts = [in_markdown(cells[-1], columns[-1]) for cells in paired_cells(few)]
    assert texts[0] == ">+10"
    assert texts[1].startswith("+0.")
    assert "beyond ±10 is shown as >+10 or <-10" in effect_note(few)
    assert effect_note(few[1:]) == ""
    assert (
        effect_note([paired([95.0] * 3, [11.35] * 3)])
        == " Hedges' g is undefined where all differences are equal and not 0."
    )
    assert effect_note([paired([95.0, 96.0], [11.35] * 2)]) == ""


def test_long_names_of_arms_leave_the_panel_its_room() -> None:
    """A name of several settings takes two lines; no two names overlap, and none is cut."""
    arms = [f"hidden, schedule {kind}, schedule loops 10, end rate 0.1" for kind in ("adaptive", "linear")]
    told = {(arm, arch): [90.0, 91.0] for arm in ("none", *arms) for arch in ARCHS}
    ((_, figure),) = arm_figures(arms_frame(told))
    figure.draw_without_rendering()
    (ax, _) = figure.axes
    boxes = [label.get_window_extent() for label in ax.get_yticklabels()]
    assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    assert min(box.x0 for box in boxes) >= 0
    assert ax.get_position().width > 0.4


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
    assert [name for name, _ in report.figures(arms, context)] == ["arms_3"]
    assert report.listings(arms, context) == {}
    page = report.page(arms, context, made, {"arms_3": Path("arms_3.png")})
    (section,) = page.sections
    assert section.title == "After 3 loops"
    assert [picture.path.name for picture in section.pictures] == ["arms_3.png"]
    assert set(page.cells) == {table.label for table in made.values()}
    assert {names["arm"] for names in page.trial_names.values()} == set(MODE_OF)
    assert {cells.needs for cells in page.cells.values()} == {"After 3 loops (%)"}
    after = sorted(names["After 3 loops (%)"] for names in page.trial_names.values())
    assert after == pytest.approx(sorted(bounties_after(arms, 3)), abs=1e-4)
    assert all(table.markdown() and table.latex() and table.csv() for table in made.values())
    with pytest.raises(UserError, match="must hold arms of modes alone, got hidden, units 4"):
        cells_of(arms)
    only = rows[rows["arm"] == "hidden, units 4"]
    assert [name for name, _ in report.parts(only)] == ["ablation_simplemlp_arms"]
    assert list(report.tables(only, context)) == ["arms_minus_none_3"]


def shown(ax: Axes, gid: str) -> dict[float, list[float]]:
    """The x values of the marks or lines of one kind, by their row."""
    lines: dict[float, list[float]] = {}
    for line in ax.lines:
        if line.get_gid() == gid:
            lines.setdefault(round(float(np.ravel(line.get_ydata())[0])), []).extend(
                np.ravel(line.get_xdata())
            )
    for marks in ax.collections:
        if marks.get_gid() == gid:
            for x, y in np.asarray(marks.get_offsets()):
                lines.setdefault(round(float(y)), []).append(float(x))
    return lines


def test_the_figure_of_arms_shows_the_numbers_of_the_table() -> None:
    """A row per arm, the greatest mean first: a mark per architecture, the mean and its interval."""
    told = scores()
    frame_ = arms_frame(told)
    table = {row[0]: row[2] for row in arm_tables(frame_)["arms_minus_none_3"].rows}
    ((name, figure),) = arm_figures(frame_)
    assert name == "arms_3"
    ax, bar = figure.axes
    names = [label.get_text() for label in ax.get_yticklabels()]
    order = sorted(table, key=lambda arm: -table[arm].value)
    assert names == [f"{arm} (3)" for arm in order]
    means, intervals, marks = (shown(ax, gid) for gid in ("mean", "interval", "differences"))
    for row, arm in enumerate(order):
        assert means[row] == pytest.approx([table[arm].value])
        assert intervals[row] == pytest.approx([table[arm].low, table[arm].high])
        expected = [np.mean(told[arm, arch]) - np.mean(told["none", arch]) for arch in ARCHS]
        assert sorted(marks[row]) == pytest.approx(sorted(expected))
    low, high = ax.get_xlim()
    assert low < min(map(min, intervals.values())) < max(map(max, intervals.values())) < high
    assert ax.get_xlabel() == "bounty minus that of mode none (percentage points)"
    assert bar.get_ylabel() == "parameters"
    assert len(bar.get_yticks()) >= 2


@pytest.mark.parametrize("seeds", [2, 5])
def test_few_architectures_have_a_panel_each(seeds: int) -> None:
    """With seeds as marks and, from three on, their interval; all panels have one range and one order."""
    told = {cell: values[:seeds] for cell, values in scores().items() if cell[1] != "4*4"}
    ((_, figure),) = arm_figures(arms_frame(told))
    first, second = figure.axes
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["1*16", "2*30"]
    assert first.get_xlim() == second.get_xlim()
    order = [label.get_text() for label in first.get_yticklabels()]
    assert set(order) == set(MODE_OF) - {"none"}
    for ax, arch in ((first, "1*16"), (second, "2*30")):
        for row, arm in enumerate(order):
            expected = paired(told[arm, arch], told["none", arch])
            assert len(shown(ax, "differences")[row]) == seeds
            assert shown(ax, "mean")[row] == pytest.approx([expected.difference])
            ends = [] if seeds < 3 else [expected.low, expected.high]
            assert shown(ax, "interval").get(row, []) == pytest.approx(ends)


def test_the_order_of_arms_is_that_of_their_means() -> None:
    """An arm without a seed of mode none is not drawn, and a figure needs a pair."""
    told = scores() | {("hidden, units 4", arch): [70.0] for arch in ARCHS}
    ((_, figure),) = arm_figures(arms_frame(told))
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["hidden (3)", "none, patience 3 (3)", "hidden, units 4 (3)"]
    alone = {cell: values for cell, values in told.items() if cell[0] != "none"}
    assert list(arm_figures(arms_frame(alone))) == []
    with pytest.raises(ValueError, match="a figure of arms must have a pair of trials"):
        arms_figure({}, {}, 3)


def rows_of(*found: tuple[str, float, float], architectures: int = 12) -> Table:
    """A table of arms minus mode none: of each arm its difference and corrected p."""
    columns = (
        Column("Arm"),
        Column("Architectures", "count"),
        Column("Difference (points)", "interval"),
        Column("p (Holm)", "p"),
    )
    rows = tuple((arm, architectures, Interval(value, value, value), p) for arm, value, p in found)
    return Table("", "", columns, rows)


def test_the_sentence_on_arms_counts_those_that_are_told_from_mode_none() -> None:
    """Below 0.05 after the correction, not at it; without a test, or without a chance, it says why."""
    nan = float("nan")
    assert arm_findings(rows_of()) == ()
    (none,) = arm_findings(rows_of(("a", 3.0, nan)))
    assert none == "No arm was compared on at least 3 architectures, so no difference is tested."
    (edge,) = arm_findings(rows_of(("a", 3.0, 0.05), ("b", 1.0, nan)))
    assert edge.endswith("(p < 0.05 over architectures, after Holm's correction) for 0 of 1 tested arm.")
    (one,) = arm_findings(rows_of(("a", 3.0, 0.0499), ("b", -1.25, 0.2)))
    assert one.endswith(" for 1 of 2 tested arms: a (+3.00 points).")
    few = (("a", 3.0, 0.125), ("b", -1.25, 0.2))
    (hopeless,) = arm_findings(rows_of(*few, architectures=6))
    assert hopeless == (
        "No difference from mode none can be significant: with 6 architectures and 2 tests p is at least "
        "0.062 after Holm's correction."
    )
    assert "for 0 of 2" in arm_findings(rows_of(*few, architectures=7))[0]


def test_many_arms_are_counted_and_marked_in_the_table_but_not_listed() -> None:
    """A sentence names the extremes of each side: a list of dozens of arms is a wall of text."""
    above = [(f"up{at}", 1.0 + at, 0.001) for at in range(10)]
    below = [(f"down{at}", -1.0 - at, 0.001) for at in range(10)]
    (both,) = arm_findings(rows_of(*above, *below, ("same", 0.5, 0.5)))
    assert both.endswith(
        "for 20 of 21 tested arms. 10 are above mode none: from up0 (+1.00 points) to up9 (+10.00 points). "
        "10 are below mode none: from down0 (-1.00 points) to down9 (-10.00 points). Their p is bold in the "
        "table."
    )
    (one,) = arm_findings(rows_of(*above, below[0]))
    assert "1 is below mode none: down0 (-1.00 points)." in one
    (none,) = arm_findings(rows_of(*above))
    assert "None of them is below mode none." in none


@pytest.mark.parametrize(("p", "marked"), [(0.049, True), (0.05, False), (float("nan"), False)])
def test_a_significant_corrected_p_is_bold(p: float, marked: bool) -> None:
    """Holm's alone, the one that sentences go by."""
    marks = with_marks((12, Interval(1.0, 0.5, 1.5), 0.001, p, 0.001, 0.9))
    assert [at for at, cell in enumerate(marks) if isinstance(cell, Bold)] == ([3] if marked else [])


def test_a_note_explains_rows_of_too_few_pairs_beside_others() -> None:
    """A row of one or two pairs has a difference alone; a row without a pair has not even that."""
    many, two, none = (paired([1.0 + at for at in range(n)], [0.0] * n) for n in (15, 2, 0))
    three, few = paired([1.0, 2.0, 3.0], [0.0] * 3), "Below 3 architectures there is a difference alone."
    assert sign_flip_test_note([three, two], "architectures").endswith(
        f"for 1 test at least 0.25, so that none can be significant. {CORRECTIONS} {few}"
    )
    assert "with 3 architectures at least 0.25, and" in sign_flip_test_note([three, two], "architectures")
    six = paired([1.0 + at for at in range(6)], [0.0] * 6)
    assert "for 1 test at least 0.031. Corrected" in sign_flip_test_note([six], "pairs")
    assert sign_flip_test_note([many, two], "architectures") == (
        f"p: two-sided sign-flip test. {CORRECTIONS} {few}"
    )
    assert sign_flip_test_note([two], "architectures") == few
    assert "alone" not in sign_flip_test_note([many, none], "pairs")


def test_tables_of_arms_explain_arms_of_too_few_pairs() -> None:
    """By architectures where a row is a mean over them, else by pairs."""
    less = {key: values for key, values in scores().items() if key != ("hidden, units 4", "4*4")}
    tables = arm_tables(arms_frame(less | {("hidden, units 4", "1*16"): [82.0, 82.5]}))
    assert "Below 3 architectures there is a difference alone." in tables["arms_minus_none_3"].note
    assert "Below 3 architectures there is a difference alone." in tables["arms_minus_mode_3"].note
    assert "Below 3 pairs there is a difference alone." in tables["arms_by_architecture_3"].note
    assert not any("alone" in table.note for table in arm_tables(arms_frame(scores())).values())


@pytest.mark.parametrize("seeds", [2, 3])
def test_the_page_of_arms_says_which_intervals_it_has(seeds: int) -> None:
    """With two seeds those over architectures alone; the warning of other pages would deny them."""
    rows = arms_frame({cell: values[:seeds] for cell, values in scores().items()})
    context = ReportContext(Path("reports"))
    page = report.page(rows, context, report.tables(rows, context), {})
    assert not any("Intervals, tests and verdicts need" in text for text in page.warnings)
    told = [text for text in page.warnings if "Intervals and tests are over architectures" in text]
    assert len(told) == (seeds == 2)


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


def test_no_interval_of_a_difference_reaches_beyond_all_or_nothing() -> None:
    """The interval of three scattered seeds went on to +143.94 points of accuracy."""
    found = paired([97.0, 96.0, 97.0], [11.0, 91.0, 60.0])
    assert found.high > 100
    (cells,) = paired_cells([found])
    assert cells[1] == Interval(found.difference, found.low, 100.0)
    (cells,) = paired_cells([paired([50.0], [40.0])])
    assert isinstance(cells[1], Interval)
    assert np.isnan([cells[1].low, cells[1].high]).all()


@pytest.mark.parametrize(
    ("intervals", "noted"),
    [([(-10.0, 143.9)], True), ([(-2.0, 3.0), (-100.1, 2.0)], True), ([(-100.0, 100.0)], False)],
)
def test_a_note_says_that_intervals_are_restricted(intervals: list[tuple[float, float]], noted: bool) -> None:
    """Only where one is; a comparison without an interval has none to restrict."""
    note = restriction_note([*intervals, (np.nan, np.nan)])
    assert note == (" Intervals are restricted to -100 to 100." if noted else "")


def test_tables_of_differences_note_restricted_intervals() -> None:
    """Those of modes and of activations; three seeds of which one alone learned."""
    scattered = frame({("1*4", "none"): [10.0, 10.0, 10.0], ("1*4", "full"): [95.0, 10.0, 95.0]})
    assert "restricted to -100 to 100" in paired_table(scattered).note
    close = frame({("1*4", "none"): [10.0, 11.0, 10.0], ("1*4", "full"): [12.0, 12.0, 13.0]})
    assert "restricted" not in paired_table(close).note
    found = paired([95.0, 10.0, 95.0], [10.0, 10.0, 10.0])
    arm = Arm({}, pd.DataFrame(), (0, 1, 2))
    assert "restricted to -100 to 100" in paired_note([ArmComparison(arm, arm, found, 1.0, -300.0, 400.0)])
    assert "restricted" not in paired_note([ArmComparison(arm, arm, found, 1.0, -30.0, 40.0)])


def test_notes_of_compared_arms_name_what_their_cells_show() -> None:
    """Intervals that are restricted, and those that include 0 beside a small p of a sign-flip test."""
    even = paired([95.0, 95.5, 95.2], [94.0, 94.2, 94.1])
    scattered = paired([95.0, 10.0, 95.0], [10.0, 10.0, 10.0])
    skewed = paired([90.01] * 7 + [99.0], [90.0] * 8)
    assert paired_notes([even]) == ""
    assert "restricted" in paired_notes([even, scattered])
    assert "restricted" in paired_notes([even], [(-300.0, 5.0)])
    assert "the differences are skewed" in paired_notes([skewed], sign_flip=True)
    assert "skewed" not in paired_notes([skewed])


def test_a_difference_of_arms_opens_the_trials_of_both() -> None:
    """Mode none, or the published arm of the same mode, as the table has it."""
    made = arms_frame(scores())
    context = ReportContext(Path("reports"))
    tables = report.tables(made, context)
    cells = report.page(made, context, tables, {}).cells
    for name, table in tables.items():
        found, names = cells[table.label], [column.name for column in table.columns]
        minus_none = name.startswith("arms_minus_none_")
        arms = [str(row[names.index("Arm")]) for row in table.rows]
        assert [each["arm"] for each in found.others] == [
            "none" if minus_none else MODE_OF[arm] for arm in arms
        ]
        assert set(found.sides) == set(names) - {"Arm", "Architecture"}
        assert set(found.sides.values()) == {"both"}


def test_a_difference_of_modes_opens_the_trials_of_both() -> None:
    """The cell of a difference opens the trials of both modes that it compares."""
    made = frame({("1*4", "none"): [10.0, 11.0, 10.0], ("1*4", "full"): [12.0, 12.0, 13.0]})
    context = ReportContext(Path("reports"))
    tables = report.tables(made, context)
    found = report.page(made, context, tables, {}).cells[tables["paired"].label]
    assert list(found.others) == [{"mode": "none"}] * len(tables["paired"].rows)
    assert found.sides["Difference"] == "both"


def test_the_page_of_arms_explains_what_it_measures() -> None:
    """A reader who opens this page first knows no bounty and no LKG."""
    made = arms_frame({(arm, "1*16"): [90.0, 91.0, 92.0] for arm in MODE_OF})
    context = ReportContext(Path("reports"))
    question = report.page(made, context, report.tables(made, context), {}).question
    assert "last known good state (LKG)" in question
    assert "bounty of a trial is the best validation accuracy" in question


def test_arms_of_other_architectures_or_seeds_are_not_ranked() -> None:
    """A mean over two seeds beside one over seven is of other trials, even if all of them are paired."""

    def trials(archs: Sequence[str], seeds: int) -> pd.MultiIndex:
        return pd.MultiIndex.from_product([archs, range(seeds)])

    both = trials(["1*8", "4*8"], 7)
    assert unequal_arms_note([]) == unequal_arms_note([both, both]) == ""
    assert "over different architectures, so" in unequal_arms_note([both, trials(["1*8"], 7)])
    assert "over different seeds (2 to 7 of them), so" in unequal_arms_note([both, trials(["1*8", "4*8"], 2)])
    later = both.map(lambda at: (at[0], at[1] + 1))
    assert "over different seeds (7 of them), so" in unequal_arms_note([both, later])


def grid_rows(folder: Path, **declared: Any) -> pd.DataFrame:
    """The rows of a made-up study of two architectures and three seeds."""
    base = {"family": "simplemlp"} | declared.pop("base", {})
    axes = {"arch": ["1*8", "2*4"]} | declared.pop("axes", {})
    source = {"study": "ablation", "name": "made", "seeds": [0, 1, 2], "meta_loops": 3}
    store = stored(folder, load_grid({**source, "base": base, "axes": axes, **declared}).trials)
    return load_records_frame(store, ["made"])


def test_each_value_of_a_rate_is_an_arm(tmp_path: Path) -> None:
    """The published value keeps the name of the mode, and the other values are compared with it."""
    variants = {
        "none": {"mode": "none"},
        "decay": {"mode": "decay"},
        "weak": {"mode": "decay", "weight_decay": 0.01},
        "strong": {"mode": "decay", "weight_decay": 1.0},
        "dropout": {"mode": "dropout", "dropout": 0.5},
    }
    pages = dict(report.parts(grid_rows(tmp_path, variants=variants)))
    assert list(pages) == ["made_simplemlp", "made_simplemlp_arms"]
    assert set(pages["made_simplemlp"]["arm"]) == {"none", "decay", "dropout"}
    made = report.tables(pages["made_simplemlp_arms"], CONTEXT)
    strong, weak = "decay, weight decay 1", "decay, weight decay 0.01"
    assert {row[0] for row in made["arms_minus_none_3"].rows} == {"decay", strong, weak, "dropout"}
    assert {row[0] for row in made["arms_minus_mode_3"].rows} == {strong, weak}
    assert report.tables(pages["made_simplemlp"], CONTEXT)


def test_arms_with_different_settings_have_pages_of_their_own(tmp_path: Path) -> None:
    """As the modes have; lengths are sections of one page."""
    variants = {"published": {}, "two": {"units": 2}}
    axes = {"scaling": ["standard", "unit"]}
    pages = dict(report.parts(grid_rows(tmp_path, base={"mode": "hidden"}, axes=axes, variants=variants)))
    assert sorted(name.removeprefix("made_simplemlp_") for name in pages) == [
        "arms_scaling-standard", "arms_scaling-unit", "scaling-standard", "scaling-unit",
    ]  # fmt: skip
    for name, rows in pages.items():
        made = report.tables(rows, CONTEXT)
        page = report.page(rows, CONTEXT, made, {})
        assert f"made, scaling {name.rpartition('-')[2]}: simplemlp" in page.title
