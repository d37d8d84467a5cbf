"""Pictures that fit their data: what a reader could misread, or would have to search for, is not drawn so."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up_frames import ARCHS, ASYMMETRIC, FEW, frame, row
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from psa.analysis.frame_schema import build_frame
from psa.analysis.stats import summary
from psa.reports.ablation import report
from psa.reports.ablation.architectures import by_size, parameters_of
from psa.reports.ablation.cells import cells_of
from psa.reports.ablation.figures.dots import dot_figure
from psa.reports.ablation.figures.figure_set import MANY, comparison, heat_maps, overview
from psa.reports.ablation.figures.heatmaps import heat_map_figure, heat_panels
from psa.reports.ablation.figures.size_map import matching_map
from psa.reports.ablation.figures.winner_map import strategy_map
from psa.reports.ablation.numbers import notes_of
from psa.reports.activations.arms import Arm
from psa.reports.activations.comparison import comparison_figure
from psa.reports.activations.curves import curve_figures, lines_of, natural_key, share_range, threshold_figure
from psa.reports.activations.run_figures import run_curves
from psa.reports.activations.temperatures import temperature_figure
from psa.reports.activations.text import ActivationResults, identical_arms_text
from psa.reports.contract import ReportContext
from psa.reports.glonet.figures.accuracy import accuracy_figure
from psa.reports.glonet.figures.curves import curves_figure, trained_depths
from psa.reports.glonet.networks import GlonetResults, Network, Trained
from psa.reports.memory.figures import figures_of
from psa.reports.plotting.style import WIDTH, content_box, footnote, new_figure, notes_in, plot_style, save
from psa.specs.training import MODES


def texts(figure: Figure) -> list[str]:
    """Everything that is written into a figure."""
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


# Few architectures and many


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_numbers_below_a_heat_map_do_not_overlap(count: int) -> None:
    """A page may show a single mode, whose panel is one cell wide."""
    modes = MODES[:count]
    made = [row("1*16", mode, seed, [9000 + 7 * at]) for at, mode in enumerate(modes) for seed in (0, 1)]
    figure = heat_map_figure(cells_of(build_frame(made)), ["1*16"])
    renderer = FigureCanvasAgg(figure).get_renderer()  # type: ignore[no-untyped-call]
    figure.draw(renderer)
    bars = [ax for ax in figure.axes if ax.get_xlabel()]
    assert len(bars) == (2 if count == 1 else 3)
    texts = [*(ax.get_xticklabels() for ax in bars), [ax.xaxis.label for ax in bars]]
    for line in texts:
        boxes = [text.get_window_extent(renderer) for text in line]
        assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))


def test_few_architectures_are_shown_as_dots_and_heat_maps() -> None:
    """Two points on a plane of depth and width say nothing; of many the plane shows where they lie."""
    assert [name for name, _ in overview(frame(seeds=1, loops=2), FEW, ())] == ["accuracy_dots", "heatmaps"]
    many = ARCHS[:MANY]
    named = [name for name, _ in overview(frame(many, 3, 2), many, ASYMMETRIC, ("full",), ARCHS)]
    assert {"design_space", "heatmaps", "baseline_performance", "winning_strategy", "regimes"} <= set(named)
    assert "accuracy_dots" not in named
    # of two seeds every mark on maps of effects, winners, spreads and regimes would be unknown
    named = [name for name, _ in overview(frame(many, 2, 2), many, ASYMMETRIC, ("full",), ARCHS)]
    assert named == ["design_space", "heatmaps", "baseline_performance", "parameter_matching"]


def test_a_cell_of_a_heat_map_holds_its_number() -> None:
    """Architecture by mode, sorted by size; the panels are mean, difference from none, and spread."""
    rows = frame()
    cells = cells_of(rows)
    figure = next(heat_maps(rows, FEW))[1]
    first, *others = [ax for ax in figure.axes if ax.images]
    assert [label.get_text() for label in first.get_yticklabels()] == by_size(FEW)
    assert [label.get_text() for label in first.get_xticklabels()] == list(MODES)
    assert [len(ax.get_xticklabels()) for ax in others] == [5, 6]
    grid = np.array([text.get_text() for text in first.texts]).reshape(len(FEW), len(MODES))
    for at, arch in enumerate(by_size(FEW)):
        means = [cells.cell(arch, mode).summary.mean for mode in MODES]
        assert list(grid[at]) == [f"{mean:.2f}" for mean in means]
    spread = others[1].texts[0].get_text()
    assert spread == f"{cells.cell('1*16', 'none').bounties.std(ddof=1):.2f}"


def test_a_heat_map_marks_winners_and_what_has_no_trial() -> None:
    """Bold is the best mean of a row that beats ZeroR; a cell without a trial is no number."""
    made = [row("1*16", "none", seed, [9000 + seed]) for seed in range(3)]
    made += [row("1*16", "full", seed, [9100 + seed]) for seed in range(3)]
    made += [row("2*2", "none", seed, [900]) for seed in range(3)] + [row("2*2", "full", 0)]
    figure = heat_map_figure(cells_of(build_frame(made)), ["2*2", "1*16"])
    first = next(ax for ax in figure.axes if ax.images)
    written = [(text.get_text(), text.get_fontweight()) for text in first.texts]
    assert written == [("90.01", "normal"), ("91.01", "bold"), ("9.00", "normal"), ("·", "normal")]


def test_the_differences_of_a_heat_map_are_those_from_none() -> None:
    """On a scale that is as long to both sides, so that white is 0."""
    panel = heat_panels(cells_of(frame()), by_size(FEW))[1]
    cells = cells_of(frame())
    one = cells.cell("1*16", "full").summary.mean - cells.cell("1*16", "none").summary.mean
    assert panel.values[0][panel.modes.index("full")] == pytest.approx(one)
    assert panel.norm.vmin == -panel.norm.vmax
    assert panel.norm(0) == pytest.approx(0.5)


def test_a_dot_plot_has_no_interval_of_two_trials() -> None:
    """Two numbers have no interval worth drawing; both are there as marks, within 0 and 100 %."""
    made = [row("1*16", "none", seed, [9000 + 10 * seed]) for seed in range(2)]
    made += [row("1*16", "full", seed, [9990 + 2 * seed]) for seed in range(3)]
    figure = dot_figure(cells_of(build_frame(made)), ["1*16"])
    lines = {str(line.get_gid()): line for line in figure.axes[0].lines}
    assert "interval none" not in lines
    assert list(lines["trials none"].get_xdata()) == [90.0, 90.1]
    assert max(lines["interval full"].get_xdata()) <= 100
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["1*16 (12,730)"]


def test_rows_are_sorted_by_size_in_tables_and_figures(tmp_path: Path) -> None:
    """The order of a list of the study looks like a mistake: 1*2, 1*1, 256*1, ..., 2*1."""
    rows = frame(("256*1", "1*2", "10*10", "1*1", "2*30"), 2, 3)
    order = ["1*1", "1*2", "2*30", "10*10", "256*1"]
    made = report.tables(rows, ReportContext(tmp_path, order=ARCHS))
    for name in ("architectures", "accuracies", "paired", "regimes"):
        assert list(dict.fromkeys(line[0] for line in made[name].rows)) == order
    figure = dot_figure(cells_of(rows), ["256*1", "1*2", "10*10", "1*1", "2*30"])
    assert [each.get_text().split()[0] for each in figure.axes[0].get_yticklabels()] == order


# Maps


def test_a_tie_is_a_number_of_modes() -> None:
    """A pie of twenty pixels with six slots cannot be read at any size."""
    made = [
        row("1*16", mode, seed, [9000 if mode in ("none", "decay") else 8000 + seed])
        for mode in MODES
        for seed in range(3)
    ]
    figure = strategy_map(cells_of(build_frame(made)), ["1*16"])
    marks = [each for each in figure.axes[0].collections if isinstance(each, PathCollection)]
    assert len(marks) == 2
    ring, digit = (each.get_paths()[0] for each in marks)
    assert len(ring.vertices) > 4
    assert not np.array_equal(ring.vertices, digit.vertices)
    assert "tie of so many modes (1)" in texts(figure)
    assert not any("slot" in text for text in (*texts(figure), *notes_in(figure)))


def test_an_architecture_without_a_partner_does_not_fail_to_match() -> None:
    """The table has n/a there, and the figure a mark of its own."""
    archs = ("1*16", "2*16", "3*3")
    figure = matching_map(archs, lambda arch: parameters_of("simplemlp", arch), (), ARCHS)
    assert "Matched, no partner to match (1)" in texts(figure)
    assert not any("but not within" in text and "3" in text for text in texts(figure))


# Panels


def test_no_panel_holds_only_a_sentence() -> None:
    """What has no trial has no panel: modes without a published cell, architectures without a loop."""
    rows = build_frame([row("1*16", "none", seed, [9000 + seed, 9100]) for seed in range(3)])
    assert [ax.get_title() for ax in next(heat_maps(rows, ["1*16"]))[1].axes if ax.images] == ["", ""]
    published = read()
    found = dict(comparison(rows, published))
    assert [ax.get_title().split("\n")[0] for ax in found["published_differences"].axes] == ["none"]


def read() -> object:
    """The published numbers."""
    from paths import ROOT

    from psa.analysis.published import read_reference

    return read_reference(ROOT / "reproduction/published/simplemlp.tsv")


def results(
    depths: dict[str, tuple[int, ...]], loss: float = 1.0, widths: tuple[int, ...] = (4,)
) -> GlonetResults:
    """Networks with these depths per model, of three seeds and four epochs."""
    made = {}
    for features in widths:
        for model, layers in depths.items():
            for depth in layers:
                curve = np.array([loss, 1.0, 0.5, 0.1])[None] * np.array([[1.0], [1.1], [1.2]])
                accuracies = np.array([[20.0, 50, 80, 90 + seed] for seed in range(3)])
                made[Network(features, depth, model)] = Trained(
                    Network(features, depth, model), ("a", "b", "c"), ("done",) * 3, 100,
                    accuracies[:, -1], accuracies[:, -1] - depth, accuracies, curve, curve,
                )  # fmt: skip
    return GlonetResults((0, 1, 2), made, 11.0, 10_000, (4,), {"done": 3 * len(made)})


def drawn(figure: Figure) -> list[Axes]:
    """The panels, laid out."""
    figure.draw_without_rendering()
    return list(figure.axes)


def test_losses_over_sixteen_decades_have_numbers_on_every_axis() -> None:
    """A network without residual paths reached 2.9e16, and none of its panels had a tick."""
    found = results({"GloNet": (3, 4), "ResMLP": (3, 50)}, loss=2.9e16)
    for ax in drawn(curves_figure(found, 4, trained_depths(found, 4))):
        assert len([label for label in ax.get_yticklabels() if label.get_text()]) >= 2


@pytest.mark.parametrize(("low", "line"), [(94.0, False), (30.0, True)])
def test_curves_of_accuracies_fill_their_panel(low: float, line: bool) -> None:
    """Networks of 6 to 24 layers were one line at the upper end of an axis from 0 to 100."""
    found = results({"GloNet": (3,), "MLP": (3,)})
    for network, each in found.trained.items():
        curves = np.linspace(low, 97.0 if network.model == "MLP" else 97.4, 4)[None].repeat(3, axis=0)
        found.trained[network] = replace(each, accuracies=curves)  # type: ignore[index]
    ax = curves_figure(found, 4, trained_depths(found, 4)).axes[2]
    bottom, top = ax.get_ylim()
    assert ("zero_r" in [each.get_gid() for each in ax.lines]) == line
    assert bottom < (11.0 if line else low)
    assert top > 97.4
    assert 97.4 - low > (0.65 if line else 0.85) * (top - bottom)
    assert len([label for label in ax.get_yticklabels() if label.get_text()]) >= 2


def test_only_depths_that_were_trained_have_panels() -> None:
    """With one network of width 256 eleven of twelve panels said that there was no trial."""
    found = results({"GloNet": (3,)})
    found.trained[Network(8, 6, "GloNet")] = next(iter(found.trained.values()))  # type: ignore[index]
    assert trained_depths(found, 4) == [3]
    figure = curves_figure(found, 4, trained_depths(found, 4))
    assert len(figure.axes) == 3
    assert not any("no trial" in text for text in texts(figure))


def test_no_panel_of_the_enlarged_row_is_empty() -> None:
    """The enlarged row is left out for a width without a mean near the best one."""
    far = results({"GloNet": (3, 4)}, widths=(4, 8))
    for layers in (3, 4):
        network = Network(8, layers, "GloNet")
        far.trained[network] = replace(far.trained[network], test=np.full(3, 40.0))  # type: ignore[index]
    figure = accuracy_figure(far)
    assert len(figure.axes) == 2
    assert not any("enlarged" in note for note in notes_in(figure))


def test_captions_of_depths_say_of_one_width_what_holds_for_it() -> None:
    """One panel shares its axes with no other; bars leave the enlarged range at its upper end as well."""
    one, two = results({"GloNet": (3, 4)}), results({"GloNet": (3, 4)}, widths=(4, 8))
    assert not any("share their axes" in note for note in notes_in(accuracy_figure(one)))
    assert any("share their axes" in note for note in notes_in(accuracy_figure(two)))
    assert any("What lies outside the enlarged range" in note for note in notes_in(accuracy_figure(one)))


def test_the_panels_of_depths_share_their_axes_and_say_so() -> None:
    """In each row; the enlarged row shows no interval whose mean is below it, but its line goes on there: one
    from 24 to 60 layers would say that 50 are between them.
    """
    found = results({"GloNet": (3, 4), "MLP": (3, 80)}, widths=(4, 8))
    figure = accuracy_figure(found)
    assert len(figure.axes) == 4
    for row_of_panels in (figure.axes[:2], figure.axes[2:]):
        assert len({ax.get_ylim() for ax in row_of_panels}) == 1
    low, _ = figure.axes[2].get_ylim()
    below = 0
    for container in figure.axes[2].containers:
        means, bars = np.asarray(container[0].get_ydata(), dtype=float), container[2][0].get_segments()
        assert len(means) == 2
        assert [np.ptp(bar[:, 1]) > 0 for bar in bars] == [value >= low for value in means]
        below += int((means < low).sum())
    assert below == 1
    assert any("share their axes" in note for note in notes_in(figure))


def test_the_caption_of_the_enlarged_row_names_trials_inside_its_range_that_it_hides() -> None:
    """A trial of 88.1 % lies inside a range that its mean of 59 % is below, and has no dot there."""
    found = results({"GloNet": (3, 4)})
    assert not any("each mean below it" in note for note in notes_in(accuracy_figure(found)))
    deep = Network(4, 4, "GloNet")
    tests = np.array([30.0, 60.0, 88.1])
    found.trained[deep] = replace(found.trained[deep], test=tests)  # type: ignore[index]
    figure = accuracy_figure(found)
    low, high = figure.axes[1].get_ylim()
    assert low <= tests[2] <= high
    dots = [line.get_ydata() for line in figure.axes[1].lines if line.get_marker() == "."]
    assert [len(values) for values in dots] == [3, 0]
    assert any("the trials of each mean below it" in note for note in notes_in(figure))


def ends_of_marks(ax: Axes) -> list[float]:
    """The ends of all intervals, and all trials, in a panel of depths."""
    drawn = [segment[:, 1] for lines in ax.collections for segment in lines.get_segments() if len(segment)]
    bars = [ends for ends in drawn if np.ptp(ends) > 0]  # a mean without an interval has a bar of no length
    dots = [np.asarray(line.get_ydata(), dtype=float) for line in ax.lines if line.get_marker() == "."]
    return [float(end) for values in (*bars, *dots) for end in values if not np.isnan(end)]


def test_the_enlarged_range_includes_the_intervals_and_trials_of_its_means() -> None:
    """One network that reaches far below the others does not stretch the range, unless its mean is in it."""
    found = results({"GloNet": (3, 4), "MLP": (3, 4)})
    tests = {("GloNet", 3): [97.3, 97.5, 97.6], ("GloNet", 4): [97.3, 97.4, 97.2]}
    tests |= {("MLP", 3): [96.2, 97.2, 97.2], ("MLP", 4): [82.0, 91.0, 91.9]}
    for (model, layers), values in tests.items():
        network = Network(4, layers, model)
        found.trained[network] = replace(found.trained[network], test=np.array(values))  # type: ignore[index]
    lower = accuracy_figure(found).axes[1]
    low, high = lower.get_ylim()
    assert all(low <= end <= high for end in ends_of_marks(lower))
    assert (95 < low < 95.4, 98.2 < high < 98.8) == (True, True)
    assert min(ends_of_marks(lower)) == pytest.approx(summary([96.2, 97.2, 97.2]).low)
    near = Network(4, 4, "MLP")
    found.trained[near] = replace(found.trained[near], test=np.array([89.0, 99.5, 99.5]))  # type: ignore[index]
    lower = accuracy_figure(found).axes[1]
    low, high = lower.get_ylim()
    assert 89.0 in ends_of_marks(lower)
    assert all(low <= end <= high for end in ends_of_marks(lower))


def arm(name: str, *tests: float) -> Arm:
    """An arm of these test accuracies in percent, one per seed."""
    columns = {"id": [f"{name}{seed}" for seed in range(len(tests))], "seed": range(len(tests))}
    rows = pd.DataFrame({**columns, "status": "done", "test": tests, "bounty": tests, "zero_r": 11.0})
    return Arm({"activation": name, "arch": "1*4"}, rows, tuple(range(len(tests))))


def test_enlarged_arms_have_a_mark_each_and_are_more_than_two() -> None:
    """A bar without its mark cannot be read, and a panel with one mark is an empty one."""
    near = [arm("a", 89.0, 90.0, 91.0), arm("b", 89.5, 90.5, 91.5), arm("c", 88.0, 90.0, 92.0)]
    far = arm("far", 40.0, 70.0, 91.0)
    figure = comparison_figure([*near, far], ["activation"])
    whole, enlarged = figure.axes
    for ax, count in ((whole, 4), (enlarged, 3)):
        marks = [line for line in ax.lines if str(line.get_gid()).startswith("test ")]
        low, high = ax.get_xlim()
        assert len(marks) == count
        assert all(low <= float(np.ravel(mark.get_xdata())[0]) <= high for mark in marks)
    assert any("enlarged" in note for note in notes_in(figure))
    few = comparison_figure([*near[:2], far], ["activation"])
    assert len(few.axes) == 1
    assert not any("enlarged" in note for note in notes_in(few))


@pytest.mark.parametrize("lowest", [97.0, 80.0, 60.0, 11.0])
def test_no_scale_of_test_accuracies_has_a_mark_of_another_split(lowest: float) -> None:
    """Constant predictors of 11.35 % stood above a line at 10.88 %, what ZeroR scores on validation."""
    arms = [arm("a", lowest, lowest, lowest), arm("b", 96.0, 96.5, 97.0)]
    every = [replace(each, settings=each.settings | {"temperature": 0.1}) for each in arms]
    figures = [
        comparison_figure(arms, ["activation"]),
        temperature_figure(every, ["activation", "temperature"]),
        accuracy_figure(results({"GloNet": (3, 80)})),
    ]
    for figure in figures:
        assert not any("ZeroR" in text for text in (*texts(figure), *notes_in(figure)))
        assert "zero_r" not in [line.get_gid() for ax in figure.axes for line in ax.lines]
    low, high = figures[0].axes[0].get_xlim()
    least = min(lowest, arms[1].summary("test").low)
    assert 0 < least - low < 0.1 * (high - low)


@pytest.mark.parametrize("test", [97.0, 5.0])
def test_a_single_trial_has_a_scale(test: float) -> None:
    """Its range is empty."""
    low, high = comparison_figure([arm("a", test)], ["activation"]).axes[0].get_xlim()
    assert low < test < high


def test_arms_that_are_equal_to_the_last_bit_are_named() -> None:
    """Their curves hide each other; one number that differs makes them two."""
    arms = [arm(name, 90.0, 91.0) for name in ("a", "b", "c")]
    found = ActivationResults(pd.DataFrame(), (), ("activation",), arms, 11.0, None)
    loops = pd.DataFrame(
        [
            {"id": name, "loop": loop, "accuracy": 50.0 + loop, "loss": 1.0, "train_loss": 1.0}
            for each in arms
            for name in each.ids
            for loop in (1, 2)
        ]
    )
    loops.loc[loops["id"] == "c1", "loss"] = 1.0 + 2.0**-52
    (told,) = identical_arms_text(found, loops)
    assert told.endswith("hide each other: a = b.")
    loops.loc[loops["id"] == "b0", "accuracy"] = 60.0
    assert list(identical_arms_text(found, loops)) == []


@pytest.mark.parametrize(("count", "single"), [(4, True), (5, False)])
def test_the_curves_of_many_arms_are_means_alone(count: int, single: bool) -> None:
    """Up to four arms of a panel have a thin line per seed, and the caption says which it is."""
    arms = [
        Arm({"activation": name, "dropout": at / 10}, arm(f"{name}{at}", 90.0, 91.0).rows, (0, 1))
        for name in ("ReLU", "Tanh")
        for at in range(count)
    ]
    loops = pd.DataFrame(
        [
            {"id": name, "loop": loop, "accuracy": 50.0 + loop}
            for each in arms
            for name in each.ids
            for loop in (1, 2)
        ]
    )
    keys = ["activation", "dropout"]
    made = curve_figures(arms, keys, loops, {"accuracy": "validation"}, "accuracy (%)")
    for _, figure in made:
        lines = sum(len(ax.lines) for ax in figure.axes)
        assert lines == 2 * count * (3 if single else 1)
        assert notes_in(figure)[0].startswith("Thin: every seed" if single else "Lines: means over seeds")


def test_curves_of_arms_share_their_axes_and_their_names_are_whole() -> None:
    """Losses on a logarithmic axis where one arm is thirty times the other."""
    figure = new_figure(2)
    one, other = figure.subplots(1, 2)
    one.plot([1, 2, 3], [0.1, 0.2, 0.3])
    other.plot([1, 2], [50.0, 90.0])
    share_range([one, other], log=True)
    assert one.get_ylim() == other.get_ylim()
    assert one.get_xlim() == other.get_xlim()
    assert one.get_yscale() == "log"
    assert len(one.get_yticks()) >= 2
    name = "DecayingFixedRescaledJumpReLU(schedule=cosine), dropout 0.1"
    assert "".join(lines_of(name, 27).split()) == "".join(name.split())
    assert all(word in lines_of(name, 27).split() for word in ("DecayingFixedRescaledJumpReLU", "dropout"))


def test_names_with_numbers_are_in_their_natural_order() -> None:
    """hidden.2 before hidden.16."""
    names = [f"hidden.{at}" for at in (16, 2, 1, 10)]
    assert sorted(names, key=natural_key) == ["hidden.1", "hidden.2", "hidden.10", "hidden.16"]
    rows = [
        {"id": "a", "loop": loop, "index": 0, "place": name, "value": 0.1}
        for name in names
        for loop in (0, 1)
    ]
    figure = threshold_figure({"": pd.DataFrame(rows)})
    assert [text.get_text() for text in figure.legends[0].get_texts()] == sorted(names, key=natural_key)


# Names, legends and notes


LONG = (
    "hybrid growing 784-128,1*64, site=late, eviction=least_recently_used, retrieval=cosine, capacity=4096, "
    "gate=0.25"
)


def runs(arms: tuple[str, ...] = ("nn 1*64", LONG), seeds: int = 3) -> pd.DataFrame:
    """The runs of a memory and a plain network in two stages."""
    made = []
    for stage in ("a", "b"):
        for arm in arms:
            for seed in range(seeds):
                memory = arm.startswith("hybrid")
                share = 50.0 if memory else np.nan
                made.append(
                    {
                        "id": f"{stage}{arm}{seed}",
                        "stage": stage,
                        "arm": arm,
                        "seed": seed,
                        "method": "hybrid" if memory else "nn",
                        "test": 90.0 + seed,
                        "validation": 91.0 + seed,
                        "helped": share,
                        "harmed": 0.8 * share,
                        "strong_help": 0.1 * share,
                        "strong_harm": 0.2 * share,
                        "relative": 0.09 if memory else np.nan,
                        "footprint": 0.11 if memory else np.nan,
                        "throughput": 1e5 + seed,
                    }
                )
    return pd.DataFrame(made)


def figures(found: pd.DataFrame) -> Iterator[tuple[str, Figure]]:
    """The figures of some runs."""
    return figures_of(found, found[found["stage"] == "b"], None, None)


def test_the_names_of_arms_are_never_cut() -> None:
    """They take several lines and as much width as they need; the picture is one page wide."""
    made = dict(figures(runs()))
    assert set(made) == {
        "test_accuracy", "first_stage_validation", "helped_and_harmed", "cost_of_the_memory",
        "size_of_the_effect",
    }  # fmt: skip
    for name in ("test_accuracy", "first_stage_validation", "helped_and_harmed", "size_of_the_effect"):
        figure = made[name]
        labels = figure.axes[0].get_yticklabels()
        assert " ".join(LONG.split()) in {" ".join(label.get_text().split()) for label in labels}
        with plot_style():
            figure.draw_without_rendering()
            assert min(label.get_window_extent().x0 for label in labels) >= 0
            assert content_box(figure).width == pytest.approx(WIDTH, abs=0.02)


def test_effects_of_different_sizes_are_on_a_logarithmic_axis() -> None:
    """One arm that moves vectors a thousand times as far pressed all others onto 0. An arm that moves none
    has a place, too; effects of one size stay on a linear axis, and so does accuracy.
    """
    made = runs(("nn 1*64", "hybrid 1*64", "hybrid far", "hybrid idle"))
    assert dict(figures(made))["size_of_the_effect"].axes[0].get_xscale() == "linear"
    of_arm = {"hybrid 1*64": 2e-5, "hybrid far": 0.08, "hybrid idle": 0.0}
    apart = made.assign(relative=made["arm"].map(of_arm))
    drawn = dict(figures(apart))
    ax = drawn["size_of_the_effect"].axes[0]
    names = [label.get_text() for label in ax.get_yticklabels()]
    means = {
        names[round(line.get_ydata()[0])]: line.get_xdata()[0]
        for line in ax.lines
        if line.get_markersize() > 5
    }
    places = {
        name: ax.transAxes.inverted().transform(ax.transData.transform((x, 0)))[0]
        for name, x in means.items()
    }
    assert 0 < places["hybrid idle"] < places["hybrid 1*64"] - 0.1 < places["hybrid far"] - 0.5 < 0.5
    assert ax.get_xticks()[0] == 0
    assert any("The axis is logarithmic" in note for note in notes_in(drawn["size_of_the_effect"]))
    assert drawn["test_accuracy"].axes[0].get_xscale() == "linear"


def test_a_name_that_is_too_wide_makes_the_picture_wider(tmp_path: Path) -> None:
    """It would be lost at the edge otherwise."""
    with plot_style():
        figure = new_figure(1)
        figure.text(-0.5, 0.5, "a name that begins far at the left of the figure")
        assert content_box(figure).x0 < -3.5
    png = save(figure, tmp_path / "wide")[0].read_bytes()
    assert int.from_bytes(png[16:20], "big") > 300 * (WIDTH + 3.5)


def test_arms_have_intervals_and_those_that_went_on_are_marked() -> None:
    """From three seeds on."""
    with plot_style():
        made = dict(figures(runs()))
    assert sum(line.get_gid() == "interval" for line in made["test_accuracy"].axes[0].lines) == 2
    weights = {label.get_fontweight() for label in made["first_stage_validation"].axes[0].get_yticklabels()}
    assert weights == {"bold"}
    assert "Bold: arms that went on" in notes_in(made["first_stage_validation"])[0]
    few = dict(figures(runs(seeds=2)))
    assert not any(line.get_gid() == "interval" for line in few["test_accuracy"].axes[0].lines)


def test_legends_stand_below_the_panels() -> None:
    """Within one, a mark of the legend reads as a point of the data."""
    stats = {
        "curves": {
            "epoch": [1, 2, 3], "val_loss": [1.0, 0.5, 0.4], "train_loss": [1.0, 0.6, 0.3],
            "val_acc": [50.0, 80.0, 90.0], "train_acc": [50.0, 82.0, 93.0],
        },
        "final_metrics": {"best_epoch": 3, "diverged": False, "test_acc": 90.0},
    }  # fmt: skip
    for figure in (dict(figures(runs()))["cost_of_the_memory"], run_curves(stats, "one")):
        with plot_style():
            figure.draw_without_rendering()
        assert figure.legends
        assert not any(ax.get_legend() for ax in figure.axes)
        for legend in figure.legends:
            box = legend.get_window_extent()
            assert all(not box.overlaps(ax.get_tightbbox()) for ax in figure.axes)


def test_costs_share_the_axis_of_accuracy_and_begin_at_zero() -> None:
    """An axis from 0.108 to 0.118 for one value exaggerates rounding."""
    left, right = dict(figures(runs()))["cost_of_the_memory"].axes
    assert left.get_ylim() == right.get_ylim()
    assert left.get_xlim()[0] == right.get_xlim()[0] == 0


def test_notes_are_a_caption_and_no_part_of_the_picture(tmp_path: Path) -> None:
    """On a phone they would be dust. They lie beside the picture, as text."""
    with plot_style():
        figure = new_figure(2)
        figure.add_subplot().plot([1, 2])
        footnote(figure, ["n = 3.", "", "Bars: intervals."])
    assert not any("n = 3" in text for text in texts(figure))
    png, pdf, notes = save(figure, tmp_path / "one")
    assert (png.suffix, pdf.suffix, notes.read_text()) == (".png", ".pdf", "n = 3.\nBars: intervals.\n")
    assert len(save(new_figure(1), tmp_path / "none")) == 2


@pytest.mark.parametrize(("seeds", "intervals"), [(2, False), (3, True)])
def test_notes_explain_what_a_figure_shows(seeds: int, intervals: bool) -> None:
    """Neither bars, bold numbers nor dots that are not there."""
    made = [row("1*16", mode, seed, [9000 + seed]) for mode in ("none", "full") for seed in range(seeds)]
    cells = cells_of(build_frame(made))
    dots = " ".join(notes_in(dot_figure(cells, ["1*16"])))
    assert ("Bars: 95 % t intervals of the mean" in dots) == intervals
    assert ("No intervals: they need at least 3 seeds." in dots) != intervals
    heat = " ".join(notes_in(heat_map_figure(cells, ["1*16"])))
    assert ("bold are the highest mean" in heat) == intervals
    assert ("differences whose 95 % interval" in heat, "Dotted" in heat) == (False, False)
    assert "sample standard deviations" in heat
    single = cells_of(build_frame(made[::seeds]))
    assert "sample standard deviations" not in " ".join(notes_in(heat_map_figure(single, ["1*16"])))
    lacking = cells_of(build_frame([*made[:-seeds], row("1*8", "full", 0, [9000])]))
    assert "Dotted: too few trials." in " ".join(notes_in(heat_map_figure(lacking, ["1*16", "1*8"])))


def test_bold_means_are_those_that_the_caption_names() -> None:
    """Of enough trials and above ZeroR, which a constant answer reaches; no other is bold."""
    made = [
        row(arch, mode, seed, [count])
        for arch, count, seeds in (("1*8", 9000, 3), ("1*16", 9500, 2), ("8*1", 1000, 3))
        for mode, more in (("none", 0), ("full", 50))
        for seed, count in enumerate([count + more] * seeds)
    ]
    cells = cells_of(build_frame(made))
    bold = heat_panels(cells, ["1*8", "1*16", "8*1"])[0].bold
    assert bold.tolist() == [[False, True], [False, False], [False, False]]
    said = " ".join(" ".join(notes_in(heat_map_figure(cells, ["1*8", "1*16", "8*1"]))).split())
    assert "of modes with 3 or more trials and only where it is above ZeroR" in said


def test_captions_tell_a_mode_without_results_from_one_without_trials() -> None:
    """A mode can be absent from a figure while other figures, or another grid, contain trials of it."""
    made = [row("1*8", "none", seed, [9000]) for seed in range(3)]
    made += [row("1*8", mode, seed) for mode in ("full", "hidden") for seed in range(3)]
    _, missing = notes_of(cells_of(build_frame(made)))
    assert "No trial of mode full, hidden has a result." in missing
    assert missing.endswith("This figure contains no trials of mode decay, dropout, output.")


def test_captions_count_cells_without_a_trial() -> None:
    """A cell that was requested and has none is among those counted; one that was not requested is not."""
    made = [row("1*8", mode, seed, [9000]) for mode in ("none", "full") for seed in range(3)]
    made += [row("1*16", "none", seed, [9000]) for seed in range(3)]
    first, missing = notes_of(cells_of(build_frame(made)))
    assert "3 per architecture and mode" in first
    assert missing.endswith(" 1 of the 4 combinations of architecture and mode has no trial.")
    made += [row("1*16", "full", seed) for seed in range(3)]
    first, missing = notes_of(cells_of(build_frame(made)))
    assert "; 0 to 3 per architecture and mode (2 architectures, 2 modes)" in first
    assert "Missing: 3 trials. " in missing
    assert "combinations" not in missing
