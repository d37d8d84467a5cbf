"""Grids of images of the gradient study: samples of each class, and predictions of test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from psa.analysis.gradients.file import GradientFile, Labels
from psa.analysis.sample_details import load_sample_details
from psa.core.rng import generator
from psa.data.splits import load_splits
from psa.reports.gradients.sample_figures import Images, pictures_of, plot_image, predictions_figure
from psa.reports.plotting.style import add_axes, footnote, new_figure, plot_style, title
from psa.specs.trial import Trial
from psa.storage.store import Store

EACH_CLASS: Final = 10  # samples in a row
CLASSES_SHOWN: Final = 12
TEST_SHOWN: Final = 48
_LETTER: Final = 0.075  # inches of the name of a class
_LETTERS: Final = 16  # of such a name at most


@dataclass(frozen=True)
class DrawnSamples:
    """Some samples of the test split, drawn at random, and the predictions of the final weights for them.

    images: [n, features]; digits, predictions: classes of the data set [n]; right: the number of correct
    predictions of the whole split; total: its size; shape: that of a sample.
    """

    trial: Trial
    images: Images
    digits: Labels
    predictions: Labels
    right: int
    total: int


def draw_test_samples(store: Store, record: Mapping[str, Any], data_dir: Path) -> DrawnSamples | None:
    """Return the grid of a trial; None without the probe sample_details or its file. Raises UserError."""
    details = load_sample_details(store, record)
    if details is None:
        return None
    test = details[details["split"] == "test"]
    trial = Trial.model_validate(record["spec"])
    images = load_splits(trial.data, data_dir.absolute()).test.images.numpy()
    chosen = generator(trial.seed, "subset").permutation(len(test))[:TEST_SHOWN]
    digits, predictions = (test[name].to_numpy(np.int64) for name in ("digit", "prediction"))
    right = int((digits == predictions).sum())
    return DrawnSamples(trial, images[chosen], digits[chosen], predictions[chosen], right, len(test))


def drawn_samples_figure(grid: DrawnSamples, notes: Sequence[str] = ()) -> Figure:
    """Plot the samples of a grid with their predictions, green if right, else orange with both classes."""
    whole = f"Drawn at random from the test split, of which {grid.right:,} of {grid.total:,} are right."
    about = [f"Seed {grid.trial.seed}, final weights. {whole}", *notes]
    pictures = pictures_of(grid.images, grid.trial.data.shape)
    return predictions_figure(pictures, grid.digits, grid.predictions, about, "Predictions of test samples")


def first_of_each_class(digits: Labels) -> dict[int, Labels]:
    """Return the places of the first EACH_CLASS samples of each class, of the first CLASSES_SHOWN classes."""
    classes = [int(digit) for digit in np.unique(digits)[:CLASSES_SHOWN]]
    return {digit: np.flatnonzero(digits == digit)[:EACH_CLASS] for digit in classes}


def data_samples_figure(kept: GradientFile) -> Figure:
    """Plot samples of the training split, a row per class: the first in the order of the file."""
    rows = first_of_each_class(kept.digits)
    names = {digit: _class_name(kept.trial, digit) for digit in rows}
    left = 0.25 + _LETTER * max(5, *map(len, names.values()))
    step = min(0.58, (7.1 - left) / EACH_CLASS)
    with plot_style():
        figure = new_figure(len(rows) * step + 0.75)
        title(figure, f"Training samples of {kept.trial.data.name}")
        wide, high = (float(size) for size in figure.get_size_inches())
        for number, (digit, places) in enumerate(rows.items()):
            bottom = high - 0.35 - (number + 1) * step
            text = f"{names[digit]}\n{int((kept.digits == digit).sum()):,}"
            figure.text(0.1 / wide, (bottom + step / 2) / high, text, va="center", fontsize=7)
            pictures = pictures_of(kept.images(places).numpy(), kept.trial.data.shape)
            for at, picture in enumerate(pictures):
                plot_image(add_axes(figure, left + at * step, bottom, step - 0.04, step - 0.04), picture)
        order = "of training" if kept.online else "of the split"
        many = len(np.unique(kept.digits)) - len(rows)
        more = f" {many} further classes are not shown." if many else ""
        footnote(
            figure,
            [
                f"The first {EACH_CLASS} samples of each class, in the order {order}, scaled as the network "
                f"reads them. Beside them: the class, and its number of training samples.{more}"
            ],
        )
        return figure


def _class_name(trial: Trial, digit: int) -> str:
    names = trial.data.facts.classes
    return (names[digit] if digit < len(names) else str(digit))[:_LETTERS]
