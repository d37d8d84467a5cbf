"""Published trials keep their identity: the ids and digests of every grid in reproduction/."""

from __future__ import annotations

import hashlib

import pytest
from paths import ROOT

from psa.experiments.grid import load_grid

# The number of trials, one of their ids, and the SHA-256 of all lines "id digest" in their order, computed on
# 2026-11-29 before trials could have data sets of one's own.
PUBLISHED = {
    "activations": (
        285, "activations/mlp-1x512-1x256-1x128-1x64-decayingrescaledrelu-dropout0.1/none/s00-d7ba66",
        "bf410a6c4e7860e74d6414c060886dcacbc9294d3d1e22b071acbe86de03b4bd",
    ),
    "architectures": (
        35, "architectures/mlp-1x128-1x256-1x512/none/s00-de0e84",
        "e68f53cefbe9d1df53442b12ac9531c33a11106030b36e2376194f8798d34527",
    ),
    "glonet": (
        144, "glonet/glonet-199x128/none/s00-c807d9",
        "4699052dbaa4ead027889402a62ae571ddea3e2c360cca94cb75eea412a74def",
    ),
    "gradients": (
        15, "gradients/mlp-1x512/none/s00-125bab",
        "8e2d83c1141141d40155db8b748d0b428cdc3f51896958db8f3f64ac97f7fa8f",
    ),
    "growth": (
        56, "growth/mlp-1x256-1x128-dropout0.1/none/s11-148aed",
        "561e9b95457b2c1c98bbd8bb08a96caab30459c35215f1e7ff60dc39ebd6a3fc",
    ),
    "memory": (
        84, "memory/mlp-1x256-1x128-dropout0.1-inactive-gated-penultimate/none/s11-4fea05",
        "1ef1b547707e4858c0f7eeb091dc70bb97dd768b1ea3a030fe838edd7407b9dc",
    ),
    "resmlp": (
        5880, "ablation/resmlp-1024x1/decay/s00-9f2b53",
        "1c2df5d295e8bab88aefce55778925d199ffa8a294ab802eb5f4b2ebca694f2e",
    ),
    "screen": (
        2940, "screen/simplemlp-1024x1/hidden/s00-dc05aa",
        "23389c4617f1ff1701e077d02213e85c2b32c1554a6a12d93da816869a29ef2b",
    ),
    "simplemlp": (
        5880, "ablation/simplemlp-1024x1/decay/s00-490d5b",
        "de78f3fb69543fb79d96275fe123f85c5325487862834b25925251eef83ef8a0",
    ),
    "smallest": (
        600, "ablation/simplemlp-128x1/decay/s00-4e46d2",
        "6b1b8fd2c19a1fdf96e1e96bb30f5f4cdbd62eb361b79fa848d2821add7a7799",
    ),
    "smoke": (
        24, "smoke/simplemlp-1x4/decay/s00-e79827",
        "5ad5cd0a6d1a455628e5b0cff0cd1b98c0c1c3a7e9bf3e2bd74f4a1804a85aa8",
    ),
    "stochastic": (
        90, "stochastic/mlp-1x512-1x256-1x128-identity-simplex-all-t0.005/none/s00-099727",
        "88dbac275c770718dd3be410b8a808f5d256d0d19d064c9665eaf5516c2e457c",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_ids_and_digests_of_published_trials_are_unchanged(name: str) -> None:
    """All of them: a field that is added must be left out of the digest at its default."""
    trials = load_grid(ROOT / f"reproduction/{name}.toml").trials
    lines = sorted(f"{trial.id} {trial.digest}" for trial in trials)
    found = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    assert (len(lines), lines[0].partition(" ")[0], found) == PUBLISHED[name]
