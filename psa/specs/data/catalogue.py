"""The data sets that have a name: shapes, classes and sizes, known without reading any file."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final, Literal

Origin = Literal["idx", "torchvision", "sklearn"]


@dataclass(frozen=True)
class NamedDataset:
    """A data set with a name.

    shape: of a sample: (features,), (height, width) or (height, width, channels). classes: their names.
    train, test: numbers of samples; with test 0 the test split is drawn from all samples. origin: what reads
    it: the IDX files of psa.data.datasets, a class of torchvision, or scikit-learn, which carries its sets
    with it. sha256: of the content (see psa.data.table), where it is pinned.
    """

    shape: tuple[int, ...]
    classes: tuple[str, ...]
    train: int
    test: int
    origin: Origin
    sha256: str = ""
    validation: int = 0


_TEN: Final = tuple(string.digits)
_UPPER: Final = tuple(string.ascii_uppercase)
_BALANCED: Final = (*_TEN, *_UPPER, *"abdefghnqrt")  # capitals stand for the lower case letters like them
_CIFAR10: Final = "airplane automobile bird cat deer dog frog horse ship truck"
_CIFAR100: Final = (
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly "
    "camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup "
    "dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower "
    "leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid "
    "otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray "
    "road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar "
    "sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle "
    "wardrobe whale willow_tree wolf woman worm"
)


def _images(
    classes: tuple[str, ...] | str,
    train: int,
    test: int,
    shape: tuple[int, ...] = (28, 28),
    origin: Origin = "torchvision",
) -> NamedDataset:
    names = tuple(classes.split()) if isinstance(classes, str) else classes
    return NamedDataset(shape, names, train, test, origin)


def _bundled(shape: tuple[int, ...], classes: tuple[str, ...], samples: int, sha256: str) -> NamedDataset:
    return NamedDataset(shape, classes, samples, 0, "sklearn", sha256)


# Sizes and classes of torchvision 0.26 and scikit-learn 1.7; a set that differs is refused when it is read.
CATALOGUE: Final[dict[str, NamedDataset]] = {
    "mnist": _images(_TEN, 60_000, 10_000, origin="idx"),
    "fashion-mnist": _images(_TEN, 60_000, 10_000, origin="idx"),
    "kmnist": _images("o ki su tsu na ha ma ya re wo", 60_000, 10_000),
    "qmnist": _images(_TEN, 60_000, 60_000),
    "emnist-balanced": _images(_BALANCED, 112_800, 18_800),
    "emnist-byclass": _images((*_TEN, *_UPPER, *string.ascii_lowercase), 697_932, 116_323),
    "emnist-bymerge": _images(_BALANCED, 697_932, 116_323),
    "emnist-digits": _images(_TEN, 240_000, 40_000),
    "emnist-letters": _images(tuple(string.ascii_lowercase), 124_800, 20_800),
    "emnist-mnist": _images(_TEN, 60_000, 10_000),
    "cifar10": _images(_CIFAR10, 50_000, 10_000, (32, 32, 3)),
    "cifar100": _images(_CIFAR100, 50_000, 10_000, (32, 32, 3)),
    "svhn": _images(_TEN, 73_257, 26_032, (32, 32, 3)),
    "usps": _images(_TEN, 7_291, 2_007, (16, 16)),
    "digits": _bundled(
        (8, 8), _TEN, 1_797, "08e282ad08f881e7200ea99b691fd7faed64fb9eafecd7dd497081214cc723cc"
    ),
    "wine": _bundled(
        (13,), ("class_0", "class_1", "class_2"), 178,
        "83b16d17e5f8adc6b649f126c8ac4e6a40dba9884e1fb7a10094fb27cfd48842",
    ),
    "breast-cancer": _bundled(
        (30,), ("malignant", "benign"), 569,
        "577e14ed6a28a0bc8b5bf349c7d45bc249d6ce2e47546e1f8ab0fcf05eff1cee",
    ),
    "iris": _bundled(
        (4,), ("setosa", "versicolor", "virginica"), 150,
        "5db0c73269506ef42600a9c38d90bf1d525f3a44023f90a2a7e7cc870d2f6cbf",
    ),
}  # fmt: skip
