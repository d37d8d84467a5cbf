"""The schemas of stored files, which are checked wherever one is read.

A digest proves that a file is unchanged; a schema proves that this version of psa can read it.
"""

from __future__ import annotations

from typing import Annotated, Final, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

STRICT: Final = ConfigDict(extra="forbid", strict=True)
_MOST: Final = 2**63 - 1
StrictInt = Annotated[int, Field(ge=-1, le=_MOST)]
NonNegativeInt = Annotated[int, Field(ge=0, le=_MOST)]
Some = Annotated[int, Field(ge=1, le=_MOST)]
FloatList = list[float | None]
# Of a file beside a state, and so a part of a path.
FileName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,99}$")]


class History(TypedDict):
    """One value per finished loop and column.

    kept: the loop became the best one, whose weights are tested. accepted: it became the LKG, which with
    patience may be worse. units: all that it ablated, `LAYER:UNIT,UNIT` or `LAYER:all`, with spaces between
    layers. Trials without patience, or with one unit per loop, leave these two out.
    """

    __pydantic_config__ = STRICT  # type: ignore[misc]  # pydantic's own way to configure a TypedDict
    loop: list[StrictInt]
    mode: list[str]
    layer: list[StrictInt | None]
    unit: list[StrictInt | None]
    correct: list[StrictInt]
    loss: FloatList
    train_loss: FloatList
    kept: list[bool]
    units: NotRequired[list[str | None]]
    accepted: NotRequired[list[bool]]


class FileEntry(TypedDict):
    """A file of arrays beside a state."""

    __pydantic_config__ = STRICT  # type: ignore[misc]
    sha256: str
    bytes: NonNegativeInt


class Grown(TypedDict):
    """An event of growth, carried out or only due. Its other fields are for information."""

    __pydantic_config__ = ConfigDict(extra="allow", strict=True)  # type: ignore[misc]
    epoch: NonNegativeInt
    grew: bool
    new_hidden_sizes: list[Some]
