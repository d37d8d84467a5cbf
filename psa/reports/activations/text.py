"""The sentences of studies of activations and stochastic layers, and the arms that they refer to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from psa.analysis.pooling import budget_note, equal_budgets
from psa.analysis.stats import LEAST_N
from psa.core.formatting import pluralize
from psa.reports import wording
from psa.reports.activations import training_notes
from psa.reports.activations.arms import NEAR_ZERO_R, Arm, arms_of, of_done, rows_of, varying, with_seen
from psa.reports.activations.tables import comparisons, paired_note
from psa.reports.activations.training_notes import listed
from psa.reports.contract import ReportContext
from psa.reports.rendering.html import Fact
from psa.reports.wording import format_setting, shared_settings

_ALWAYS: Final = ("activation", "arch")
_CURVES: Final = ("accuracy", "loss", "train_loss")


@dataclass(frozen=True)
class ActivationResults:
    """The arms of a frame: their trials with probe results, the settings that tables show, those that
    distinguish arms, the score of ZeroR, and the probe results of finished trials.
    """

    rows: pd.DataFrame
    shown: tuple[str, ...]
    keys: tuple[str, ...]
    arms: list[Arm]
    zero_r: float
    seen: pd.DataFrame | None

    @classmethod
    def of(cls, frame: pd.DataFrame, context: ReportContext) -> ActivationResults:
        """Return the results of the trials of one study."""
        rows = with_seen(rows_of(equal_budgets(frame)), context.observed)
        columns, zero_r = varying(rows, _ALWAYS), rows["zero_r"].dropna()
        return cls(
            rows,
            columns,
            varying(rows) or _ALWAYS,
            arms_of(rows, columns),
            float(zero_r.iloc[0]) if len(zero_r) else float("nan"),
            of_done(context.observed, rows),
        )

    @property
    def there(self) -> list[Arm]:
        """The arms with at least one finished trial."""
        return [arm for arm in self.arms if arm.n]

    @property
    def dead(self) -> list[Arm]:
        """The arms that learned nothing with any seed."""
        return [arm for arm in self.there if arm.dead() == arm.n]

    def named(self, arms: Sequence[Arm]) -> str:
        """Format arms as text, only the first of them if there are many."""
        return listed([arm.label(self.keys) for arm in arms])


def facts(found: ActivationResults) -> Iterator[Fact]:
    """Yield the headlines."""
    done = int((found.rows["status"] == "done").sum())
    yield Fact("Trials", f"{done:,} of {len(found.rows):,}", f"{pluralize(len(found.arms), 'arm')}")
    if judged := [arm for arm in found.there if arm.n >= LEAST_N]:
        best = max(judged, key=lambda arm: arm.summary("bounty").mean)
        of = best.summary("test")
        detail = f"{best.label(found.keys)}, best by validation; {wording.interval_text(of)}"
        detail += wording.judged_text(len(judged), len(found.there), "arm")
        detail += "; not above ZeroR" if best in found.dead else ""
        yield Fact("Test accuracy of the best arm", f"{of.mean:.2f} %", detail)
    if found.there:
        yield Fact(
            "Arms that learn",
            f"{len(found.there) - len(found.dead)} of {len(found.there)}",
            f"more than {NEAR_ZERO_R:g} point above ZeroR, {found.zero_r:.2f} %, on validation",
        )


def shared_settings_text(found: ActivationResults) -> Iterator[str]:
    """Yield the settings that all trials share."""
    if shared := shared_settings(found.rows, found.shown):
        yield f"All arms share: {shared}."


def dead_arms_text(found: ActivationResults) -> Iterator[str]:
    """Yield sentences on the arms that learned nothing, in all seeds or in some."""
    if found.dead:
        yield (
            f"{pluralize(len(found.dead), 'arm')} learned nothing: at its best epoch no seed of "
            f"{found.named(found.dead)} was more than {NEAR_ZERO_R:g} point above ZeroR, what always "
            "predicting the majority class scores on validation "
            f"({found.zero_r:.2f} %). A constant prediction does as well."
        )
    some = [arm for arm in found.there if 0 < arm.dead() < arm.n]
    if some:
        parts = [f"{arm.label(found.keys)} ({arm.dead()} of {arm.n})" for arm in some]
        yield (f"In some seeds nothing was learned: {listed(parts)}. The means of these arms are of both.")


def identical_arms_text(found: ActivationResults, frame: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence on arms whose seeds all have the same numbers after every epoch."""
    loops = frame[frame["loop"].notna()].sort_values(["id", "loop"])
    curves = {
        str(name): part[list(_CURVES)].to_numpy(np.float64, na_value=np.nan).tobytes()
        for name, part in loops.groupby("id", observed=True)
    }
    alike: dict[tuple[tuple[int, bytes], ...], list[Arm]] = {}
    for arm in found.there:
        seeds = zip(map(int, arm.rows["seed"]), arm.ids, strict=True)
        if key := tuple((seed, curves[name]) for seed, name in seeds if name in curves):
            alike.setdefault(key, []).append(arm)
    same = [" = ".join(arm.label(found.keys) for arm in arms) for arms in alike.values() if len(arms) > 1]
    if same:
        yield (
            "Equal to the last bit after every epoch of every seed, so that their curves hide each other: "
            f"{listed(same)}."
        )


def baseline_text(found: ActivationResults) -> Iterator[str]:
    """Yield sentences on the arms that differ from their baseline, and on those that have none."""
    compared = comparisons(found.arms)
    verdicts = Counter(each.verdict for each in compared if each.verdict is not None)
    if not verdicts:
        yield paired_note(compared)
        return
    base = compared[0].base
    alike = f"the same settings with {base.label(('activation',))}"
    yield (
        "The arms of a seed share the split, the order of batches and, where shapes allow, initial weights, "
        f"so they are compared seed by seed. Of {pluralize(verdicts.total(), 'comparison')} with the "
        "baseline "
        f"({alike if _of_activations(found) else base.label(found.keys)}), {verdicts['higher']} found a "
        f"significantly higher accuracy, {verdicts['lower']} a significantly lower one, and "
        f"{verdicts['not significantly different']} no significant difference."
    )
    for verdict in ("higher", "lower"):
        arms = [each.arm for each in compared if each.verdict == verdict]
        if arms:
            yield f"Test accuracy {verdict} than the baseline's: {found.named(arms)}."
    without = [arm for arm in found.there if arm not in [each.arm for each in compared]]
    without = [arm for arm in without if arm not in [each.base for each in compared]]
    if without:
        yield f"Without a baseline, and so compared with nothing: {found.named(without)}."


def _of_activations(found: ActivationResults) -> bool:
    return len({arm.settings["activation"] for arm in found.arms}) > 1


def temperature_text(found: ActivationResults) -> Iterator[str]:
    """Yield the best temperature of each combination of the other settings."""
    best: dict[str, Arm] = {}
    others = [key for key in found.keys if key not in ("temperature", "simplex")]
    for arm in found.there:
        name = arm.label(others)
        # no winner among arms that learned nothing, nor of seeds too few to tell
        if arm.settings["temperature"] is None or arm in found.dead or arm.n < LEAST_N:
            continue
        if name not in best or arm.summary("bounty").mean > best[name].summary("bounty").mean:
            best[name] = arm
    parts = [
        f"{name} at {format_setting(arm.settings['temperature'])} ({arm.summary('test').mean:.2f} %)"
        for name, arm in best.items()
    ]
    if parts:
        yield (
            "The temperature with the highest mean validation accuracy, and its mean test accuracy: "
            f"{listed(parts)}."
        )


def warnings(found: ActivationResults, frame: pd.DataFrame) -> Iterator[str]:
    """Yield the warnings at the top of the page. frame: the rows of every epoch."""
    if absent := wording.absence(found.rows):
        empty = [arm for arm in found.arms if not arm.n]
        none = f" Without any trial: {found.named(empty)}." if empty else ""
        yield f"{absent}. Means use finished trials only.{none}"
    lost = [arm for arm in found.arms if (arm.rows["status"] == "diverged").any()]
    if lost:
        yield f"Diverged, and so without any accuracy: {found.named(lost)}."
    if unequal := budget_note(found.rows, "epochs"):
        yield unequal
    if few := wording.few_trials(max((arm.n for arm in found.arms), default=0)):
        yield few
    devices = wording.devices_of(found.rows)
    if len(devices) > 1:
        yield f"The trials were trained on {' and '.join(devices)}, which agree closely, but not to the bit."
    yield from training_notes.schedule_text(found.there, found.keys)
    yield from training_notes.fall_text(found.there, found.keys, frame)
    yield from training_notes.last_epoch_text(found.there, found.keys)


def sources(found: ActivationResults) -> Iterator[str]:
    """Yield the origin of the numbers, and the rule that chose the tested epoch."""
    yield wording.origin(found.rows, "every epoch of every trial")
    yield (
        "The epoch is chosen by validation loss alone; the test split is evaluated once, with the weights of "
        "that epoch."
    )
