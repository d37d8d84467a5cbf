"""The figures of gradient space: what they show is what they were given, and the same bytes each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from psa.analysis.gradients.cluster_metrics import CentreImages, Choice, ClusterQuality, ClusterSummary
from psa.analysis.gradients.label_agreement import label_agreement
from psa.analysis.stats import Interval
from psa.reports.gradients.figures import (
    COLOURS,
    agreement_figure,
    choice_figure,
    colour,
    norms_figure,
    plot_agreements,
    tsne_figure,
)
from psa.reports.gradients.sample_figures import centres_figure, predictions_figure, samples_figure
from psa.reports.plotting.style import STYLE, notes_in, save

DRAWS = np.random.Generator(np.random.Philox(0))
DIGITS = DRAWS.integers(10, size=60)
GUESSES = np.where(DRAWS.random(60) < 0.8, DIGITS, 3)
PLACES = DRAWS.normal(size=(60, 2)) + 4 * np.eye(10)[DIGITS][:, :2]
IMAGES = DRAWS.random((60, 784))
NAN = float("nan")
GROUPS = (
    ClusterSummary(0, 50, 50 / 60, 1.0, 0.1, 0.5, 1.5, 1.01, 7, 0.9, 7, 0.8),
    ClusterSummary(1, 10, 10 / 60, 1.0, 0.1, 0.5, 1.5, 1.01, 3, 0.6, 3, 1.0),
    ClusterSummary(2, 0, 0.0, NAN, NAN, NAN, NAN, NAN, None, NAN, None, NAN),
)
CHOICE = Choice(
    (
        ClusterQuality(2, 9.0, 0.2, 30.0, 2.0),
        ClusterQuality(3, 5.0, 0.4, 20.0, 1.5),
        ClusterQuality(4, 4.0, NAN, NAN, NAN),
    ),
    60,
)


def tsne() -> Figure:
    """Three panels of the same points."""
    return tsne_figure(PLACES, DIGITS, DIGITS // 5, GUESSES)


def test_a_bar_that_ends_at_0_has_no_minus() -> None:
    """The adjusted Rand index of clusters that follow no label is a little above or below 0."""
    figure = Figure()
    ax = plot_agreements(figure.subplots(), [Interval(-2e-4, -1e-3, 1e-3)], ["blue"])
    assert [text.get_text() for text in ax.texts] == ["0.000"]


def agreed() -> Figure:
    """Two clusterings, each compared with classes and predictions."""
    found = {
        name: {
            "digits": label_agreement(labels, DIGITS, 0),
            "predictions": label_agreement(labels, GUESSES, 0),
        }
        for name, labels in {"hidden": DIGITS, "output": DIGITS // 5}.items()
    }
    return agreement_figure(found)


def chosen() -> Figure:
    """Three numbers of clusters, the last without some measures."""
    return choice_figure(CHOICE, 3)


def norms() -> Figure:
    """Three clusters, of which one is empty and one has gradients of zero."""
    return norms_figure(np.where(DIGITS == 1, 0, DRAWS_NORMS), (DIGITS < 5).astype(np.int64), 3)


DRAWS_NORMS = np.exp(DRAWS.normal(size=60))


def centres() -> Figure:
    """Three centres, the last of an empty cluster."""
    some = IMAGES[:3] - 0.5
    some[2] = 0
    images = CentreImages(
        some, np.array([0.9, 0.8, 0]), np.arange(9).reshape(3, 3), some[:, None].repeat(3, 1)
    )
    return centres_figure(images, GROUPS)


def samples() -> Figure:
    """Rows of different lengths."""
    rows = [np.arange(5), np.arange(5, 8), np.arange(0)]
    return samples_figure([IMAGES[row] for row in rows], [DIGITS[row] for row in rows], GROUPS)


def predictions() -> Figure:
    """More than one row of images."""
    return predictions_figure(IMAGES[:15], DIGITS[:15], GUESSES[:15])


ALL = [tsne, agreed, chosen, norms, centres, samples, predictions]


def said(figure: Figure) -> str:
    """All text of the figure itself, its title, and its notes."""
    return " ".join([*(" ".join(text.get_text().split()) for text in figure.texts), *notes_in(figure)])


@pytest.mark.slow
@pytest.mark.parametrize("draw", ALL, ids=lambda draw: str(draw.__name__))
def test_every_figure_is_the_same_each_time(
    draw: Callable[[], Figure], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PNG and PDF, byte by byte; nothing lies outside of the page, and a note says how it was made."""
    monkeypatch.setitem(STYLE, "savefig.dpi", 40)  # as in print, but sooner
    one, two = draw(), draw()
    first = [path.read_bytes() for path in save(one, tmp_path / "one")]
    assert first == [path.read_bytes() for path in save(two, tmp_path / "two")]
    assert notes_in(one)
    for ax in one.axes:
        place = ax.get_position()
        assert 0 <= place.x0 < place.x1 <= 1
        assert 0.05 < place.y0 < place.y1 <= 1


def test_the_panels_show_the_same_points_in_the_colours_of_their_classes() -> None:
    """By digit, cluster and prediction; a number stands on each class."""
    figure = tsne()
    assert [ax.get_title() for ax in figure.axes] == ["by class", "by cluster", "by prediction"]
    for ax, classes in zip(figure.axes, (DIGITS, DIGITS // 5, GUESSES), strict=True):
        (points,) = (each for each in ax.collections if isinstance(each, PathCollection))
        assert np.array_equal(np.asarray(points.get_offsets()), PLACES)
        assert len(np.unique(np.asarray(points.get_facecolor()), axis=0)) == len(np.unique(classes))
        numbers = {str(each) for each in np.unique(classes)} if ax.get_title() != "by prediction" else set()
        assert {text.get_text() for text in ax.texts} == numbers
    assert f"right for {100 * (DIGITS == GUESSES).mean():.1f} %" in said(figure)
    assert len(set(COLOURS)) == 10
    assert colour(13) == colour(3)


def test_bars_are_as_long_as_the_numbers() -> None:
    """Four rows of three measures."""
    figure = agreed()
    for ax in figure.axes:
        numbers = [text.get_text() for text in ax.texts]
        assert [f"{bar.get_width():.3f}" for bar in ax.patches] == numbers  # type: ignore[attr-defined]
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["hidden: digits", "hidden: predictions", "output: digits", "output: predictions"]
    assert "Over 60 samples" in said(figure)


def test_what_each_measure_would_choose_is_said() -> None:
    """And the number of digits is dashed; a measure that is not defined has no panel and is named."""
    assert "best: silhouette 3, Calinski-Harabasz 2, Davies-Bouldin 3 clusters" in said(chosen())
    assert "the 3 classes" in said(chosen())
    nothing = choice_figure(Choice((ClusterQuality(2, 0.0, NAN, NAN, NAN),), 5))
    assert [ax.get_title() for ax in nothing.axes] == ["inertia"]
    assert "Not defined: silhouette, Calinski-Harabasz, Davies-Bouldin." in said(nothing)
    assert "silhouette none" in said(nothing)


def test_gradients_of_zero_are_counted_aside() -> None:
    """They have no place on a logarithmic axis; where all are, there is no figure."""
    assert f"60 gradients, of which {(DIGITS == 1).sum()} are zero" in said(norms())
    names = [text.get_text() for text in norms().axes[0].get_yticklabels()]
    assert names[2] == "cluster 2 (0)"
    with pytest.raises(ValueError, match="not zero"):
        norms_figure(np.zeros(4), np.zeros(4, dtype=np.int64), 1)


def test_right_and_wrong_are_told_without_colours() -> None:
    """A wrong prediction names the digit as well; an empty cluster is called so."""
    titles = [ax.get_title() for ax in predictions().axes]
    for name, digit, guess in zip(titles, DIGITS, GUESSES, strict=False):
        assert name == (f"{guess}" if digit == guess else f"{guess}, is {digit}")
    assert f"{(DIGITS[:15] == GUESSES[:15]).sum()} of the 15 shown" in said(predictions())
    assert "cluster 2: 0 samples empty" in said(samples())
    assert [ax.get_title().split("\n")[0] for ax in centres().axes[::4]] == [
        "0: 7 (90%)",
        "1: 3 (60%)",
        "2: empty",
    ]
