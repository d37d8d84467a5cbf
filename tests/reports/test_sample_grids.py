"""Grids of images and learning curves of the gradient report, against the data and the record."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

from psa.analysis.gradients.file import paths_of, read_gradients
from psa.analysis.records_frame import load_records_frame
from psa.cli.app import PSA, run
from psa.data.splits import Splits
from psa.reports.contract import ReportContext
from psa.reports.gradients import report
from psa.reports.gradients.sample_grids import (
    EACH_CLASS,
    TEST_SHOWN,
    data_samples_figure,
    draw_test_samples,
    drawn_samples_figure,
    first_of_each_class,
)
from psa.reports.gradients.training import gradient_curves
from psa.reports.plotting.style import notes_in
from psa.storage.records.record import Record
from psa.storage.store import Store

DIGITS = (3, 8)
TRAIN = (
    "train --study gradients --hidden-sizes 4 --digits 3,8 --val-size 57500 --test-size 600 --epochs 2 "
    "--device cpu --probes gradients_online(epochs=2),sample_details"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[Store, Record]:
    """A network that kept its gradients and its samples."""
    folder = tmp_path_factory.mktemp("grids")
    (folder / "dataset").symlink_to(data_dir.resolve())
    with contextlib.chdir(folder):
        assert run(PSA, TRAIN.split()) == 0
    store = Store(folder / "models", folder / "results")
    (record,) = store.records.all()
    return store, record


def weights(store: Store, record: Record) -> dict[str, torch.Tensor]:
    """The stored weights, in float64."""
    from safetensors.torch import load_file

    (path,) = store.models.rglob("lkg.safetensors")
    found = {name.removeprefix("lkg/"): tensor.double() for name, tensor in load_file(path).items()}
    assert record["loops"] == 2
    return found


def test_predictions_are_those_of_the_final_weights(
    trained: tuple[Store, Record], splits: Splits, data_dir: Path
) -> None:
    """The drawn images belong to the test split, and the fraction that is right equals the recorded one."""
    store, record = trained
    drawn = draw_test_samples(store, record, data_dir)
    assert drawn is not None
    assert (drawn.right, drawn.total) == (record["finals"]["test"]["correct"], record["samples"]["test"])
    assert len(drawn.images) == TEST_SHOWN
    every = {image.tobytes(): int(digit) for image, digit in zip(
        splits.test.images.numpy(), splits.test.digits, strict=True)}  # fmt: skip
    assert [every[image.tobytes()] for image in drawn.images] == list(drawn.digits)
    w = weights(store, record)
    hidden = (torch.from_numpy(drawn.images).double() @ w["hidden.0.weight"].T + w["hidden.0.bias"]).clamp(0)
    answers = (hidden @ w["output.weight"].T + w["output.bias"]).argmax(1).numpy()
    assert np.array_equal(np.array(DIGITS)[answers], drawn.predictions)


def test_the_grid_shows_right_and_wrong(trained: tuple[Store, Record], data_dir: Path) -> None:
    """A title per image, both classes where they differ; the note counts the whole split."""
    drawn = draw_test_samples(*trained, data_dir)
    assert drawn is not None
    figure = drawn_samples_figure(drawn)
    said = [ax.get_title() for ax in figure.axes]
    assert said == [
        str(one) if one == digit else f"{one}, is {digit}"
        for one, digit in zip(drawn.predictions, drawn.digits, strict=True)
    ]
    assert f"{drawn.right:,} of {drawn.total:,} are right" in " ".join(notes_in(figure))


def test_every_class_has_its_first_samples(trained: tuple[Store, Record], data_dir: Path) -> None:
    """In the order of the file, a row each; few of a rare class, twelve classes at most."""
    store, record = trained
    (path,) = paths_of(store, record).values()
    kept = read_gradients(path, data_dir)
    figure = data_samples_figure(kept)
    assert len(figure.axes) == len(DIGITS) * EACH_CLASS
    first = np.flatnonzero(kept.digits == 8)[0]
    shown = figure.axes[EACH_CLASS].images[0].get_array()
    assert np.array_equal(np.asarray(shown).reshape(-1), kept.images(np.array([first])).numpy()[0])
    assert [text.get_text().partition("\n")[0] for text in figure.texts[-2:]] == ["3", "8"]
    rare = first_of_each_class(np.array([5, 1, 5, 1, 1, *range(20, 40)]))
    assert len(rare) == 12
    assert rare[5].tolist() == [0, 2]


def test_curves_are_those_of_the_record(trained: tuple[Store, Record]) -> None:
    """Losses and accuracy of every epoch; trials that are not done take no part."""
    store, record = trained
    frame = load_records_frame(store)
    losses, accuracies = gradient_curves(frame).axes
    history = record["history"]
    assert [list(line.get_ydata()) for line in losses.lines] == [history["train_loss"], history["loss"]]
    (line,) = accuracies.lines
    percent = [100 * count / record["samples"]["validation"] for count in history["correct"]]
    assert list(line.get_ydata()) == pytest.approx(percent)
    assert list(line.get_xdata()) == [1, 2]


def test_a_trial_of_one_epoch_is_a_point(trained: tuple[Store, Record]) -> None:
    """Its line would have no length, so neither title nor legend nor note speaks of a curve."""
    frame = load_records_frame(trained[0])
    figure = gradient_curves(frame[frame["loop"].fillna(1) == 1])
    assert notes_in(figure)[0].startswith("A point per trial (n = 1)")
    (legend,) = figure.legends
    assert [line.get_marker() for line in legend.get_lines()] == ["o", "o"]
    drawn = [*legend.get_lines(), *(line for ax in figure.axes for line in ax.lines)]
    assert {line.get_linestyle() for line in drawn} == {"None"}
    assert "Losses and accuracy after one epoch" in title_of(figure)
    longer = gradient_curves(frame)
    assert "None" not in {line.get_linestyle() for ax in longer.axes for line in ax.lines}
    assert "Learning curves" in title_of(longer)


def title_of(figure: Figure) -> str:
    """The texts of a figure outside its panels."""
    return " ".join(text.get_text() for text in figure.texts)


def figures(frame: pd.DataFrame, **context: Any) -> list[str]:
    """The names of the figures that need no clustering."""
    made = report.figures(frame, ReportContext(Path("page"), **context))
    return [name for name, _ in made if name in ("training_curves", "test_predictions", "data_samples")]


def test_a_damaged_file_of_samples_leaves_the_other_figures(
    trained: tuple[Store, Record], data_dir: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in a warning; the report goes on."""
    store, record = trained
    shutil.copytree(store.models, tmp_path / "models")
    for path in (tmp_path / "models").rglob("*sample_details*"):
        path.write_bytes(path.read_bytes()[:-8])
    damaged = Store(tmp_path / "models", store.results)
    found = figures(load_records_frame(store), store=damaged, data_dir=data_dir)
    assert "training_curves" in found
    assert "test_predictions" not in found
    assert f"{record['id']} has no figure of test predictions: " in caplog.text


def test_a_report_draws_what_was_kept(trained: tuple[Store, Record], data_dir: Path, tmp_path: Path) -> None:
    """Without the samples no predictions of test images; without gradients no classes; curves always."""
    store, record = trained
    frame = load_records_frame(store)
    assert figures(frame, store=store, data_dir=data_dir) == [
        "training_curves",
        "test_predictions",
        "data_samples",
    ]
    bare = Store(tmp_path / "models", store.results)
    assert draw_test_samples(bare, record, data_dir) is None
    assert figures(frame, store=bare, data_dir=data_dir) == ["training_curves"]
    missing = frame.assign(status="missing")
    assert figures(missing, store=bare, data_dir=data_dir) == []
