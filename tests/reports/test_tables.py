"""A table says the same in Markdown, LaTeX and CSV, and what is missing is seen in each."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from rendered_tables import cells, compiled

from psa.core.errors import UserError
from psa.reports.rendering.latex import escape
from psa.reports.rendering.tables import (
    Bold,
    Column,
    Interval,
    MeanSd,
    Table,
    grid,
    rounded,
    save_table,
    shown,
)

NAN = float("nan")
COLUMNS = (
    Column("Architecture"),
    Column("Parameters", "count"),
    Column("Share", "percent", 1, signed=True),
    Column("Accuracy", "mean_sd"),
    Column("Difference", "interval", signed=True),
    Column("p", "p", 3),
    Column("Factor", "number", 3),
)
ROWS = (
    (
        "1*2048",
        1_628_170,
        -2.55,
        Bold(MeanSd(98.115, 0.06, 10, 10)),
        Interval(0.125, -0.25, 0.5),
        0.0004,
        2.0,
    ),
    ("4*4, 2*8", 3250, 126.66, MeanSd(18.87, 17.87, 7, 10), Interval(-0.001, NAN, NAN), 0.25, NAN),
    ("2*1", None, None, None, None, NAN, None),
)
TABLE = Table("Made up", "tab:made_up", COLUMNS, ROWS, "n = 10; 2*1 and 2*2 are missing.")


def test_markdown_shows_each_kind_and_what_is_missing() -> None:
    """Counts have separators, the winner is bold, a cell with fewer trials says how many."""
    head, *rows = cells(TABLE.markdown())
    assert head == [column.name for column in COLUMNS]
    assert rows == [
        ["1*2048", "1,628,170", "-2.5%", "**98.11 ± 0.06**", "+0.12 [-0.25, +0.50]", "<0.001", "2.000"],
        [r"4\*4, 2\*8", "3,250", "+126.7%", "18.87 ± 17.87 (n=7)", "0.00", "0.250", "n/a"],
        ["2*1", *["n/a"] * 6],
    ]


def test_markdown_is_well_formed() -> None:
    """All lines are as long, the rule says how columns are aligned, and the note stands below."""
    text = TABLE.markdown()
    heading, _, *table = text.splitlines()[:-2]
    assert heading == "### Made up"
    assert len({len(line) for line in table}) == 1
    rule = [cell.strip() for cell in table[1].strip("|").split("|")]
    assert [(cell[0], cell[-1]) for cell in rule] == [(":", "-"), *[("-", ":")] * 6]
    assert all(set(cell) <= {":", "-"} and len(cell) >= 3 for cell in rule)
    assert text.endswith("\n\nn = 10; 2\\*1 and 2\\*2 are missing.\n")


def test_csv_holds_raw_numbers() -> None:
    """Unrounded, mean, sd and n apart, missing cells empty."""
    rows = list(csv.DictReader(io.StringIO(TABLE.csv())))
    assert list(rows[0]) == [
        "Architecture",
        "Parameters",
        "Share",
        "Accuracy mean",
        "Accuracy sd",
        "Accuracy n",
        "Difference",
        "Difference low",
        "Difference high",
        "p",
        "Factor",
    ]
    assert [*rows[0].values()] == [
        *("1*2048", "1628170", "-2.55", "98.115", "0.06", "10", "0.125", "-0.25", "0.5", "0.0004", "2.0")
    ]
    assert [*rows[1].values()] == [
        *("4*4, 2*8", "3250", "126.66", "18.87", "17.87", "7", "-0.001", "", "", "0.25", "")
    ]
    assert [*rows[2].values()] == ["2*1", "", "", "", "", "0", "", "", "", "", ""]


def test_latex_shows_each_kind_and_what_is_missing() -> None:
    """Numbers stand in columns of siunitx with room for the widest, the rest in braces or text."""
    text = TABLE.latex()
    for column in (
        "S[table-format=7]",
        "S[table-format=+3.1]",
        r"S[table-format=2.2(4){\,\textsuperscript{n=7}}]",
        "S[table-format=<1.3]",
    ):
        assert f"\n    {column}\n" in text
    assert r"{Share (\%)}" in text
    assert (
        r"1*2048 & 1628170 & -2.5 & \bfseries 98.11 +- 0.06 & \num{+0.12} [\num{-0.25}, \num{+0.50}]" in text
    )
    assert r"18.87 +- 17.87\,\textsuperscript{n=7} & \num{0.00} & 0.250 & {--} \\" in text
    assert r"2*1 & {--} & {--} & {--} & {--} & {--} & {--} \\" in text
    assert r"\begin{table}" in text
    assert "longtable}{" not in text


def test_a_long_table_repeats_its_head() -> None:
    """On every page; the body is written once."""
    text = Table("C", "tab:c", COLUMNS, ROWS, long=True).latex()
    assert text.count(r"Architecture & {Parameters}") == 2
    assert text.count("1*2048 &") == 1
    for word in (r"\endfirsthead", r"\endhead", r"\endfoot", r"\endlastfoot", r"\end{longtable}"):
        assert text.count(word) == 1


def test_a_wide_table_is_turned() -> None:
    """Long or not."""
    for long in (True, False):
        text = Table("C", "tab:c", COLUMNS, ROWS, long=long, wide=True).latex()
        assert text.index(r"\begin{landscape}") < text.index(r"\caption") < text.index(r"\end{landscape}")


def test_a_number_beyond_the_most_that_is_shown_says_on_which_side_it_lies() -> None:
    """In Markdown and LaTeX; the CSV keeps the number."""
    table = Table(
        "Made up",
        "tab:made_up",
        (Column("g", "number", signed=True, most=10),),
        ((1210.6,), (-11.0,), (9.5,)),
    )
    assert [row[0] for row in cells(table.markdown())[1:]] == [">+10", "<-10", "+9.50"]
    assert "S[table-format=<+2.2]" in table.latex()
    assert table.csv().splitlines()[1:] == ["1210.6", "-11.0", "9.5"]


def test_thousands_are_separated_in_every_number() -> None:
    """As in counts; names and digits after the point stay, and CSV and LaTeX have plain digits."""
    columns = (
        Column("Name"),
        Column("Time", "mean_sd", 1),
        Column("Wide", "interval", 5),
        Column("g", "number", 4),
    )
    row = ("1*2048", MeanSd(46218.25, 4714.0, 3, 3), Interval(0.12345, -1234.5, 999.0), 1628.12345)
    table = Table("Made up", "tab:made_up", columns, (row,))
    assert cells(table.markdown())[1] == [
        "1*2048", "46,218.2 ± 4,714.0", "0.12345 [-1,234.50000, 999.00000]", "1,628.1235",
    ]  # fmt: skip
    assert "," not in table.csv().splitlines()[1].replace(",", "", 7)
    assert "46218.2 +- 4714.0" in table.latex()


def test_one_trial_has_no_deviation() -> None:
    """A mean of one value stands alone, also in a column of others."""
    table = Table("C", "tab:c", (Column("A", "mean_sd"),), ((MeanSd(50, NAN, 1, 3),),))
    assert "| 50.00 (n=1) |" in table.markdown()
    assert r"S[table-format=2.2{\,\textsuperscript{n=1}}]" in table.latex()
    assert table.csv() == "A mean,A sd,A n\n50,,1\n"


def test_a_deviation_of_zero_is_shown() -> None:
    """It is a finding and no missing number."""
    table = Table("C", "tab:c", (Column("A", "mean_sd"),), ((MeanSd(11.02, 0.0, 3, 3),),))
    assert "| 11.02 ± 0.00 |" in table.markdown()
    assert "11.02 +- 0.00" in table.latex()
    assert "S[table-format=2.2(1)]" in table.latex()


def test_an_empty_table_is_a_table() -> None:
    """Head and rule in Markdown, head in CSV, no fault in LaTeX."""
    table = Table("C", "tab:c", COLUMNS, ())
    assert len(cells(table.markdown())) == 1
    assert table.csv().count("\n") == 1
    assert r"\toprule" in table.latex()


@pytest.mark.parametrize("row", [("a",), ("a", "b"), (1, 2), ("a", 2.5), ("a", MeanSd(1, 1, 1, 1))], ids=str)
def test_a_row_that_does_not_fit_is_refused(row: tuple[str | int | float | MeanSd, ...]) -> None:
    """As many cells as columns, each of its kind."""
    with pytest.raises(ValueError, match=r"zip\(\)|must hold"):
        Table("C", "tab:c", COLUMNS[:2], (row,))


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(-0.001, 2, "0.00"), (-0.0, 1, "0.0"), (-0.006, 2, "-0.01"), (1234.5, 0, "1234"), (98.115, 2, "98.11")],
)
def test_no_number_is_a_negative_zero(value: float, digits: int, text: str) -> None:
    """What rounds to nothing has no sign, also where signs are asked for."""
    assert rounded(value, digits) == text
    if not float(text):
        assert rounded(value, digits, signed=True) == text


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    """It is escaped, and the lines stay as long."""
    text = grid(["a", "b"], [["x|y", "1"], ["z", "22"]], [True, False])
    assert r"| x\|y |   1 |" in text
    assert len({len(line) for line in text.splitlines()}) == 1


def test_a_caption_stays_on_its_line_and_has_only_signs_that_latex_prints() -> None:
    """A paragraph in a caption stops LaTeX, and so does a letter that it does not know."""
    assert escape("one\n\ntwo  ≥ μ") == r"one two $\geq$ $\mu$"
    with pytest.raises(UserError, match="no sign for '猫'"):
        escape("a 猫")


def test_escaped_text_holds_no_command() -> None:
    """Each special character of LaTeX, and what is not ASCII."""
    assert escape(r"50% of $x_1$ & {y}#") == r"50\% of \$x\_1\$ \& \{y\}\#"
    assert (
        escape("a\\b ~^ ± α/β"[:-1])
        == r"a\textbackslash{}b \textasciitilde{}\textasciicircum{} $\pm$ $\alpha$\slash "
    )


def test_a_table_is_written_three_times(tmp_path: Path) -> None:
    """Markdown, LaTeX and CSV side by side, equal to what is rendered."""
    paths = save_table(TABLE, tmp_path / "new", "made_up")
    assert [path.name for path in paths] == ["made_up.md", "made_up.tex", "made_up.csv"]
    assert [path.read_text() for path in paths] == [TABLE.markdown(), TABLE.latex(), TABLE.csv()]


def test_latex_takes_every_table(tmp_path: Path) -> None:
    """Long, wide and empty ones, and texts full of what LaTeX would obey."""
    nasty = r'100% & "50" #_{}~^\ <|> ± α × – − ≤ a/b'
    odd = Table(nasty, "tab:odd", (Column(nasty), Column(f"{nasty} (2)", "percent")), ((nasty, 1.0),), nasty)
    kinds = [
        Table("C", f"tab:{long}{wide}", COLUMNS, ROWS * (20 if long else 1), "Note.", long, wide)
        for long in (False, True)
        for wide in (False, True)
    ]
    said = compiled(
        tmp_path, odd.latex(), Table("C", "tab:c", COLUMNS, ()).latex(), *(each.latex() for each in kinds)
    )
    assert "Overfull" not in said


def test_names_become_neither_formulas_nor_markup() -> None:
    """A spreadsheet computes nothing of a name, and a page that shows Markdown finds no tag in it."""
    names = ("=1+1", "@SUM(A1)", "+cmd|x", "-2+3", "<script>x</script>", "-0.5", "-", "4*4, 2*8")
    table = Table("<b>bold", "x", (Column("name"),), tuple((name,) for name in names))
    shown = [row[0] for row in csv.reader(io.StringIO(table.csv()))][1:]
    assert shown == ["'=1+1", "'@SUM(A1)", "'+cmd|x", "'-2+3", *names[4:]]
    assert not re.search("<[a-z/]", table.markdown())
    assert "&lt;script>" in table.markdown()


@pytest.mark.parametrize(
    ("p", "text"), [(0.0625, "0.063"), (0.3125, "0.313"), (0.0624, "0.062"), (1.0, "1.000")]
)
def test_a_p_value_of_few_pairs_is_not_below_the_least_that_they_allow(p: float, text: str) -> None:
    """0.062 stood above a note that five pairs give at least 0.0625."""
    table = Table("Tests", "tab:tests", (Column("p", "p", 3),), ((p,),))
    assert shown(p, table.columns[0]) == text
    assert text in table.latex()


@pytest.mark.parametrize(("name", "text"), [("Share", "12.50%"), ("Share (%)", "12.50")])
def test_the_unit_stands_in_the_name_or_in_the_cells(name: str, text: str) -> None:
    """In LaTeX the name had it twice."""
    column = Column(name, "percent")
    assert shown(12.5, column) == text
    latex = Table("Shares", "tab:shares", (column,), ((12.5,),)).latex()
    assert latex.count(r"(\%)") == 1
    assert "12.50%" not in latex


def test_columns_have_different_names() -> None:
    """Also without blanks at their ends: a reader of a CSV file has only the names."""
    with pytest.raises(ValueError, match="columns must have different names"):
        Table("Shares", "tab:shares", (Column("Share"), Column("Share ")), ())
