"""Export of gradients: all numbers of every parameter and sample, for programs that read no factors.

That is outputs x inputs numbers a sample: 96 GB for 60,000 samples of a layer 784 -> 512 that takes 0.3 GB as
factors. Files are written piece by piece, so that memory does not grow with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from psa.analysis.gradients.file import GradientFile
from psa.core.errors import UserError
from psa.storage import array_file
from psa.storage.array_file import PIECE, LazyArray

By = Literal["epoch", "batch"]
FLOAT = np.dtype("<f4")


@dataclass(frozen=True)
class Export:
    """A file to be written: a parameter, and the samples of an epoch or of a batch."""

    name: str
    parameter: str
    shape: tuple[int, ...]
    rows: slice

    @property
    def samples(self) -> int:
        """The number of samples."""
        return int(self.rows.stop) - int(self.rows.start)

    @property
    def nbytes(self) -> int:
        """The bytes of the gradients, without the header and the labels."""
        return self.samples * math.prod(self.shape) * FLOAT.itemsize


def planned(kept: GradientFile, by: By = "epoch", parameters: tuple[str, ...] = ()) -> list[Export]:
    """Return the files `{parameter}_epoch_{e}`, by batch with `_batch_{b}` (from 1), in training order.

    parameters: by name; those of all layers if none is named. Raises UserError for an unknown one.
    """
    shapes = kept.parameters
    for name in parameters:
        if name not in shapes:
            raise UserError(f"unknown parameter {name!r}", f"Known: {', '.join(shapes)}")
    if len(set(parameters)) < len(parameters):
        raise UserError(f"parameters must differ, got {', '.join(parameters)}")
    step = kept.trial.method.batch_size if by == "batch" else max(1, len(kept))
    if by == "batch" and not kept.online:
        raise UserError(
            f"{kept.name} must be recorded in training to be split by batch", "Export it by epoch"
        )
    found = []
    for name in parameters or tuple(shapes):
        for number, start in enumerate(range(0, len(kept), step), 1):
            end = f"_batch_{number}" if by == "batch" else ""
            rows = slice(start, min(start + step, len(kept)))
            found.append(Export(f"{name}_epoch_{kept.epoch}{end}", name, shapes[name], rows))
    return found


def check_free(kept: GradientFile, exports: Sequence[Export], folder: Path) -> None:
    """Raise UserError if a file of that name has other content: names contain neither trial nor probe, so a
    file left by an earlier export would pass for a part of this one.
    """
    own = {"trial": kept.trial.id, "of": kept.name}
    for each in exports:
        path = _path(each, folder)
        if not path.exists():
            continue
        facts = array_file.read_arrays(path).facts
        if {key: facts.get(key) for key in own} != own:
            raise UserError(
                f"{path} is there, with {facts.get('of')} of {facts.get('trial')}",
                "Choose another --output-dir, or remove it",
            )


def _path(export: Export, folder: Path) -> Path:
    return folder / f"{export.name}.safetensors"


def write_export(kept: GradientFile, export: Export, folder: Path) -> dict[str, Any]:
    """Write one file. Return its `sha256` and `bytes`. Raises UserError.

    The file holds `gradients` [n, *shape], and `index`, `digit`, `label` and `prediction` of the samples [n].
    """
    rows = export.rows
    arrays: dict[str, NDArray[Any] | LazyArray] = {
        "gradients": LazyArray((export.samples, *export.shape), FLOAT, partial(_pieces, kept, export)),
        "index": kept.index[rows],
        "digit": kept.digits[rows],
        "label": kept.labels[rows],
        "prediction": kept.predictions[rows],
    }
    facts = {
        "name": export.name,
        "parameter": export.parameter,
        "epoch": kept.epoch,
        "of": kept.name,
        "trial": kept.trial.id,
        "shape": list(export.shape),
    }
    return array_file.write_arrays(_path(export, folder), arrays, facts)


def _pieces(kept: GradientFile, export: Export) -> Iterator[NDArray[Any]]:
    layer, _, kind = export.parameter.rpartition(".")
    each = math.prod(export.shape) * FLOAT.itemsize
    step = max(1, PIECE // each)
    for start in range(export.rows.start, export.rows.stop, step):
        some = slice(start, min(start + step, export.rows.stop))
        if kind == "bias":
            yield np.array(kept.file.arrays[f"{layer}.delta"][some])
        else:
            yield kept.layer(layer, some).dense(slice(None)).numpy()
