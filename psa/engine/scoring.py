"""Scores of the last known good weights of a pack: on the test split, and before any loop was kept."""

from __future__ import annotations

import math

from psa.data.splits import Split, Splits
from psa.engine.device_pack import DevicePack
from psa.engine.train_step import EVALUATION_BATCH, batch_sizes, evaluate, padded


def evaluate_lkgs(pack: DevicePack, rows: list[int], split: Split) -> tuple[list[int], list[float]]:
    """Return the correct answers and the mean loss of the LKGs of some rows on a split."""
    made_in = [max(1, state.lkg_loop) for state in pack.states]
    # a lone trial beside its twin, as in psa.engine.loop
    twins = rows * 2 if padded(pack.net, len(rows), batch_sizes(len(split), EVALUATION_BATCH)) else rows
    loops = [made_in[row] for row in twins]
    correct, loss = evaluate(pack.net, pack.lkg[twins], split, loops, pack.memories(twins, loops))
    return correct.tolist()[: len(rows)], loss.tolist()[: len(rows)]


def score_untrained(pack: DevicePack, rows: list[int], splits: Splits) -> None:
    """Score the initial weights of those of `rows` that have no LKG yet: they are it, since loop 1 diverged.

    Must come before the loop is taken over: a memory is still that of the initial weights.
    """
    rows = [row for row in rows if pack.states[row].best_correct < 0]
    if not rows:
        return
    correct, loss = evaluate_lkgs(pack, rows, splits.val)
    for row, count, mean in zip(rows, correct, loss, strict=True):
        state = pack.states[row]
        state.best_correct, state.best_loss = count, mean if math.isfinite(mean) else math.inf
