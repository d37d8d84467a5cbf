"""Gradients of samples, read from the file that a probe has written (psa.probes.gradients).

Images are gathered from the data when a first layer is requested; everything else is mapped from the file.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from psa.analysis.gradients.factored import Factored
from psa.core.errors import UserError
from psa.data.splits import Split, load_splits
from psa.specs.data import DataSpec
from psa.specs.probes import CHECKPOINT, ONLINE
from psa.specs.trial import Trial
from psa.storage import array_file
from psa.storage.array_file import ArrayFile
from psa.storage.checkpoint import arrays_beside
from psa.storage.store import Store

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class GradientFile:
    """The gradients of N samples: those of one epoch in the order of training, or those of a checkpoint in
    the order of the training split. file: the stored arrays; data_dir: folder of the images.
    """

    file: ArrayFile
    trial: Trial
    data_dir: Path

    @property
    def name(self) -> str:
        """`gradients_online-3`: the probe, and the epoch (of a checkpoint: the epochs before it)."""
        return str(self.file.facts["name"])

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 1."""
        return int(self.name.rpartition("-")[2])

    @property
    def online(self) -> bool:
        """True for gradients of training, False for those of a checkpoint."""
        return self.name.startswith(f"{ONLINE}-")

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def index(self) -> Labels:
        """The place of each sample in the train file of the data set, int64 [N]."""
        return np.array(self.file.arrays["index"])

    @cached_property
    def digits(self) -> Labels:
        """The digit on each image, int64 [N]."""
        return np.array(self.file.arrays["digit"])

    @cached_property
    def labels(self) -> Labels:
        """The labels in training: the place of the digit among those kept, int64 [N]."""
        return np.array(self.file.arrays["label"])

    @cached_property
    def predictions(self) -> Labels:
        """The predictions with the weights of that moment, as digits, int64 [N]."""
        return np.array(self.file.arrays["prediction"])

    @property
    def layers(self) -> list[str]:
        """The layers in the file, in compute order. A network that grows has more of them than its trial
        begins with: numbered on, before the output.
        """
        there = {name.removesuffix(".delta") for name in self.file.arrays if name.endswith(".delta")}
        linears = self.trial.shape.linears
        *known, output = [each.name for each in linears]
        grown = sorted(there.difference(known, [output]), key=lambda name: int(name.rpartition(".")[2]))
        return [name for name in (*known, *grown, output) if name in there]

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight and bias whose gradients are in the file."""
        found: dict[str, tuple[int, ...]] = {}
        for layer in self.layers:
            stored = self.file.arrays.get(f"{layer}.activation")
            outputs = self.file.arrays[f"{layer}.delta"].shape[1]
            inputs = math.prod(self.trial.data.shape) if stored is None else stored.shape[1]
            found |= {f"{layer}.weight": (outputs, inputs), f"{layer}.bias": (outputs,)}
        return found

    def reads_images(self, name: str) -> bool:
        """Return True if the inputs of a layer are the whole images."""
        return f"{name}.activation" not in self.file.arrays

    def layer(self, name: str, rows: slice | Labels = slice(None)) -> Factored:
        """Return the gradients of a layer's weights, of all or some samples (places in this order).

        Raises UserError.
        """
        if name not in self.layers:
            raise UserError(f"{self.file.path}: unknown layer {name!r}", f"Known: {', '.join(self.layers)}")
        delta = torch.from_numpy(np.array(self.file.arrays[f"{name}.delta"][rows]))
        stored = self.file.arrays.get(f"{name}.activation")
        activation = self.images(rows) if stored is None else torch.from_numpy(np.array(stored[rows]))
        return Factored(delta, activation)

    def images(self, rows: slice | Labels = slice(None)) -> Tensor:
        """Return the images as the network read them, with their scaling, float32 [n, features]."""
        places = np.searchsorted(self._sorted[0], self.index[rows])
        return self._split.images[torch.from_numpy(self._sorted[1][places])]

    @cached_property
    def _split(self) -> Split:
        return _train_split(self.trial.data, self.data_dir.absolute())

    @cached_property
    def _sorted(self) -> tuple[Labels, Labels]:
        """The indices of the split in rising order, and the place of each."""
        index = self._split.index.numpy()
        order = np.argsort(index)
        return index[order], order


@lru_cache(maxsize=1)  # the seeds of a study share their images, which take up to 190 MB
def _train_split(data: DataSpec, data_dir: Path) -> Split:
    return load_splits(data, data_dir).train


def read_gradients(path: Path, data_dir: Path = Path("dataset"), sha256: str | None = None) -> GradientFile:
    """Open a file of gradients; with sha256, only if its digest is that. Raises CorruptFileError and
    UserError.
    """
    file = array_file.read_arrays(path, sha256)
    if "spec" not in file.facts or "prediction" not in file.arrays:
        raise UserError(f"{path} holds arrays, but no gradients of psa's", "Name another file")
    return GradientFile(file, Trial.model_validate(file.facts["spec"]), data_dir)


def paths_of(store: Store, record: Mapping[str, Any]) -> dict[str, Path]:
    """Return the expected paths of the gradient files of a record, by name, in the order of epochs."""
    state = store.state_file(Trial.model_validate(record["spec"])).path
    names = [name for name in record.get("files", {}) if name.rpartition("-")[0] in (ONLINE, CHECKPOINT)]
    names.sort(key=lambda name: (name.rpartition("-")[0], int(name.rpartition("-")[2])))
    return {name: arrays_beside(state, name) for name in names}
