"""Tables in LaTeX: booktabs rules, siunitx numbers, and several pages where one is not enough."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from psa.core.errors import UserError

LATEX_MISSING: Final = "{--}"  # in braces, so that a column of numbers does not read it as one
_UPRIGHT, _TURNED = 500.0, 735.0  # points across a sheet of A4 with margins of 1.5 cm
_LETTER: Final = 3.9  # points of a letter of a table of many columns
_BETWEEN: Final = 6.0  # points between columns
_CENTIMETRES: Final = re.compile(r"p\{([\d.]+)cm\}")
_COMMAND: Final = re.compile(r"\\[a-zA-Z]+|[{}$\\]")
_FEW: Final = 6  # columns; a table of more is set smaller
_SPECIAL: Final = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "–": "--",
    "α": r"$\alpha$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "Δ": r"$\Delta$",
    "β": r"$\beta$",
    "μ": r"$\mu$",
    "µ": r"$\mu$",
    "σ": r"$\sigma$",
    "→": r"$\to$",
    "“": "``",
    "”": "''",
    "—": "---",
    "…": r"\dots{}",
}
_LAST_LETTER: Final = "ž"  # of the Latin letters that LaTeX prints without further packages
_NUMBERS: Final = (
    r"\sisetup{separate-uncertainty=true, detect-weight=true, mode=text, group-digits=integer,"
    "\n    group-minimum-digits=4, group-separator={,}, retain-zero-uncertainty=true,"
    "\n    retain-explicit-plus=true}"
)


def escape(text: str) -> str:
    """Escape a text for LaTeX, on one line: no character is a command. A line may break after a slash.

    Raises UserError for a character that LaTeX cannot print.
    """
    return "".join(map(_sign, " ".join(text.split()))).replace("/", r"\slash ")


def _sign(character: str) -> str:
    known = _SPECIAL.get(character, character)
    if known > _LAST_LETTER or not known.isprintable():
        raise UserError(f"LaTeX has no sign for {character!r}", "Write it in words")
    return known


@dataclass(frozen=True)
class Sheet:
    """A table whose cells are LaTeX already. columns: one specification per column, e.g. `l` or
    `S[table-format=2.2]`; caption and note: plain text, escaped here; wide: the table is turned on its page.
    """

    caption: str
    label: str
    columns: Sequence[str]
    head: Sequence[str]
    body: Sequence[Sequence[str]]
    note: str = ""
    wide: bool = False

    def fitted(self) -> list[Sheet]:
        """Return the table in a form that fits its page.

        It is turned where an upright page is too narrow, and in parts with the same first columns where a
        turned one is, too.
        """
        widths = (
            [
                _column_width(*column)
                for column in zip(self.columns, self.head, zip(*self.body, strict=True), strict=True)
            ]
            if self.body
            else []
        )
        if sum(widths) <= _TURNED:
            return [replace(self, wide=self.wide or sum(widths) > _UPRIGHT)]
        parts = _column_parts(widths, self._keys())
        return [self._part(part, at, len(parts)) for at, part in enumerate(parts, 1)]

    def _keys(self) -> int:
        """Return the number of the first columns, of texts, which name the rows; at least one."""
        texts = itertools.takewhile(lambda column: column[0] in "l>", self.columns)
        return max(1, sum(1 for _ in texts))

    def _part(self, part: Sequence[int], number: int, count: int) -> Sheet:
        return replace(
            self,
            caption=f"{self.caption} (part {number} of {count})",
            label=self.label if number == 1 else f"{self.label}_{number}",
            columns=[self.columns[at] for at in part],
            head=[self.head[at] for at in part],
            body=[[row[at] for at in part] for row in self.body],
            note=self.note if number == count else "",
            wide=True,
        )

    def float(self) -> str:
        """Return the table as a float on one page."""
        note = [rf"\par\smallskip\parbox{{\linewidth}}{{{_SMALL} {escape(self.note)}}}"] if self.note else []
        return self._turned(
            r"\begin{table}[htbp]",
            r"\centering",
            *self._settings(),
            self._caption(),
            r"\smallskip",
            rf"\begin{{tabular}}{{{self._columns()}}}",
            r"\toprule",
            _row(self.head),
            r"\midrule",
            *map(_row, self.body),
            r"\bottomrule",
            r"\end{tabular}",
            *note,
            r"\end{table}",
        )

    def long(self) -> str:
        """Return the table over as many pages as it takes, with its head on each."""
        width = len(self.columns)
        # below the table and not in it: a cell as wide as the page would pull the columns apart
        note = [rf"\par\noindent{{{_SMALL} {escape(self.note)}\par}}"] if self.note else []
        return self._turned(
            r"\begingroup",
            *self._settings(),
            rf"\begin{{longtable}}{{{self._columns()}}}",
            rf"{self._caption()}\\",
            *self._head(),
            r"\endfirsthead",
            rf"\multicolumn{{{width}}}{{l}}{{\tablename~\thetable{{}}, continued}}\\",
            *self._head(),
            r"\endhead",
            r"\bottomrule",
            r"\endfoot",
            r"\bottomrule",
            r"\endlastfoot",
            *map(_row, self.body),
            r"\end{longtable}",
            *note,
            r"\endgroup",
        )

    def _turned(self, *lines: str) -> str:
        """Return the lines below the packages that they need, on a turned page if the table is wide."""
        if self.wide:
            lines = (r"\begin{landscape}", *lines, r"\end{landscape}")
        needs = r"% \usepackage{booktabs, longtable, pdflscape, siunitx}, siunitx from 3.0"
        return "\n".join([needs, *lines]) + "\n"

    def _settings(self) -> list[str]:
        return [
            r"\scriptsize\setlength{\tabcolsep}{3pt}" if len(self.columns) > _FEW else r"\small",
            _NUMBERS,
        ]

    def _columns(self) -> str:
        return "".join(f"\n    {column}" for column in self.columns) + "\n"

    def _caption(self) -> str:
        return rf"\caption{{{escape(self.caption)}}}\label{{{self.label}}}"

    def _head(self) -> list[str]:
        return [r"\toprule", _row(self.head), r"\midrule"]


def _column_width(specification: str, head: str, cells: Sequence[str]) -> float:
    """Return about how many points a column takes in the small letters of a table of many columns."""
    if given := _CENTIMETRES.search(specification):
        return 28.45 * float(given[1]) + _BETWEEN
    letters = max(len(_COMMAND.sub("", text)) for text in (head, *cells))
    return _LETTER * letters + _BETWEEN


def _column_parts(widths: Sequence[float], keys: int) -> list[list[int]]:
    """Return the columns of each part of a table: the first `keys` of all, then as many as a turned page has
    room for.
    """
    first = list(range(keys))
    room = _TURNED - sum(widths[:keys])
    parts, used = [list(first)], 0.0
    for at in range(keys, len(widths)):
        if used + widths[at] > room and len(parts[-1]) > keys:
            parts.append(list(first))
            used = 0.0
        parts[-1].append(at)
        used += widths[at]
    return parts


_SMALL: Final = r"\footnotesize\raggedright"


def _row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


_TAG: Final = re.compile(r"<(?=[A-Za-z/!?])")

# A signed number does not count as a formula.
_FORMULA: Final = re.compile(r"[=@\t\r]|[+-](?![0-9.]+$)(?=.)")


def escape_markdown(text: str) -> str:
    """Escape HTML and emphasis in a text for Markdown: two stars would make `4*4, 2*8` italic."""
    plain = _TAG.sub("&lt;", text)
    return plain.replace("*", r"\*") if plain.count("*") > 1 else plain


def escape_formula(text: str) -> str:
    """Escape a text that a spreadsheet would otherwise compute as a formula."""
    return f"'{text}" if _FORMULA.match(text) else text
