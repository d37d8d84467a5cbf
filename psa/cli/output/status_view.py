"""The lines of `psa status`, from its document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from psa.cli.output.schema import (
    GroupCounts,
    RunningPack,
    RunningSweep,
    StageCounts,
    StatusDocument,
    TrialCounts,
)
from psa.core.formatting import (
    format_bytes,
    format_duration,
    format_pace,
    format_range,
    format_rate,
    join_names,
    pluralize,
)

_GROUPS_SHOWN: Final = 6
_PACKS_SHOWN: Final = 8
_SILENT_SECONDS: Final = 30.0  # without a report, which is due every 2 s; then it is worth a remark


def status_lines(status: StatusDocument, heading: str = "") -> Iterator[str]:
    """Yield the lines, but for damaged and failed trials: there may be many of them. heading: the name shown,
    by default that of the document.
    """
    before = ""
    for stage in status.stages:
        yield from _stage_lines(heading or status.name, stage, before)
        before = f"stage {stage.name}"
    disk = status.disk
    if disk.checkpoint_bytes or disk.record_bytes:
        sizes = (
            f"checkpoints {format_bytes(disk.checkpoint_bytes)}, records {format_bytes(disk.record_bytes)}"
        )
        yield f"  disk  {sizes}"
    for sweep in status.sweeps:
        yield from sweep_lines(sweep)
    yield from status.jobs


def waiting_text(trials: int, before: str, left_out: int) -> str:
    """Describe a stage that cannot start yet: its number of trials, the stage before it, and the unfinished
    trials that it needs and --only leaves out.
    """
    text = f"up to {pluralize(trials, 'trial')}, chosen when {before} is complete"
    others = f"; --only leaves out {pluralize(left_out, 'unfinished trial')} that it depends on"
    return text + others * bool(left_out)


def counts_text(counts: TrialCounts) -> str:
    """Return `6 of 8 trials done (1 diverged), 2 failed`."""
    lost = f" ({counts.diverged:,} diverged)" if counts.diverged else ""
    failed = f", {counts.failed:,} failed" if counts.failed else ""
    return f"{counts.done:,} of {counts.trials:,} trials done{lost}{failed}"


def _stage_lines(name: str, stage: StageCounts, before: str) -> Iterator[str]:
    title = f"{name}: stage {stage.name}: " if stage.name else f"{name}: "
    if stage.waiting:
        yield title + waiting_text(stage.trials, before or "the stage before", stage.left_out)
        return
    yield f"{title}{counts_text(stage)}{_shorter(stage)}"
    if stage.done == stage.trials:
        return
    for heading, groups in (("variant", stage.variants), ("mode", stage.modes), ("arch", stage.archs)):
        if len(groups) > 1:
            yield f"  {heading}  {_groups_text(groups)}"


def _shorter(stage: StageCounts) -> str:
    """Return a remark on pending trials whose records have fewer loops, which they resume from."""
    loops = stage.stored_loops
    if not loops:
        return ""
    of = pluralize(stage.meta_loops, "meta-loop")
    return f"; {pluralize(len(loops), 'trial')} stored with {format_range(loops)} of {of}"


def _groups_text(groups: Sequence[GroupCounts]) -> str:
    """Return the counts of the first incomplete groups: `none 3/4, full 0/4 (1 failed); 4 complete`."""
    left = [group for group in groups if group.done < group.trials]
    # those with a failure first, then those that have begun
    left.sort(key=lambda group: (-group.failed - group.damaged, -(group.done > 0)))
    shown = join_names([_group_text(group) for group in left], _GROUPS_SHOWN)
    complete = len(groups) - len(left)
    return f"{shown}; {complete:,} complete" if complete else shown


def _group_text(group: GroupCounts) -> str:
    wrong = [
        f"{count:,} {what}" for count, what in ((group.failed, "failed"), (group.damaged, "damaged")) if count
    ]
    remark = f" ({', '.join(wrong)})" if wrong else ""
    return f"{group.value} {group.done:,}/{group.trials:,}{remark}"


def sweep_lines(sweep: RunningSweep) -> Iterator[str]:
    """Yield the lines of an active sweep: its progress, its running packs and its best trial."""
    if sweep.done is None or sweep.trials is None:
        yield f"sweep {sweep.process}: at work"
        return
    facts = [f"{sweep.done:,} of {sweep.trials:,} trials done", sweep.left]
    if sweep.rate is not None:
        facts.append(format_rate(sweep.rate))
    if sweep.age is not None:
        facts.append(f"started {format_duration(sweep.age)} ago")
    if sweep.silent is not None and sweep.silent > _SILENT_SECONDS:
        facts.append(f"no report for {format_duration(sweep.silent)}")
    yield f"sweep {sweep.process} on {sweep.host} ({sweep.grid}): {', '.join(facts)}"
    for pack in sweep.packs[:_PACKS_SHOWN]:
        yield f"  running  {_pack_text(pack)}"
    if len(sweep.packs) > _PACKS_SHOWN:
        yield f"  running  {len(sweep.packs) - _PACKS_SHOWN:,} more"
    if sweep.best is not None:
        yield f"  best  {100 * sweep.best:.2f} % validation, {sweep.best_trial}"


def _pack_text(pack: RunningPack) -> str:
    facts = [
        f"{pack.label}: meta-loop {pack.loop:,}/{pack.meta_loops:,}",
        pluralize(pack.trials, "trial"),
        f"for {format_duration(pack.age)}",
    ]
    if pack.loop_seconds is not None:
        facts.append(f"{format_pace(pack.loop_seconds)} per loop")
    return ", ".join(facts)
