"""Every table of every study, as a LaTeX document: it compiles, and no table leaves its page."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_up_frames import ARCHS, ASYMMETRIC, frame
from paths import ROOT
from processes import PATIENCE_SECONDS

from psa import Experiment
from psa.analysis.probe_frame import load_probe_frame
from psa.analysis.published import read_reference
from psa.analysis.records_frame import load_records_frame
from psa.experiments.grid import load_grid
from psa.experiments.promotion import stage_statuses
from psa.reports.ablation.published import published_comparison
from psa.reports.contract import ReportContext, report_of
from psa.reports.rendering.stages import stage_tables
from psa.reports.rendering.tables import Table
from psa.storage.store import Store

PDFLATEX = shutil.which("pdflatex")
STORED = ROOT / "tests/stored"
BEYOND = 5.0  # typographic points that a line may be wider than its page
HEAD = r"""\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[margin=1.5cm]{geometry}
\usepackage{booktabs, longtable, pdflscape, siunitx}
\begin{document}
"""


def ablation(tmp_path: Path, data_dir: Path) -> Iterator[Table]:
    """Of all 98 architectures and of some of them, with published numbers."""
    published = read_reference(ROOT / "reproduction/published/simplemlp.tsv")
    for archs in (ARCHS, ARCHS[:5]):
        context = ReportContext(tmp_path, ARCHS, ASYMMETRIC, published)
        rows = frame(archs, 3, 4)
        yield from report_of("ablation").tables(rows, context).values()
        yield published_comparison(rows, published)  # which the report leaves out beside other settings


def stored(kind: str, study: str) -> Callable[[Path, Path], Iterator[Table]]:
    """Of a stored tree of another version of psa."""

    def tables(tmp_path: Path, data_dir: Path) -> Iterator[Table]:
        store = Store(STORED / "models", STORED / "results")
        rows, observed = load_records_frame(store, [study]), load_probe_frame(store)
        for _, part in report_of(kind).parts(rows):
            mine = observed[observed["id"].isin(part["id"])]
            context = ReportContext(tmp_path, observed=mine, store=store, data_dir=data_dir)
            yield from report_of(kind).tables(part, context).values()

    return tables


def activations(tmp_path: Path, data_dir: Path) -> Iterator[Table]:
    """Of a few networks that are trained here, with thresholds and stochastic layers."""
    settings: dict[str, Any] = {
        "name": "tiny", "epochs": 2, "seeds": 3,
        "base": {"arch": "1*6", "digits": [0, 1], "val_size": 59_000},
        "axes": {"activation": ["ReLU", "JumpReLU(initial=0.5)"], "dropout": [0.0, 0.1]},
    }  # fmt: skip
    folders = {"model_dir": tmp_path / "models", "results_dir": tmp_path / "results"}
    Experiment("activations", **settings).run(1, data_dir=data_dir, quiet=True, **folders)
    store = Store(*folders.values())
    rows = load_records_frame(store)
    context = ReportContext(tmp_path, observed=load_probe_frame(store), store=store)
    yield from report_of("activations").tables(rows, context).values()


def staged(tmp_path: Path, data_dir: Path) -> Iterator[Table]:
    """Tables of the candidates of a grid with two stages, given as variants, as axes, and as arms."""
    store = Store(tmp_path / "models", tmp_path / "results")
    axes = '[axes]\nmode = ["none", "hidden"]\nlr = [1e-3, 2e-3]\n[base]\narch = "1*1"\n'
    axes += '[[stages]]\nname = "a"\nmeta_loops = 1\nseeds = [0]\n'
    axes += '[[stages]]\nname = "b"\nmeta_loops = 2\nseeds = [0]\npromote = { best = 1 }\n'
    (tmp_path / "axes.toml").write_text(axes)
    grids = [ROOT / f"reproduction/{name}.toml" for name in ("growth", "questions")]
    for path in (*grids, tmp_path / "axes.toml"):
        yield from stage_tables([*stage_statuses(load_grid(path), store)]).values()


TABLES: dict[str, tuple[Callable[[Path, Path], Iterator[Table]], int]] = {
    "ablation": (ablation, 12),
    "glonet": (stored("glonet", "glonet"), 4),
    "gradients": (stored("gradients", "gradients"), 2),
    "memory": (stored("memory", "memory"), 3),
    "activations": (activations, 3),
    "stages": (staged, 3),
}


@pytest.mark.slow
@pytest.mark.skipif(PDFLATEX is None, reason="needs pdflatex (Debian's texlive-latex-extra, texlive-science)")
@pytest.mark.parametrize("study", TABLES)
def test_every_table_compiles(study: str, tmp_path: Path, data_dir: Path) -> None:
    """With no other packages than the first line of a table names; twice, for the widths of long tables."""
    tables, least = TABLES[study]
    made = list(tables(tmp_path, data_dir))
    assert len(made) >= least
    (tmp_path / "all.tex").write_text(
        HEAD + "\n\\clearpage\n".join(each.latex() for each in made) + "\\end{document}\n"
    )
    for _ in range(2):
        done = subprocess.run(
            [PDFLATEX or "", "-halt-on-error", "-interaction=nonstopmode", "all.tex"],
            cwd=tmp_path, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE_SECONDS, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
    log = (tmp_path / "all.log").read_text(errors="replace")
    wide = [float(each) for each in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert max(wide, default=0) < BEYOND, re.findall(r"Overfull \\hbox.*", log)
    assert "Undefined control sequence" not in log
