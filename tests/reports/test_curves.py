"""Curves over the meta-loops: means over the same seeds, best trials, late jumps, and how they are drawn."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up_frames import frame, row
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from scipy import stats as scipy_stats

from psa.analysis.frame_schema import build_frame, trials_of
from psa.core.errors import UserError
from psa.reports.ablation.cells import cells_of
from psa.reports.ablation.curves import (
    Panel,
    best_trials,
    curve_choice,
    jumps_of,
    largest_gain,
    latest_jumps,
    panel_of,
)
from psa.reports.ablation.figures.breakthroughs import breakthrough_figure, label_height
from psa.reports.ablation.figures.curves import convergence_figure, dress_curves
from psa.reports.ablation.figures.figure_set import breakthroughs, convergence
from psa.reports.ablation.numbers import regimes
from psa.reports.plotting.style import MODE_LOOKS, REGIME_NAMES, new_figure, notes_in
from psa.specs.training import MODES


def panel(rows: pd.DataFrame, arch: str = "1*16") -> Panel:
    """The panel of an architecture of a frame."""
    return panel_of(rows, cells_of(rows), arch)


def lines(figure: Figure, name: str) -> list[Line2D]:
    """Those that are called so."""
    return [line for line in figure.findobj(Line2D) if line.get_gid() == name]


def texts(figure: Figure) -> str:
    """Everything that is written, without the breaks of lines, and the notes of the caption."""
    drawn = [" ".join(text.get_text().split()) for text in figure.findobj(Text)]
    return " | ".join([*drawn, *notes_in(figure)])


def test_a_band_is_the_t_interval_of_the_mean_at_each_loop() -> None:
    """Of the LKG, not of the accuracy of the trained copies."""
    made = [
        row("1*16", "none", seed, counts)
        for seed, counts in enumerate([[9000, 8000, 9300], [9010, 9100, 9200], [9050, 9060, 9070]])
    ]
    curve = panel(build_frame(made)).curves[0]
    lkg = np.array([[90.0, 90.0, 93.0], [90.1, 91.0, 92.0], [90.5, 90.6, 90.7]])
    assert (curve.mode, curve.n, curve.shorter) == ("none", 3, 0)
    np.testing.assert_allclose(curve.mean, lkg.mean(axis=0))
    interval = scipy_stats.ttest_1samp(lkg, 0, axis=0).confidence_interval()
    np.testing.assert_allclose(curve.low, interval.low)
    np.testing.assert_allclose(curve.high, interval.high)
    np.testing.assert_allclose(curve.best, lkg[0])
    assert curve.best_seed == 0


def test_a_shorter_trial_does_not_bend_the_mean_where_it_ends() -> None:
    """It has no part in the mean and is counted; one that stopped early keeps its LKG to the end."""
    long, short = [9000, 9100, 9200, 9300], [5000, 5100]
    made = [row("1*16", "none", 0, long), row("1*16", "none", 1, long), row("1*16", "none", 2, short)]
    curve = panel(build_frame(made)).curves[0]
    assert (curve.n, curve.shorter) == (2, 1)
    assert list(curve.mean) == [90.0, 91.0, 92.0, 93.0]
    made[2] |= {"stopped_early": True}
    curve = panel(build_frame(made)).curves[0]
    assert (curve.n, curve.shorter) == (3, 0)
    assert curve.mean[3] == pytest.approx((93 + 93 + 51) / 3)
    figure = convergence_figure([panel(build_frame(made[:2]))], cells_of(build_frame(made[:2])))
    assert "n = 2 in each of 1 modes" in texts(figure)


def test_one_seed_has_a_line_and_no_band() -> None:
    """Nor a warning."""
    rows = build_frame([row("1*16", "none", 0, [9000, 9100])])
    curve = panel(rows).curves[0]
    assert curve.n == 1
    assert np.isnan(curve.low).all()
    figure = next(convergence(rows, ["1*16"]))[1]
    assert len(lines(figure, "mean none")) == 1


def test_the_best_trial_is_the_earliest_of_equals() -> None:
    """Then the one with the lowest seed."""
    made = [
        row("1*16", "none", 0, [9000, 9000, 9300]),
        row("1*16", "full", 1, [9000, 9300, 9300]),
        row("1*16", "full", 2, [9000, 9300, 9300]),
        row("1*16", "output", 0),
    ]
    best = best_trials(trials_of(build_frame(made))).iloc[0]
    assert (best["mode"], best["seed"]) == ("full", 1)


@pytest.mark.parametrize(
    ("lkg", "expected"),
    [
        ([10, 40, 40, 40, 40, 40, 55, 55], (7, 15.0)),  # late, though an early one was larger
        ([10, 40, 40, 40, 40, 40, 40.5, 40.5], (2, 30.0)),  # what is late is too small
        ([10, 10, 10, 10, 60, 60, 60, 60], (5, 50.0)),  # in loop 5 of 8
        ([10, 10, 10, 60, 60, 60, 60, 60], (4, 50.0)),
        ([10, 10], (2, 0.0)),
        ([10, 20, 30], (3, 10.0)),
    ],
)
def test_the_largest_late_gain(lkg: list[float], expected: tuple[int, float]) -> None:
    """After half of the loops if it is noticeable there, else of all."""
    assert largest_gain(np.array(lkg, dtype=np.float64)) == expected


def test_the_latest_jumps_are_found() -> None:
    """Largest first, those of the first half after them."""
    made = [
        row("1*1", "none", 0, [1000, 1000, 1000, 1000, 1000, 3000]),
        row("2*1", "none", 0, [1000, 1000, 1000, 1000, 5000, 5000]),
        row("4*1", "none", 0, [1000, 9000, 9000, 9000, 9000, 9000]),
        row("8*1", "none", 0, [1000]),
        row("16*1", "none", 0),
    ]
    rows = build_frame(made)
    cells = cells_of(rows)
    jumps = latest_jumps(rows, cells)
    assert [(jump.arch, jump.loop, jump.gain, jump.late) for jump in jumps] == [
        ("2*1", 5, 40.0, True),
        ("1*1", 6, 20.0, True),
        ("4*1", 2, 80.0, False),
    ]
    assert [jump.arch for jump in jumps_of(rows, cells, ["16*1", "4*1"])] == ["4*1"]


@pytest.mark.slow
def test_the_lines_are_the_numbers() -> None:
    """A mean and a best trial per mode, in the mode's colour; the x axis is loops 1 to N."""
    rows = frame()
    figure = next(convergence(rows, ["1*1024", "18*18"]))[1]
    known = cells_of(rows)
    for mode in MODES:
        for name in ("mean", "best"):
            drawn = [line for line in lines(figure, f"{name} {mode}") if len(line.get_xdata()) == 12]
            panels = [panel_of(rows, known, arch) for arch in ("1*1024", "18*18")]
            wanted = [getattr(each.curves[MODES.index(mode)], name) for each in panels]
            for values in wanted:
                assert any(np.array_equal(line.get_ydata(), values) for line in drawn)
            assert {line.get_color() for line in drawn} == {MODE_LOOKS[mode].colour}
            assert list(drawn[0].get_xdata()) == list(range(1, 13))


def test_zero_r_is_a_line_where_it_is_near_and_a_word_where_not() -> None:
    """An axis that reached down to it would show nothing of a network at 97 %."""
    rows = frame()
    figure = next(convergence(rows, ["1*1024", "18*18"]))[1]
    found = lines(figure, "zero_r")
    assert [list(line.get_ydata()) for line in found] == [[11.02, 11.02]] * 6
    assert "ZeroR 11.02 %, below the axis" in texts(figure)
    assert "| ZeroR 11.02 % |" in texts(figure)


def test_every_mode_has_a_panel_on_axes_that_the_architecture_shares() -> None:
    """With one ribbon each, beside mode none in grey; twelve lines in one panel could not be followed."""
    figure = next(convergence(frame(), ["1*1024", "18*18"]))[1]
    main = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_title(loc="left") for ax in main] == [*MODES, *MODES]
    for block in (main[:6], main[6:]):
        assert len({(ax.get_xlim(), ax.get_ylim()) for ax in block}) == 1
        for ax, mode in zip(block, MODES, strict=True):
            drawn = [line.get_gid() for line in ax.lines if str(line.get_gid()).startswith("mean")]
            assert drawn == [f"mean {mode}"]
            assert [part.get_gid() for part in ax.collections] == [f"interval {mode}"]
            assert [line.get_gid() for line in ax.lines].count("none for comparison") == (mode != "none")
    assert "The panels of an architecture share both axes" in texts(figure)


def test_identical_modes_share_a_panel_that_says_so() -> None:
    """Decay is often none to the last bit: two lines on each other would look like one that is missing."""
    made = [row("1*16", mode, seed, [9000, 9100 + seed]) for mode in ("none", "decay") for seed in range(3)]
    made += [row("1*16", "full", seed, [9000, 9200]) for seed in range(3)]
    figure = next(convergence(build_frame(made), ["1*16"]))[1]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["none = decay", "full"]
    assert "Modes none and decay have the same accuracies in every loop and share a panel." in texts(figure)
    made[4] = row("1*16", "decay", 1, [9000, 9102])
    figure = next(convergence(build_frame(made), ["1*16"]))[1]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["none", "decay", "full"]
    assert "identical" not in texts(figure)


def test_the_accuracy_of_each_loop_is_drawn_when_it_is_wanted() -> None:
    """That of the trained copies, which may fall where the LKG cannot."""
    rows = build_frame([row("1*16", "none", seed, [9000, 8000, 9300 + seed]) for seed in range(3)])
    figure = next(convergence(rows, ["1*16"], current=True))[1]
    (line,) = lines(figure, "current none")
    np.testing.assert_allclose(np.asarray(line.get_ydata()), [90, 80, 93.01])
    assert line.axes is not None
    assert line.axes.get_ylim()[0] < 80
    assert "accuracy of each loop" in texts(figure)
    assert not lines(next(convergence(rows, ["1*16"]))[1], "current none")


def test_a_panel_names_its_regime_and_the_note_its_n() -> None:
    """A mode that lacks trials is named with how many it has."""
    rows = frame()
    gone = (rows["arch"] == "1*1024") & (rows["mode"] == "full") & (rows["seed"] > 2)
    figure = next(convergence(rows[~gone], ["1*1024", "18*18"]))[1]
    assert "1*1024: n = 4 (none), 4 (decay), 4 (dropout), 3 (full), 4 (hidden), 4 (output)" in texts(figure)
    assert "18*18: n = 4 in each of 6 modes" in texts(figure)
    regime = regimes(cells_of(rows[~gone]), ["1*1024"])["1*1024"]
    assert regime != "unknown"
    assert REGIME_NAMES[regime] in texts(figure)
    open_ = next(convergence(rows[rows["mode"] != "full"], ["1*1024"]))[1]
    assert "1*1024: regime unknown" in texts(open_)


@pytest.mark.parametrize("log", [False, True])
def test_every_value_is_within_the_axes(log: bool) -> None:
    """Linear or logarithmic; of a logarithmic axis the bands may leave the lower end."""
    figure = next(convergence(frame(), ["1*1024", "18*18", "3*3"], log))[1]
    main = [ax for ax in figure.axes if ax.get_title(loc="left")]
    assert [ax.get_yscale() for ax in main] == ["log" if log else "linear"] * 18
    for ax in main:
        low, high = ax.get_ylim()
        for line in ax.lines:
            assert low < np.nanmin(np.asarray(line.get_ydata(), dtype=float))
            assert np.nanmax(np.asarray(line.get_ydata(), dtype=float)) < high


def test_breakthroughs_are_marked_at_their_loop() -> None:
    """With the loop, the points, and the other seeds in grey."""
    rows = frame()
    figure = next(breakthroughs(rows, ["18*18"]))[1]
    jump = jumps_of(rows, cells_of(rows), ["18*18"])[0]
    assert jump.late
    assert list(lines(figure, "jump")[0].get_xdata()) == [jump.loop, jump.loop]
    assert f"loop {jump.loop}: {jump.gain:+.2f} points" in texts(figure)
    assert np.array_equal(lines(figure, "best")[0].get_ydata(), jump.lkg)
    assert len(jump.others) == 3


@pytest.mark.parametrize(
    ("late", "title"),
    [
        (4020, "Largest rises of this architecture; none in the second half of the loops reaches 1 point"),
        (4200, "Largest rises of the best trial in the second half of the loops"),
    ],
)
def test_a_small_late_rise_is_not_denied(late: int, title: str) -> None:
    """The title said that no trial rose in the second half; it means that none rose by a point there."""
    made = build_frame([row("3*3", "none", seed, [1500, *[4000] * 3, late, late]) for seed in (0, 1)])
    figure = next(breakthroughs(made))[1]
    assert [text.get_text() for text in figure.texts] == [title]


def test_breakthroughs_of_the_study_or_else_the_latest() -> None:
    """The four of the study if all are there; otherwise the best trials that rose most, all of them searched:
    a figure of two of the four said of the others, which rose late, nothing.
    """
    four = frame(("18*18", "10*10", "17*17", "4*2", "1*16"))
    assert "Shown: the 4 architectures of the published figure." in texts(next(breakthroughs(four))[1])
    residual = four.assign(family="resmlp")
    assert "published figure" not in texts(next(breakthroughs(residual))[1])
    late = [row("8*8", "none", seed, [1500, *[4000] * 3, 6000, 6000]) for seed in (0, 1)]
    early = [row("10*10", "none", seed, [1500, *[4000] * 5]) for seed in (0, 1)]
    rows = build_frame([*early, *late])
    assert [jump.arch for jump in latest_jumps(rows, cells_of(rows))] == ["8*8", "10*10"]
    figure = next(breakthroughs(rows))[1]
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["8*8", "10*10"]
    nothing = build_frame([row("1*16", "none", 0, [9000]), row("1*16", "none", 1)])
    assert list(breakthroughs(nothing)) == []
    with pytest.raises(ValueError, match="must have one"):
        breakthrough_figure([], cells_of(nothing))


def test_a_target_without_a_trial_is_named() -> None:
    """With some that there are."""
    for make in (convergence, breakthroughs):
        with pytest.raises(
            UserError, match=r"--targets must name architectures with trials, got 7\*7\. There are trials of"
        ):
            next(make(frame(), ["1*16", "7*7"]))


def test_a_target_whose_trials_all_failed_says_so() -> None:
    """In the caption: a panel that holds nothing but a sentence is none."""
    rows = build_frame([row("1*16", "none", 0, [9000, 9100]), row("2*30", "none", 0, status="failed")])
    figure = next(convergence(rows, ["1*16", "2*30"]))[1]
    assert "No meta-loop of 2*30: it has no panel." in texts(figure)
    assert len(figure.axes) == 1
    assert list(convergence(rows, ["2*30"])) == []


def test_the_text_at_a_jump_covers_no_curve() -> None:
    """It stood in a white box on the very curve whose jump it names."""
    steps = [1000, 2000, *range(5000, 5900, 100), 6300, 6300]
    curves = [[step - 90 * seed for step in steps] for seed in range(3)]
    made = build_frame([row("3*3", "none", seed, curve) for seed, curve in enumerate([*curves, steps[:3]])])
    jump = jumps_of(made, cells_of(made), ["3*3"])[0]
    figure = next(breakthroughs(made))[1]
    figure.canvas.draw()
    (ax,) = figure.axes
    (text,) = (part for part in ax.texts if part.get_text().startswith("loop 12"))
    box = text.get_window_extent().transformed(ax.transData.inverted())
    x = np.linspace(box.x0, box.x1, 50)
    for curve in (jump.lkg, *jump.others):
        heights = np.interp(x, np.arange(1, len(curve) + 1), curve)
        assert not ((heights > box.y0) & (heights < box.y1)).any()


def test_the_text_at_a_jump_covers_the_fewest_curves_where_none_is_free() -> None:
    """It stood at the middle of the jump, on all that went through it."""
    levels = [*range(1000, 6000, 300), *range(3000, 4000, 30)]  # dense around the middle, free nowhere
    best = [1000] * 5 + [6000] * 7
    curves = [best, *([level] * 12 for level in levels)]
    made = build_frame([row("3*3", "none", seed, curve) for seed, curve in enumerate(curves)])
    jump = jumps_of(made, cells_of(made), ["3*3"])[0]
    ax = Figure(figsize=(3, 2)).subplots()
    ax.set_ylim(8, 62)
    height = label_height(ax, jump, right=False)
    assert height < 29 or height > 41


def test_a_title_calls_no_early_rise_late() -> None:
    """The title counts the late rises if only some of those shown are late."""
    late = [row("3*3", "none", seed, [1500, *[4000] * 3, 4400, 4400]) for seed in (0, 1)]
    early = [row("2*8", "none", seed, [1500, *[4000] * 5]) for seed in (0, 1)]
    figure = next(breakthroughs(build_frame([*late, *early])))[1]
    name = "Late rises of 1 of 2 architectures, the largest rises of the others"
    assert [text.get_text() for text in figure.texts] == [name]


def test_a_figure_of_some_architectures_says_why_these() -> None:
    """Others could be thought to have no curve."""
    rows = frame(("1*16", "3*3", "2*8", "4*4", "1*8"))
    assert "Shown: the architectures with a trial above ZeroR." in texts(next(breakthroughs(rows))[1])
    trained = [row(arch, "none", 0, [2000, 9000]) for arch in ("1*16", "1*8", "3*3", "2*8", "4*4")]
    notes = texts(next(breakthroughs(build_frame(trained)))[1])
    assert "Shown: 4 of the 5 architectures with a trial above ZeroR, those whose best trial rose" in notes
    chosen, why = curve_choice(cells_of(rows))
    assert all(arch in why for arch in chosen)
    assert why in notes_in(next(convergence(rows, chosen, why=why))[1])
    both = frame(("1*1024", "18*18", "1*8"))
    assert curve_choice(cells_of(both))[1] == "Shown: 1*1024 and 18*18, as in the published figure."
    for others in (both.assign(family="resmlp"), both[both["arch"] != "18*18"]):
        assert "published" not in curve_choice(cells_of(others))[1]


def test_curves_are_not_chosen_by_the_spread_of_two_trials() -> None:
    """As in the figure of instability, a standard deviation counts from three trials on."""
    rows = [row("1*8", "none", seed, [9000, 9000 + seed]) for seed in range(3)]
    rows += [row("3*3", "none", seed, [1000, 1100 + 5000 * seed]) for seed in range(2)]
    chosen, why = curve_choice(cells_of(build_frame(rows)))
    assert chosen == ["1*8"]
    assert "of any mode with 3 trials or more" in why
    two = build_frame([row(arch, "none", seed, [9000]) for arch in ("1*8", "3*3") for seed in range(2)])
    chosen, why = curve_choice(cells_of(two))
    assert (chosen, "deviation" in why) == (["1*8"], False)


def test_of_equal_best_trials_the_first_is_shown() -> None:
    """That of the earliest loop, then of the least seed, then of the first mode, as the note says."""
    curves = {"hidden": [1500, 4000], "none": [1500, 4000], "decay": [4000, 4000]}
    rows = [row("3*3", mode, seed, curve) for mode, curve in curves.items() for seed in (1, 0)]
    best = best_trials(build_frame(rows).drop_duplicates("id")).iloc[0]
    assert (best["mode"], best["seed"]) == ("decay", 0)
    best = best_trials(build_frame(rows[:4]).drop_duplicates("id")).iloc[0]
    assert (best["mode"], best["seed"]) == ("none", 0)


@pytest.mark.parametrize(("seeds", "shown"), [(2, False), (3, True)])
def test_a_legend_names_what_is_drawn(seeds: int, shown: bool) -> None:
    """Neither intervals that take more seeds, nor mode none for comparison where it is alone, nor ZeroR far
    below the axis.
    """
    made = build_frame([row("1*16", "none", seed, [9000, 9100 + seed]) for seed in range(seeds)])
    found = next(convergence(made, ["1*16"]))[1]
    (legend,) = found.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["mean", *(["95 % t interval"] if shown else []), "best trial"]
    assert ("No intervals: they need at least 3 seeds." in texts(found)) != shown


@pytest.mark.parametrize(("worst", "insets"), [(8900, 1), (3000, 0)])
def test_an_inset_covers_no_interval(worst: int, insets: int) -> None:
    """One seed that does not train makes a wide interval, which the inset hid."""
    made = [row("1*16", "none", seed, [2000, *[9000] * 11]) for seed in range(9)]
    figure = next(convergence(build_frame([*made, row("1*16", "none", 9, [2000, *[worst] * 11])]), ["1*16"]))[
        1
    ]
    found = figure.axes[0].child_axes
    assert len(found) == insets
    assert all(each.get_ylim()[0] < 89.68 for each in found)  # 89.9 - 0.226: the whole interval is in it


def test_no_line_crosses_the_words_on_zero_r() -> None:
    """If ZeroR is below the axis, its text has a white background."""
    made = [row("1*16", mode, seed, [9000, 9100]) for seed in range(3) for mode in ("none", "full")]
    figure = next(breakthroughs(build_frame(made)))[1]
    (text,) = (each for each in figure.axes[0].texts if "below the axis" in each.get_text())
    assert text.get_bbox_patch() is not None


@pytest.mark.parametrize(
    ("ends", "side"),
    [([50.0], "bottom"), ([50.0, 11.7], "top"), ([50.0, 11.7, 10.4], "bottom"), ([50.0, 10.4], "bottom")],
)
def test_zero_r_is_written_where_no_curve_ends(ends: list[float], side: str) -> None:
    """Above its line, unless a curve runs there and none below: it would cross the words."""
    ax = new_figure(2).add_subplot()
    for end in ends:
        ax.plot(np.arange(1, 21), np.full(20, end))
    dress_curves(ax, (10.0, 50.0), 11.02, 20, log=False)
    (text,) = (each for each in ax.texts if "ZeroR" in each.get_text())
    assert text.get_va() == side


@pytest.mark.parametrize("loops", [2, 7, 8, 9, 40])
def test_every_loop_of_the_second_half_is_searched_for_a_late_rise(loops: int) -> None:
    """For an even number of loops, the first loop of the second half was left out."""
    for loop in range(2, loops + 1):
        lkg = np.where(np.arange(1, loops + 1) < loop, 50.0, 52.0)
        lkg[1:] += 3.0  # a larger rise at the beginning
        late = 2 * loop > loops + 1
        found, gain = largest_gain(lkg)
        assert (found, round(gain, 6)) == (loop, 5.0 if loop == 2 else 2.0) if late else found == 2


def test_the_caption_of_late_rises_counts_the_trials_of_its_panels() -> None:
    """The counts do not include architectures that the figure does not show."""
    made = [row("1*16", "none", seed, [9000, 9100, 9300]) for seed in range(3)]
    made += [row("8*1", "none", seed, [1100, 1100, 1100]) for seed in range(9)]
    figure = next(breakthroughs(build_frame(made)))[1]
    assert "n = 3 of 3 trials; 3 per architecture and mode (1 architecture, 1 mode)" in " ".join(
        notes_in(figure)
    )
