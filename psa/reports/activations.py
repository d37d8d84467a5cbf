"""What is said of studies of activations and stochastic layers: tables, figures, sentences, run folders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from psa.reports.alike import alike, shown
from psa.reports.arm_comparison import comparison_figure
from psa.reports.arm_figures import curve_figures, threshold_figures
from psa.reports.arm_tables import comparisons, paired_note, paired_table, results_table, thresholds_table
from psa.reports.arm_temperatures import temperature_figure, temperatures
from psa.reports.arms import (
    NEAR_ZERO_R,
    Arm,
    arms_of,
    of_done,
    rows_of,
    train_accuracies,
    varying,
    with_seen,
)
from psa.reports.page import Fact, Page, Picture, Section
from psa.reports.run_folders import run_folders
from psa.reports.setting import Setting
from psa.reports.tables import Table
from psa.words import counted

QUESTION: Final = (
    "How accurate do multilayer networks become with activations that normalise, threshold or project, and "
    "with stochastic layers, whose columns sum to 1?"
)
_ALWAYS: Final = ("activation", "arch")
_NAMED: Final = 8
_CAPTIONS: Final = {
    "training_accuracy": "Accuracy on the training (dashed) and the validation split, after each epoch.",
    "training_loss": "Loss on the training split (dashed) and the validation split.",
    "comparison": "Mean test accuracy of every arm with its 95 % interval, and every seed.",
    "thresholds": "Learned thresholds of each hidden layer, from before training on.",
    "temperature": "Test accuracy against the temperature of stochastic layers.",
}


@dataclass(frozen=True)
class _Made:
    """A frame as arms: their trials with what probes saw, the settings that tables show, those that tell arms
    apart, what ZeroR scores, and what probes saw of the trials that are done.
    """

    rows: pd.DataFrame
    shown: tuple[str, ...]
    keys: tuple[str, ...]
    arms: list[Arm]
    zero_r: float
    seen: pd.DataFrame | None

    @classmethod
    def of(cls, frame: pd.DataFrame, setting: Setting) -> _Made:
        rows = with_seen(rows_of(frame), setting.observed)
        columns, zero_r = varying(rows, _ALWAYS), rows["zero_r"].dropna()
        return cls(
            rows,
            columns,
            varying(rows) or _ALWAYS,
            arms_of(rows, columns),
            float(zero_r.iloc[0]) if len(zero_r) else float("nan"),
            of_done(setting.observed, rows),
        )

    @property
    def there(self) -> list[Arm]:
        """The arms of which there is any trial."""
        return [arm for arm in self.arms if arm.n]

    def named(self, arms: Sequence[Arm]) -> str:
        """Arms in words, the first of them where there are many."""
        return _listed([arm.label(self.keys) for arm in arms])


def _listed(names: Sequence[str]) -> str:
    """With semicolons, since an arm's own name has commas."""
    more = f"; and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return "; ".join(names[:_NAMED]) + more


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """A page for each study."""
    for study, rows in frame.groupby("study", observed=True, sort=False):
        yield str(study), rows


def tables(frame: pd.DataFrame, setting: Setting) -> dict[str, Table]:
    """Results, comparisons with the baseline, learned thresholds where there are any."""
    made = _Made.of(frame, setting)
    found = {
        "results": results_table(made.arms, made.shown),
        "paired": paired_table(comparisons(made.arms), made.keys),
    }
    learned = thresholds_table(made.arms, made.keys, made.seen)
    return found if learned is None else {**found, "thresholds": learned}


def figures(frame: pd.DataFrame, setting: Setting) -> Iterator[tuple[str, Figure]]:
    """Comparison, accuracy against temperature, curves, thresholds: those for which there is something."""
    made = _Made.of(frame, setting)
    if not made.there:
        return
    yield "comparison", comparison_figure(made.there, made.keys, made.zero_r)
    if len(temperatures(made.there)) > 1:
        yield "temperature", temperature_figure(made.there, made.keys, made.zero_r)
    loops = frame.copy()
    loops["id"] = loops["id"].astype(str)
    loops = loops.merge(train_accuracies(made.seen), on=["id", "loop"], how="left")
    shown_as = {"accuracy": "validation", "train": "training"}
    if not loops["train"].notna().any():
        del shown_as["train"]
    yield from curve_figures(made.there, made.keys, loops, shown_as, "accuracy (%)")
    losses = {"loss": "validation", "train_loss": "training"}
    yield from curve_figures(made.there, made.keys, loops, losses, "loss")
    yield from threshold_figures(made.there, made.keys, made.seen)


def listings(frame: pd.DataFrame, setting: Setting) -> dict[str, bytes]:
    """None."""
    return {}


def runs(frame: pd.DataFrame, setting: Setting) -> Iterator[tuple[str, dict[str, bytes]]]:
    """A folder for each trial that is there: its name and its files (see psa.reports.run_folders)."""
    if setting.store is not None:
        yield from run_folders(frame, setting.store)


def page(
    frame: pd.DataFrame, setting: Setting, made: Mapping[str, Table], stored: Mapping[str, Path]
) -> Page:
    """The report of one study."""
    found = _Made.of(frame, setting)
    pictures = {name: Picture(path, _caption(name)) for name, path in stored.items()}
    study = str(frame["study"].iloc[0])
    return Page(
        f"{study}: {counted(len(found.arms), 'arm')}",
        QUESTION,
        tuple(_facts(found)),
        tuple(_sections(found, made, pictures)),
        tuple(_sources(found)),
        tuple(_warnings(found)),
    )


def _caption(name: str) -> str:
    known = next(start for start in _CAPTIONS if name == start or name.startswith(f"{start}_"))
    return _CAPTIONS[known]


def _facts(found: _Made) -> Iterator[Fact]:
    done = int((found.rows["status"] == "done").sum())
    yield Fact("Trials", f"{done:,} of {len(found.rows):,}", f"{counted(len(found.arms), 'arm')}")
    if found.there:
        best = max(found.there, key=lambda arm: arm.summary("test").mean)
        of = best.summary("test")
        interval = f"95 % interval {of.low:.2f} to {of.high:.2f}, n = {of.n}" if of.n > 1 else "n = 1"
        yield Fact("Best mean test accuracy", f"{of.mean:.2f} %", f"{best.label(found.keys)}; {interval}")
        dead = [arm for arm in found.there if arm.dead() == arm.n]
        yield Fact(
            "Arms that learn",
            f"{len(found.there) - len(dead)} of {len(found.there)}",
            f"more than {NEAR_ZERO_R:g} point above ZeroR, {found.zero_r:.2f} %, on validation",
        )


def _sections(found: _Made, made: Mapping[str, Table], pictures: Mapping[str, Picture]) -> Iterator[Section]:
    def named(*starts: str) -> tuple[Picture, ...]:
        return tuple(
            picture for name, picture in pictures.items() if any(name.startswith(start) for start in starts)
        )

    yield Section("Results", (*_alike(found), *_dead(found)), named("comparison"), (made["results"],))
    yield Section("Beside the baseline", tuple(_differing(found)), (), (made["paired"],))
    if "temperature" in pictures:
        yield Section("Temperature", tuple(_temperature(found)), named("temperature"))
    yield Section("Training", (), named("training_"))
    if "thresholds" in made:
        yield Section(
            "Thresholds",
            ("Every hidden layer has a threshold of its own, learned with its weights.",),
            named("thresholds"),
            (made["thresholds"],),
        )


def _alike(found: _Made) -> Iterator[str]:
    """The settings that all trials share."""
    if shared := alike(found.rows, found.shown):
        yield f"All arms share: {shared}."


def _dead(found: _Made) -> Iterator[str]:
    dead = [arm for arm in found.there if arm.dead() == arm.n]
    if dead:
        yield (
            f"{counted(len(dead), 'arm')} learned nothing: every seed of {found.named(dead)} stayed within "
            f"{NEAR_ZERO_R:g} point of ZeroR, what always answering the majority class scores on validation "
            f"({found.zero_r:.2f} %). A constant answer does as well."
        )
    some = [arm for arm in found.there if 0 < arm.dead() < arm.n]
    if some:
        said = [f"{arm.label(found.keys)} {arm.dead()} of {arm.n}" for arm in some]
        yield (f"In some seeds nothing was learned: {_listed(said)}. The means of these arms are of both.")


def _differing(found: _Made) -> Iterator[str]:
    compared = comparisons(found.arms)
    verdicts = Counter(each.verdict for each in compared)
    if not compared:
        yield paired_note(compared)
        return
    base = compared[0].base
    alike = f"the same settings with {base.label(('activation',))}"
    yield (
        "The arms of a seed share the split, the order of batches and, where shapes allow, initial weights, "
        f"so they are compared seed by seed. Of {counted(len(compared), 'comparison')} with the baseline "
        f"({alike if _of_activations(found) else base.label(found.keys)}), {verdicts['higher']} came out "
        f"higher, {verdicts['lower']} lower, and {verdicts['not told apart']} cannot be told apart with "
        "these seeds."
    )
    for verdict in ("higher", "lower"):
        arms = [each.arm for each in compared if each.verdict == verdict]
        if arms:
            yield f"Test accuracy {verdict} than the baseline's: {found.named(arms)}."
    without = [arm for arm in found.there if arm not in [each.arm for each in compared]]
    without = [arm for arm in without if arm not in [each.base for each in compared]]
    if without:
        yield f"Without a baseline, and so compared with nothing: {found.named(without)}."


def _of_activations(found: _Made) -> bool:
    return len({arm.settings["activation"] for arm in found.arms}) > 1


def _temperature(found: _Made) -> Iterator[str]:
    best: dict[str, Arm] = {}
    others = [key for key in found.keys if key not in ("temperature", "simplex")]
    for arm in found.there:
        name = arm.label(others)
        if arm.settings["temperature"] is not None and (
            name not in best or arm.summary("test").mean > best[name].summary("test").mean
        ):
            best[name] = arm
    said = [
        f"{name} at {shown(arm.settings['temperature'])} ({arm.summary('test').mean:.2f} %)"
        for name, arm in best.items()
    ]
    yield f"The temperature with the highest mean test accuracy: {_listed(said)}."


def _warnings(found: _Made) -> Iterator[str]:
    counts = Counter(found.rows["status"][found.rows["status"] != "done"])
    if counts:
        named = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
        empty = [arm for arm in found.arms if not arm.n]
        none = f" Without any trial: {found.named(empty)}." if empty else ""
        yield (
            f"{sum(counts.values()):,} of {len(found.rows):,} expected trials are not there ({named}). Means "
            f"are of the trials that are there.{none}"
        )
    lost = [arm for arm in found.arms if (arm.rows["status"] == "diverged").any()]
    if lost:
        yield f"Diverged, since no loss was ever finite, and so without any accuracy: {found.named(lost)}."
    devices = sorted(set(found.rows["device"].dropna()))
    if len(devices) > 1:
        yield f"The trials were trained on {' and '.join(devices)}, which agree closely, but not to the bit."
    done = found.rows[found.rows["status"] == "done"]
    late = int((done["bounty_loop"] == done["loops"]).sum())
    if late:
        yield (
            f"{late:,} of {counted(len(done), 'trial')} were best in their last epoch: with more epochs they "
            "may become better."
        )


def _sources(found: _Made) -> Iterator[str]:
    done = found.rows[found.rows["status"] == "done"]
    devices = ", ".join(sorted(set(done["device"].dropna())))
    yield (
        f"All numbers come from {counted(len(done), 'record')} of study {found.rows['study'].iloc[0]}, one "
        f"JSON file per trial, trained on: {devices or 'unknown'}. rows.parquet and rows.csv beside it hold "
        "every epoch of every trial; each table can be downloaded below it."
    )
    yield (
        "The epoch is chosen by validation loss alone; the test split is looked at once, with the weights of "
        "that epoch."
    )
