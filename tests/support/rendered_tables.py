"""Tables as they come out: the cells of Markdown, and LaTeX as pdflatex takes it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from processes import PATIENCE_SECONDS


def cells(markdown: str) -> list[list[str]]:
    """The rows of the one table in a text, head first."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in [lines[0], *lines[2:]]]


PACKAGES = ("booktabs", "geometry", "longtable", "pdflscape", "siunitx")


def compiled(folder: Path, *tables: str) -> str:
    """What pdflatex says of a document that holds these tables. Skips where LaTeX is not all there."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed")
    for package in PACKAGES:
        if subprocess.run(["kpsewhich", f"{package}.sty"], capture_output=True, check=False).returncode:
            pytest.skip(f"LaTeX has no package {package}")
    body = "\n\\clearpage\n".join(tables)
    used = f"\\usepackage[margin=2cm]{{geometry}}\n\\usepackage{{{','.join(PACKAGES)}}}\n"
    (folder / "all.tex").write_text(
        f"\\documentclass[a4paper]{{article}}\n{used}\\begin{{document}}\n{body}\n\\end{{document}}\n"
    )
    command = ["pdflatex", "-draftmode", "-halt-on-error", "-interaction=nonstopmode", "all.tex"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=PATIENCE_SECONDS
    )
    assert done.returncode == 0, done.stdout[-2000:]
    return done.stdout
