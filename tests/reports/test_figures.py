"""Every figure: its looks, its note, the same bytes each time, half of the data; and the commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from made_up_frames import ARCHS, ASYMMETRIC, FEW, ROOT, curve, frame, partial, row
from matplotlib.figure import Figure
from matplotlib.image import imread
from matplotlib.text import Text
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from psa.analysis.frame_schema import build_frame
from psa.analysis.published import read_reference
from psa.cli import app
from psa.cli.named import figures as commands
from psa.core.errors import UserError
from psa.reports.ablation.cells import cells_of
from psa.reports.ablation.effects import aggregate
from psa.reports.ablation.figures.aggregate import aggregate_figure
from psa.reports.ablation.figures.design_space import design_space_figure
from psa.reports.ablation.figures.dots import dot_figure
from psa.reports.ablation.figures.figure_set import breakthroughs, comparison, convergence, heat_maps, maps
from psa.reports.ablation.figures.published import agreement_figure, beside
from psa.reports.plotting.style import (
    MODE_LOOKS,
    REGIME_LOOKS,
    WIDTH,
    content_box,
    mode_handle,
    notes_in,
    plot_style,
    save,
)
from psa.specs.arch import Arch
from psa.specs.model import PublishedModelSpec
from psa.specs.training import MODES, Ablation, RatchetTraining
from psa.specs.trial import Trial
from psa.storage.store import Store

GOLDEN = ROOT.joinpath("tests", "golden_figures")
PUBLISHED = ROOT / "reproduction/published/simplemlp.tsv"
DRAWN_BY = "3.11"  # the version of poetry.lock; others place and smooth lines otherwise
DPI = 80
BLOCK = 8  # pixels: about the size of a mark
TOLERANCE = 10  # of 255, the mean of a block; edges that are smoothed otherwise change less
OKABE_ITO = {
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
}


def every_figure(rows: Any) -> dict[str, Figure]:
    """All that can be drawn of a frame of FEW."""
    published = read_reference(PUBLISHED)
    found = {"design_space": design_space_figure(ARCHS)}
    found |= {"accuracy_dots": dot_figure(cells_of(rows), FEW)} | dict(heat_maps(rows, FEW))
    found |= dict(maps(rows, FEW, ASYMMETRIC, ("full", "hidden", "output"), ARCHS))
    found |= dict(convergence(rows, ["1*1024", "18*18"]))
    found |= dict(breakthroughs(rows))
    found |= dict(comparison(rows, published))
    return found


@pytest.fixture(scope="module")
def whole() -> dict[str, Figure]:
    """The figures of complete data."""
    return every_figure(frame())


NAMES = (
    "design_space", "accuracy_dots", "heatmaps", "baseline_performance", "ablation_effects_full",
    "ablation_effects_hidden", "ablation_effects_output", "instability", "winning_strategy",
    "parameter_matching", "regimes",
    "plot_convergence", "plot_late_breakthroughs", "aggregate", "published_agreement",
    "published_differences",
)  # fmt: skip


def note(figure: Figure) -> str:
    """The notes of the figure's caption."""
    return " ".join(notes_in(figure))


@pytest.mark.slow
@pytest.mark.skipif(
    not mpl.__version__.startswith(f"{DRAWN_BY}."), reason=f"the pictures were drawn by {DRAWN_BY}"
)
@pytest.mark.parametrize("name", NAMES)
def test_figures_look_as_they_did(name: str, whole: dict[str, Figure], tmp_path: Path) -> None:
    """Beside pictures of themselves, without their letters, which FreeType draws.

    PSA_GOLDEN=write makes those pictures anew: look at them before you keep them.
    """
    figure = whole[name]
    shown = [text for text in figure.findobj(Text) if text.get_visible()]
    for text in shown:
        text.set_visible(False)
    drawn = tmp_path / f"{name}.png"
    with plot_style():
        figure.savefig(drawn, dpi=DPI, metadata={"Software": None})
    for text in shown:
        text.set_visible(True)
    golden = GOLDEN / f"{name}.png"
    if os.environ.get("PSA_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_bytes(drawn.read_bytes())
    assert largest_difference(imread(golden), imread(drawn)) < TOLERANCE


def largest_difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The mean difference within the block of pixels in which it is largest, of 255.

    Of whole pictures the mean would hide that a mark has changed.
    """
    assert one.shape == other.shape
    apart = 255 * np.abs(one - other)[:, :, :3].mean(axis=2)
    high, wide = (size // BLOCK * BLOCK for size in apart.shape)
    blocks = apart[:high, :wide].reshape(high // BLOCK, BLOCK, wide // BLOCK, BLOCK)
    return float(blocks.mean(axis=(1, 3)).max())


def test_every_figure_is_among_the_pictures(whole: dict[str, Figure]) -> None:
    """And no picture is of a figure that is gone."""
    assert set(whole) == set(NAMES) == {path.stem for path in GOLDEN.glob("*.png")}


@pytest.mark.parametrize("name", NAMES)
def test_every_figure_says_n(name: str, whole: dict[str, Figure]) -> None:
    """Of trials, or of architectures where there are no trials in it."""
    if name in ("design_space", "parameter_matching"):
        assert f"{98 if name == 'design_space' else len(FEW)} architectures" in note(whole[name])
    elif name == "plot_convergence":
        assert "n = 48 of 48 trials; 4 per architecture and mode" in note(whole[name])
    elif name == "plot_late_breakthroughs":  # its four panels show half of the architectures
        said = note(whole[name])
        assert "n = 96 of 96 trials; 4 per architecture and mode (4 architectures, 6 modes)" in said
    else:
        trials = 168 if name == "aggregate" else 192  # no trial of 8*2 beats ZeroR
        assert f"n = {trials} of {trials} trials; 4 per architecture and mode" in note(whole[name])
        assert "12 meta-loops" in note(whole[name])
        assert "Missing" not in note(whole[name])


@pytest.fixture(scope="module")
def half() -> dict[str, Figure]:
    """The figures of every other cell, without one mode, and with a trial that failed."""
    return every_figure(partial())


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "design_space"])
def test_half_of_the_data_gives_every_figure(name: str, half: dict[str, Figure]) -> None:
    """All that is missing is said, where trials are shown.

    Without a complete architecture nothing is averaged over all of them, and there is no figure of that.
    """
    assert ("aggregate" in half, len(half)) == (False, len(NAMES) - 1)
    if name == "aggregate":
        return
    if name != "parameter_matching":
        assert re.search(r"Missing: \d+ trials \(1 failed\)\. No trial of mode ", note(half[name]))
        assert "hidden" in note(half[name])
    half[name].draw_without_rendering()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_cut_off_and_nothing_meets(
    name: str, whole: dict[str, Figure], half: dict[str, Figure]
) -> None:
    """Axes with their numbers and names, legends and texts lie within the picture, which is one page wide."""
    for figure in [each[name] for each in (whole, half) if name in each]:
        figure.draw_without_rendering()
        wide, high = figure.bbox.size
        assert content_box(figure).width == pytest.approx(WIDTH, abs=0.01)
        parts = [ax.get_tightbbox() for ax in figure.axes]
        parts += [each.get_window_extent() for each in (*figure.legends, *figure.texts)]
        for box in parts:
            assert box is not None
            assert box.x0 >= -1
            assert box.x1 <= wide + 1
            assert box.y0 >= -1
            assert box.y1 <= high + 1


SAVED = """
import sys
from pathlib import Path
sys.path.insert(0, "tests/support")
from made_up_frames import frame
from psa.reports.ablation.figures.figure_set import convergence, maps
from psa.reports.plotting.style import save
from made_up_frames import ASYMMETRIC, FEW
for name, figure in [*maps(frame(), FEW, ASYMMETRIC), *convergence(frame(), ["1*1024", "18*18"])]:
    if name in ("winning_strategy", "plot_convergence"):
        save(figure, Path(sys.argv[1]) / name)
"""


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(tmp_path: Path) -> None:
    """Also in other processes that order sets otherwise, on another day."""
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder, order in zip(folders, ("1", "2"), strict=True):
        environment = os.environ | {"PYTHONHASHSEED": order, "SOURCE_DATE_EPOCH": f"{order}000000"}
        subprocess.run(
            [sys.executable, "-c", SAVED, str(folder)], cwd=ROOT, env=environment, check=True, timeout=300
        )
    contents = [{path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders]
    assert set(contents[0]) == {
        f"{name}.{kind}"
        for name in ("winning_strategy", "plot_convergence")
        for kind in ("png", "pdf", "txt")
    }
    assert contents[0] == contents[1]


@pytest.mark.slow
def test_a_file_embeds_its_fonts_and_tells_no_date(tmp_path: Path) -> None:
    """TrueType, since journals refuse Type 3; 300 dpi at the width of two columns."""
    rows = frame(("1*16", "2*30"), 2, 4)
    found = next(convergence(rows, ["1*16"]))[1]
    png, pdf, notes = save(found, tmp_path / "new" / "figure")
    assert notes.read_text().splitlines() == list(notes_in(found))
    content = pdf.read_bytes()
    assert b"/FontFile2" in content
    assert b"/Type3" not in content
    for word in (b"CreationDate", b"Producer", b"Matplotlib", b"matplotlib"):
        assert word not in content
        assert word not in png.read_bytes()
    assert int.from_bytes(png.read_bytes()[16:20], "big") == 2160


def test_the_settings_of_a_user_change_nothing(tmp_path: Path) -> None:
    """Nor does drawing change the settings of the user."""
    rows = frame(("1*16", "2*30"), 2, 4)
    plain = save(next(convergence(rows, ["1*16"]))[1], tmp_path / "plain")
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20, "pdf.fonttype": 3}):
        mine = save(next(convergence(rows, ["1*16"]))[1], tmp_path / "mine")
        assert mpl.rcParams["font.size"] == 30
    assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in mine]


def test_nothing_is_told_by_colour_alone() -> None:
    """Each mode has its colour of a set that is told apart, its marker and its line; regimes their marks."""
    assert tuple(MODE_LOOKS) == MODES
    for part in (0, 1, 2):
        assert len({look[part] for look in MODE_LOOKS.values()}) == len(MODES)
    assert {look.colour for look in MODE_LOOKS.values()} <= OKABE_ITO
    assert len({look.marker for look in REGIME_LOOKS.values()}) == len(REGIME_LOOKS)
    assert mode_handle("full").get_marker() == "^"


def test_read_reference_are_read_and_compared() -> None:
    """The interval of a difference is Welch's; without spread it is a point."""
    published = read_reference(PUBLISHED)
    assert len(published.cells) == 588
    wide = published.cells["1*2048", "none"]
    assert wide.sd == pytest.approx(0.059 * np.sqrt(10 / 9))
    counts = [9800, 9810, 9830]
    made = [row("1*2048", "none", seed, [count]) for seed, count in enumerate(counts)]
    made += [row("115*115", "none", seed, [1102]) for seed in range(3)]
    both = beside(published, cells_of(build_frame(made))).set_index("arch")
    assert both.loc["1*2048", "difference"] == pytest.approx(98.13333333 - 98.249)
    spread = np.std(counts, ddof=1) / 100
    test = scipy_stats.ttest_ind_from_stats(
        np.mean(counts) / 100, spread, 3, 98.249, wide.sd, 10, equal_var=False
    )
    low, high = (both.loc["1*2048", "difference"] + sign * both.loc["1*2048", "half"] for sign in (-1, 1))
    assert np.sign(low) == np.sign(high) if test.pvalue < 0.05 else low < 0 < high
    assert both.loc["115*115", ["difference", "half"]].tolist() == [0, 0]
    one = beside(published, cells_of(build_frame(made[:1])))
    assert one["half"].isna().all()


def test_the_axes_of_published_and_our_means_hold_their_intervals() -> None:
    """They ended at the means, which cut the bars; and the cells that an interval judges are counted."""
    made = [row("1*16", "none", seed, [count]) for seed, count in enumerate([3000, 5000, 7000])]
    cells = cells_of(build_frame([*made, row("1*8", "none", 0, [5500])]))
    both = beside(read_reference(PUBLISHED), cells)
    figure = agreement_figure(both, cells)
    low, high = figure.axes[0].get_ylim()
    held = cells.cell("1*16", "none").summary
    assert low < max(held.low, 0) < min(held.high, 100) < high
    assert "of 1 cell that has one" in note(figure)


def test_a_published_table_that_is_none_is_named(tmp_path: Path) -> None:
    """What is wrong and what it should be."""
    (tmp_path / "t.tsv").write_text("arch\tmode\n1*16\tnone\n")
    with pytest.raises(UserError, match=r"t\.tsv must have a column regime"):
        read_reference(tmp_path / "t.tsv")
    with pytest.raises(UserError, match=r"published numbers .*nowhere\.tsv do not exist"):
        read_reference(tmp_path / "nowhere.tsv")


def test_modes_are_compared_over_the_same_architectures() -> None:
    """One that lacks a seed, or learns nothing, is left out; where none is left, the figure says so."""
    rows = frame()
    gone = (rows["arch"] == "1*16") & (rows["mode"] == "full") & (rows["seed"] == 1)
    found = aggregate(cells_of(rows[~gone]), resamples=20)
    assert not cells_of(rows).above_zero_r("8*2")
    assert set(found.archs) == set(FEW) - {"1*16", "8*2"}
    assert list(found.means) == list(MODES)
    assert list(found.improvements) == list(MODES[1:])
    for each in (*found.means.values(), *found.improvements.values()):
        assert each.low <= each.value <= each.high
    nothing = cells_of(partial())
    assert not aggregate(nothing).means
    with pytest.raises(ValueError, match="complete architecture"):
        aggregate_figure(aggregate(nothing), nothing, "")
    assert [name for name, _ in comparison(partial(), None)] == []


def record(trial: Trial, correct: list[int]) -> dict[str, Any]:
    """A record of a trial with these validation counts."""
    kept = [count > max([-1, *correct[:at]]) for at, count in enumerate(correct)]
    nothing = [None] * len(correct)
    return {
        "id": trial.id,
        "digest": trial.digest,
        "spec": trial.model_dump(mode="json"),
        "built": {"family": trial.model.family, "arch": str(trial.model.arch), "parameters": 805},
        "device": "cpu",
        "samples": {"train": 50_000, "validation": 10_000, "test": 10_000, "zero_r_validation": 1102},
        "loops": len(correct),
        "history": {
            "loop": list(range(1, len(correct) + 1)),
            "mode": [trial.intervention.mode] * len(correct),
            "layer": nothing,
            "unit": nothing,
            "correct": correct,
            "loss": [1.0] * len(correct),
            "train_loss": [1.0] * len(correct),
            "kept": kept,
        },
        "events": [],
        "finals": {
            "bounty": {"correct": max(correct), "loop": correct.index(max(correct)) + 1},
            "test": {"correct": max(correct), "loss": 1.0},
            "stopped_early": False,
        },
    }


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of records of two architectures, and a grid that asks for a third."""
    folder = tmp_path_factory.mktemp("home")
    store = Store(folder / "models", folder / "results")
    for arch in ("1*16", "18*18"):
        for mode in MODES:
            for seed in range(2):
                trial = Trial(
                    model=PublishedModelSpec(
                        family="simplemlp", arch=Arch.coerce(arch), dropout=0.1 if mode == "dropout" else 0.0
                    ),
                    method=RatchetTraining(weight_decay=1e-4 if mode == "decay" else 0.0),
                    intervention=Ablation(mode=mode),
                    seed=seed,
                )
                store.write(trial, record(trial, curve(arch, mode, seed, 6)), {})
    (folder / "archs.txt").write_text("# some\n1*16\n18*18\n4*4 # no trial\n")
    (folder / "grid.toml").write_text(
        'meta_loops = 6\nseeds = "0..1"\n[base]\nfamily = "simplemlp"\nlr = 1e-4\nweight_decay = 1e-4\n'
        '[axes]\narch = ["1*16", "4*4"]\nmode = ["none", "full"]\n'
    )
    (folder / "trials.md").write_text(
        "### Architecture: 1*16\n\n| Trial | None | Full |\n|---|---|---|\n| 1 | 93.10% | 92.00% |\n"
        "| 2 | 93.20% | N/A |\n"
    )
    return folder / "results"


def called(function: Callable[..., int], *options: str) -> int:
    """Run a command as the shell would; its exit code."""
    return app.run(app.command("x", function), list(options))


SCRIPTS = (
    "make_design_space_figure", "make_figure_heatmaps", "make_convergence_plots",
    "make_late_breakthroughs", "make_comparison_figures",
)  # fmt: skip
COMMANDS: dict[str, tuple[Callable[..., int], list[str], set[str]]] = {
    "maps": (
        commands.make_figure_heatmaps,
        ["--config-file", "ARCHS", "--effects", "full", "output"],
        {
            "heatmaps", "baseline_performance", "ablation_effects_full", "ablation_effects_output",
            "instability", "winning_strategy", "parameter_matching", "regimes",
        },
    ),
    "published maps": (
        commands.make_figure_heatmaps,
        ["--config-file", "ARCHS", "--trials-file", "TRIALS"],
        {
            "heatmaps", "baseline_performance", "ablation_effects_full", "instability", "winning_strategy",
            "parameter_matching", "regimes",
        },
    ),
    "convergence": (
        commands.make_convergence_plots, ["--targets", "1*16,[18*18]", "--log"], {"plot_convergence"}
    ),
    "breakthroughs": (commands.make_late_breakthroughs, [], {"plot_late_breakthroughs"}),
    "grid": (commands.make_late_breakthroughs, ["--grid", "GRID"], {"plot_late_breakthroughs"}),
    "comparison": (commands.make_comparison_figures, [], {"aggregate"}),  # records unlike the published ones
    "current": (
        commands.make_convergence_plots, ["--targets", "1*16", "--current"], {"plot_convergence"}
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_write_png_and_pdf(
    name: str,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And a text file with the notes; they say where these are."""
    function, options, figures = COMMANDS[name]
    folder = results.parent
    places = {
        "ARCHS": str(folder / "archs.txt"), "TRIALS": str(folder / "trials.md"),
        "GRID": str(folder / "grid.toml"),
    }  # fmt: skip
    monkeypatch.chdir(ROOT)
    where = ["--results-dir", str(results), "--output-dir", str(tmp_path)]
    assert called(function, *[places.get(option, option) for option in options], *where) == 0
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {f"simplemlp_{figure}.{kind}" for figure in figures for kind in ("png", "pdf", "txt")}
    assert {Path(line).name for line in capsys.readouterr().out.split()} == files


def test_the_design_space_needs_no_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a list; the ending of the output file does not matter."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text("1*16\n2*8\n")
    command = commands.make_design_space_figure
    assert called(command, "--config-file", "a.txt", "--output-file", "out/space.png") == 0
    assert {path.name for path in Path("out").iterdir()} == {"space.png", "space.pdf", "space.txt"}
    assert called(command, "--config-file", "no.txt") == 2
    assert "--config-file: the list of architectures no.txt does not exist" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("function", "options", "named"),
    [
        (
            commands.make_convergence_plots,
            ["--targets", "7*7"],
            "--targets must name architectures with trials, got 7*7",
        ),
        (
            commands.make_convergence_plots,
            ["--targets", "seven"],
            "must be segments COUNT*WIDTH, got 'seven'",
        ),
        (
            commands.make_convergence_plots,
            ["--targets", " , "],
            "--targets must name an architecture, got none",
        ),
        (commands.make_late_breakthroughs, ["--family", "resmlp"], "--family must have trials, got resmlp"),
        (commands.make_late_breakthroughs, ["--study", "other"], "holds no record of other"),
        (commands.make_late_breakthroughs, ["--grid", "no.toml"], "no.toml"),
        (
            commands.make_figure_heatmaps,
            ["--config-file", "no.txt"],
            "--config-file: the list of architectures no.txt does not exist",
        ),
        (commands.make_figure_heatmaps, ["--effects", "none"], "effects"),
        (
            commands.make_figure_heatmaps,
            ["--trials-file", "no.md"],
            "the table of trials no.md does not exist",
        ),
        (
            commands.make_comparison_figures,
            ["--published-file", "no.tsv"],
            "the published numbers no.tsv do not exist",
        ),
    ],
)
def test_mistakes_are_one_line(
    function: Callable[..., int],
    options: list[str],
    named: str,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And exit code 2; no figure is written."""
    monkeypatch.chdir(ROOT)
    code = called(function, *options, "--results-dir", str(results), "--output-dir", str(tmp_path))
    error = capsys.readouterr().err
    assert code == 2
    assert named in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_commands_load_nothing_to_draw_with_until_they_draw() -> None:
    """Help and mistakes answer at once."""
    script = (
        "import sys, psa.cli.named.figures; "
        "print({'pandas', 'matplotlib', 'scipy', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_are_the_commands(name: str) -> None:
    """`python scripts/x.py --help` answers with its options."""
    script = ROOT / "scripts" / f"{name}.py"
    done = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=ROOT, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert script.stem.replace("_", "-") in done.stdout


@pytest.mark.slow
def test_convergence_of_the_published_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """--logs-dir draws the jobs of the published study, whose logs are all there is of their loops."""
    monkeypatch.chdir(tmp_path)
    job = tmp_path / "logs" / "psa-1x4-none-20250601-000000"
    job.mkdir(parents=True)
    lines = [
        f"Loop {loop}/3 (Global: {loop}) | Current: {10 + loop}.00% | LKG: {10 + loop}.00% | "
        f"Bounty: {10 + loop}.00%"
        for loop in (1, 2, 3)
    ]
    (job / "algo-1-1748736000.log").write_text("\n".join([*lines, "Final Test Accuracy: 12.00%"]))
    code = app.run(
        app.command("make-convergence-plots", commands.make_convergence_plots),
        ["--logs-dir", "logs", "--targets", "1*4"],
    )
    assert code == 0, capsys.readouterr().err
    assert (tmp_path / "results/reports/simplemlp_plot_convergence.png").is_file()
