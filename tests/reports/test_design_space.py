"""The maps of the design space: where labels stand, what marks say, and the numbers behind them."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
from made_up_frames import ARCHS, ASYMMETRIC, FEW, frame, partial, row
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from psa.analysis.frame_schema import build_frame
from psa.analysis.stats import winners
from psa.core.errors import UserError
from psa.reports.ablation.architectures import SHAPES, matches, parameters_of, spots
from psa.reports.ablation.cells import Cells, cells_of
from psa.reports.ablation.figures.design_space import design_space_figure, enlargement
from psa.reports.ablation.figures.figure_set import overview
from psa.reports.ablation.figures.maps import baseline_map, effects_map, instability_map, regimes_map
from psa.reports.ablation.figures.size_map import matching_map
from psa.reports.ablation.figures.winner_map import strategy_map
from psa.reports.ablation.numbers import baseline, effect, instability, regimes, strategy
from psa.reports.plotting.style import notes_in
from psa.specs.training import MODES

DPI = 120


def cells(archs: tuple[str, ...] = FEW, seeds: int = 4) -> Cells:
    """Those of the made-up trials."""
    return cells_of(frame(archs, seeds, 2))


def labels(figure: Figure) -> list[Text]:
    """The texts that name architectures, of all axes."""
    return [text for text in figure.findobj(Text) if text.get_gid() == "label"]


def note(figure: Figure) -> str:
    """The notes of the figure's caption."""
    return " ".join(notes_in(figure))


def every_axes(figure: Figure) -> list[Axes]:
    """Those of the map and of what is enlarged in it, not those of the bar."""
    return [ax for ax in figure.findobj(Axes) if ax.get_xscale() == "log" and ax.get_yscale() == "log"]


def ink(figure: Figure, artist: Artist) -> NDArray[np.bool_]:
    """The pixels that an artist colours by itself."""
    wide, high = figure.canvas.get_width_height()
    renderer = RendererAgg(wide, high, figure.dpi)
    if isinstance(artist, Text):
        artist.set_bbox(None)  # the ground is no ink
    artist.draw(renderer)
    return np.asarray(renderer.buffer_rgba())[:, :, 3] > 40


def drawn(figure: Figure) -> Figure:
    """The figure, laid out at a resolution at which letters have shape."""
    figure.set_dpi(DPI)
    FigureCanvasAgg(figure).draw()
    return figure


def check_labels(figure: Figure, count: int) -> None:
    """So many labels, none on another, none on a mark, all of them within their axes."""
    drawn(figure)
    found = labels(figure)
    assert len(found) == count
    inked = np.zeros(figure.canvas.get_width_height()[::-1], dtype=np.int64)
    for text in found:
        pixels = ink(figure, text)
        assert text.axes is not None
        box = text.axes.bbox
        down, across = np.nonzero(pixels)
        assert len(down) > 20, text.get_text()
        assert box.x0 <= across.min() <= across.max() <= box.x1, text.get_text()
        assert box.y0 <= inked.shape[0] - 1 - down.max() <= inked.shape[0] - 1 - down.min() <= box.y1
        inked += pixels
    assert inked.max() == 1
    for ax in every_axes(figure):
        for marks in ax.collections:
            assert not (ink(figure, marks) & (inked > 0)).any()


@pytest.mark.slow
def test_the_labels_of_all_98_stand_free() -> None:
    """As every map has them; each architecture is named once."""
    figure = baseline_map(cells(ARCHS, 1), ARCHS)
    check_labels(figure, 98)
    assert {text.get_text() for text in labels(figure)} == set(ARCHS)
    assert "No room" not in note(figure)


@pytest.mark.slow
@pytest.mark.parametrize("make", [regimes_map, strategy_map, instability_map, effects_map])
def test_the_labels_stand_where_they_do_in_every_map(make: object) -> None:
    """A reader who compares two maps finds an architecture in the same place."""
    assert callable(make)
    known = cells(ARCHS, 1)
    places = [
        {text.get_text(): text.get_position() for text in labels(figure)}
        for figure in (baseline_map(known, ARCHS), make(known, ARCHS))
    ]
    assert places[0] == places[1]


@pytest.mark.slow
def test_the_design_space_names_all_98() -> None:
    """Labels have a ground there, since the sides of rectangles run below them."""
    check_labels(design_space_figure(ARCHS), 98)


@pytest.mark.slow
def test_without_room_for_an_enlargement_labels_are_led_away() -> None:
    """A crowd on the diagonal and one network in the free corner."""
    archs = [*(f"{size}*{size}" for size in range(10, 40)), "3000*3000", "1*4"]
    assert enlargement(list(spots(archs).values())) is None
    figure = design_space_figure(archs)
    check_labels(figure, len(archs))
    assert len(every_axes(figure)) == 1


@pytest.mark.slow
def test_labels_without_room_are_left_out_and_counted() -> None:
    """Many networks in one corner: no label covers another, and the note says how many lack."""
    archs = [f"{depth}*{width}" for depth in range(31, 45) for width in range(31, 51)]
    figure = drawn(design_space_figure(archs))
    found = labels(figure)
    assert 0 < len(found) < len(archs)
    assert f"No room for {len(archs) - len(found)} labels" in note(figure)
    assert sum(ink(figure, text).astype(int) for text in found).max() == 1


def test_the_crowd_is_enlarged_in_the_free_corner() -> None:
    """The squares from 11 to 35, about twice as large, and nothing else is there."""
    found = list(spots(ARCHS).values())
    large = enlargement(found)
    assert large is not None
    inside = {spot.arch for spot in found if large.holds(spot)}
    squares = {int(arch.split("*")[0]) for arch in inside}
    assert inside == {f"{size}*{size}" for size in squares}
    assert (min(squares), max(squares)) == (11, 35)
    assert not any(min(spot.depth, spot.width) > large.place for spot in found)
    assert np.log(large.top / large.place) > 2 * np.log(large.high / large.low)
    assert enlargement(list(spots(FEW).values())) is None


def test_every_shape_is_counted_in_the_legend() -> None:
    """Thirty wide ones, thirty deep ones and 38 squares, as the study has them."""
    shapes = [spot.shape for spot in spots(ARCHS).values()]
    assert [shapes.count(shape) for shape in SHAPES] == [30, 38, 30, 0]
    texts = {text.get_text() for text in design_space_figure(ARCHS).findobj(Text)}
    assert {"wide: depth of at most 4 (30)", "square: as deep as wide (38)"} <= texts


@pytest.mark.slow
def test_mixed_widths_stand_at_their_widest_and_the_note_says_so() -> None:
    """A network of 4, 4 and 8 units has depth 3 and width 8."""
    spot = spots(["2*4, 1*8"])["2*4, 1*8"]
    assert (spot.depth, spot.width) == (3, 8)
    assert "1 architecture of mixed widths" in note(design_space_figure(["2*4, 1*8", "1*4"]))


def marks_of(figure: Figure) -> int:
    """How many marks all axes hold."""
    return sum(
        len(np.asarray(marks.get_offsets()))
        for ax in every_axes(figure)
        for marks in ax.collections
        if isinstance(marks, PathCollection)
    )


def legend_counts(figure: Figure) -> list[int]:
    """The numbers in brackets of the legend."""
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    return [int(text.rsplit("(", 1)[1].rstrip(")")) for text in texts]


def test_every_architecture_has_its_mark_and_its_line_in_the_legend() -> None:
    """Whatever is known of it, also where half is missing and where it has no trial at all."""
    asked = (*FEW, "7*7")
    known = cells_of(partial())
    for make in (baseline_map, effects_map, instability_map, regimes_map):
        figure = make(known, asked)
        assert sum(legend_counts(figure)) == len(asked), make
        crossed = sum(  # a cross of two marks
            len(np.asarray(marks.get_offsets()))
            for marks in figure.findobj(PathCollection)
            if (np.asarray(marks.get_edgecolors()) == 1).all() and marks.get_linewidths()[0] == 0.7
        )
        assert marks_of(figure) - crossed == len(asked), make


def of_counts(counts: dict[str, list[int]], arch: str = "1*16") -> Cells:
    """One architecture with these counts of 10,000 per mode."""
    made = [
        row(arch, mode, seed, [count]) for mode, all_ in counts.items() for seed, count in enumerate(all_)
    ]
    return cells_of(build_frame(made))


def test_the_baseline_is_the_mean_of_none() -> None:
    """Above ZeroR counts any trial of any mode, strictly."""
    level = baseline(of_counts({"none": [1000, 1102], "full": [900]}), "1*16")
    assert (level.n, level.mean, level.above_zero_r) == (2, 10.51, False)
    assert baseline(of_counts({"none": [1000], "full": [1103]}), "1*16").above_zero_r
    nothing = baseline(of_counts({"full": [1103]}), "1*16")
    assert nothing.n == 0
    assert np.isnan(nothing.mean)


@pytest.mark.parametrize(
    ("full", "verdict"),
    [
        ([9100, 9110, 9120], "gain"),
        ([8900, 8910, 8925], "loss"),
        ([9100, 8910, 9020], "unclear"),
        ([9000, 9010, 9020], "equal"),
        ([9100], "unknown"),
    ],
)
def test_an_effect_is_paired_by_seed(full: list[int], verdict: str) -> None:
    """Its interval is Student's, of the differences."""
    found = effect(of_counts({"none": [9000, 9010, 9020], "full": full}), "1*16", "full")
    assert found.verdict == verdict
    if verdict == "unclear":
        differences = np.array([1.0, -1.0, 0.0])
        interval = scipy_stats.ttest_1samp(differences, 0).confidence_interval()
        assert found.difference == pytest.approx(0)
        assert (found.low, found.high) == pytest.approx(tuple(interval))


def test_published_trials_are_not_paired() -> None:
    """Their trial 1 of one mode shares nothing with trial 1 of another: Welch's interval."""
    one, other = [9100, 9110, 9125, 9180], [9000, 9015, 9020, 9010]
    made = [
        row("1*16", mode, seed, [count], source="published")
        for mode, counts in (("full", one), ("none", other))
        for seed, count in enumerate(counts)
    ]
    found = effect(cells_of(build_frame(made)), "1*16", "full")
    expected = scipy_stats.ttest_ind(one, other, equal_var=False).confidence_interval()
    assert (found.low, found.high) == pytest.approx((expected.low / 100, expected.high / 100))


def test_instability_is_the_largest_spread() -> None:
    """With n - 1; equal trials have none, whatever the last binary digit of their percentages."""
    counts = {"none": [9000, 9100, 9050], "output": [9000, 9300, 9150], "full": [1102, 9000]}
    found = instability(of_counts(counts), "1*16")
    assert found.mode == "output"
    assert found.sd == pytest.approx(1.5)
    assert instability(of_counts({"none": [1102] * 7}), "1*16").sd == 0
    assert instability(of_counts({"none": [1102, 9000]}), "1*16").mode == ""


def test_winners_tie_within_a_tolerance_of_unrounded_means() -> None:
    """A sole winner may still be chance."""
    tie = strategy(
        of_counts({"none": [9811, 9812, 9811], "full": [9811, 9810, 9811], "output": [9000] * 3}), "1*16"
    )
    assert tie.best == ("none", "full")
    seven = range(7)
    arms = {
        mode: [9811 - each - 10 * at for each in seven] for at, mode in enumerate(("none", "full", "output"))
    }
    sole = of_counts(arms)
    assert (strategy(sole, "1*16").best, strategy(sole, "1*16").clear) == (("none",), True)
    few = of_counts({mode: counts[:6] for mode, counts in arms.items()})  # 2 / 2^6, twice, is above 0.05
    assert (strategy(few, "1*16").best, strategy(few, "1*16").clear) == (("none",), False)
    for cells_, best in ((sole, ("none",)), (few, ("none", "full", "output"))):
        assert winners({mode: cells_.cell("1*16", mode).correct for mode in arms}).by_test == best
    assert strategy(of_counts({"none": [9811]}), "7*7").best == ()


def test_winners_by_the_highest_trial() -> None:
    """The best single trial may be of another mode than the best mean, and no test is made of it."""
    cells = of_counts({"none": [9811, 9812, 9813], "full": [9000, 9000, 9900], "output": [9000] * 3})
    assert strategy(cells, "1*16").best == ("none",)
    found = strategy(cells, "1*16", by="maximum")
    assert (found.best, found.clear) == (("full",), False)
    dead = of_counts({"none": [1102] * 3, "full": [900, 900, 1102]})
    assert strategy(dead, "1*16", by="maximum").open == "below ZeroR"
    drawn = strategy_map(cells, ["1*16"], by="maximum").findobj(Text)
    assert "highest bounty" in {text.get_text() for text in drawn}


def test_sizes_are_matched_by_count_and_by_label() -> None:
    """2*939 is within 3 % of 1*2048; 4*17 is labelled so, too, but is 127 % larger; 1*64 is a budget."""
    size = functools.partial(parameters_of, "simplemlp")
    found = matches(ARCHS, size, ASYMMETRIC, ARCHS)
    assert sum(each.labelled for each in found.values()) == 68
    assert found["2*939"].partner == "1*2048"
    assert found["2*939"].within(0.03)
    assert found["4*17"].labelled
    assert not found["4*17"].within()
    assert (found["1*64"].role, found["1*64"].within()) == ("budget", True)
    assert (found["32*32"].role, found["32*32"].within()) == ("none", None)
    assert sum(legend_counts(matching_map(ARCHS, size, ASYMMETRIC, ARCHS))) == 98
    assert "Squares" not in note(matching_map(ARCHS, size, ASYMMETRIC, ARCHS))


def test_a_network_outside_of_the_list_has_a_mark_of_its_own() -> None:
    """It is counted and explained, and has no label of the study."""
    size = functools.partial(parameters_of, "simplemlp")
    archs = ["1*8", "1*12", "3*16", "4*1"]
    figure = matching_map(archs, size, ASYMMETRIC, ARCHS)
    assert sum(legend_counts(figure)) == 4
    assert "not in the list of the study (2)" in {text.get_text() for text in figure.findobj(Text)}
    assert "Squares are not in its list." in note(figure)


def test_regimes_use_the_zero_r_of_the_data_and_need_every_mode() -> None:
    """Ten trials at exactly ZeroR are untrainable: the mean of equal counts is that count."""
    flat = of_counts({mode: [1102] * 10 for mode in MODES})
    assert regimes(flat, ["1*16"]) == {"1*16": "untrainable"}
    assert regimes(of_counts({mode: [1102] for mode in MODES[1:]}), ["1*16"]) == {"1*16": "unknown"}


def test_the_published_trials_fall_into_the_published_regimes() -> None:
    """From the published means and spreads, two trials a cell that have both: 11, 24, 17 and 46."""
    table = pd.read_csv("reproduction/published/simplemlp.tsv", sep="\t")
    made = [
        row(cell.arch, cell.mode, seed, [round(100 * value)])
        for cell in table.itertuples()
        for seed, value in enumerate([cell.min, cell.max, *[(10 * cell.mean - cell.min - cell.max) / 8] * 8])
    ]
    found = regimes(cells_of(build_frame(made)), ARCHS)
    alike = sum(found[cell.arch] == cell.regime for cell in table.drop_duplicates("arch").itertuples())
    assert alike >= 95  # spreads of single trials are not published


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seed": 0}, "1\\*16 none seed 0 in more than one setting"),
        ({"family": "resmlp"}, "more than one family: resmlp, simplemlp"),
        ({"zero_r": 11.35}, "got zero_r 11.02 and 11.35"),
        ({"study": "other"}, "more than one study: ablation, other"),
    ],
)
def test_what_cannot_share_a_figure_is_refused(changes: dict[str, object], named: str) -> None:
    """In one line that says what and what to do."""
    made = [row("1*16", "none", 0, [9000]), row("1*16", "none", 1, [9000]) | {"id": "b"} | changes]
    with pytest.raises(UserError, match=named):
        cells_of(build_frame(made))


def test_a_page_without_a_finished_trial_has_no_empty_figures() -> None:
    """Dots and heat maps of trials that all diverged were empty frames."""

    def drawn(archs: tuple[str, ...], *correct: int) -> list[str]:
        status = {} if correct else {"status": "diverged"}
        made = build_frame([row(arch, "none", seed, correct, **status) for arch in archs for seed in (0, 1)])
        return [name for name, _ in overview(made, archs, ASYMMETRIC)]

    assert drawn(FEW, 9000) == ["accuracy_dots", "heatmaps"]
    assert drawn(FEW) == []
    assert drawn(ARCHS) == ["design_space"]
