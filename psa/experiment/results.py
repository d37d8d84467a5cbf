"""The results of an experiment as frames, a table and a figure, read from its records."""

from __future__ import annotations

import contextlib
import html
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Protocol

from psa.core.errors import UserError
from psa.core.formatting import join_names, pluralize, quote
from psa.core.parsing import check_choice, parse_int
from psa.storage.store import Store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from psa.experiments.grid import Grid
    from psa.nn.ordinary import OrdinaryNetwork
    from psa.reports.activations.arms import Arm
    from psa.reports.rendering.tables import Table
    from psa.specs.trial import Trial

# The columns to select or to plot by; True where a larger value is better.
_SELECTION: Final = {"bounty": True, "train": True, "bounty_loop": False, "loops": False}
_CURVES: Final = {
    "accuracy": ("Validation accuracy (%)", "of the trained copy"),
    "lkg": ("Validation accuracy (%)", "of the LKG"),
    "loss": ("Validation loss", "of the trained copy"),
    "train_loss": ("Training loss", "mean over the epoch"),
}


class DeclaredExperiment(Protocol):
    """The experiment that results are of: its name, its grid, and the settings by which arms differ."""

    name: str
    grid: Grid
    axes: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Results:
    """The results of an experiment, read from its records.

    In a notebook the value of a cell is shown as the summary table; `print` shows it as Markdown.

    Example:
        >>> from psa import Experiment
        >>> axes = {"mode": ["none", "hidden"]}
        >>> experiment = Experiment("ablation", base={"arch": "1*4"}, axes=axes, epochs=2, seeds=3)
        >>> results = experiment.results()
        >>> results.frame, results.epochs, results.best()  # doctest: +SKIP

    """

    experiment: DeclaredExperiment
    store: Store

    @cached_property
    def _read(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The frame of the records and that of the probes. Raises UserError if no record is stored."""
        from psa.analysis.records_frame import load_frames

        grid = self.experiment.grid
        names = sorted({trial.study for trial in grid.trials})
        frame, observed = load_frames(self.store, names, grid.trials, grid.horizons)
        if (frame["status"] == "missing").all():
            raise UserError(
                f"{self.store.results.absolute()} holds no record of {', '.join(names)}",
                "Run it first, or name the folder with results_dir",
            )
        return frame, observed

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row per trial, also of those that are missing or failed (`status`): the axes, `test`, `train`
        and `bounty` (validation accuracy) in percent, `test_loss`, `bounty_loop` (the epoch they are of),
        `loops` (epochs trained), `thresholds`, and every setting. Raises UserError where there is no record.
        """
        from pandas.api.types import is_numeric_dtype as is_numeric

        from psa.reports.activations.arms import rows_of, with_seen

        frame, observed = self._read
        rows = with_seen(rows_of(frame), observed)
        # tables need None for what is missing; to group and to plot, numbers are needed
        numbers = {
            name: frame[name].dtype for name in rows if name in frame and is_numeric(frame[name].dtype)
        }
        return self._with_axes(rows.astype(numbers))

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per trial and epoch (meta-loop), of the trials that are done: `id`, the axes, `seed`,
        `loop`, `accuracy` of the trained copy and `lkg` after the epoch in percent of the validation split,
        `loss`, `train_loss`, `kept`, and the ablated `layer` and `unit`. Raises UserError where there is no
        record.
        """
        from psa.analysis.frame_columns import LOOP_COLUMNS

        frame, _ = self._read
        rows = self._with_axes(frame[frame["loop"].notna() & (frame["status"] == "done")].copy())
        return rows[["id", *self.experiment.axes, "seed", *LOOP_COLUMNS]].reset_index(drop=True)

    def _with_axes(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Add the axes that no column of a frame holds."""
        absent = [key for key in self.experiment.axes if key not in rows]
        if absent:
            points = {point.trial.id: point for point in self.experiment.grid.points}
            for key in absent:
                rows[key] = [points[str(name)].value(key) for name in rows["id"]]
        return rows

    def best(self, n: int = 1, by: str = "bounty") -> pd.DataFrame:
        """Return the rows of the `n` best trials that are done, best first.

        Args:
            n: The number of rows, at least 1.
            by: The column to select by: `bounty` (validation accuracy), `train` (training accuracy), or, the
                least first, `bounty_loop` and `loops`. Of equal trials the one that comes first in the
                experiment is better.

        Returns:
            Rows of `frame`.

        Raises:
            UserError: A column of the test split: results are selected without it.

        """
        count = parse_int(n, "n")
        if count < 1:
            raise UserError(f"n must be at least 1, got {n}")
        if str(by).startswith("test"):
            raise UserError(
                f"by must be a column of the validation or the training split, got {quote(by)}",
                "A selection on the test split would make its accuracy too high",
            )
        check_choice(by, set(_SELECTION), "by", "column")
        done = self.frame[self.frame["status"] == "done"]
        if len(done) and done[by].isna().all():
            raise UserError(f"by must be a column with values, got {by}, which no trial has")
        order = {trial.id: place for place, trial in enumerate(self.experiment.grid.trials)}
        first = done.iloc[done["id"].astype(str).map(order).argsort()]
        ranked = first.sort_values(by, ascending=not _SELECTION[by], kind="stable", na_position="last")
        return ranked.head(count).reset_index(drop=True)

    def load(self, trial: Trial | pd.Series | str) -> OrdinaryNetwork:
        """Load the network of a trial, as `psa.load` does.

        Args:
            trial: The trial, its id, or a row of `frame` or of `best()`.

        Returns:
            The network in evaluation mode, with the last known good weights.

        Raises:
            UserError: No state of the trial is stored, or the argument is something else.

        Example:
            >>> results.load(results.best().iloc[0])  # doctest: +SKIP

        """
        from psa.engine.model_export import load

        return load(_named_by(trial), model_dir=self.store.models)

    def summary(self) -> Table:
        """Return a row for each combination of the axes: trials, test accuracy with interval, and so on.

        Trials of one combination with different numbers of epochs, as stages train them, have a row for each.
        """
        from psa.reports.activations.tables import results_table

        axes = self.experiment.axes or ("arch",)
        name, arms = self.experiment.name, self._arms(axes)
        return results_table(arms, axes, caption=name, label="tab:experiment")

    def _arms(self, axes: Sequence[str]) -> list[Arm]:
        """Return the arms in the order of the experiment, not of the records; of different numbers of epochs
        the least come first.
        """
        from psa.analysis.pooling import finished_lengths, length_groups
        from psa.reports.activations.arms import arms_of

        order = {trial.id: place for place, trial in enumerate(self.experiment.grid.trials)}
        frame = self.frame.iloc[self.frame["id"].astype(str).map(order).argsort()]
        if len(finished_lengths(frame)) < 2:
            return arms_of(frame, axes)
        grouped = frame.assign(epochs=length_groups(frame)).sort_values("epochs", kind="stable")
        return arms_of(grouped, [*axes, "epochs"])

    def plot(self, column: str = "accuracy") -> Figure:
        """Return a figure of a column of `epochs` over the epochs, with a panel per value of the first axis.

        A thin line is a seed, a thick one their mean. A notebook shows the figure; `savefig` stores it.

        Args:
            column: `accuracy`, `lkg`, `loss` or `train_loss`.

        Raises:
            UserError: Another column, or no record. More panels than one figure can hold.

        """
        from psa.reports.plotting import load_matplotlib

        check_choice(column, set(_CURVES), "plot", "column")
        load_matplotlib()
        from psa.reports.activations.curves import PANELS, curve_figures

        axes, (label, meaning) = self.experiment.axes or ("arch",), _CURVES[column]
        arms = self._arms(axes)
        keys = list(arms[0].settings)  # with the number of epochs where there are several
        made = list(curve_figures(arms, keys, self._read[0], {column: meaning}, label))
        if len(made) > 1:
            raise UserError(
                f"a figure must have at most {PANELS} panels, one per value of {axes[0]}",
                "Make another axis the first one, or use `psa report`, which draws several figures",
            )
        return made[0][1]

    def markdown(self) -> str:
        """Return the summary as Markdown."""
        return self.summary().markdown()

    def latex(self) -> str:
        """Return the summary as a LaTeX table (booktabs, siunitx)."""
        return self.summary().latex()

    def __str__(self) -> str:
        """Return the summary, the number of diverged trials, and the reasons for missing ones."""
        return "\n".join([self.markdown(), *self._remarks()])

    def __repr__(self) -> str:
        """Return the experiment and its folder of results; read no record."""
        return f"Results({self.experiment!r}, results_dir={str(self.store.results)!r})"

    def _repr_html_(self) -> str:
        """Return the summary as an HTML table for a notebook."""
        import pandas as pd

        from psa.reports.rendering.tables import shown

        table = self.summary()
        heads = [column.name for column in table.columns]
        rows = [
            [shown(cell, column) for cell, column in zip(row, table.columns, strict=True)]
            for row in table.rows
        ]
        notes = "".join(f"<p>{html.escape(each)}</p>" for each in [table.note, *self._remarks()])
        return str(pd.DataFrame(rows, columns=heads).to_html(index=False, border=0)) + notes

    def _remarks(self) -> list[str]:
        done = set(self.frame["id"][self.frame["status"] == "done"].astype(str))
        failed = {
            str(reason)
            for trial in self.experiment.grid.trials
            if trial.id not in done and (reason := self.store.failure(trial)) is not None
        }
        lines = [f"failed: {reason}" for reason in sorted(failed)]
        lost = self.frame["id"][self.frame["status"] == "diverged"]
        if len(lost):
            trials = f"{len(lost):,} of {pluralize(len(self.frame), 'trial')}"
            lines.append(f"diverged: {trials}, which take part in no mean ({join_names(list(lost))})")
        return lines


def _named_by(trial: Any) -> Trial | str:
    """Return a trial, or the id in a row of a frame. Raises UserError for anything else."""
    from psa.specs.trial import Trial

    with contextlib.suppress(TypeError, LookupError):
        found = trial if isinstance(trial, Trial | str) else trial["id"]
        if isinstance(found, Trial | str):
            return found
    raise UserError(
        f"trial must be a trial, its id, or one row of a frame, got {quote(trial)}",
        "Write results.load(results.best().iloc[0])",
    )
