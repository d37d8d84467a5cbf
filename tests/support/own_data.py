"""Small data sets of one's own: real ones that scikit-learn carries, and made ones of other sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.datasets import load_wine

from psa.core.rng import generator

GRAPES = ("barolo", "grignolino", "barbera")
WINE = 178  # samples


def wine_frame() -> pd.DataFrame:
    """The wines of scikit-learn with the names of their grapes in the column `grape`."""
    found = load_wine(as_frame=True)
    return found.data.assign(grape=np.array(GRAPES)[found.target])


def write_wine(folder: Path) -> dict[str, Path]:
    """The wines as CSV, Parquet and NPZ, by suffix."""
    frame, paths = wine_frame(), {kind: folder / f"wine.{kind}" for kind in ("csv", "parquet", "npz")}
    frame.to_csv(paths["csv"], index=False)
    frame.to_parquet(paths["parquet"])
    features = frame.drop(columns="grape")
    np.savez(
        paths["npz"],
        X=features.to_numpy(),
        y=frame["grape"].to_numpy(str),
        columns=np.array(features.columns, str),
    )
    return paths


def made(samples: int, shape: tuple[int, ...], classes: int, kind: Any = np.float32) -> tuple[Any, Any]:
    """Samples around a centre for each class, and labels of which each class has as many."""
    draws = generator(0, "projection", classes)
    labels = np.arange(samples) % classes
    centres = draws.random((classes, *shape)) * 200
    noise = draws.random((samples, *shape)) * 55
    return (centres[labels] + noise).astype(kind), labels
