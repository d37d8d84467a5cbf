"""Reports of trials on data of one's own: they name the user's classes, and draw samples of any shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from own_data import GRAPES, made, wine_frame

from psa import Experiment
from psa.analysis.records_frame import load_frames
from psa.reports.contract import ReportContext, report_of
from psa.reports.gradients.sample_figures import pictures_of
from psa.reports.plotting.style import notes_in
from psa.storage.store import Store


def test_samples_of_any_shape_become_pictures() -> None:
    """Features of a table one row; channels, which are stored one after the other, their mean."""
    flat = np.arange(24.0).reshape(2, 12)
    assert pictures_of(flat, (12,)).shape == (2, 1, 12)
    assert np.array_equal(pictures_of(flat, (3, 4)), flat.reshape(2, 3, 4))
    assert np.array_equal(pictures_of(flat, (2, 2, 3)), flat.reshape(2, 3, 2, 2).mean(1))
    assert pictures_of(flat.reshape(2, 1, 12), (3, 4)).shape == (2, 1, 3, 4)


def test_the_memory_report_names_the_users_classes(tmp_path: Path) -> None:
    """In its table of classes."""
    base = {"arch": "1*8, 1*8", "batch_size": 16, "memory_size": 50}
    one = Experiment(
        "memory", data=(wine_frame(), "grape"), name="wine", base=base, axes={"method": ["nn", "hybrid"]},
        epochs=1, seeds=2,
    )  # fmt: skip
    one.run(1, quiet=True, data_dir=tmp_path / "d", model_dir=tmp_path / "m", results_dir=tmp_path / "r")
    store = Store(tmp_path / "m", tmp_path / "r")
    frame, observed = load_frames(store, ["wine"])
    table = report_of("memory").tables(frame, ReportContext(tmp_path, observed=observed, store=store))
    assert {row[1] for row in table["classes"].rows} == set(GRAPES)
    assert sum(int(str(row[-1])) for row in table["classes"].rows[:3]) == 2 * 36


@pytest.mark.parametrize(("shape", "kind"), [((6,), "f4"), ((4, 4, 3), "u1")], ids=str)
def test_the_gradient_report_draws_any_samples(shape: tuple[int, ...], kind: str, tmp_path: Path) -> None:
    """Its centres, samples and predictions, of a table and of images with channels."""
    samples, labels = made(60, shape, 3, kind)
    names = np.array(GRAPES)[labels]
    one = Experiment(
        "gradients", data=(samples, names), name="own", base={"arch": "1*6", "batch_size": 16}, epochs=1
    )
    one.run(1, quiet=True, data_dir=tmp_path / "d", model_dir=tmp_path / "m", results_dir=tmp_path / "r")
    store = Store(tmp_path / "m", tmp_path / "r")
    frame, observed = load_frames(store, ["own"])
    report = report_of("gradients")
    ((name, rows),) = report.parts(frame)
    context = ReportContext(tmp_path / name, observed=observed, store=store, data_dir=tmp_path / "d")
    drawn = dict(report.figures(rows, context))
    assert {"centres", "samples", "predictions"} <= set(drawn)
    texts = [*notes_in(drawn["predictions"])]
    assert any("0 barbera, 1 barolo, 2 grignolino" in " ".join(text.split()) for text in texts), texts
