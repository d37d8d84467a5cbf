"""Random numbers: a stateless stream for each (seed, purpose, loop). No global generator is used.

A stream is a function of these three alone, so a new purpose does not change the others, no generator state
is stored, and a resumed run draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
from typing import Final

import numpy as np

PURPOSES: Final = frozenset(
    {
        "init",
        "shuffle",
        "dropout",
        "ablate",
        "rate",
        "perturb",
        "bootstrap",
        "permutation",
        "memory",
        "control",
        "refresh",
        "reservoir",
        "projection",
        "grow",
        "subset",
        "kmeans",
        "tsne",
    }
)


def stream_key(seed: int, purpose: str, loop: int = 0) -> bytes:
    """Return the 32 bytes that name a stream. Raises ValueError for a purpose that is not in PURPOSES."""
    if purpose not in PURPOSES:
        raise ValueError(f"unknown random purpose {purpose!r}: one of {sorted(PURPOSES)}")
    return hashlib.sha256(f"psa:{seed}:{purpose}:{loop}".encode()).digest()


def generator(seed: int, purpose: str, loop: int = 0) -> np.random.Generator:
    """Return a new counter-based generator (Philox 4x64-10) for this seed, purpose and loop."""
    words = np.frombuffer(stream_key(seed, purpose, loop)[:16], dtype="<u8")
    return np.random.Generator(np.random.Philox(key=words))


def hash_seed(seed: int, purpose: str, loop: int = 0) -> int:
    """Return a signed 32-bit key for draws made by hashing counters on the device (dropout masks)."""
    return int(np.frombuffer(stream_key(seed, purpose, loop)[16:20], dtype="<i4")[0])
