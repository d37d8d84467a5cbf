"""Rate and mode of an ablation over the loops: whether a loop ablates, and in which mode.

The rate of a loop is the probability that it ablates. With r = `rate`, e = `end_rate`, L = `schedule_loops`:

constant: r. linear: from r in loop 1 to e in loop L, and e from then on. cosine: the same between these ends
along half a cosine, e + (r - e) (1 + cos(pi t)) / 2 with t = (loop - 1) / (L - 1) (Loshchilov and Hutter
2017, without restarts). adaptive: e + (r - e) (1 - h), where h is the rate of harm, the share of harmful
loops among the ablated ones of the last L loops, and 0 if none of them ablated. A loop is harmful if its
trained copy diverged, or classifies fewer validation samples correctly than the LKG that it began from.

`switch` changes the mode: it names the mode from some loop on, none included. Loop 1 never ablates.
"""

from __future__ import annotations

import math

from psa.core.rng import generator
from psa.specs.training import Ablation
from psa.storage.records.history import Columns, accepted_loops


def mode_of_loop(ablation: Ablation, seed: int, loop: int, history: Columns) -> str:
    """Return the mode in which `loop` (from 1) ablates, none if it does not.

    history: of the loops before it. Together with the seed it decides everything.
    """
    mode = ablation.mode_at(loop)
    rate = rate_of_loop(ablation, loop, history)
    if loop == 1 or rate >= 1:
        return mode
    return mode if generator(seed, "rate", loop).random() < rate else "none"


def rate_of_loop(ablation: Ablation, loop: int, history: Columns) -> float:
    """Return the probability that `loop` (from 1) ablates, as defined above."""
    start, end, loops = ablation.rate, ablation.end_rate, ablation.schedule_loops
    if loops is None:
        return start
    if ablation.schedule == "adaptive":
        return end + (start - end) * (1 - _rate_of_harm(history, loops))
    progress = min(1.0, (loop - 1) / (loops - 1))
    left = 1 - progress if ablation.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
    return end + (start - end) * left


def _rate_of_harm(history: Columns, window: int) -> float:
    """Return the share of harmful loops among the ablated ones of the last `window` loops, 0 for none."""
    accepted, lkg, found = accepted_loops(history), -1, []
    for at, correct in enumerate(history["correct"]):
        diverged = history["loss"][at] is None or history["train_loss"][at] is None
        if history["layer"][at] is not None and at >= len(accepted) - window:
            found.append(diverged or correct < lkg)
        lkg = correct if accepted[at] else lkg
    return sum(found) / len(found) if found else 0.0
