"""The report of studies of activations and stochastic layers: tables, figures, one page, run folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_columns import LABELS
from psa.analysis.pooling import POOLED_SETTINGS
from psa.core.formatting import pluralize
from psa.reports import wording
from psa.reports.activations import text
from psa.reports.activations.arms import Arm, train_accuracies, varying
from psa.reports.activations.comparison import comparison_figure
from psa.reports.activations.curves import curve_figures, threshold_figures
from psa.reports.activations.run_folders import run_folders
from psa.reports.activations.tables import comparisons, paired_table, results_table, thresholds_table
from psa.reports.activations.temperatures import temperature_figure, temperatures
from psa.reports.activations.text import ActivationResults
from psa.reports.activations.training_notes import early_stops_text
from psa.reports.contract import ReportContext
from psa.reports.rendering.html import Page, Picture, Section
from psa.reports.rendering.paired import paired_trials
from psa.reports.rendering.tables import Table
from psa.reports.rendering.trials import CellTrials
from psa.reports.wording import format_setting

QUESTION: Final = (
    "How accurate do multilayer networks become with activations that normalise, threshold or project, and "
    "with stochastic layers, whose columns sum to 1?"
)
_CAPTIONS: Final = {
    "training_accuracy": "Accuracy on the training (dashed) and the validation split, after each epoch.",
    "training_loss": "Loss on the training split (dashed) and the validation split.",
    "comparison": "Mean test accuracy of every arm with its 95 % interval, and every seed.",
    "thresholds": "Learned thresholds of each hidden layer, from before training on.",
    "temperature": "Test accuracy against the temperature of stochastic layers.",
}


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a page for each study, or for each number of epochs of its finished trials."""
    for study, rows in frame.groupby("study", observed=True, sort=False):
        yield from wording.pages_of(str(study), rows, POOLED_SETTINGS)


def tables(frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
    """Return the results, comparisons with the baseline, and learned thresholds if there are any."""
    made = ActivationResults.of(frame, context)
    found = {
        "results": results_table(made.arms, made.shown, variant_of=context.variant_of),
        "paired": paired_table(comparisons(made.arms), made.keys),
    }
    learned = thresholds_table(made.arms, made.keys, made.seen)
    return found if learned is None else {**found, "thresholds": learned}


def figures(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield the comparison, accuracy against temperature, curves and thresholds, as far as there is data."""
    made = ActivationResults.of(frame, context)
    if not made.there:
        return
    yield "comparison", comparison_figure(made.there, made.keys)
    if len(temperatures(made.there)) > 1:
        yield "temperature", temperature_figure(made.there, made.keys)
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


def listings(frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
    """Return no files besides the tables."""
    return {}


def runs(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield the name and the files of a folder for each trial that is done or diverged (see
    psa.reports.activations.run_folders).
    """
    if context.store is not None:
        yield from run_folders(frame, context.store)


def page(
    frame: pd.DataFrame, context: ReportContext, made: Mapping[str, Table], stored: Mapping[str, Path]
) -> Page:
    """Return the report of one study."""
    results = ActivationResults.of(frame, context)
    pictures = {name: Picture(path, _caption(name)) for name, path in stored.items()}
    study = str(frame["study"].iloc[0])
    return Page(
        f"{study}{wording.apart_text(frame)}: {pluralize(len(results.arms), 'arm')}",
        _question(results),
        tuple(text.facts(results)),
        tuple(_sections(results, made, pictures, frame)),
        tuple(text.sources(results)),
        (*filter(None, [wording.other_lengths(frame)]), *text.warnings(results, frame)),
        {
            made["results"].label: CellTrials({_heading(key): _heading(key) for key in results.shown}),
            made["paired"].label: paired_trials(
                made["paired"],
                {"Arm": "Arm"},
                lambda row: {"Arm": row["Baseline"]},
                of_other=("Baseline",),
            ),
            **({made["thresholds"].label: CellTrials({"Arm": "Arm"})} if "thresholds" in made else {}),
        },
        {name: names for arm in results.arms for name, names in _trial_names(arm, results)},
    )


def _question(results: ActivationResults) -> str:
    """Return the question of the study, or one on the settings that vary if activations and stochastic layers
    are not among them.
    """
    studied = {"activation", "simplex", "temperature"}
    varied = [key for key in varying(results.rows) if key != "variant"]
    if not varied or studied & set(varied):
        return QUESTION
    *others, last = [_heading(key).lower() for key in varied]
    named = f"{', '.join(others)} and {last}" if others else last
    return f"How does the test accuracy of multilayer networks depend on {named}?"


def _heading(key: str) -> str:
    return LABELS.get(key, key)


def _trial_names(arm: Arm, results: ActivationResults) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each trial of an arm with the texts of its settings, as the table of results has them."""
    for name in arm.ids:
        shown = {_heading(key): format_setting(arm.settings[key]) for key in results.shown}
        yield name, shown | {"Arm": arm.label(results.keys)}


def _caption(name: str) -> str:
    known = next(start for start in _CAPTIONS if name == start or name.startswith(f"{start}_"))
    return _CAPTIONS[known]


def _sections(
    results: ActivationResults,
    made: Mapping[str, Table],
    pictures: Mapping[str, Picture],
    frame: pd.DataFrame,
) -> Iterator[Section]:
    def named(*starts: str) -> tuple[Picture, ...]:
        return tuple(
            picture for name, picture in pictures.items() if any(name.startswith(start) for start in starts)
        )

    yield Section(
        "Results",
        (
            *text.shared_settings_text(results),
            *text.dead_arms_text(results),
            *early_stops_text(results.there, results.keys),
        ),
        named("comparison"),
        (made["results"],),
    )
    yield Section("Compared with the baseline", tuple(text.baseline_text(results)), (), (made["paired"],))
    if "temperature" in pictures:
        yield Section("Temperature", tuple(text.temperature_text(results)), named("temperature"))
    yield Section("Training", tuple(text.identical_arms_text(results, frame)), named("training_"))
    if "thresholds" in made:
        yield Section(
            "Thresholds",
            ("Every hidden layer has a threshold of its own, learned with its weights.",),
            named("thresholds"),
            (made["thresholds"],),
        )
