"""A picture of gradient space: t-SNE (van der Maaten & Hinton 2008) after PCA, of gradients kept as factors.

PCA needs the centred inner products of the sample and nothing else (classical scaling, Gower 1966): for 5,000
gradients of a layer 784 -> 512 these are 200 MB, where the gradients written out would be 8 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from psa.analysis.gradients.factored import Factored, sampled_rows
from psa.analysis.gradients.kmeans import KMeansProgress, silent
from psa.core.errors import UserError
from psa.core.rng import generator

_SAMPLE: Final = 5_000
COMPONENTS: Final = 50
PERPLEXITY: Final = 30.0
_FEW: Final = 500  # up to here all eigenvectors are as fast as the first ones

_Values = NDArray[np.float64]


@dataclass(frozen=True)
class Embedding:
    """n samples in the plane. rows: int64 [n], their places among all, rising. coordinates: [n, 2], without
    unit. explained: [components], the share of the sample's variance along each principal component. kl: the
    Kullback-Leibler divergence that t-SNE ended with.
    """

    rows: NDArray[np.int64]
    coordinates: _Values
    explained: _Values
    kl: float


def embed(
    gradients: Factored,
    seed: int,
    sample: int = _SAMPLE,
    components: int = COMPONENTS,
    perplexity: float = PERPLEXITY,
    progress: KMeansProgress = silent,
) -> Embedding:
    """Place a sample of gradients in the plane. Normalise them first to see directions rather than norms.

    Raises UserError where perplexity is not less than the number of samples, or nothing varies.
    """
    from sklearn.manifold import TSNE  # takes a second to import

    rows = sampled_rows(len(gradients), sample, seed)
    if not 1 <= perplexity < len(rows):
        raise UserError(
            f"perplexity {perplexity:g} with {len(rows):,} samples",
            "It is how many neighbours count: 1 or more, and fewer than there are samples",
        )
    progress(f"PCA of {len(rows):,} gradients")
    draws = generator(seed, "tsne")
    projected, explained = principal(gradients[rows.to(gradients.device)], components, draws)
    progress(f"t-SNE of {len(rows):,} gradients in {projected.shape[1]} components")
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=_seed_from(draws))
    coordinates = tsne.fit_transform(projected.astype(np.float32))
    return Embedding(rows.numpy(), coordinates.astype(np.float64), explained, float(tsne.kl_divergence_))


def principal(gradients: Factored, components: int, draws: np.random.Generator) -> tuple[_Values, _Values]:
    """Return the PCA of n gradients: coordinates [n, c], shares of the variance [c], c at most `components`.

    Components without variance are left out. draws: for the start of the search for eigenvectors.
    Raises UserError where all gradients are equal.
    """
    from sklearn.decomposition import KernelPCA

    most = min(components, len(gradients) - 1, gradients.shape[0] * gradients.shape[1])
    gram = gradients.inner(gradients).cpu().to(torch.float64).numpy()
    centred = gram - gram.mean(axis=0)
    total = float((centred - centred.mean(axis=1, keepdims=True)).trace())
    if not total > 1e-12 * float(np.abs(gram.diagonal()).sum()):
        raise UserError("all gradients of the sample are equal", "There is nothing to show")
    solver = "dense" if len(gradients) <= _FEW else "arpack"
    pca = KernelPCA(most, kernel="precomputed", eigen_solver=solver, random_state=_seed_from(draws))
    coordinates = pca.fit_transform(gram)
    shares = pca.eigenvalues_ / total
    varies = shares > 1e-9
    return coordinates[:, varies], shares[varies]


def _seed_from(draws: np.random.Generator) -> int:
    """Return a seed for scikit-learn, which does not accept a NumPy Generator."""
    return int(draws.integers(2**32, dtype=np.uint64))
