"""The console output of training one network: tables and lines, plain text without a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from psa.core.errors import printable
from psa.core.formatting import pluralize
from psa.core.process import discard_output
from psa.specs.shapes import Linear, Shape
from psa.storage.records.divergence import diverged, diverged_loops
from psa.storage.records.history import lkg_correct

if TYPE_CHECKING:
    from psa.data.splits import ClassCounts
    from psa.engine.loop import LoopReport
    from psa.storage.store import Record
    from psa.storage.trial_state import TrialState

_FIRST = 20  # lines printed of a long list
_WIDE = 200  # a log has no width; a line of the run must stay one line


class _Console(Console):
    lasting = False  # the command continues after the reader of its output has gone

    def on_broken_pipe(self) -> None:
        """Continue without output, or raise for psa.cli.app; rich would exit with code 1."""
        if not self.lasting:
            raise BrokenPipeError
        if self.stderr:
            self.quiet = True
        else:
            discard_output()

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments to print, escaped: stored text may contain control codes of terminals."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def console(*, lasting: bool = False, quiet: bool = False, stderr: bool = False) -> Console:
    """Return a console: styled on a terminal, plain unwrapped lines elsewhere.

    lasting: when the reader of a pipe exits, the command continues without output. quiet: nothing is shown,
    since a JSON document says it.
    """
    terminal = _Console(highlight=False, quiet=quiet, stderr=stderr)
    found = terminal
    if not terminal.is_terminal:
        found = _Console(highlight=False, quiet=quiet, stderr=stderr, width=_WIDE)
    found.lasting = lasting
    return found


def stderr_console() -> Console:
    """Return a console on standard error for the progress of a command."""
    found = _Console(highlight=False, stderr=True)
    found.lasting = True
    return found


def print_line(out: Console, text: str) -> None:
    """Print a line without wrapping or markup."""
    out.print(text, markup=False, soft_wrap=True)


def print_first(out: Console, lines: Sequence[str], rest: str) -> None:
    """Print the first of many lines, and the number of the others: `and 3 more failed`."""
    for line in lines[:_FIRST]:
        print_line(out, line)
    if len(lines) > _FIRST:
        out.print(f"and {len(lines) - _FIRST:,} more {rest}", markup=False)


def percent(correct: int, total: int) -> str:
    """Return a share of counts as `91.20 %`."""
    return f"{100 * correct / total:.2f} %"


def summary_table(family: str, arch: str, shape: Shape, activation: str = "ReLU") -> Table:
    """Return a table of the layers of a network, equal neighbours in one row, and its parameters."""
    table = Table(title=f"{family} {arch}: {shape.parameters:,} parameters", title_justify="left")
    for heading in ("layers", "inputs", "outputs", "parameters"):
        table.add_column(heading, justify="right")
    table.add_column("then", justify="left")
    then = {
        "hidden": activation,
        "conv": f"{activation}, pooling",
        "enter": f"{activation} (block begins)",
        "leave": f"add the block's input, {activation}",
        "output": "logits of the sum of all hidden layers" if shape.summed else "logits",
    }
    groups: list[tuple[tuple[int, int, str], list[Linear]]] = []
    for linear in shape.linears:
        # the two halves of a block alternate: they are shown once, with the number of blocks
        kind = "block" if linear.role in ("enter", "leave") else then[linear.role]
        key = (linear.inputs, linear.outputs, kind)
        if not groups or groups[-1][0] != key:
            groups.append((key, []))
        groups[-1][1].append(linear)
    for (inputs, outputs, kind), linears in groups:
        count = len(linears)
        effect = f"{count // 2} residual block{'s' * (count > 2)} of two" if kind == "block" else kind
        effect += ", columns sum to 1" if linears[0].simplex else ""
        parameters = sum(linear.parameters for linear in linears)
        table.add_row(f"{count:,}", f"{inputs:,}", f"{outputs:,}", f"{parameters:,}", effect)
    return table


class TrainView:
    """Progress of `train`: a bar with the time left, and one line a loop."""

    def __init__(self, out: Console, shape: Shape, horizon: int, *, debug: bool) -> None:
        self.out, self.shape, self.horizon, self.debug = out, shape, horizon, debug
        self.reached: dict[str, int] = {}
        self._last = time.monotonic()
        self._progress: Progress | None = None

    @contextmanager
    def live(self, done: int) -> Iterator[TrainView]:
        """Show the bar where there is a terminal."""
        if not self.out.is_terminal:
            yield self
            return
        columns = (
            TextColumn("meta-loop"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("time left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.out, transient=True) as progress:
            self._progress = progress
            self._task = progress.add_task("", total=self.horizon, completed=done)
            yield self
        self._progress = None

    def loop(self, reports: Sequence[LoopReport]) -> None:
        """Print one line for each trial that finished a loop."""
        now = time.monotonic()
        seconds, self._last = now - self._last, now
        several = len(reports) > 1
        for report in sorted(reports, key=lambda report: report.state.trial.seed):
            self.reached[report.state.trial.id] = report.state.loops
            print_line(self.out, self._line(report, several))
        if self.debug:
            self.out.print(f"    {seconds:.2f} s for {len(reports)} trial(s)", markup=False)
        if self._progress is not None:
            self._progress.update(self._task, completed=min(self.reached.values()))

    def _line(self, report: LoopReport, several: bool) -> str:
        state = report.state
        width = len(str(self.horizon))
        parts = [
            *([f"seed {state.trial.seed}"] if several else []),
            f"Loop {state.loops:>{width}}/{self.horizon}",
            "current diverged" if report.diverged else f"current {percent(report.correct, report.total)}",
            *self._standing(report),
        ]
        if self.debug:
            parts.append(f"loss {report.train_loss:.4f} train, {report.loss:.4f} validation")
        if report.unit is not None:
            layer = self.shape.linears[report.unit.layer].name
            more = f" and {len(report.units) - 1:,} more" * (len(report.units) > 1)
            parts.append(f"ablated {layer} neuron {report.unit.number}{more}")
            # on a narrow terminal the neuron gets a line of its own, rather than a break anywhere
            if self.out.is_terminal and len(" | ".join(parts)) > self.out.width:
                return f"{' | '.join(parts[:-1])}\n{' ' * (2 * width + 6)} | {parts[-1]}"
        return " | ".join(parts)

    @staticmethod
    def _standing(report: LoopReport) -> Iterator[str]:
        """Yield the bounty, and the LKG where patience may have made it another state."""
        state = report.state
        if "accepted" in state.history:
            lkg = percent(lkg_correct(state.history) or 0, report.total)
            yield f"LKG {lkg}{' (new)' if report.accepted else ''}"
            yield f"bounty {percent(state.best_correct, report.total)} (loop {state.lkg_loop})"
            return
        # the bounty is the accuracy of the LKG, so one number stands for both
        of = "new LKG" if report.kept else f"LKG of loop {state.lkg_loop}"
        yield f"bounty {percent(state.best_correct, report.total)} ({of})"

    def stopped(self, reached: int, command: str) -> None:
        """Print the progress at a stop, and the command that resumes."""
        loops = min(self.reached.values(), default=reached)
        print_line(
            self.out,
            f"Stopped at loop {loops} of {self.horizon}; every finished loop is saved. Resume: {command}",
        )

    def finals(self, records: Sequence[Record]) -> None:
        """Print bounty and test accuracy of every trial, after the only evaluation of the test split."""
        for record in records:
            who = f"seed {record['spec']['seed']}: " if len(records) > 1 else ""
            print_line(self.out, f"{who}{_result(record)}")
        samples = records[0]["samples"]
        zero_r = percent(samples["zero_r_validation"], samples["validation"])
        self.out.print(f"Always answering the majority class scores {zero_r} on validation", markup=False)


def _result(record: Record) -> str:
    """Return the bounty and the test accuracy of a trial, or that it diverged."""
    finals, samples, lost = record["finals"], record["samples"], len(diverged_loops(record["history"]))
    bounty, test = finals["bounty"], finals["test"]
    if diverged(record):
        return (
            f"DIVERGED: in {lost:,} of {pluralize(record['loops'], 'loop')} a loss, a logit or a weight was "
            "not finite, and no result is left. Choose a lower learning rate"
        )
    line = (
        f"validation bounty {percent(bounty['correct'], samples['validation'])} (loop {bounty['loop']}), "
        f"test {percent(test['correct'], samples['test'])}"
    )
    return f"{line}; {pluralize(lost, 'loop')} diverged" if lost else line


def resumed(state: TrialState, horizon: int, *, finishing: bool, recorded: bool = False) -> str:
    """Return the line that tells where a run resumes and ends. recorded: it has a record already."""
    if state.loops == 0:
        return f"Training to loop {horizon}"
    begun = f"Going on from loop {state.loops} (LKG of loop {state.lkg_loop})"
    if state.loops >= horizon:
        left = "and tested; here is the result again" if recorded else "the test and the record are missing"
        return f"{begun}: all {state.loops} loops are trained{'' if recorded else ','} {left}"
    legs = [f"{leg.intervention.mode} up to loop {leg.until}" for leg in state.trial.legs]
    modes = f"; mode {', '.join([*legs, f'{state.trial.intervention.mode} from then on'])}" if legs else ""
    end = f"finishing the run to loop {horizon}" if finishing else f"up to loop {horizon}"
    return f"{begun}, {end}{modes}"


def class_table(counts: ClassCounts) -> Table:
    """Return a table of samples per class of a split; the majority class (the answer of ZeroR) is marked."""
    table = Table(title=counts.title, title_justify="left")
    for heading in ("class", "count", "percent"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for number, count in counts.counts.items():
        majority = number == counts.zero_r_class
        table.add_row(
            counts.names[number],
            f"{count:,}",
            f"{100 * count / counts.total:.2f}",
            "ZeroR" if majority else "",
            style="bold" if majority else None,
        )
    table.add_section()
    table.add_row("all", f"{counts.total:,}", "100.00", "")
    return table
