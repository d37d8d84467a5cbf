"""Data sets of one's own: their files, their digest, their splits, and their scaling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from own_data import GRAPES, WINE, made, wine_frame, write_wine

from psa.core.errors import CorruptFileError, UserError
from psa.data import own
from psa.data.files import data_files
from psa.data.own import content_of, content_of_arrays, keep_tables, own_table
from psa.data.scaling import fitted
from psa.data.splits import class_counts, load_splits
from psa.data.table import decode_table
from psa.engine.device_pack import fresh_state
from psa.nn.dense import Dense
from psa.specs.data import DataContent, DataSpec
from psa.specs.trial import Trial
from psa.storage.plugin_versions import check_versions
from psa.storage.store import Store


def spec_of(content: DataContent, **settings: object) -> DataSpec:
    """The data of a content."""
    return DataSpec.model_validate({"name": content.name, "content": content, **settings})


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start with no table in memory, as another process does."""
    monkeypatch.setattr(own, "_tables", {})
    own._content_of.cache_clear()


def test_equal_data_have_one_digest_whatever_their_file(tmp_path: Path) -> None:
    """CSV, Parquet, NPZ, a data frame and arrays: the same trial. The place of a file is no part of it."""
    paths = write_wine(tmp_path)
    elsewhere = tmp_path / "other" / "name.csv"
    elsewhere.parent.mkdir()
    elsewhere.write_bytes(paths["csv"].read_bytes())
    frame = wine_frame()
    found = [
        content_of(f"file:{paths['csv']}?label=grape"),
        content_of(f"file:{elsewhere}?label=grape"),
        content_of(f"file:{paths['parquet']}?label=grape"),
        content_of(f"file:{paths['npz']}"),
        content_of_arrays(frame, "grape"),
        content_of_arrays(frame.drop(columns="grape"), frame["grape"]),
    ]
    assert found == [found[0]] * len(found)
    assert found[0].classes == tuple(sorted(GRAPES))
    assert (found[0].shape, found[0].train) == ((13,), WINE)
    changed = frame.assign(alcohol=frame["alcohol"] + 1e-9)
    assert content_of_arrays(changed, "grape").sha256 != found[0].sha256


def test_a_trial_keeps_its_id_when_its_file_moves(tmp_path: Path) -> None:
    """And a name that the user gives is part of it."""
    paths = write_wine(tmp_path)
    first = Trial(data=spec_of(content_of(f"file:{paths['csv']}?label=grape")))
    paths["csv"].rename(tmp_path / "moved.csv")
    again = Trial(data=spec_of(content_of(f"file:{tmp_path / 'moved.csv'}?label=grape")))
    named = Trial(data=spec_of(content_of(f"file:{tmp_path / 'moved.csv'}?label=grape&name=grapes")))
    assert first.id == again.id
    assert first.digest == again.digest
    assert named.data.name == "grapes"
    assert named.digest != first.digest


def test_a_stored_table_is_checked_by_its_digest(tmp_path: Path, forgotten: None) -> None:
    """Workers read it from the data folder; one changed byte is refused, and a missing file is named."""
    content = content_of_arrays(*made(60, (4,), 3))
    trial = Trial(data=spec_of(content))
    keep_tables([trial], tmp_path)
    path = tmp_path / "own" / f"{content.sha256}.safetensors"
    own._tables.clear()
    assert own_table(trial.data, tmp_path).sha256 == content.sha256
    keep_tables([trial], tmp_path)  # what is there need not be in memory
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CorruptFileError, match=f"must hold the data with SHA-256 {content.sha256}, got"):
        own_table(trial.data, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=r"is not in .*own\. Run the command with the file"):
        keep_tables([trial], tmp_path)


def test_what_travels_is_the_table(tmp_path: Path) -> None:
    """To another data folder, under the name that a worker looks for."""
    content = content_of_arrays(*made(60, (4,), 3))
    files = data_files([spec_of(content), spec_of(content, split_seed=3)], tmp_path)
    assert list(files) == [f"own/{content.sha256}.safetensors"]
    assert decode_table(files[f"own/{content.sha256}.safetensors"], "x").sha256 == content.sha256
    assert list(data_files([DataSpec(name="wine")], tmp_path)) == ["wine/wine.safetensors"]


@pytest.mark.parametrize("name", ["digits", "wine", "breast-cancer", "iris"])
def test_bundled_data_sets_need_no_network(name: str, tmp_path: Path) -> None:
    """Their content is pinned; all samples are in one of three splits that share none."""
    spec = DataSpec(name=name)
    splits = load_splits(spec, tmp_path)
    every = torch.cat([part.index for part in (splits.train, splits.val, splits.test)])
    assert sorted(every.tolist()) == list(range(spec.facts.train))
    assert len(splits.test) == spec.test_size == round(0.2 * spec.facts.train)
    assert len(splits.val) == spec.val_size
    assert splits.train.images.shape[1] == int(np.prod(spec.shape))


def test_a_data_set_that_differs_from_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later scikit-learn that changes a number must not change results silently."""
    from psa.data.named import CATALOGUE

    monkeypatch.setitem(CATALOGUE, "wine", replace(CATALOGUE["wine"], sha256="0" * 64))
    with pytest.raises(UserError, match=f"the data set wine must have SHA-256 {'0' * 64}, got 83b1"):
        load_splits(DataSpec(name="wine"), tmp_path)


def test_standard_scaling_is_fitted_on_the_training_split_alone(tmp_path: Path) -> None:
    """Its mean is 0 and its deviation 1; those of the test split are not. Constant columns become 0."""
    samples, labels = made(300, (5,), 3, np.float64)
    samples[:, 2] = 7
    splits = load_splits(spec_of(content_of_arrays(samples, labels)), tmp_path)
    mean, sd = splits.train.images.mean(0), splits.train.images.std(0, correction=0)
    assert torch.allclose(mean, torch.zeros(5), atol=1e-6)
    assert torch.allclose(sd, torch.tensor([1.0, 1, 0, 1, 1]), atol=1e-5)
    assert not torch.allclose(splits.test.images.mean(0)[:2], torch.zeros(2), atol=1e-6)
    chosen = splits.train.index.numpy()
    expected = (samples[chosen] - samples[chosen].mean(0)) / np.where(
        samples[chosen].std(0) == 0, 1, samples[chosen].std(0)
    )
    assert np.allclose(splits.train.images.numpy(), expected, atol=1e-5)


def test_other_scalings(tmp_path: Path) -> None:
    """From 0 to 1 on the training split, as they are, and of bytes by 255 whatever is there."""
    samples, labels = made(90, (3,), 3, np.float64)
    content = content_of_arrays(samples, labels)
    unit = load_splits(spec_of(content, scaling="unit"), tmp_path).train.images
    assert torch.equal(unit.amin(0), torch.zeros(3))
    assert torch.equal(unit.amax(0), torch.ones(3))
    plain = load_splits(spec_of(content, scaling="none"), tmp_path).train
    assert np.array_equal(plain.images.numpy(), samples[plain.index.numpy()].astype(np.float32))
    whole = load_splits(spec_of(content, scaling="simplex"), tmp_path).test.images
    assert torch.allclose(whole.sum(1), torch.full((len(whole),), 100.0), atol=1e-3)
    images, labels = made(60, (6, 6), 3, np.uint8)
    shown = load_splits(spec_of(content_of_arrays(images, labels), scaling="unit"), tmp_path).train
    assert np.allclose(shown.images.numpy(), images.reshape(60, -1)[shown.index.numpy()] / 255, atol=1e-7)
    assert shown.pixels is None  # the constants are those of MNIST


def test_images_with_channels_are_scaled_by_channel_and_read_channel_after_channel(tmp_path: Path) -> None:
    """As torch flattens an image, so that a convolution finds its planes."""
    images, labels = made(40, (5, 5, 3), 2, np.float64)
    split = load_splits(spec_of(content_of_arrays(images, labels)), tmp_path).train
    planes = split.images.view(len(split), 3, 25)
    assert torch.allclose(planes.mean((0, 2)), torch.zeros(3), atol=1e-5)
    mine = images[int(split.index[0]), :, :, 1].reshape(-1)
    scaled = planes[0, 1].numpy()
    assert np.allclose(np.corrcoef(mine, scaled)[0, 1], 1)


def test_stratified_splits_share_the_classes_as_far_as_whole_samples_allow(tmp_path: Path) -> None:
    """Of 90, 9 and 1 in a hundred, each split has its part, and without it a rare class may be missing."""
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    samples = np.arange(1000.0)[:, None]
    content, sizes = content_of_arrays(samples, labels), {"test_size": 200, "val_size": 100}
    splits = load_splits(spec_of(content, stratified=True, **sizes), tmp_path)
    assert [torch.bincount(part.labels).tolist() for part in (splits.test, splits.val, splits.train)] == [
        [180, 18, 2], [90, 9, 1], [630, 63, 7],
    ]  # fmt: skip
    other = load_splits(spec_of(content, stratified=True, split_seed=4, **sizes), tmp_path)
    assert not torch.equal(splits.test.index, other.test.index)
    plain = spec_of(content, **sizes)
    assert plain.model_dump(mode="json").keys() & {"stratified"} == set()


def test_given_splits_stay_as_they_are(tmp_path: Path) -> None:
    """From a column, from arrays by split, or from Python; validation is drawn where only a test is given."""
    samples, labels = made(50, (3,), 2)
    names = np.array(["train"] * 30 + ["val"] * 8 + ["test"] * 12)
    frame = pd.DataFrame(samples, columns=["a", "b", "c"]).assign(label=labels, part=names)
    frame.to_csv(tmp_path / "x.csv", index=False)
    content = content_of(f"file:{tmp_path / 'x.csv'}?split=part")
    assert (content.train, content.validation, content.test) == (30, 8, 12)
    splits = load_splits(spec_of(content), tmp_path)
    assert splits.val.index.tolist() == list(range(30, 38))
    assert splits.test.index.tolist() == list(range(38, 50))
    with pytest.raises(ValueError, match="val_size must be left out with dataset file-"):
        spec_of(content, val_size=5)
    np.savez(
        tmp_path / "x.npz",
        X_train=samples[:38], y_train=labels[:38], X_test=samples[38:], y_test=labels[38:],
    )  # fmt: skip
    content = content_of(f"file:{tmp_path / 'x.npz'}")
    assert (content.train, content.validation, content.test) == (38, 0, 12)
    splits = load_splits(spec_of(content), tmp_path)
    assert len(splits.val) == round(38 / 6)
    assert splits.test.index.tolist() == list(range(38, 50))


@pytest.mark.parametrize("value", [0.1, 0.3, 1.1, -3.3, 1e9 + 0.1, 1e300, 5.0])
@pytest.mark.parametrize("count", [7, 118, 1000])
def test_a_constant_column_becomes_0_whatever_its_value(value: float, count: int) -> None:
    """The mean of equal numbers is not always that number, and other values were divided by 1e-17."""
    scale = fitted(np.full((count, 1), value), "standard")
    assert scale(np.full((3, 1), value)).tolist() == [[0.0]] * 3
    assert scale(np.array([[value + 1]])).item() == pytest.approx(value + 1 - value)


@pytest.mark.parametrize("power", [-200, -160, 160, 200, 300])
def test_standard_scaling_does_not_depend_on_the_unit_of_a_column(power: int) -> None:
    """The squares of such numbers are 0 or infinite in float64."""
    samples = np.random.Generator(np.random.Philox(1)).normal(size=(50, 2))
    expected = fitted(samples, "standard")(samples)
    far = samples * [10.0**power, 1]
    assert np.allclose(fitted(far, "standard")(far), expected, rtol=1e-5)


def test_a_column_whose_sum_overflows_is_refused() -> None:
    """It became 0 without a word."""
    samples = np.ones((5, 2))
    samples[:3, 1] = 1.7e308
    with pytest.raises(UserError, match="sums that float64 can hold, got larger ones in 1 column"):
        fitted(samples, "standard")


def test_labels_with_a_decimal_point_are_the_numbers_that_they_are_in_parquet(tmp_path: Path) -> None:
    """pandas writes class 1 as 1.0 into a column that lacked a label once; psa has no regression."""
    frame = pd.DataFrame({"x": np.arange(6.0), "label": [1.0, 10.0, 2.0, 1.0, 10.0, 2.0]})
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    one, other = (content_of(f"file:{tmp_path / name}") for name in ("x.csv", "x.parquet"))
    assert one == other
    assert one.classes == ("1", "2", "10")
    frame.assign(label=np.linspace(0, 1, 6)).to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(UserError, match=r"y must hold class labels, got numbers such as 0\.2"):
        content_of(f"file:{tmp_path / 'y.csv'}")


def test_labels_of_every_kind_become_classes() -> None:
    """Texts in their order, numbers as texts in that of numbers, gaps kept as names, booleans."""
    samples = np.zeros((4, 2))
    cases = {
        ("b", "a", "b", "c"): ("a", "b", "c"),
        ("10", "9", "2", "9"): ("2", "9", "10"),
        (7, 3, 3, 5): ("3", "5", "7"),
        (1.0, 0.0, 1.0, 0.0): ("0", "1"),
        (True, False, True, True): ("False", "True"),
    }
    for labels, classes in cases.items():
        assert content_of_arrays(samples, list(labels)).classes == classes
    table = own._tables[content_of_arrays(samples, ["10", "9", "2", "9"]).sha256]
    assert table.labels.tolist() == [2, 1, 0, 1]


@pytest.mark.parametrize("gap", [None, float("nan"), np.nan, "", "  ", pd.NA])
@pytest.mark.parametrize("labels", [["a", "b"], [0, 1], [True, False], [0.0, 1.0]])
@pytest.mark.parametrize("form", [list, lambda each: np.array(each, object), pd.Series])
def test_a_missing_label_is_refused(gap: object, labels: list[object], form: Callable[..., Any]) -> None:
    """In lists, arrays of objects and columns; it is never a class."""
    given = [*labels * 5, gap]
    with pytest.raises(UserError, match="data: y must have a label for each sample, got"):
        content_of_arrays(np.zeros((11, 2)), form(given))


def test_objects_of_numbers_are_numbers() -> None:
    """As the values of a data frame with other columns of texts are."""
    samples = np.zeros((4, 2))
    for labels in ([np.int64(2), 10, 2, 10], [2.0, np.float32(10), 2.0, 10.0]):
        assert content_of_arrays(samples, np.array(labels, object)).classes == ("2", "10")
    assert content_of_arrays(samples, np.array([True, np.True_, False, True], object)).classes == (
        "False",
        "True",
    )


@pytest.mark.parametrize("seed", range(8))
def test_labels_have_one_order_in_files_and_frames(seed: int, tmp_path: Path) -> None:
    """Whole numbers of either sign, booleans and texts, through CSV, Parquet, a data frame and objects."""
    draws = np.random.default_rng(seed)
    kinds = [
        draws.choice([-12, -2, -1, 0, 3, 10], 40),
        draws.random(40) < 0.5,
        draws.choice(["b", "a c"], 40),
    ]
    for labels in kinds:
        frame = pd.DataFrame({"x": draws.random(40), "label": labels})
        frame.to_csv(tmp_path / "x.csv", index=False)
        frame.to_parquet(tmp_path / "x.parquet")
        found = [content_of(f"file:{tmp_path / name}") for name in ("x.csv", "x.parquet")]
        found.append(content_of_arrays(frame, "label"))
        found.append(content_of_arrays(frame[["x"]], labels.astype(object)))
        assert {each.classes for each in found} == {tuple(map(str, np.unique(labels)))}
        assert len({each.sha256 for each in found}) == 1


@pytest.mark.parametrize("kind", ["u1", "f4", "f8", "i4", "i8", "f2", "?"])
@pytest.mark.parametrize("order", ["C", "F", "view"])
def test_arrays_that_change_later_change_no_data_set(kind: str, order: str, tmp_path: Path) -> None:
    """Whatever their type and layout; the byte order has no effect either."""
    samples, labels = np.ones((30, 4), kind, order="F" if order == "F" else "C"), np.arange(30) % 2
    samples[::3] = 0
    given = samples[::-1] if order == "view" else samples
    frame = pd.DataFrame(given, columns=list("abcd"), copy=False)
    contents = [content_of_arrays(given, labels), content_of_arrays(frame, labels)]
    assert content_of_arrays(given.astype(given.dtype.newbyteorder(">")), labels) == contents[0]
    samples[:] = 0
    labels[:] = 0
    for content in contents:
        trial = Trial(data=spec_of(content))
        keep_tables([trial], tmp_path)
        stored = (tmp_path / "own" / own.table_file(content.sha256)).read_bytes()
        assert decode_table(stored, "x", content.sha256).samples.any()


@pytest.mark.parametrize("short", ["val", "valid", "validation"])
def test_a_validation_split_of_an_npz_file_has_several_names(short: str, tmp_path: Path) -> None:
    """Each of them is read as the validation split."""
    arrays = {}
    for part, size in (("train", 30), (short, 10), ("test", 20)):
        arrays |= {
            f"X_{part}": np.random.default_rng(size).random((size, 3)),
            f"y_{part}": np.arange(size) % 2,
        }
    np.savez(tmp_path / "x.npz", **arrays)
    content = content_of(f"file:{tmp_path / 'x.npz'}")
    assert (content.train, content.validation, content.test) == (30, 10, 20)


def test_class_counts_name_the_classes(tmp_path: Path) -> None:
    """Of all samples and the three splits."""
    paths = write_wine(tmp_path)
    counts = class_counts(spec_of(content_of(f"file:{paths['csv']}?label=grape")), tmp_path)
    assert [part.title for part in counts] == [
        "All samples",
        "Training split",
        "Validation split",
        "Test split",
    ]
    assert dict(zip(counts[0].names, counts[0].counts.values(), strict=True)) == {
        "barbera": 48, "barolo": 59, "grignolino": 71,
    }  # fmt: skip
    assert counts[0].total == WINE == sum(part.total for part in counts[1:])


def test_trials_that_are_stored_with_other_data_are_mentioned(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A corrected file makes other trials, and without a word all would seem lost. Data that are both in one
    grid are no correction.
    """
    first, second = (content_of_arrays(np.full((60, 2), value), [0, 1] * 30) for value in (1.0, 2.0))
    before, after = (
        [Trial(study="mine", data=spec_of(content), seed=seed) for seed in (0, 1)]
        for content in (first, second)
    )
    store = Store(tmp_path / "models", tmp_path / "results")
    for trial in before:
        path = store.models / trial.id
        path.mkdir(parents=True)
        net = Dense(trial.model, 2, trial.data.shape)
        store.state_file(trial).save(fresh_state(trial, net, 1))
    check_versions([*before, *after], store)
    check_versions(before, store)
    assert caplog.text == ""
    check_versions(after, store)
    assert f"2 trials of this grid are stored with other data ({before[0].data.name})" in caplog.text
    assert f"With those of the grid ({after[0].data.name}) they are other trials" in caplog.text
    caplog.clear()
    smaller = before[0].data.model_copy(update={"val_size": before[0].data.val_size - 1})
    check_versions([trial.changed(data=smaller) for trial in before], store)
    assert caplog.text == ""  # the same data, split in another way
