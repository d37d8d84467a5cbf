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

IMAGES: Final = 60_000  # in the training file of each data set

ValidationSize = Annotated[
    int, Field(strict=True, ge=1, le=59_999, description="Number of validation images.")
]
SubsetSize = Annotated[int, Field(strict=True, ge=1, le=IMAGES)]
Digits = tuple[Annotated[int, Field(strict=True, ge=0, le=9)], ...]
DatasetName = Literal["mnist", "fashion-mnist"]
Scaling = Annotated[
    Literal["standard", "unit", "simplex"],
    Field(description="Pixel values: mean 0 and sd 1, from 0 to 1, or summing to 100."),
]


class DataSpec(Spec):
    """A named data set, how it is split and scaled, which digits stay, and how much of it is used.

    train_size, test_size: the number of images of the training split and of the test file, drawn by
    split_seed; all if None.
    """

    name: DatasetName = "mnist"
    scaling: Scaling = "standard"
    val_size: ValidationSize = 10_000
    split_seed: Seed = 1337
    digits: Digits | None = None
    train_size: SubsetSize | None = None
    test_size: SubsetSize | None = None

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out sizes that are None, so that the digests of earlier trials stay the same."""
        body: dict[str, Any] = handler(self)
        return {
            key: value
            for key, value in body.items()
            if value is not None or key not in ("train_size", "test_size")
        }

    @model_validator(mode="after")
    def _digits_are_a_sorted_set(self) -> Self:
        if self.digits is not None and (
            len(self.digits) < 2 or tuple(sorted(set(self.digits))) != self.digits
        ):
            raise ValueError("digits must be at least two, each once, in rising order")
        return self

    @property
    def classes(self) -> int:
        """The number of classes, and so of outputs of the network."""
        return 10 if self.digits is None else len(self.digits)


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
