"""Data: the data set of a trial, its scaling and sizes, and the digits that it keeps."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from psa.core.errors import UserError
from psa.core.parsing import check_choice
from psa.specs.base import Seed, Spec
from psa.specs.data.catalogue import CATALOGUE, NamedDataset

IMAGES: Final = 60_000  # in the training file of MNIST and Fashion-MNIST
MAX_SAMPLES: Final = 100_000_000
MAX_FEATURES: Final = 10_000_000
MAX_CLASSES: Final = 10_000
LONGEST_NAME: Final = 100  # characters of the name of a class
FILE: Final = "file:"  # what the path of a data set of one's own begins with
_PUBLISHED: Final = ("mnist", "fashion-mnist")  # their default sizes are numbers, not shares
_TEST_SHARE: Final = 0.2  # of the samples of a set without a test split

SampleCount = Annotated[int, Field(strict=True, ge=0, le=MAX_SAMPLES)]
ValidationSize = Annotated[
    int, Field(strict=True, ge=1, le=MAX_SAMPLES, description="Number of validation samples.")
]
SubsetSize = Annotated[int, Field(strict=True, ge=1, le=MAX_SAMPLES)]
Digits = tuple[Annotated[int, Field(strict=True, ge=0, le=9)], ...]
Scaling = Annotated[
    Literal["standard", "unit", "simplex", "none"],
    Field(description="Values of features: mean 0 and sd 1, from 0 to 1, summing to 100, or as they are."),
]


class DataContent(Spec):
    """The content of a data set of one's own, by which trials know it: its digest, shape, classes and sizes.

    name: in tables and figures. sha256: of names, samples and labels (see psa.data.table); the place and the
    format of the file are not part of it. shape: of a sample: (features,), (height, width) or (height, width,
    channels). classes: their names, in the order of the labels. train, validation, test: numbers of samples;
    where the file gives no split, all are in `train`, and the others are 0.
    """

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,39}$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    shape: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=MAX_FEATURES)], ...],
        Field(min_length=1, max_length=3),
    ]
    classes: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=LONGEST_NAME)], ...],
        Field(min_length=2, max_length=MAX_CLASSES),
    ]
    train: SampleCount
    validation: SampleCount = 0
    test: SampleCount = 0

    def __str__(self) -> str:
        """Return the name."""
        return self.name


def checked_name(value: str) -> str:
    """Return the name of a data set. Raises ValueError with the nearest one, which pydantic reports."""
    if value in CATALOGUE:
        return value
    try:
        check_choice(value, set(CATALOGUE), "dataset", "name")
    except UserError as error:
        raise ValueError(f"{error} For a file write {FILE}PATH") from error
    return value


def default_sizes(
    facts: NamedDataset | DataContent, usual: int = 10_000, test_size: int | None = None
) -> dict[str, int]:
    """Return the default sizes of splits that a data set does not give itself.

    A fifth of the samples (or `test_size`) is for the test, and the validation split has the same share of
    the others as `usual` has of MNIST's 60,000.
    """
    sizes = {} if facts.test else {"test_size": test_size or max(1, round(_TEST_SHARE * facts.train))}
    others = facts.train - sum(sizes.values())
    return sizes | {"val_size": facts.validation or max(1, round(others * usual / IMAGES))}


class DataSpec(Spec):
    """A data set, how it is split and scaled, which digits stay, and how much of it is used.

    name: of CATALOGUE, or that of `content`, a data set of one's own. train_size, test_size: the number of
    samples of the training and of the test split, drawn by split_seed; all if None. A set without a test
    split has its test samples drawn first, and then test_size is always a number. stratified: whether all
    splits have the same shares of the classes, as far as whole samples allow.
    """

    name: str = "mnist"
    content: DataContent | None = None
    scaling: Scaling = "standard"
    val_size: ValidationSize = 10_000
    split_seed: Seed = 1337
    digits: Digits | None = None
    train_size: SubsetSize | None = None
    test_size: SubsetSize | None = None
    stratified: bool = False

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields at their defaults, so that the digests of earlier trials stay the same."""
        body: dict[str, Any] = handler(self)
        return {key: value for key, value in body.items() if value != _LATER.get(key, body)}

    @model_validator(mode="before")
    @classmethod
    def _sizes_fit_the_data(cls, values: Any) -> Any:
        """Set the sizes that depend on the data set, unless they are given."""
        if not isinstance(values, dict) or values.get("name", "mnist") in _PUBLISHED:
            return values
        found = values.get("content")
        facts = (
            DataContent.model_validate(found) if found is not None else CATALOGUE.get(str(values.get("name")))
        )
        size = values.get("test_size")
        missing = (
            {} if facts is None else default_sizes(facts, test_size=size if isinstance(size, int) else None)
        )
        return {
            **missing,
            **{key: value for key, value in values.items() if value is not None or key not in missing},
        }

    @model_validator(mode="after")
    def _is_one_data_set(self) -> Self:
        if self.content is None:
            checked_name(self.name)
        elif self.name != self.content.name or self.name in CATALOGUE:
            raise ValueError(f"name must be that of the content and of no named data set, got {self.name}")
        return self

    @model_validator(mode="after")
    def _digits_are_a_sorted_set(self) -> Self:
        if self.digits is not None and (
            len(self.digits) < 2 or tuple(sorted(set(self.digits))) != self.digits
        ):
            raise ValueError("digits must be at least two, each once, in rising order")
        if self.digits is not None and (self.content is not None or len(self.facts.classes) != _DIGITS):
            raise ValueError(f"digits must be left out with dataset {self.name}, which is not of ten digits")
        return self

    @model_validator(mode="after")
    def _splits_are_there(self) -> Self:
        given = self.facts.validation
        if given and self.val_size != given:
            raise ValueError(
                f"val_size must be left out with dataset {self.name}, whose file gives {given:,} validation "
                f"samples, got {self.val_size:,}"
            )
        return self

    @property
    def facts(self) -> NamedDataset | DataContent:
        """The facts about the whole data set."""
        return CATALOGUE[self.name] if self.content is None else self.content

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a sample: (features,), (height, width) or (height, width, channels)."""
        return self.facts.shape

    @property
    def classes(self) -> int:
        """The number of classes, and so of outputs of the network."""
        return len(self.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes that are kept, in the order of the labels."""
        names = self.facts.classes
        return names if self.digits is None else tuple(names[digit] for digit in self.digits)

    @property
    def pool(self) -> int:
        """The number of samples that training and validation share."""
        taken = 0 if self.facts.test else self.test_size or 0
        return self.facts.train + self.facts.validation - taken


_DIGITS: Final = 10
_LATER: Final[dict[str, Any]] = {"train_size": None, "test_size": None, "content": None, "stratified": False}

PRESETS: Final = {
    "binary": (0, 1),
    "even": (0, 2, 4, 6, 8),
    "prime": (2, 3, 5, 7),
    "similar": (6, 8, 9),
}
WHY: Final = {
    "binary": "the easiest pair",
    "even": "every second digit",
    "prime": "the prime numbers",
    "similar": "closed loops: the shapes that look most alike",
}
_SHOWN: Final = 20
_HINT: Final = f"Write digits such as 0,1,7, or {', '.join(PRESETS)}"


def digits_of(text: str) -> tuple[int, ...]:
    """Return the digits that `even` or `0,1,7` stands for, with or without brackets.

    Raises UserError for an unknown name (with the nearest one) and for an invalid set: see checked.
    """
    bare = text.strip("[]() \t")
    if re.search("[a-z]", bare, re.IGNORECASE) and "," not in bare:
        check_choice(bare, set(PRESETS), "digits", "name")
        return PRESETS[bare]
    parts = [part.strip() for part in bare.split(",")]
    for part in parts:
        if re.fullmatch("[0-9]", part, re.ASCII) is None:
            raise UserError(f"digits must be from 0 to 9, got {part!r} in {text!r}", _HINT)
    return checked(tuple(map(int, parts)))


def checked(digits: tuple[int, ...]) -> tuple[int, ...]:
    """Return the digits. Raises UserError unless they are two or more from 0 to 9, once each and rising:
    label 0 is the least digit, so another order would suggest another labelling.
    """
    shown = ", ".join(map(str, digits[:_SHOWN])) + ", ..." * (len(digits) > _SHOWN)
    counts = Counter(digits)
    if not digits:
        raise UserError("digits must name at least two digits, got none", _HINT)
    for digit in digits:
        if not 0 <= digit <= 9:
            raise UserError(f"digits must be from 0 to 9, got {digit}", _HINT)
        if counts[digit] > 1:
            raise UserError(f"digits must name each digit once, got {shown}", _HINT)
    if len(digits) < 2:
        raise UserError(f"digits must name at least two digits, got {shown}", _HINT)
    if tuple(sorted(digits)) != digits:
        rising = ",".join(map(str, sorted(digits)))
        raise UserError(
            f"digits must be in rising order, got {shown}", f"Labels follow the digits: write {rising}"
        )
    return digits


def resolved(value: Any) -> Any:
    """Return the digits of a text, or a list of digits if it is a valid set. Other values are returned
    unchanged, to be checked by the type of the setting.

    Raises ValueError, which pydantic reports with the key it belongs to.
    """
    try:
        if isinstance(value, list | tuple) and all(type(each) is int for each in value):
            return checked(tuple(value))
        return digits_of(value) if isinstance(value, str) else value
    except UserError as error:
        raise ValueError(str(error)) from error


def label_mapping(digits: tuple[int, ...]) -> str:
    """Return the label of each digit during training: `2→0 3→1 5→2 7→3`."""
    return " ".join(f"{digit}→{label}" for label, digit in enumerate(digits))
