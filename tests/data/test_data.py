"""psa.data.splits: the published facts of the split, the scaling to the bit, the digit filter."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from paths import ROOT
from torch.utils.data import random_split

from psa.core.errors import UserError
from psa.data import parts
from psa.data.datasets import DATASETS
from psa.data.download import download_dataset, quiet
from psa.data.parts import load_parts
from psa.data.splits import Splits, class_counts, load_scaling, load_splits, split_indices, zero_r
from psa.specs.data import DataSpec

NAMES = tuple(DATASETS["mnist"].files)


@pytest.fixture(scope="session")
def mnist(data_dir: Path) -> Splits:
    """MNIST as the studies use it."""
    return load_splits(DataSpec(), data_dir)


def test_bytes_are_kept_of_the_training_split_on_a_cpu_alone(mnist: Splits) -> None:
    """Only training gathers samples, and a GPU gathers numbers. The first samples keep the first bytes."""
    assert mnist.val.pixels is mnist.test.pixels is None
    assert mnist.train.pixels is not None
    assert mnist.to("cpu").train.pixels is mnist.train.pixels
    assert mnist.to("meta").train.pixels is None
    few = mnist.train.first(5).pixels
    assert few is not None
    assert torch.equal(few.values, mnist.train.pixels.values[:5])


def test_class_counts_are_the_published_ones(data_dir: Path) -> None:
    """The four tables of class counts and their majority classes, number by number."""
    tables = {table.title: table for table in class_counts(DataSpec(), data_dir)}
    expected = {
        "Train file": ([5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949], 11.24),
        "Test file": ([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], 11.35),
        "Training split": ([4950, 5640, 4946, 5121, 4858, 4556, 4909, 5173, 4870, 4977], 11.28),
        "Validation split": ([973, 1102, 1012, 1010, 984, 865, 1009, 1092, 981, 972], 11.02),
    }
    assert list(tables) == list(expected)
    for title, (counts, percent) in expected.items():
        assert tables[title].counts == dict(enumerate(counts))
        assert tables[title].total == sum(counts)
        assert tables[title].zero_r_class == 1
        assert round(tables[title].zero_r_percent, 2) == percent


def test_split_is_the_published_one(mnist: Splits) -> None:
    """The first places of the training and validation split, their sizes, and that they share no image."""
    assert mnist.train.index[:5].tolist() == [27415, 57082, 25212, 22657, 23939]
    assert mnist.val.index[:5].tolist() == [18382, 16291, 8096, 15917, 13192]
    assert (len(mnist.train), len(mnist.val), len(mnist.test)) == (50_000, 10_000, 10_000)
    both = torch.cat([mnist.train.index, mnist.val.index])
    assert torch.equal(both.sort().values, torch.arange(60_000))


def test_split_is_torchs_random_split() -> None:
    """The same places as torch.utils.data.random_split deals out, for other sizes and seeds too."""
    for total, val_size, seed in ((60_000, 10_000, 1337), (1_000, 300, 7), (10, 0, 0)):
        generator = torch.Generator().manual_seed(seed)
        parts: Any = random_split(range(total), [total - val_size, val_size], generator)  # type: ignore[arg-type]
        train, val = split_indices(total, val_size, seed)
        assert [train.tolist(), val.tolist()] == [list(part.indices) for part in parts]


def test_zero_r_of_the_validation_split(mnist: Splits) -> None:
    """1,102 ones among 10,000; and the lowest label wins a draw."""
    assert zero_r(mnist.val.labels) == (1, 1102, 10_000)
    assert zero_r(torch.tensor([3, 2, 3, 2, 0])) == (2, 2, 5)


def test_images_are_torchvisions_to_the_bit(data_dir: Path, mnist: Splits, tmp_path: Path) -> None:
    """Every pixel equals ToTensor and Normalize applied to torchvision's own reading of the same files."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in NAMES:
        (raw / name).symlink_to((data_dir / "mnist" / name).resolve())
    transforms = torchvision.transforms
    as_published = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    for part, train in ((mnist.val, True), (mnist.test, False)):
        theirs = torchvision.datasets.MNIST(tmp_path, train=train, transform=as_published)
        assert torch.equal(theirs.targets[part.index], part.digits)
        for row in range(0, len(part), 97):
            image, label = theirs[int(part.index[row])]
            assert torch.equal(image.flatten(), part.images[row])
            assert label == part.labels[row]


def test_tensors_have_the_promised_types(mnist: Splits) -> None:
    """float32 [N, 784] images, int64 labels, digits and places, all contiguous; ten classes."""
    for part in (mnist.train, mnist.val, mnist.test):
        assert part.images.shape == (len(part), 784)
        assert part.images.dtype == torch.float32
        assert part.images.is_contiguous()
        for column in (part.labels, part.digits, part.index):
            assert column.shape == (len(part),)
            assert column.dtype == torch.int64
    assert torch.equal(mnist.test.index, torch.arange(10_000))
    assert mnist.classes == 10
    assert mnist.digits == tuple(range(10))


def test_unit_scaling_is_the_byte_over_255(data_dir: Path, mnist: Splits) -> None:
    """Scaling `unit` leaves 0..1; `standard` is made from exactly these values."""
    unit = load_splits(DataSpec(scaling="unit"), data_dir).test.images
    assert (float(unit.min()), float(unit.max())) == (0.0, 1.0)
    assert torch.equal(unit, (unit * 255).round() / 255)
    assert torch.equal(mnist.test.images, (unit - 0.1307) / 0.3081)


def test_to_moves_every_tensor(mnist: Splits) -> None:
    """`.to` moves all four tensors of all three splits and keeps the rest."""
    moved = mnist.to("meta")
    assert (moved.classes, moved.digits) == (mnist.classes, mnist.digits)
    for part in (moved.train, moved.val, moved.test):
        assert {t.device.type for t in (part.images, part.labels, part.digits, part.index)} == {"meta"}


def test_digit_filter_splits_first_then_remaps(data_dir: Path, mnist: Splits) -> None:
    """With digits 3, 5, 8: the rows of the full split with those digits, in order, labels 0, 1, 2."""
    some = load_splits(DataSpec(digits=(3, 5, 8)), data_dir)
    assert (some.classes, some.digits) == (3, (3, 5, 8))
    for full, part in ((mnist.train, some.train), (mnist.val, some.val), (mnist.test, some.test)):
        kept = torch.isin(full.digits, torch.tensor([3, 5, 8]))
        assert torch.equal(part.index, full.index[kept])
        assert torch.equal(part.digits, full.digits[kept])
        assert torch.equal(part.images, full.images[kept])
        assert torch.equal(torch.tensor([3, 5, 8])[part.labels], part.digits)


def test_class_counts_under_a_digit_filter(data_dir: Path) -> None:
    """Only the kept digits are counted, and the majority class is one of them."""
    train_file, *_ = class_counts(DataSpec(digits=(0, 5, 8)), data_dir)
    assert train_file.counts == {0: 5923, 5: 5421, 8: 5851}
    assert (train_file.zero_r_class, train_file.total) == (0, 17_195)


def test_an_empty_split_is_refused(data_dir: Path) -> None:
    """A validation split of which the digit filter leaves nothing is an error, not a division by zero."""
    spec = DataSpec(val_size=1, digits=(1, 8))  # the last place of the permutation shows a 0
    with pytest.raises(UserError, match="each split must hold every digit, got 1 images without 1, 8"):
        load_splits(spec, data_dir)
    with pytest.raises(UserError, match="each split must hold every digit"):
        class_counts(spec, data_dir)


def test_val_size_beyond_the_file_is_refused() -> None:
    """A validation split larger than the train file is an error, not a slice from the wrong end."""
    with pytest.raises(UserError, match="val_size"):
        split_indices(100, 101, 0)


@pytest.mark.parametrize("workers", [0, 3])
def test_the_threads_asked_for_read_the_files(
    data_dir: Path, mnist: Splits, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    """`workers` reaches the reading of files, from load and from class_counts, and changes no bit."""
    asked = []

    def noted(*args: Any, **kwargs: Any) -> dict[str, bytes]:
        asked.append(kwargs["workers"])
        return download_dataset(*args, **kwargs)

    monkeypatch.setattr(parts, "download_dataset", noted)
    assert torch.equal(load_splits(DataSpec(), data_dir, workers=workers).val.images, mnist.val.images)
    class_counts(DataSpec(), data_dir, workers=workers)
    assert asked == [workers, workers]


@pytest.mark.slow
def test_torchvision_is_not_imported_for_data_that_is_here(data_dir: Path) -> None:
    """It takes longer to import than everything else together."""
    code = (
        "import sys; from pathlib import Path; from psa.data.splits import load_splits; "
        "from psa.specs.data import DataSpec; load_splits(DataSpec(), Path(sys.argv[1])); "
        "assert 'torchvision' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, data_dir], cwd=ROOT, check=True)


@pytest.mark.skipif(
    not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="dataset-fashion-mnist is not installed"
)
def test_fashion_mnist_from_the_system(tmp_path: Path) -> None:
    """The real Fashion-MNIST: 6,000 of each class in the train file, 1,000 in the test file."""
    tables = class_counts(DataSpec(name="fashion-mnist"), tmp_path)
    assert tables[0].counts == dict.fromkeys(range(10), 6000)
    assert tables[1].counts == dict.fromkeys(range(10), 1000)


def test_a_subset_is_a_part_of_the_split_it_is_of(data_dir: Path, mnist: Splits) -> None:
    """Training: the first of the same order; the test a permutation's beginning; validation as it was."""
    some = load_splits(DataSpec(train_size=800, test_size=500), data_dir)
    assert torch.equal(some.train.index, mnist.train.index[:800])
    assert torch.equal(some.val.index, mnist.val.index)
    assert len(some.test) == 500
    assert len(some.test.index.unique()) == 500
    assert int(some.test.index.max()) > 5_000
    with pytest.raises(UserError, match="train_size 50,001"):
        load_splits(DataSpec(train_size=50_001), data_dir)
    with pytest.raises(UserError, match="test_size must be at most 10,000, got 10,001"):
        load_splits(DataSpec(test_size=10_001), data_dir)


def test_new_pixels_are_scaled_as_those_of_the_splits(data_dir: Path) -> None:
    """Bytes of images, flat in the network's order; numbers that are scaled already are refused."""
    spec = DataSpec(val_size=59_000)
    test, scale = load_splits(spec, data_dir).test.first(50), load_scaling(spec, data_dir)
    pixels = load_parts(spec, data_dir, quiet, 0).test_file.samples[test.index].reshape(-1, 28, 28)
    assert torch.equal(scale(pixels), test.images)
    with pytest.raises(UserError, match=r"pixels must be bytes \(uint8\), got float32"):
        scale(pixels.astype(np.float32))
