"""Means that end in 5 are rounded as in the published tables."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_up_frames import row

from psa.analysis.frame_schema import build_frame
from psa.analysis.published import published_trials
from psa.reports.ablation.cells import Trials, cells_of
from psa.reports.ablation.markdown import convergence_markdown, lkg_markdown, summary_markdown
from psa.reports.ablation.tables import accuracy_table
from psa.specs.training import MODES

# All published cells in which the mean of counts is rounded otherwise than the published mean: architecture,
# mode, published mean, correct validation images of each trial.
CELLS = (
    ("1*8", "output", "89.07", (8896, 8892, 8865, 8952, 8963, 8857, 8822, 8922, 8944, 8952)),
    ("1*2", "hidden", "20.19", (2073, 2071, 1868, 1404, 2273, 1804, 2400, 2241, 2241, 1820)),
    ("2*588", "none", "98.05", (9812, 9820, 9800, 9805, 9802, 9792, 9817, 9808, 9798, 9801)),
    ("2*115", "output", "96.07", (9602, 9649, 9638, 9631, 9583, 9584, 9574, 9629, 9555, 9620)),
    ("2*16", "dropout", "92.95", (9284, 9263, 9325, 9293, 9244, 9324, 9251, 9293, 9336, 9332)),
    ("2*8", "hidden", "84.10", (8600, 8562, 8659, 8396, 8369, 8428, 8539, 8468, 8616, 7468)),
    ("4*280", "decay", "97.68", (9779, 9775, 9775, 9760, 9756, 9770, 9763, 9769, 9770, 9758)),
    ("4*280", "full", "97.63", (9757, 9748, 9778, 9772, 9744, 9770, 9762, 9762, 9770, 9762)),
    ("35*35", "full", "10.83", (1009, 1102, 1102, 1102, 1102, 1102, 1102, 1102, 1102, 1010)),
    ("28*28", "full", "10.51", (972, 1102, 984, 1102, 973, 1102, 1092, 984, 1102, 1102)),
    ("23*23", "hidden", "10.69", (1092, 1102, 1102, 1010, 1102, 972, 1102, 1009, 1102, 1102)),
    ("21*21", "full", "10.61", (1010, 1102, 1102, 1012, 1009, 1102, 1102, 972, 1102, 1102)),
    ("19*19", "dropout", "11.50", (1102, 972, 1009, 1102, 2030, 1102, 984, 1102, 1092, 1010)),
    ("3*3", "none", "26.04", (4078, 1566, 4920, 984, 2854, 1102, 1102, 6222, 2208, 1009)),
    ("119*4", "hidden", "10.00", (973, 1012, 865, 865, 972, 1010, 1092, 1092, 1012, 1102)),
    ("17*4", "hidden", "10.09", (981, 981, 865, 1009, 973, 1009, 1102, 981, 1092, 1102)),
    ("59*2", "hidden", "10.25", (1009, 981, 1102, 1009, 1102, 972, 984, 1010, 1092, 984)),
    ("1024*1", "output", "10.51", (1102, 1010, 1012, 1010, 1102, 1092, 1012, 981, 1102, 1092)),
    ("256*1", "full", "9.73", (865, 973, 1012, 973, 973, 981, 1010, 1092, 865, 981)),
    ("2*1", "none", "14.69", (1948, 1010, 859, 2209, 1414, 1102, 1658, 1614, 771, 2110)),
)


@pytest.mark.parametrize(("arch", "mode", "mean", "counts"), CELLS, ids=lambda value: str(value)[:8])
def test_a_mean_that_ends_in_5_is_rounded_as_published(
    arch: str, mode: str, mean: str, counts: tuple[int, ...], tmp_path: Path
) -> None:
    """The exact mean is a tie between two hundredths; the published one is NumPy's, of percentages."""
    assert sum(counts) % 10 == 5
    rows = [f"| {at} |" + f" {count / 100:.2f}% |" * 6 for at, count in enumerate(counts, 1)]
    heads = [f"| Trial | {' | '.join(map(str.capitalize, MODES))} |", "|---" * 7 + "|"]
    path = tmp_path / "trials.md"
    path.write_text("\n".join([f"### Architecture: {arch}", "", *heads, *rows, ""]))
    frame = published_trials(path, "simplemlp")
    assert set(re.findall(r"Mean=([\d.]+)%", summary_markdown(frame))) == {mean}
    assert accuracy_table(frame).markdown().count(mean) == len(MODES)
    assert f"{cells_of(frame).cell(arch, mode).summary.mean:.2f}" == mean


def test_equal_means_of_other_numbers_of_trials_are_shown_as_equal() -> None:
    """NumPy's sum of percentages depends on its terms: 95.795 was 95.80 in one cell and 95.79 in another."""
    pairs = [(9500 + apart, 9659 - apart) for apart in range(60)]
    means = {Trials(np.array(pair, dtype=float), 10_000, Counter()).mean for pair in pairs}
    assert len(means) == 1


@pytest.mark.parametrize("n", [2, 10])
def test_a_mean_is_the_same_number_in_every_listing(n: int) -> None:
    """The last LKG is the bounty; the mean of 90.00 and 90.21 was 90.11 in one file, 90.10 in the other."""
    archs = [f"1*{width}" for width in range(2, 22)]
    ends = {arch: 9001 + 20 * at for at, arch in enumerate(archs)}
    made = build_frame(
        [
            row(arch, "none", seed, [8000, ends[arch] if seed % 2 else 9000])
            for arch in archs
            for seed in range(n)
        ]
    )
    means = re.findall(r"Mean=([\d.]+)%", summary_markdown(made))
    for listing in (lkg_markdown, convergence_markdown):
        lines = [line for line in listing(made).splitlines() if "None" in line]
        assert [line.split("|")[4].strip() for line in lines] == means
    shown = accuracy_table(made).markdown()
    assert len(means) == len(archs)
    assert all(mean in shown for mean in means)


def test_equal_means_of_ten_trials_of_our_own_are_equal_numbers() -> None:
    """Only those of published trials follow NumPy's sum of percentages."""
    cells = [np.array(counts, dtype=float) for _, _, _, counts in CELLS]
    for counts in cells:
        exact = 100 * counts.sum() / 10 / 10_000
        assert Trials(counts, 10_000, Counter()).mean == pytest.approx(exact, abs=1e-12)
    published = [Trials(counts, 10_000, Counter(), published=True).mean for counts in cells]
    assert [f"{mean:.2f}" for mean in published] == [mean for _, _, mean, _ in CELLS]
