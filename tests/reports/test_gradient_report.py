"""Reports of gradients of which little can be said: they say so, and of the others what there is."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from psa.analysis.gradients.file import GradientFile
from psa.analysis.gradients.kmeans import KMeansConfig, lloyd, plus_plus
from psa.analysis.gradients.metric_space import space_of
from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.core.rng import generator
from psa.experiments.study import study_named
from psa.reports.gradients import text as gradient_text
from psa.reports.gradients.measurements import STARTS_PER_VIEW, GradientMeasurements
from psa.storage.array_file import ArrayFile

SMALL = ["--val-size", "57500", "--digits", "3,8", "--device", "cpu"]


@pytest.fixture
def page(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Train networks with these options, one after another, and read the page about them."""
    (tmp_path / "dataset").symlink_to(data_dir.resolve())
    monkeypatch.chdir(tmp_path)

    def made(*each: str) -> str:
        for options in each:
            assert run(PSA, ["train", "--study", "gradients", *SMALL, *options.split()]) == 0
        assert run(PSA, ["report", "gradients"]) == 0
        (path,) = Path("results/reports").glob("*.html")
        return html.unescape(path.read_text())

    return made


def test_a_network_that_diverged_and_one_of_a_handful_of_images_are_told(page: Callable[..., str]) -> None:
    """A line each, and nothing of theirs is clustered."""
    text = page(
        "--hidden-sizes 4 --optimizer sgd --lr 10 --weight-decay 1 --epochs 4",
        "--hidden-sizes 4 --train-size 10 --seed 1",
    )
    assert re.search(r"gradients/\S+/s00-\w+: the network diverged\.", text)
    assert "1 of 2 expected trials has no result (1 diverged). All numbers are of the others." in text
    assert "of gradients_online-1 1 gradient can be clustered, fewer than the 2 classes." in text
    assert "Agreement" not in text


@pytest.mark.slow
def test_seeds_that_kept_different_layers_share_a_page(page: Callable[..., str]) -> None:
    """What is said of the output layer is said of the seed that kept it."""
    text = page(
        "--hidden-sizes 4 --train-size 700 --seed 1 --probes gradients_online(layers=hidden.0)",
        "--hidden-sizes 4 --train-size 700 --seed 0 --probes gradients_online(layers=output)",
    )
    assert "Agreement here is a tautology" in text
    assert "delta alone" in text


@pytest.mark.slow
def test_only_what_reads_images_is_shown_as_images(page: Callable[..., str]) -> None:
    """The second layer reads the first one's units: its centres are no pictures of 28 x 28."""
    text = page("--hidden-sizes 8,4 --train-size 700 --probes gradients_online(layers=hidden.1)")
    assert "tab-gradients_starts" in text
    folder = next(Path("results/reports").glob("*.html")).with_suffix("")
    assert not (folder / "centres.png").exists()
    assert (folder / "samples.png").exists()


def made_up(**arrays: Any) -> GradientFile:
    """Gradients of an output layer of 3 classes and 4 inputs, some of them replaced."""
    study = study_named("gradients", "test")
    trial = study.from_settings(study.Settings(arch="1*4", digits="similar"), 0, "gradients")
    label = np.arange(90) % 3
    found = {
        "index": np.arange(90),
        "digit": np.array([6, 8, 9])[label],
        "label": label,
        "prediction": np.array([6, 8, 9])[label],
        "output.delta": np.float32(0.1) - np.eye(3, dtype=np.float32)[label],
        "output.activation": np.ones((90, 4), np.float32),
    }
    return GradientFile(
        ArrayFile(Path("x"), {"name": "gradients_online-1"}, found | arrays), trial, Path("dataset")
    )


def test_equal_gradients_are_one_cluster_and_no_picture() -> None:
    """There is nothing to draw, and no sentence holds a NaN."""
    one = GradientMeasurements(made_up(**{"output.delta": np.zeros((90, 3), np.float32)}))
    assert one.picture is None
    said = list(gradient_text.raw_gradient_text([one]))
    assert "all of these gradients are equal" in said[-1]
    assert "nan" not in " ".join(said)
    other = GradientMeasurements(made_up())
    assert "nan" not in " ".join(gradient_text.raw_gradient_text([one, other]))


@pytest.mark.parametrize("number", [np.nan, np.inf, 1e30])
def test_numbers_that_cannot_be_clustered_are_refused(number: float) -> None:
    """Also finite ones whose squares are not."""
    delta = made_up().file.arrays["output.delta"].copy()
    delta[50, 1] = number
    with pytest.raises(UserError, match="the network diverged"):
        GradientMeasurements(made_up(**{"output.delta": delta}))


@pytest.mark.slow
def test_all_layers_have_lengths_and_what_differs_is_told(page: Callable[..., str]) -> None:
    """Seeds of equal purity have one number; networks of two learning rates are not taken for seeds."""
    words = "--hidden-sizes 8,4 --train-size 700 --lr"
    text = page(f"{words} 1e-2", f"{words} 2e-2")
    assert "The networks of this page differ in lr (0.01, 0.02)" in text
    assert "hidden.0 alone is clustered" in text
    (table,) = Path("results/reports").rglob("norms.csv")
    rows = [line.split(",") for line in table.read_text().splitlines()[1:]]
    assert [row[1] for row in rows[::2]] == ["hidden.0", "hidden.1", "output"] * 2
    assert [row[2] for row in rows] == ["all", "clustered"] * 6
    # of 700 images of all digits those with a 3 or an 8, and these without the first fifth
    everything, used = int(rows[0][3]), int(rows[1][3])
    assert used == everything - everything // 5
    assert f"the first 20 % ({everything // 5}) are left out" in text
    assert "1.000 to 1.000" not in text


def test_single_runs_are_not_computed_twice() -> None:
    """Those from k-means++ are the runs that the clusters were chosen from; all are as if computed alone."""
    draws = generator(0, "bootstrap")
    layer = {"delta": draws.standard_normal((90, 4)), "activation": draws.standard_normal((90, 5))}
    hidden = {f"hidden.1.{name}": values.astype(np.float32) for name, values in layer.items()}
    one = GradientMeasurements(made_up(**hidden))
    view = one.found["hidden_unit"]
    space = space_of(view.view.points.normalised())
    assert [(each.init, each.number) for each in one.starts] == [
        (init, number) for init in ("k-means++", "random") for number in range(STARTS_PER_VIEW)
    ]
    for each in one.starts:
        draws = generator(one.seed, "kmeans", each.number)
        if each.init == "random":
            first = torch.from_numpy(draws.choice(len(space), one.count, replace=False))
        else:
            first = plus_plus(space, one.count, draws)
        alone = lloyd(space, first, 300, KMeansConfig(one.count).tolerance)
        assert each.inertia == alone.inertia
    assert min(each.inertia for each in one.starts[:STARTS_PER_VIEW]) == min(
        run.inertia for run in view.clusters.runs
    )


def test_what_takes_a_while_is_said() -> None:
    """Every run of k-means, every number of clusters and the picture, each with its trial."""
    said: list[str] = []
    one = GradientMeasurements(made_up(), say=said.append)
    assert one.found
    assert one.choice is not None
    assert one.picture is not None
    for words in (
        "output layer, raw: k-means run 10 of 10",
        "how many clusters: 2 clusters",
        "the plane: t-SNE",
    ):
        assert any(line.startswith(f"seed 0, {words}") for line in said), words


@pytest.mark.parametrize(
    ("whole", "delta", "seen", "said"),
    [
        (0.25, 0.9, 0.1, "hardly above chance"), (0.251, 0.9, 0.1, "delta alone"),
        (0.75, 0.7401, 0.7, "delta alone"), (0.75, 0.7399, 0.7, "better than either"),
        (0.75, 0.9, 0.9, "The input alone"), (0.75, 0.9, 0.8999, "delta alone"),
        (0.75, 0.7, 0.7401, "The input alone"), (0.75, 0.7, 0.7399, "better than either"),
        (0.75, 0.9, 0.91, "The input alone"), (0.25, 0.1, 0.1, "hardly above chance"),
    ],
)  # fmt: skip
def test_the_verdict_on_the_factors_at_its_edges(whole: float, delta: float, seen: float, said: str) -> None:
    """Chance is 0.2, and 0.05 above it is none; a factor does as well within 0.01. The first counts."""
    assert said in gradient_text.factor_verdict(whole, delta, seen, 0.2)
    assert sum(said in text for text, _ in gradient_text.FACTOR_VERDICTS) == 1


@pytest.mark.parametrize(("wrong", "said"), [(range(96, 100), True), (range(94, 98), False)])
def test_short_gradients_are_of_sure_samples_only_where_the_mistakes_are_outside(
    wrong: range, said: bool
) -> None:
    """A good network answers nearly all samples of any large cluster right."""
    labels = torch.tensor([0] * 95 + [1] * 5)
    predictions = np.zeros(100, dtype=np.int64)
    predictions[wrong] = 1
    each = SimpleNamespace(
        found={"hidden_raw": SimpleNamespace(clusters=SimpleNamespace(labels=labels))},
        digits=np.zeros(100, dtype=np.int64),
        predictions=predictions,
    )
    text = gradient_text.why_short([each], "hidden_raw")  # type: ignore[list-item]
    assert ("Samples of which it is sure have short gradients" in text) == said
