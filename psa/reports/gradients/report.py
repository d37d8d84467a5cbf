"""The report of the gradient study: which samples have similar gradients, and what that shows.

Every sentence with a number is generated from the data, including corrections of earlier conclusions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Final

import pandas as pd
from matplotlib.figure import Figure

from psa.analysis.frame_schema import trials_of
from psa.analysis.gradients.cluster_metrics import centre_images, examples
from psa.analysis.gradients.file import paths_of, read_gradients
from psa.analysis.pooling import differing_settings, finished_lengths
from psa.analysis.records_frame import stored_records
from psa.core.errors import UserError
from psa.reports import wording
from psa.reports.contract import ReportContext
from psa.reports.gradients import tables as gradient_tables
from psa.reports.gradients.figures import agreement_figure, choice_figure, norms_figure, tsne_figure
from psa.reports.gradients.measurements import GradientMeasurements
from psa.reports.gradients.sample_figures import (
    centres_figure,
    pictures_of,
    predictions_figure,
    samples_figure,
)
from psa.reports.gradients.sample_grids import data_samples_figure, draw_test_samples, drawn_samples_figure
from psa.reports.gradients.text import sections, span
from psa.reports.gradients.training import finished_rows, gradient_curves
from psa.reports.rendering.html import Fact, Page, Picture
from psa.reports.rendering.tables import Table
from psa.reports.rendering.trials import CellTrials
from psa.specs.probes import ONLINE
from psa.specs.trial import Trial
from psa.storage.records.record import Record
from psa.storage.store import Store

logger = logging.getLogger(__name__)

QUESTION: Final = (
    "The gradient of a sample says how the weights would change if the network were trained on it alone. Do "
    "gradients fall into groups, and do these groups say anything that the labels do not?"
)
_File = tuple[Path, str]  # and its SHA-256
EACH: Final = 10  # samples shown per cluster
_SHOWN: Final = 48
_OF_DIGITS: Final = ("mnist", "digits")  # data sets whose classes are digits
_CLASSES_SHOWN: Final = 12
_CAPTIONS: Final = {
    "agreement": "Agreement of clusters and classes: purity, mutual information, adjusted Rand index.",
    "tsne": "The gradients of samples in the plane, by class, by cluster and by prediction.",
    "choice": "Measures of how many clusters there are.",
    "norms_output": "Lengths of the raw gradients of the output layer, by their clusters.",
    "norms_hidden": "Lengths of the raw gradients of the hidden layer, by their clusters.",
    "centres": "The change of the first layer that each cluster centre represents.",
    "samples": "Some images of each cluster.",
    "predictions": "Some samples, and the prediction of the network when it was trained on them.",
    "training_curves": "Losses and validation accuracy after each epoch.",
    "data_samples": "Samples of each class of the training split.",
    "test_predictions": "Some test samples, and the predictions of the final weights.",
}


def parts(frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a page for each set of digits and architecture of each study."""
    digits = frame["digits"].astype("object").where(frame["digits"].notna(), "all")
    for (study, arch, chosen), rows in frame.groupby(
        [frame["study"].astype(str), frame["arch"].astype(str), digits.astype(str)], sort=False
    ):
        words = "".join(char if char.isalnum() else "-" for char in f"{arch}_{chosen}".replace("*", "x"))
        yield f"{study}_{'-'.join(part for part in words.split('-') if part)}", rows


def tables(frame: pd.DataFrame, context: ReportContext) -> dict[str, Table]:
    """Return all tables of a page by name."""
    found = {"training": gradient_tables.training_table(frame)}
    measured, _ = measured_of(frame, context)
    if measured:
        found |= {
            "agreement": gradient_tables.agreement_table(measured),
            "clusters": gradient_tables.clusters_table(measured[0]),
            "starts": gradient_tables.starts_table(measured),
            "choice": gradient_tables.choice_table(measured[0]),
            "diversity": gradient_tables.diversity_table(measured),
            "norms": gradient_tables.norms_table(measured),
        }
    return found


def figures(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield all figures of a page by name, of its first seed but for the curves."""
    if len(finished_rows(frame)):
        yield "training_curves", gradient_curves(frame)
    yield from _test_predictions(frame, context)
    measured, _ = measured_of(frame, context)
    if measured:
        yield "data_samples", data_samples_figure(measured[0].kept)
    if not measured or (main := measured[0].main) is None:
        return
    one = measured[0]
    notes = [f"Seed {one.seed}, {one.kept.name}: {main.view.name}.", *_class_notes(one.kept.trial)]
    yield (
        "agreement",
        agreement_figure(
            {
                found.view.name: {"digits": found.digits, "predictions": found.predictions}
                for found in one.found.values()
            },
            [f"Seed {one.seed}, {one.kept.name}."],
        ),
    )
    if one.picture is not None:
        rows, clusters = one.picture.rows, main.clusters.labels.numpy()
        yield (
            "tsne",
            tsne_figure(
                one.picture.coordinates, one.digits[rows], clusters[rows], one.predictions[rows], notes
            ),
        )
    if one.choice is not None:
        yield "choice", choice_figure(one.choice, one.count, notes)
    for key in ("output_raw", "hidden_raw"):
        if key in one.found and (one.norms(key) > 0).any():
            raw = one.found[key]
            yield (
                f"norms_{key.removesuffix('_raw')}",
                norms_figure(
                    one.norms(key),
                    raw.clusters.labels.numpy(),
                    one.count,
                    [f"Seed {one.seed}."],
                    f"Norms by cluster: {raw.view.name}",
                ),
            )
    yield from _images(one, notes)


def _test_predictions(frame: pd.DataFrame, context: ReportContext) -> Iterator[tuple[str, Figure]]:
    """Yield the predictions of test samples, of the first seed that kept them."""
    if context.store is None:
        return
    done = trials_of(frame).query("status == 'done'").sort_values("seed")["id"].astype(str)
    for record, _ in stored_records(context.store, done):
        try:
            drawn = draw_test_samples(context.store, record, context.data_dir)
        except UserError as error:  # one damaged file must not take the whole report with it
            logger.warning("%s has no figure of test predictions: %s", record["id"], error.message)
            continue
        if drawn is not None:
            yield "test_predictions", drawn_samples_figure(drawn, _class_notes(drawn.trial))
            return


def _class_notes(trial: Trial) -> list[str]:
    """Return what the numbers of classes in a figure stand for, where they are not digits."""
    names = trial.data.facts.classes
    if all(name == str(number) for number, name in enumerate(names)):
        return []
    shown = [f"{number} {name}" for number, name in enumerate(names[:_CLASSES_SHOWN])]
    return [f"Classes: {', '.join(shown)}{', ...' * (len(names) > _CLASSES_SHOWN)}."]


def _images(one: GradientMeasurements, notes: Sequence[str]) -> Iterator[tuple[str, Figure]]:
    if one.main is None:
        return
    key = next(key for key, found in one.found.items() if found is one.main)
    groups, shape = one.groups(key), one.kept.trial.data.shape
    if one.hidden is not None and one.kept.reads_images(one.hidden):
        found = centre_images(one.main.clusters.centres)
        pattern, units = pictures_of(found.pattern, shape), pictures_of(found.rows, shape)
        yield "centres", centres_figure(replace(found, pattern=pattern, rows=units), groups, notes)
    images = pictures_of(one.kept.images(one.sample).numpy(), shape)
    chosen = examples(one.main.clusters, EACH, one.seed)
    yield (
        "samples",
        samples_figure([images[at] for at in chosen], [one.digits[at] for at in chosen], groups, notes),
    )
    part = slice(-_SHOWN, None)
    about = [f"Seed {one.seed}, {one.kept.name}.", *_class_notes(one.kept.trial)]
    drawn = predictions_figure(images[part], one.digits[part], one.predictions[part], about)
    yield "predictions", drawn


def listings(frame: pd.DataFrame, context: ReportContext) -> dict[str, bytes]:
    """Return no files besides the tables."""
    return {}


def page(
    frame: pd.DataFrame, context: ReportContext, made: Mapping[str, Table], stored: Mapping[str, Path]
) -> Page:
    """Return the report, from its tables and the stored PNG of each of its figures."""
    measured, missing = measured_of(frame, context)
    pictures = {name: Picture(path, _CAPTIONS[name]) for name, path in stored.items()}
    trials = trials_of(frame)
    warnings = [*_mixed(trials), *missing]
    if absent := wording.absence(trials):
        warnings.append(f"{absent}. All numbers are of the others.")
    return Page(
        f"{trials['study'].iloc[0]}: {trials['arch'].iloc[0]}, {_classes(trials)}",
        QUESTION,
        tuple(_facts(measured)),
        tuple(sections(measured, made, pictures)),
        tuple(f"{each.kept.trial.id}: {each.selection}" for each in measured),
        tuple(warnings),
        {
            table.label: CellTrials({"Seed": "seed", "Architecture": "arch"})
            for table in made.values()
            if any(column.name == "Seed" for column in table.columns)
        },
    )


def _mixed(trials: pd.DataFrame) -> Iterator[str]:
    """Yield the settings other than the seed in which the networks of a page differ."""
    for name, values in differing_settings(trials, ()).items():
        yield f"The networks of this page differ in {name} ({', '.join(values)}); rows name their seed alone."
    if len(lengths := finished_lengths(trials)) > 1:
        shown = ", ".join(map(str, lengths))
        yield f"The networks of this page differ in epochs ({shown}); rows name their seed alone."


def _classes(trials: pd.DataFrame) -> str:
    """Return which classes the trials know: `digits 0 to 9`, and of other data `all classes`."""
    chosen = trials["digits"].iloc[0]
    if pd.isna(chosen):
        return "digits 0 to 9" if trials["dataset"].iloc[0] in _OF_DIGITS else "all classes"
    return f"{'digits' if trials['dataset'].iloc[0] in _OF_DIGITS else 'classes'} {chosen}"


def _facts(measured: Sequence[GradientMeasurements]) -> Iterator[Fact]:
    for key, layer in (("hidden_unit", "hidden layer"), ("output_unit", "output layer")):
        values = [each.found[key].digits.purity.value for each in measured if key in each.found]
        if values:
            yield Fact(f"Purity, {layer}", span(values), "of the clusters at length 1, against classes")


def measured_of(frame: pd.DataFrame, context: ReportContext) -> tuple[list[GradientMeasurements], list[str]]:
    """Measure each trial of a page whose gradients are stored, by seed. Return notes on the others, too.

    Of several files of a trial, that of the last epoch while training is used, else the checkpoint's.
    """
    if context.store is None:
        return [], ["No folder of gradients was named."]
    trials = trials_of(frame)
    done = trials.query("status == 'done'")
    names = done.sort_values("seed")["id"].astype(str)
    wanted = tuple(_file_of(record, context.store) for record, _ in stored_records(context.store, names))
    found = _measured(wanted, context.data_dir, context.say)
    notes = [f"{name}: the network diverged." for name in trials.query("status == 'diverged'")["id"]]
    notes += [each for each in found if isinstance(each, str)]
    return [each for each in found if isinstance(each, GradientMeasurements)], notes


def _file_of(record: Record, store: Store) -> _File | str:
    """Return the gradients file of a trial, or the reason why there is none."""
    paths = paths_of(store, record)
    if not paths:
        return f"{record['id']} kept no gradients."
    online = [name for name in paths if name.startswith(ONLINE)]
    name = (online or list(paths))[-1]
    if not paths[name].exists():
        return f"The file {paths[name]} does not exist."
    return paths[name], record["files"][name]["sha256"]


@lru_cache(maxsize=1)  # tables, figures and sentences of a page share the numbers
def _measured(
    wanted: tuple[_File | str, ...], data_dir: Path, say: Callable[[str], object]
) -> tuple[GradientMeasurements | str, ...]:
    """Measure each file, or return the reason why it cannot be measured."""
    return tuple(each if isinstance(each, str) else _one_measured(*each, data_dir, say) for each in wanted)


def _one_measured(
    path: Path, sha256: str, data_dir: Path, say: Callable[[str], object]
) -> GradientMeasurements | str:
    try:
        return GradientMeasurements(read_gradients(path, data_dir, sha256), say=say)
    except UserError as error:
        return f"{error.message}."
