"""README and the guide to reproduction say what the committed reports of the published grids show."""

from __future__ import annotations

import csv
import re
import statistics

import pytest
from paths import ROOT

from psa import Store, load_records_frame

README = (ROOT / "README.md").read_text()
ALL = ROOT / "results/reports/all"
REPRODUCTION = " ".join((ROOT / "docs/reproduction.md").read_text().replace("\\*", "*").split())
SQUARES = [f"{width}*{width}" for width in range(3, 19)]


def table_of(page: str, name: str) -> list[dict[str, str]]:
    """The rows of a committed table of all architectures."""
    with (ALL / page / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_readme_says_what_ablation_does() -> None:
    """The effects that it names are those of the table of shapes, and both are significant."""
    words = " ".join(README.split())
    for shape, said in (("square", "raises"), ("wide", "lowers")):
        (row,) = (
            row
            for row in table_of("ablation_simplemlp", "effects_by_shape")
            if row["Shape"].startswith(shape) and row["Mode"] == "output"
        )
        value, low, high = (float(row[f"Difference (points){end}"]) for end in ("", " low", " high"))
        assert (value > 0) == (said == "raises")
        assert float(row["p (Holm)"]) < 0.05
        low, high = sorted((abs(low), abs(high)))
        assert f"Over {row['Architectures']} {shape}" in words
        assert f"by {abs(value):.1f} points (95 % interval {low:.1f} to {high:.1f})" in words


def test_the_guide_compares_the_squares_with_the_published_ones() -> None:
    """Mean differences over 16 architectures of ten seeds, and the rises of the published means."""
    rows = {(row["Architecture"], row["Mode"]): row for row in table_of("ablation_simplemlp", "published")}
    assert {rows[arch, "none"]["n"] for arch in SQUARES} == {"10"}

    def mean(mode: str, column: str) -> float:
        return statistics.fmean(float(rows[arch, mode][column]) for arch in SQUARES)

    def signed(mode: str) -> str:
        return f"{mean(mode, 'Difference'):+.1f}".replace("+0.0", "0.0").replace("-0.0", "0.0")

    assert (
        f"differ from the published ones by {signed('none')} points on average in mode none, "
        f"{signed('dropout')} in dropout, {signed('full')} in full, {signed('hidden')} in hidden and "
        f"{signed('output')} in output" in REPRODUCTION
    )
    full, hidden, output = (
        f"{mean(mode, 'Published') - mean('none', 'Published'):.1f}" for mode in ("full", "hidden", "output")
    )
    assert f"rise by {full} points with full, {hidden} with hidden and {output} with output" in REPRODUCTION
    assert not [place for place, row in rows.items() if row["Differ"] == "yes"]


def test_the_guide_names_the_regimes_that_differ() -> None:
    """The guide counts the architectures with at least three seeds that agree, and names the others."""
    rows = table_of("ablation_simplemlp", "regimes")
    decided = [row for row in rows if row["Agree"]]
    differ = [row["Architecture"] for row in decided if row["Agree"] == "no"]
    assert (
        f"{len(decided) - len(differ)} of the {len(decided)} architectures with at least three seeds in "
        "every mode have the published regime" in REPRODUCTION
    )
    named = REPRODUCTION.partition("have the published regime. The others are ")[2].partition(". ")[0]
    assert re.findall(r"\d+\*\d+", named) == differ


def test_the_guide_says_which_residual_networks_learn() -> None:
    """Beside the plain networks of the same depth and width, in mode none."""
    plain, residual = (
        {row["Architecture"]: row for row in table_of(page, "accuracies") if row["None mean"]}
        for page in ("ablation_simplemlp", "ablation_resmlp")
    )
    both = [arch for arch in residual if arch in plain]
    low = [arch for arch in both if float(plain[arch]["None mean"]) < 30]
    high = [arch for arch in residual if float(residual[arch]["None mean"]) > 60]
    learn = [arch for arch in low if arch in high]
    squares = [arch for arch in learn if len(set(arch.split("*"))) == 1]
    falls = [float(residual[arch]["None mean"]) - float(residual[arch]["Output mean"]) for arch in high]
    assert f"With two seeds of {len(both)} architectures" in REPRODUCTION
    assert {row["None n"] for row in residual.values()} == {"2"}
    assert (
        f"of the {len(low)} architectures whose plain networks have a mean below 30 % without ablation, "
        f"{len(learn)} exceed 60 % as residual networks, among them {len(squares)} squares" in REPRODUCTION
    )
    assert (
        f"On the {len(high)} architectures above 60 %, the mean with output ablation is "
        f"{statistics.fmean(falls):.1f} points lower on average" in REPRODUCTION
    )


@pytest.mark.slow
def test_the_guide_counts_the_squares_that_learn() -> None:
    """Trials with a bounty above 20 %, by mode."""
    frame = load_records_frame(Store(ROOT / "models", ROOT / "results/published/simplemlp.parquet"))
    trials = frame.drop_duplicates("id")
    squares = trials[trials["arch"].astype(str).isin(SQUARES) & (trials["status"] == "done")]
    counts = (squares["bounty"] > 20).groupby(squares["mode"].astype(str)).sum()
    assert set(squares.groupby("mode", observed=True).size()) == {160}
    said = (
        f"{counts['none']} exceed 20 % without ablation, {counts['full']} with mode full, {counts['hidden']} "
        f"with hidden and {counts['output']} with output"
    )
    assert said in REPRODUCTION


@pytest.mark.parametrize("folder", ["ablation_simplemlp", "all/ablation_simplemlp"])
def test_the_agreement_with_the_published_numbers_is_that_of_the_reports(folder: str) -> None:
    """The page on reproduction repeats counts of cells from the notes of two tables."""
    text = " ".join((ROOT / "docs/reproduction.md").read_text().split())
    table = (ROOT / "results/reports" / folder / "published.md").read_text()
    near, cells, usual, differ = re.search(
        r"(\d+) of (\d+) cells lie within 2 points .*?, (\d+) within two standard .*?; (\d+) of \d+ differ",
        table,
    ).groups()  # type: ignore[union-attr]
    if folder.startswith("all/"):
        assert f"In {near} of {cells} cells the mean is within 2 points of the published mean" in text
        assert (
            f"and in {usual} of {cells} it is within two standard deviations of the published trials" in text
        )
    else:
        assert f"has {cells} cells" in text
        assert f"In {near} of them the mean is within 2 points of the published mean" in text
        assert (differ == "0") == ("no cell differs significantly" in text)
