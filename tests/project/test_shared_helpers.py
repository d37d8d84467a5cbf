"""Small functions that commands and reports share."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from psa.cli.console import print_first
from psa.cli.run_options import in_range
from psa.core.errors import UserError
from psa.core.parsing import nearest
from psa.reports.rendering.html import pick


@pytest.mark.parametrize(("lines", "last"), [(0, []), (20, ["line 19"]), (23, ["and 3 more failed"])])
def test_of_many_lines_the_first_twenty_are_printed(lines: int, last: list[str]) -> None:
    """And how many there are beyond them, where there are any; markup in a line stays as it is."""
    out = Console(file=io.StringIO(), width=200)
    print_first(out, [f"line {number}" for number in range(lines)], "failed")
    printed = out.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(printed) == min(lines, 20) + (lines > 20)
    assert printed[-1:] == last


def test_the_nearest_name_is_found_or_none() -> None:
    """A slip finds its name, something else finds nothing, and a higher likeness asks for more."""
    names = {"dropout", "decay", "hidden"}
    assert nearest("dropuot", names) == "dropout"
    assert nearest("xyz", names) is None
    assert nearest("decoy", names, likeness=0.95) is None


def test_a_section_shows_what_the_page_has_in_the_order_asked_for() -> None:
    """Names that are missing are left out."""
    assert pick({"a": 1, "b": 2}, "b", "missing", "a") == (2, 1)


@pytest.mark.parametrize(
    ("value", "shown"), [(-1.0, "-1"), (0.5, "0.5"), (float("nan"), "nan"), (1001, "1001")]
)
def test_a_number_out_of_range_is_shown_as_it_was_written(value: float, shown: str) -> None:
    """Whole numbers without a fraction, and both ends of the range in the hint."""
    with pytest.raises(UserError, match=rf"^--n must be from 1 to 1,000, got {shown}\. "):
        in_range("--n", value, 1, 1_000)
    in_range("--n", 1, 1, 1_000)
