"""The tables of the ablation study: by hand, half empty, byte for byte, and read again."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_up_study import ARCHS, Outcome, even, frame, some_study
from paths import ROOT
from rendered_tables import cells, compiled
from scipy import stats as scipy_stats

from psa.analysis.aggregate_stats import probability_of_improvement, stratified_interval
from psa.analysis.published import published_trials, read_reference
from psa.analysis.regimes import REGIMES
from psa.analysis.stats import Values, holm, paired
from psa.core.errors import UserError
from psa.reports.ablation import effects, report
from psa.reports.ablation.architectures import parameters_of, partners
from psa.reports.ablation.cells import archs_in, cells_of, one_family
from psa.reports.ablation.effects import aggregate_table, paired_table, shape_findings, shape_table
from psa.reports.ablation.figures.figure_set import comparison
from psa.reports.ablation.markdown import (
    convergence_markdown,
    lkg_growth_markdown,
    lkg_markdown,
    read_summary,
    summary_markdown,
    trials_markdown,
)
from psa.reports.ablation.numbers import cells_note, effect
from psa.reports.ablation.published import (
    PublishedAgreement,
    comparable_reference,
    published_agreement,
    published_comparison,
    published_difference,
    regime_table,
)
from psa.reports.ablation.tables import (
    accuracies_of,
    accuracy_table,
    architecture_table,
    architectures,
    final_test_table,
)
from psa.reports.contract import ReportContext
from psa.reports.plotting.style import notes_in
from psa.reports.rendering.tables import Bold, Interval, MeanSd, Table
from psa.specs.training import MODES

GOLDEN = ROOT / "tests" / "golden"
ORDER = archs_in(ROOT / "reproduction/configurations.txt")
ASYMMETRIC = archs_in(ROOT / "reproduction/asymmetric.txt")
REFERENCE = read_reference(ROOT / "reproduction/published/simplemlp.tsv")
STUDY = some_study()

TABLES: dict[str, Callable[[pd.DataFrame], Table]] = {
    "architectures": lambda rows: architecture_table(rows, order=ORDER, asymmetric=ASYMMETRIC),
    "architectures_published": lambda rows: architecture_table(
        rows, order=ORDER, asymmetric=ASYMMETRIC, published=True
    ),
    "accuracy": lambda rows: accuracy_table(rows, order=ORDER),
    "test_accuracy": lambda rows: final_test_table(rows, order=ORDER),
    "paired": lambda rows: paired_table(rows, order=ORDER),
    "aggregate": aggregate_table,
    "regimes": lambda rows: regime_table(rows, REFERENCE, order=ORDER),
    "comparison": lambda rows: published_comparison(rows, REFERENCE, order=ORDER),
}
TEXTS: dict[str, Callable[[pd.DataFrame], str]] = {
    "summary": summary_markdown,
    "trials": trials_markdown,
    "convergence": convergence_markdown,
    "lkg": lkg_markdown,
    "lkg_growth": lkg_growth_markdown,
}


def same_as_stored(name: str, text: str) -> None:
    """Compare with tests/golden; PSA_GOLDEN=1 stores what is said now instead."""
    path = GOLDEN / name
    if os.environ.get("PSA_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    assert text.encode() == path.read_bytes(), f"{path} differs: if that is meant, store it with PSA_GOLDEN=1"


@pytest.mark.parametrize("name", TABLES)
def test_tables_stay_as_they_are(name: str) -> None:
    """Markdown and LaTeX to the byte; CSV, too, where no last bit of a p-value or of chance is in it."""
    table = TABLES[name](STUDY)
    same_as_stored(f"{name}.md", table.markdown())
    same_as_stored(f"{name}.tex", table.latex())
    if name not in ("paired", "aggregate", "comparison"):
        same_as_stored(f"{name}.csv", table.csv())


@pytest.mark.parametrize("name", TEXTS)
def test_markdown_files_stay_as_they_are(name: str) -> None:
    """To the byte."""
    same_as_stored(f"{name}.md", TEXTS[name](STUDY))


def test_latex_takes_every_table_of_the_study(tmp_path: Path) -> None:
    """And nothing stands out over the edge of the page."""
    long = frame({key: [90.0, 91.5] for arch in ORDER for key in even(arch)})
    said = compiled(
        tmp_path,
        *(make(STUDY).latex() for make in TABLES.values()),
        TABLES["architectures"](long).latex(),
        regime_table(long, REFERENCE).latex(),
    )
    assert "Overfull" not in said


def row_of(table: Table, arch: str) -> dict[str, Any]:
    """A row by its first cell, as column -> cell."""
    row = next(row for row in table.rows if row[0] == arch)
    return {column.name: cell for column, cell in zip(table.columns, row, strict=True)}


def winner(outcomes: dict[str, Sequence[Outcome]], **options: Any) -> dict[str, Any]:
    """The row of one architecture with these modes; the others are at 50."""
    rest = {mode: [50.0] * max(map(len, outcomes.values())) for mode in MODES}
    made = {("1*4", mode): outcome for mode, outcome in (rest | outcomes).items()}
    return row_of(accuracy_table(frame(made), **options), "1*4")


def test_a_hundredth_apart_is_a_tie() -> None:
    """98.12 and 98.11: as floating point numbers they differ by more than 0.01."""
    row = winner({"decay": [98.12] * 3, "dropout": [98.11] * 3})
    assert row["Winner"] == "Tie: decay/dropout"
    assert [name for name, cell in row.items() if isinstance(cell, Bold)] == ["Decay", "Dropout"]
    assert winner({"decay": [98.12] * 3, "dropout": [98.11, 98.11, 98.10]})["Winner"] == "decay"


def test_ties_are_decided_on_unrounded_means() -> None:
    """Both are shown as 98.11 and 98.10, or alike, and yet differ or tie as they are."""
    full = [98.13, 98.10, 98.10]
    assert winner({"full": full, "none": [98.11, 98.10, 98.10]})["Winner"] == "Tie: none/full"
    apart = {"full": full, "none": [98.11, 98.09, 98.09]}
    assert winner(apart)["Winner"] == "full"
    assert winner(apart, tolerance=0.02)["Winner"] == "Tie: none/full"


def test_the_paired_test_decides_beside_it() -> None:
    """A small difference in all ten seeds is one, a great difference in some of them is none."""
    seeds = [90 + seed / 10 for seed in range(10)]
    row = winner({"output": [each + 0.1 for each in seeds], "hidden": seeds, "full": [90.5] * 10})
    assert row["Winner (test)"] == "Tie: full/output"
    assert row["Winner"] == "output"
    assert winner(dict.fromkeys(MODES, seeds))["Winner (test)"] == "Tie: all"
    others = {mode: seeds for mode in MODES if mode != "full"}
    assert winner(others | {"full": [50.0] * 10})["Winner (test)"] == "Tie: all but full"


def test_a_missing_mode_is_seen_and_shifts_nothing() -> None:
    """No number, no win, and the winner says of how many modes."""
    row = winner({"none": [98.0, 98.1, 98.2], "output": ["missing"] * 3})
    assert row["Output"] is None
    assert row["Winner"] == "none (of 5 modes)"
    assert row["None"] == Bold(MeanSd(98.1, pytest.approx(0.08165, abs=1e-4), 3, 3))


def test_a_failed_trial_is_seen_and_shifts_nothing() -> None:
    """The mean is of the others, the cell shows their number, the note says why."""
    made = frame(even("1*4", 98.0, 97.0, 99.0) | {("1*4", "full"): [98.0, "failed", 99.0]})
    table = accuracy_table(made)
    assert row_of(table, "1*4")["Full"] == MeanSd(98.5, 0.5, 2, 3)
    assert "98.50 ± 0.50 (n=2)" in table.markdown()
    assert "1 of 6 cells has fewer: 1*4 full 2 (1 failed)" in table.note
    assert "* Full: Mean=98.50% | Std=0.50% | Min=98.00% | Max=99.00% (n=2)" in summary_markdown(made)


def half_empty(rows: pd.DataFrame) -> pd.DataFrame:
    """Every second cell of a frame without any trial."""
    places = {
        place: at for at, place in enumerate(dict.fromkeys(zip(rows["arch"], rows["mode"], strict=True)))
    }
    gone = np.array([places[place] % 2 == 1 for place in zip(rows["arch"], rows["mode"], strict=True)])
    left = rows.copy()
    left.loc[gone, ["status"]] = "missing"
    results = ["bounty", "bounty_correct", "bounty_loop", "test", "test_loss", "zero_r"]
    left.loc[gone, [*results, "loop", "lkg", "lkg_correct", "accuracy"]] = pd.NA
    return left


@pytest.mark.parametrize("name", [*TABLES, *TEXTS])
def test_half_of_the_cells_may_be_missing(name: str) -> None:
    """Every table still comes out and says what is missing."""
    rows = half_empty(STUDY)
    made = TABLES[name](rows).markdown() if name in TABLES else TEXTS[name](rows)
    if name == "summary":
        assert made.count("MISSING") == 15
    elif not name.startswith("architectures"):
        assert re.search(r"n = 4 trials per cell, but 1[5-9] of 30 cells have fewer: .*missing", made)
        assert "more cells." in made


def test_no_mean_shifts_when_cells_are_missing() -> None:
    """What is there is what it was, in the table, the summary and the comparison."""
    full, half = accuracy_table(STUDY), accuracy_table(half_empty(STUDY))
    for before, after in zip(full.rows, half.rows, strict=True):
        for one, other in zip(before[:7], after[:7], strict=True):
            numbers = [cell.value if isinstance(cell, Bold) else cell for cell in (one, other)]
            assert numbers[1] in (numbers[0], None)
    lines = set(summary_markdown(STUDY).splitlines())
    assert {
        line for line in summary_markdown(half_empty(STUDY)).splitlines() if "MISSING" not in line
    } <= lines


def test_a_mode_that_was_not_asked_for_is_not_missing() -> None:
    """A grid of three modes has no holes where the other three would be."""
    made = frame({("1*4", mode): [90.0, 91.0] for mode in ("none", "hidden", "output")})
    assert cells_note(cells_of(made)) == (
        "n = 2 trials per cell (decay, dropout, full: no trial); none is missing."
    )
    assert cells_of(made).complete() == ("1*4",)
    # the second stage of a grid promotes some modes of some architectures
    staged = frame({("1*4", "none"): [90.0], ("1*4", "full"): [90.0], ("2*4", "none"): [90.0, 91.0]})
    assert cells_note(cells_of(staged)) == (
        "n = 2 trials per cell (decay, dropout, hidden, output: no trial; 1 of the other 4 cells: no trial), "
        "but 2 of 3 cells have fewer: 1*4 none 1 (1 missing); 1*4 full 1 (1 missing)."
    )
    # with every mode there are no others that these cells could be set against
    every = frame({("1*4", mode): [90.0] for mode in MODES} | {("2*4", "none"): [90.0]})
    assert cells_note(cells_of(every)) == "n = 1 trial per cell (5 of 12 cells: no trial); none is missing."
    modes = ["none", "hidden", "output"]
    assert [row[0] for row in aggregate_table(made).rows] == modes
    assert [row[1] for row in paired_table(made).rows] == modes[1:]


def test_a_mode_whose_trials_are_missing_has_its_rows() -> None:
    """It was asked for: what is missing is shown."""
    made = frame({("1*4", "none"): [90.0, 91.0], ("1*4", "hidden"): ["missing"] * 2})
    assert [row[0] for row in aggregate_table(made).rows] == ["none", "hidden"]
    assert [row[:3] for row in paired_table(made).rows] == [("1*4", "hidden", 0)]


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([{"family": "simplemlp"}, {"family": "resmlp"}], "more than one family: resmlp, simplemlp"),
        ([{"study": "ablation"}, {"study": "screen"}], "more than one study: ablation, screen"),
        ([{"lr": 1e-3}, {"lr": 1e-4}], "more than one lr: 0.0001, 0.001"),
        ([{}, {}], "1[*]4 none seed 0 in more than one setting"),
    ],
)
def test_what_must_not_be_averaged_is_refused(parts: list[dict[str, Any]], said: str) -> None:
    """Several families, studies or settings in one cell, with the way out."""
    made = pd.concat([frame(even("1*4", 90.0), **part) for part in parts], ignore_index=True)
    made["id"] = made["id"].astype(str) + np.repeat(["a", "b"], len(made) // 2)
    with pytest.raises(UserError, match=f"{said}.*--"):
        accuracy_table(made)


def test_different_data_are_refused() -> None:
    """Percentages of different validation splits are no trials of one cell."""
    made = pd.concat(
        [frame(even("1*4", 90.0)), frame(even("1*8", 90.0), validation_size=5_000)], ignore_index=True
    )
    with pytest.raises(UserError, match="must share their data, got validation_size"):
        cells_of(made)


def test_a_family_is_picked_by_name() -> None:
    """One that is not there is named together with those that are."""
    assert len(one_family(STUDY, "simplemlp")) == len(STUDY)
    with pytest.raises(
        UserError, match=r"--family must have trials, got resmlp\. There are trials of simplemlp"
    ):
        one_family(STUDY, "resmlp")


def test_rows_follow_the_list() -> None:
    """What the list does not name comes after it, in the order of the frame; what is not there is counted."""
    table = accuracy_table(STUDY, order=["4*4", "1*16", "9*9"])
    assert [row[0] for row in table.rows] == ["4*4", "1*16", "1*64", "2*30", "2*1"]
    assert "1 of the 3 listed architectures have not been run" in table.note


def test_a_page_has_no_column_of_a_mode_that_was_not_requested() -> None:
    """Two of six columns were empty on a page of four modes. A missing mode keeps its column, and files in
    the format of the original study have all.
    """
    made = frame({("1*4", "none"): [90.0, 91.0, 92.0], ("1*4", "full"): ["failed"] * 3})
    table = report.tables(made, ReportContext(Path("unused")))["accuracies"]
    heads = [column.name for column in table.columns]
    assert heads == ["Architecture", "None", "Full", "Winner", "Winner (test)"]
    assert [column.name for column in accuracy_table(made).columns][1:-2] == [
        mode.capitalize() for mode in MODES
    ]


def test_a_page_without_a_finished_trial_states_no_number_of_another_study() -> None:
    """Only finished trials know the ZeroR of their validation split; the published one stood there."""
    made = frame({("1*4", mode): ["diverged"] * 3 for mode in ("none", "full")})
    context = ReportContext(Path("unused"))
    tables = report.tables(made, context)
    assert "nothing to take the mean of" in tables["aggregate"].note
    assert {fact.name for fact in report.page(made, context, tables, {}).facts} == {"Trials", "Regimes"}
    assert [name for name, table in tables.items() if "11.02" in table.note] == []
    facts = {fact.name: fact.detail for fact in report.page(made, context, tables, {}).facts}
    assert facts["Trials"] == "3 expected per architecture and mode"


def test_a_page_of_residual_networks_says_what_holds_for_them() -> None:
    """No budget of parameters, no published difference; ablation of mode hidden is not that of plain ones."""
    modes = {(arch, mode): [90.0, 91.0] for arch in ("1*8", "4*4") for mode in MODES}
    pages = {}
    for family in ("simplemlp", "resmlp"):
        made = frame(modes, family=family)
        context = ReportContext(Path("unused"), order=("1*8", "4*4", "9*9"), asymmetric=("4*4",))
        tables = report.tables(made, context)
        page = report.page(made, context, tables, {})
        texts = " ".join(text for section in page.sections for text in section.text)
        pages[family] = tables["architectures"], texts, {fact.name: fact.detail for fact in page.facts}
    assert len(pages["simplemlp"][0].columns) > 2
    assert [column.name for column in pages["resmlp"][0].columns] == ["Architecture", "Parameters"]
    assert "skip connection" in pages["resmlp"][1]
    assert "skip connection" not in pages["simplemlp"][1]
    for _, text, facts in pages.values():
        assert "ublished" not in text
        assert facts["Trials"].endswith("; 2 of the 3 listed architectures")


def test_the_best_mean_names_every_cell_that_has_it() -> None:
    """Mode decay often equals mode none to the bit, and untrainable networks equal each other."""
    best = {("1*4", mode): [90.0, 91.0, 92.0] for mode in ("none", "decay")}
    made = frame(best | {("1*8", "none"): [90.0] * 3})
    assert _details(made)["Best mean bounty"].startswith("1*4, modes none, decay; ")
    alike = frame({(arch, "none"): [11.02] * 3 for arch in ("1*4", "8*1", "4*1")})
    detail = _details(alike)["Best mean bounty"]
    assert detail.startswith("1*4, mode none; ")
    assert detail.endswith("; equal: 2 cells of other architectures; not above ZeroR")


def test_the_best_mean_is_of_cells_with_three_trials() -> None:
    """As the winner of an architecture is; the page says how many cells take part, and names none below."""
    few = {("1*4", "none"): [99.0, 99.5]}
    assert "Best mean bounty" not in _details(frame(few))
    detail = _details(frame(few | {("1*8", "none"): [90.0, 91.0, 92.0]}))["Best mean bounty"]
    assert detail.startswith("1*8, mode none; ")
    assert detail.endswith("; of 1 cell with 3 or more trials")


def _details(made: pd.DataFrame) -> dict[str, str]:
    """The details of the headlines of a frame, by name."""
    context = ReportContext(Path("unused"))
    page = report.page(made, context, report.tables(made, context), {})
    return {fact.name: fact.detail for fact in page.facts}


def test_the_partners_are_counted_if_there_are_any() -> None:
    """It said that 0 of 0 networks meet their partners."""

    def note(*archs: str) -> str:
        found = architectures(archs, lambda arch: parameters_of("simplemlp", arch), order=ORDER)
        return found.note

    assert "with a partner" not in note("1*2", "4*1")
    assert note("1*1024", "4*425").endswith("The only network with a partner is within 10% of it.")
    assert note("1*8", "4*17").endswith("The only network with a partner is not within 10% of it.")
    two = note("1*1024", "4*425", "4*17")
    assert two.endswith("1 of the 2 networks with a partner is within 10% of it.")


def test_an_architecture_outside_of_the_list_has_no_label() -> None:
    """The study says nothing of it, whatever its shape; without both lists nothing but the size is known."""

    def made(*archs: str, **lists: Any) -> Table:
        return architectures(archs, lambda arch: parameters_of("simplemlp", arch), **lists)

    both = {"order": ORDER, "asymmetric": ASYMMETRIC}
    table = made("1*12", "3*16", "6*5", "1*8", **both)
    assert [row[2:] for row in table.rows] == [*[(None,) * 4] * 3, ("Matched", "budget", None, None)]
    assert table.note.endswith("An architecture without a label is not in the list of the study.")
    assert "without a label" not in made("1*8", **both).note
    assert made("1*12", published=True, **both).rows[0][2] is None
    alone = made("1*12", "1*8")
    assert [column.name for column in alone.columns] == ["Architecture", "Parameters"]
    assert (alone.rows, alone.note) == ((("1*12", 9550), ("1*8", 6370)), "")


PUBLISHED_DIFFERENCES = {
    "2*939": 0.1,
    "2*214": 6.2,
    "2*4": 0.6,
    "115*115": -1.0,
    "56*56": 8.1,
    "44*44": 18.0,
    "35*35": 38.9,
    "4*632": 4.6,
    "4*425": 8.2,
    "4*280": 12.7,
    "4*185": 23.0,
    "4*119": 35.1,
    "4*17": 126.7,
}


def all_architectures(**options: Any) -> Table:
    """Those of the study."""
    return architectures(
        ORDER, lambda arch: parameters_of("simplemlp", arch), order=ORDER, asymmetric=ASYMMETRIC, **options
    )


def test_budgets_are_compared_as_the_study_meant_them() -> None:
    """Partners by position: 4*W misses its budgets by up to 127 %, which the label of the study hides."""
    rows = {str(row[0]): row for row in all_architectures().rows}
    assert len(rows) == 98
    found = {arch: round(float(str(rows[arch][4])), 1) for arch in PUBLISHED_DIFFERENCES}
    assert found == PUBLISHED_DIFFERENCES
    assert [rows[arch][2] for arch in ("1*2048", "4*17", "32*32", "4*1")] == [*["Matched"] * 3, "Asymmetric"]
    assert [rows[arch][5] for arch in ("1*2048", "4*17", "4*425", "32*32")] == [None, "no", "yes", None]
    assert [rows[arch][3] for arch in ("1*2", "1*1", "4*425", "4*4")] == ["budget", "none", "1*1024", "none"]
    assert sum(row[2] == "Asymmetric" for row in rows.values()) == 30


def test_the_tolerance_decides_who_is_within() -> None:
    """It is stated in the head of the column."""
    table = all_architectures(tolerance=0.05)
    assert table.columns[5].name == "Within 5%"
    assert {str(row[0]): row[5] for row in table.rows}["4*425"] == "no"


def test_partners_are_found_in_the_whole_list() -> None:
    """Each depth and the lone squares, widest first; what has none is left out."""
    assert partners(["1*8", "1*64", "2*40", "2*7", "2*3", "9*9", "5*5", "4*4", "4*2", "1*4, 2*8"]) == {
        "2*40": "1*64",
        "2*7": "1*8",
        "9*9": "1*64",
    }


def test_the_published_table_has_three_columns() -> None:
    """With thousands separators, and nothing of ours in it."""
    table = all_architectures(published=True)
    assert len(table.columns) == 3
    assert cells(table.markdown())[1] == ["1*2048", "1,628,170", "Matched"]
    assert table.long
    assert table.note == ""


@pytest.mark.slow
def test_trials_are_read_again(tmp_path: Path) -> None:
    """psa.analysis.published takes what is written: the same bounties, and the same holes."""
    path = tmp_path / "psa_simplemlp_trials.md"
    path.write_text(trials_markdown(STUDY))
    again = published_trials(path, "simplemlp")
    assert cells_of(again).archs == (*ARCHS[:3], "2*1", "4*4")
    for place in cells_of(STUDY).trials:
        np.testing.assert_array_equal(
            cells_of(again).cell(*place).correct, cells_of(STUDY).cell(*place).correct
        )
    assert trials_markdown(again).split("###")[1:] == trials_markdown(STUDY).split("###")[1:]


def test_published_trials_are_not_paired(tmp_path: Path) -> None:
    """Trial 3 of one mode and of another share no seed: nothing is tested, and the tables say so."""
    path = tmp_path / "t.md"
    path.write_text(trials_markdown(STUDY))
    again = published_trials(path, "simplemlp")
    table = accuracy_table(again)
    assert {row[8] for row in table.rows} == {None}
    assert "do not share a seed" in table.note
    table = paired_table(again)
    assert {row[2] for row in table.rows} == {0}
    assert table.note.startswith("Nothing is compared")
    assert [row[1:8] for row in accuracy_table(STUDY).rows] == [
        row[1:8] for row in accuracy_table(again).rows
    ]


def test_a_trial_that_stopped_early_keeps_its_lkg_in_the_listings() -> None:
    """Its curve goes on at the height where it ended, and its cell has every loop."""
    cells = {("1*16", "none"): [90.0, 80.0]}
    whole, shorter = frame(cells), frame(cells)
    ends = (shorter["seed"] == 1) & (shorter["loop"] == 3)
    shorter = shorter[~ends].assign(stopped_early=shorter["seed"] == 1)
    assert "N/A" not in lkg_markdown(shorter).splitlines()[6]
    assert lkg_markdown(shorter).splitlines()[6] == lkg_markdown(whole).splitlines()[6]


def test_a_summary_is_read_again(tmp_path: Path) -> None:
    """Means as printed, tokens as missing, and the same winners where printing makes no tie."""
    path = tmp_path / "psa_simplemlp_summary.md"
    path.write_text(summary_markdown(STUDY).replace("Output: MISSING", "Output: NO_JOB_FOUND"))
    blocks = read_summary(path)
    assert [(block.arch, block.parameters) for block in blocks] == [
        (arch, parameters_of("simplemlp", arch)) for arch in cells_of(STUDY).archs
    ]
    assert blocks[1].modes["hidden"] == MeanSd(91.03, 0.03, 3, 4)
    assert blocks[-1].modes["output"] is None
    table = accuracies_of(blocks)
    assert [row[7] for row in table.rows] == [row[7] for row in accuracy_table(STUDY).rows]
    assert "1 of 30 cells are empty: 4*4 output." in table.note


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nothing", "must hold a summary"),
        ("* None: Mean=1% | Std=1% | Min=1% | Max=1% (n=1)", "line 1 must be a line of a summary"),
        ("Results Shape {1*4} Parameters {3190}\n* None: Mean=1%", "line 2 must be a line of a summary"),
        ("Results Shape {1*4} Parameters {3190}\n* Some: MISSING", "line 2 must be a line of a summary"),
        (
            "\nResults Shape {1*0} Parameters {3190}",
            "line 2: arch must have counts and widths from 1, got 1\\*0",
        ),
    ],
)
def test_a_summary_that_is_none_is_named(text: str, said: str, tmp_path: Path) -> None:
    """The file and the line."""
    (tmp_path / "s.md").write_text(text)
    with pytest.raises(UserError, match=rf"s\.md.*{said}"):
        read_summary(tmp_path / "s.md")


@pytest.mark.parametrize(
    ("status", "token"), [("failed", "FAILED"), ("damaged", "DAMAGED"), ("missing", "MISSING")]
)
def test_an_empty_cell_of_a_summary_says_why(status: str, token: str) -> None:
    """One word in the place of numbers."""
    made = frame(even("1*4", 90.0, 91.0) | {("1*4", "decay"): ["missing", status]})
    assert f"\n* Decay: {token}\n" in summary_markdown(made)


def test_convergence_is_the_mean_accuracy_of_each_loop() -> None:
    """Kept or not; the LKG has its own table; growth is what each added; the last column is the mean test."""
    made = frame(even("1*4", 90.0, 92.0))
    current = made.groupby("loop")["accuracy"].mean()
    assert cells(convergence_markdown(made))[1][2:5] == [f"{each:.2f}" for each in current]
    assert cells(convergence_markdown(made)) != cells(lkg_markdown(made))
    assert cells(lkg_markdown(made))[1] == ["1*4", "None", "81.90", "91.00", "91.00", "90.75"]
    assert cells(lkg_growth_markdown(made))[1] == ["1*4", "None", "0.00", "9.10", "0.00", "90.75"]


def test_a_loop_that_one_trial_lacks_has_no_mean() -> None:
    """A mean of fewer trials than the loop before would jump."""
    made = frame(even("1*4", 90.0, 92.0))
    shorter = made[~((made["seed"] == 1) & (made["loop"] == 3))]
    assert cells(lkg_markdown(shorter))[1] == ["1*4", "None", "81.90", "91.00", "N/A", "90.75"]


def test_regimes_come_from_the_frame() -> None:
    """Z is that of the data: what is untrainable with one ZeroR is not with another."""
    made = even("1*4", 20.0, 20.0, 20.0)
    assert row_of(regime_table(frame(made)), "1*4")["Regime"] == "beneficial-regularization"
    assert row_of(regime_table(frame(made, zero_r=20.0)), "1*4")["Regime"] == "untrainable"
    assert row_of(regime_table(frame(made), REFERENCE), "1*4")["Agree"] == "no"
    assert "Published" not in row_of(regime_table(frame(made)), "1*4")
    assert row_of(regime_table(frame(even("1*3", 20.0)), REFERENCE), "1*3")["Published"] is None


def test_equal_trials_at_zero_r_do_not_beat_it() -> None:
    """The mean of n times 11.02 is 11.02 for every n; in floating point it is sometimes a little more."""
    for n in range(3, 30):
        assert row_of(regime_table(frame(even("1*4", *[11.02] * n))), "1*4")["Regime"] == "untrainable"


def test_a_missing_mode_leaves_the_regime_open() -> None:
    """It is unknown, and neither agrees nor disagrees with the published one."""
    table = regime_table(STUDY, REFERENCE)
    row = row_of(table, "4*4")
    assert (row["Regime"], row["Agree"], row["n"]) == ("unknown", None, "0 to 4")
    assert "Unknown: no rule applies, or a mode has no trial." in table.note


def test_every_published_regime_is_known() -> None:
    """98 of them, each one of the five, and six cells each."""
    assert set(REFERENCE.regimes.values()) <= set(REGIMES)
    assert len(REFERENCE.regimes) == 98
    assert len(REFERENCE.cells) == 588


def test_published_cells_are_compared_one_by_one() -> None:
    """A cell that is as published is within and does not differ; one three points off is neither."""
    published = REFERENCE.cells["1*64", "none"]
    near = [round(published.mean + step, 2) for step in (-0.1, 0.0, 0.1)]
    made = frame(even("1*64", *near) | {("1*64", "full"): [near[0] - 5, near[1] - 5, near[2] - 5]})
    rows = {str(row[1]): row for row in published_comparison(made, REFERENCE).rows}
    assert rows["none"][6:] == ("yes", pytest.approx(1, abs=0.5), "no")
    assert rows["full"][6] == "no"
    assert rows["full"][8] == "yes"
    shown = rows["none"][2]
    assert isinstance(shown, Interval)
    half = scipy_stats.t.ppf(0.975, 9) * published.sd / np.sqrt(10)
    assert (shown.low, shown.high) == pytest.approx((published.mean - half, published.mean + half))


def test_agreement_is_counted_over_all_cells_and_over_those_that_train() -> None:
    """A cell counts as trained if a trial of its architecture beats ZeroR, in whatever mode."""
    near, far = (round(REFERENCE.cells["1*64", "none"].mean + step, 2) for step in (0.0, -40.0))
    made = frame({
        ("1*64", "none"): [near] * 3, ("1*64", "full"): [far] * 3,
        ("8*1", "none"): [8.5] * 3, ("8*1", "full"): [10.0] * 3,
    })  # fmt: skip
    assert published_agreement(cells_of(made), REFERENCE) == PublishedAgreement(
        near=3, within_two_sd=2, compared=4, near_trained=1, trained=2
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("arch\tmode\n", "must have a column regime"),
        (
            "arch\tregime\tmode\tmean\tstd_pop\tmin\tmax\tn\n1*4\tx\tnone\tmuch\t0\t0\t0\t10\n",
            "line 2: .*much",
        ),
    ],
)
def test_published_numbers_that_are_none_are_named(text: str, said: str, tmp_path: Path) -> None:
    """The file, and the line or the column."""
    (tmp_path / "p.tsv").write_text(text)
    with pytest.raises(UserError, match=rf"p\.tsv.*{said}"):
        read_reference(tmp_path / "p.tsv")


def test_modes_are_compared_seed_by_seed() -> None:
    """In percentage points, over the seeds that both have; corrected over the whole table."""
    none, full = [90.0, 91.0, 92.0, 93.0], [89.0, 90.5, "missing", 91.0]
    made = frame(even("1*4", *none) | {("1*4", "full"): full})
    table = paired_table(made)
    row = {str(row[1]): row for row in table.rows}["full"]
    expected = paired([89.0, 90.5, 91.0], [90.0, 91.0, 93.0])
    assert row[2] == 3
    assert row[3] == Interval(
        *(pytest.approx(each) for each in (expected.difference, expected.low, expected.high))
    )
    assert row[4] == expected.p
    assert [each[5] for each in table.rows] == pytest.approx(holm([each[4] for each in table.rows]))
    assert row[7] == pytest.approx(expected.effect)


def test_a_difference_without_spread_has_no_effect_size() -> None:
    """Equal differences of percentages are equal, though not to the last bit of a float."""
    made = frame(even("1*4", 98.00, 98.07, 98.04) | {("1*4", "full"): [98.02, 98.09, 98.06]})
    row = {str(row[1]): row for row in paired_table(made).rows}["full"]
    assert row[3] == Interval(*[pytest.approx(0.02)] * 3)
    assert np.isnan(float(str(row[7])))


def test_networks_that_learn_nothing_show_no_effect() -> None:
    """Ablating an output neuron changes which class is always predicted: more constants, a higher maximum."""
    dead = {("16*1", "none"): [9.7, 9.8, 9.9, 10.0], ("16*1", "output"): [10.2, 10.4, 10.3, 10.6]}
    live = {("1*8", "none"): [90.0, 91.0, 92.0, 93.0], ("1*8", "output"): [88.0, 89.5, 90.0, 91.5]}
    made = frame(dead | live)
    cells = cells_of(made)
    assert effect(cells, "16*1", "output").verdict == "below ZeroR"
    assert effect(cells, "1*8", "output").verdict == "loss"
    rows = {str(row[0]): row for row in paired_table(made).rows}
    assert np.isnan(float(str(rows["16*1"][4])))
    assert rows["1*8"][4] == rows["1*8"][5]  # corrected for one test
    assert (
        "1 comparison of architectures without any trial above ZeroR: not tested." in paired_table(made).note
    )
    assert aggregate_table(made).caption == "1 of 2 architectures together"
    assert effect(cells_of(frame(dead)), "16*1", "output").verdict == "below ZeroR"
    assert "nothing to take the mean of" in aggregate_table(frame(dead)).note


def test_the_note_says_what_so_few_pairs_can_show() -> None:
    """With four pairs no p is below 1/8."""
    assert "with 4 pairs at least 0.125" in paired_table(STUDY).note
    assert "so that none can be significant" in paired_table(STUDY).note


def test_all_architectures_together() -> None:
    """Only complete ones that learn take part; the intervals hold the value, and the draws are the same each
    time.
    """
    table = aggregate_table(STUDY)
    assert {"1*64", "2*1"} == set(cells_of(STUDY).complete())
    assert not cells_of(STUDY).above_zero_r("2*1")
    assert table.note.startswith("Over 1 of 5 architectures")
    assert table.caption == "1 of 5 architectures together"
    complete = cells_of(STUDY)
    assert table.note.endswith("none is missing.")
    figure = dict(comparison(STUDY, None))["aggregate"]
    assert "(1 architecture, 6 modes)" in " ".join(notes_in(figure))
    scores = {
        mode: np.stack([complete.cell(arch, mode).bounties for arch in ("1*64",)], axis=1) for mode in MODES
    }
    for mode, mean, chance in table.rows[1:]:
        assert isinstance(mean, Interval)
        assert isinstance(chance, Interval)
        assert mean.low <= mean.value <= mean.high
        assert chance.value == probability_of_improvement(scores[str(mode)], scores["none"])
    assert table == aggregate_table(STUDY)


def test_a_table_and_a_figure_share_the_draws_of_one_bootstrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure and the table share the draws of the bootstrap. Other rows are resampled separately."""
    calls: list[int] = []

    def counted(scores: Sequence[Values], *others: Any, **options: Any) -> tuple[float, float]:
        calls.append(len(scores))
        return stratified_interval(scores, *others, **options)

    monkeypatch.setattr(effects, "stratified_interval", counted)
    made = STUDY.copy()
    aggregate_table(made)
    shown = dict(comparison(made, None))
    assert "aggregate" in shown
    assert len(calls) == 2 * len(MODES) - 1
    aggregate_table(STUDY.copy())
    assert len(calls) == 2 * (2 * len(MODES) - 1)


def test_one_trial_has_no_interval() -> None:
    """Nothing can be drawn anew from it, and no note speaks of intervals that are not there."""
    table = aggregate_table(frame(even("1*4", 90.0)))
    assert "No intervals: they need at least 3 seeds." in table.note
    assert "bootstrap" in aggregate_table(STUDY).note
    mean = table.rows[0][1]
    assert isinstance(mean, Interval)
    assert mean.value == 90
    assert np.isnan(mean.low)


def test_without_a_complete_architecture_there_is_nothing_together() -> None:
    """The table comes out all the same."""
    made = frame(even("1*4", 90.0, "missing"))
    assert all(row[1:] == (None, None) for row in aggregate_table(made).rows)


def test_a_list_of_architectures_that_is_none_is_named(tmp_path: Path) -> None:
    """The file, and what is wrong with it."""
    with pytest.raises(UserError, match=r"the list of architectures .* does not exist"):
        archs_in(tmp_path / "nowhere.txt")
    (tmp_path / "list.txt").write_text("1*4\n4y4\n")
    with pytest.raises(UserError, match=r"list\.txt: arch"):
        archs_in(tmp_path / "list.txt")


def test_of_two_trials_no_mode_wins_and_no_regime_is_told() -> None:
    """Points only: no bold, no winner, no test, no regime; with a third trial they are there."""
    made = {("1*4", mode): [90.0 + at, 90.0 + at] for at, mode in enumerate(MODES)}
    row = row_of(accuracy_table(frame(made)), "1*4")
    assert (row["Winner"], row["Winner (test)"], row["Output"]) == (None, None, MeanSd(95.0, 0.0, 2, 2))
    assert row_of(regime_table(frame(made), REFERENCE), "1*4")["Regime"] == "unknown"
    assert row_of(regime_table(frame(made), REFERENCE), "1*4")["Agree"] is None
    assert "fewer than 3 trials" in regime_table(frame(made)).note
    assert all(
        cell is None or cell.low != cell.low for cell in (row[3] for row in paired_table(frame(made)).rows)
    )
    three = {place: [*values, values[0]] for place, values in made.items()}
    assert row_of(accuracy_table(frame(three)), "1*4")["Winner"] == "output"
    assert row_of(regime_table(frame(three)), "1*4")["Regime"] != "unknown"


@pytest.mark.parametrize(("best", "wins"), [(11.01, None), (11.02, None), (11.03, "output")])
def test_no_mode_wins_at_or_below_zero_r(best: float, wins: str | None) -> None:
    """Answering the majority class scores 11.02 %: the best of networks that do no better has not won."""
    row = winner({mode: [10.0] * 3 for mode in MODES} | {"output": [best] * 3})
    assert row["Winner"] == wins
    assert isinstance(row["Output"], Bold) == (wins is not None)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"lr": 1e-3}, "lr 0.001 (published: 0.0001)"),
        ({"digits": "0,1"}, "digits 0,1 (published: all)"),
        ({"dataset": "fashion-mnist"}, "data set fashion-mnist (published: mnist)"),
        ({"batch_size": 64}, "batch size 64 (published: 256)"),
        ({"train_size": 500}, "training size 500 (published: all)"),
        ({"split_seed": 3}, "split seed 3 (published: 1337)"),
        ({"loops": 3}, "meta-loops 3 (published: 100)"),
        ({"parameters": 1}, "parameters of 1*4 1 (published: 3,190)"),
        ({}, None),
    ],
)
def test_trials_unlike_the_published_ones_are_not_compared_with_them(
    changes: dict[str, Any], why: str | None
) -> None:
    """Two digits after three loops do not differ from ten digits after a hundred: they are something else."""
    alike = {"lr": 1e-4, "dataset": "mnist", "batch_size": 256, "policy": "ratchet", "loops": 100}
    made = frame(even("1*4", 90.0, 91.0, 92.0)).assign(**(alike | {"parameters": 3190} | changes))
    known = replace(REFERENCE, parameters={"1*4": 3190})
    found = published_difference(made, known)
    assert found is None if why is None else why in str(found)
    assert (comparable_reference(made, known) is None) == (why is not None)


def test_effects_over_the_architectures_of_a_shape() -> None:
    """A mode that helps a little on each square is told from chance by the squares together, and no mode from
    fewer than three architectures; one of two seeds, or below ZeroR, takes no part.
    """
    draws = np.random.Generator(np.random.Philox(key=5)).normal(0, 2, (9, 10))
    cells: dict[tuple[str, str], Sequence[Outcome]] = {}
    for width, noise in zip(range(3, 12), draws, strict=True):
        none = np.round(40 + noise, 2)
        cells[f"{width}*{width}", "none"] = list(none)
        cells[f"{width}*{width}", "output"] = list(np.round(none + 1.5 + noise[::-1] / 3, 2))
        cells[f"{width}*{width}", "full"] = list(np.round(none + noise[::-1] / 3, 2))
    cells |= {("1*8", mode): [90.0, 91.0, 92.0] for mode in ("none", "output")}
    cells |= {("20*20", mode): [90.0, 91.0] for mode in ("none", "output")}
    cells |= {("30*30", mode): [9.0, 9.5, 9.9] for mode in ("none", "output")}
    made = frame(cells)
    table = shape_table(made)
    rows = {(str(row[0]).partition(":")[0], row[1]): row for row in table.rows}
    assert [row[2] for row in rows.values()] == [1, 9, 9]
    assert rows["square", "output"][3].value == pytest.approx(1.5, abs=0.5)
    assert np.isnan(float(str(rows["wide", "output"][4])))
    (found,) = shape_findings(table)
    assert "mode output over 9 square architectures by +1." in found
    assert "mode full" not in found
    context = ReportContext(Path("unused"))
    assert "effects_by_shape" in report.tables(made, context)
    few = frame({place: values for place, values in cells.items() if place[0] in ("3*3", "4*4")})
    assert "effects_by_shape" not in report.tables(few, context)
    alike = frame(
        {
            (arch, "full" if mode == "output" else mode): v
            for (arch, mode), v in cells.items()
            if mode != "full"
        }
    )
    assert "mode full" in next(shape_findings(shape_table(alike)))
    equal = frame({(arch, mode): cells[arch, "none"] for arch, mode in cells if mode != "full"})
    assert list(shape_findings(shape_table(equal))) == [
        "Over the architectures of a shape, no mode differs significantly from mode none."
    ]
