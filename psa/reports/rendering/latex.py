"""Tables in LaTeX: booktabs rules, siunitx numbers, and several pages where one is not enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from psa.core.errors import UserError

LATEX_MISSING: Final = "{--}"  # in braces, so that a column of numbers does not read it as one
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
