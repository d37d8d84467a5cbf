"""The JSON documents of the commands for grids, stored files, searches and reports; see docs/json.md.

Counts are whole numbers, times are in seconds, sizes in bytes, accuracies are shares from 0 to 1.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from psa.cli.output.document import Document

CountField = Annotated[int, Field(ge=0)]
DurationField = Annotated[float, Field(ge=0)]
ShareField = Annotated[float, Field(ge=0, le=1)]


class TrialReason(Document):
    """A trial, and the reason for its condition."""

    trial: Annotated[str, Field(description="Id of the trial.")]
    reason: Annotated[str, Field(description="Error of its last attempt, or damage of its record.")]


class PackCount(Document):
    """The number of packs of one size."""

    trials: Annotated[CountField, Field(description="Trials per pack.")]
    packs: Annotated[CountField, Field(description="Number of packs of that size.")]


class PlannedStage(Document):
    """The remaining work of one stage of a grid on this machine."""

    name: Annotated[str, Field(description="Name of the stage; empty in a grid without stages.")]
    meta_loops: Annotated[CountField, Field(description="Meta-loops per trial.")]
    waiting: Annotated[
        bool,
        Field(
            description="True if the stage before it is incomplete: its trials are not chosen, and only "
            "their largest number is known."
        ),
    ]
    left_out: Annotated[
        CountField,
        Field(
            description="Unfinished trials that --only leaves out and that a stage needs while it is waiting."
        ),
    ]
    trials: Annotated[CountField, Field(description="Trials of the stage.")]
    done: Annotated[CountField, Field(description="Trials that are done.")]
    pending: Annotated[CountField, Field(description="Trials that are still to be trained.")]
    damaged: Annotated[list[TrialReason], Field(description="Trials whose record cannot be read.")]
    packs: Annotated[list[PackCount], Field(description="Packs of pending trials, the largest first.")]
    workers: Annotated[CountField, Field(description="Worker processes at once.")]
    gpus: Annotated[CountField, Field(description="GPUs that the workers share; 0 on CPU.")]
    seconds: Annotated[DurationField, Field(description="Estimated time left on this machine.")]
    memory_bytes: Annotated[CountField, Field(description="Estimated peak memory of all workers.")]
    disk_bytes: Annotated[
        CountField, Field(description="Size of the pending trials if all weights are kept.")
    ]
    estimate: Annotated[
        list[str], Field(description="Lines about the jobs of --backend and their cost; empty without it.")
    ]


class PlanDocument(Document):
    """The output of `psa plan --json`."""

    name: Annotated[str, Field(description="Name of the experiment.")]
    stages: Annotated[list[PlannedStage], Field(description="Stages in order; one where none is declared.")]
    networks: Annotated[CountField, Field(description="Different networks among the pending trials.")]
    unmeasured: Annotated[
        CountField, Field(description="Networks without a measured step time; their times are estimates.")
    ]
    notes: Annotated[list[str], Field(description="Remarks of the study on its settings.")]


class TrialCounts(Document):
    """The numbers of trials by condition."""

    trials: Annotated[CountField, Field(description="All trials.")]
    done: Annotated[CountField, Field(description="Trials with a complete record.")]
    diverged: Annotated[CountField, Field(description="Trials among the done ones that diverged.")]
    pending: Annotated[CountField, Field(description="Trials to be trained, failed ones included.")]
    failed: Annotated[CountField, Field(description="Pending trials whose last attempt failed.")]
    damaged: Annotated[CountField, Field(description="Trials whose record cannot be read.")]


class GroupCounts(TrialCounts):
    """The numbers of trials of one variant, mode or architecture."""

    value: Annotated[str, Field(description="The variant, mode or architecture.")]


class StageCounts(TrialCounts):
    """The progress of one stage of a grid."""

    name: Annotated[str, Field(description="Name of the stage; empty in a grid without stages.")]
    meta_loops: Annotated[CountField, Field(description="Meta-loops per trial.")]
    waiting: Annotated[
        bool,
        Field(
            description="True if the stage before it is incomplete: its trials are not chosen, and `trials` "
            "is their largest number."
        ),
    ]
    left_out: Annotated[
        CountField,
        Field(
            description="Unfinished trials that --only leaves out and that a stage needs while it is waiting."
        ),
    ]
    stored_loops: Annotated[
        list[CountField],
        Field(description="Meta-loops in each record that is shorter than the stage asks for."),
    ]
    variants: Annotated[list[GroupCounts], Field(description="Counts by variant; empty without variants.")]
    modes: Annotated[list[GroupCounts], Field(description="Counts by ablation mode.")]
    archs: Annotated[list[GroupCounts], Field(description="Counts by architecture.")]


class RunningPack(Document):
    """A pack in training."""

    label: Annotated[str, Field(description="Network, modes and seeds of the pack.")]
    trials: Annotated[CountField, Field(description="Trials of the pack.")]
    loop: Annotated[CountField, Field(description="Meta-loops that its least trained trial has finished.")]
    meta_loops: Annotated[CountField, Field(description="Meta-loops that it is trained to.")]
    age: Annotated[DurationField, Field(description="Time since a worker started it.")]
    loop_seconds: Annotated[
        DurationField | None,
        Field(description="Mean time of its meta-loops so far; null before the first ends."),
    ]


class RunningSweep(Document):
    """An active sweep on the folder of checkpoints; all but `process` are empty or null where unknown."""

    process: Annotated[str, Field(description="Process id of the sweep.")]
    host: Annotated[str, Field(description="Its machine.")]
    grid: Annotated[str, Field(description="Its stage and experiment.")]
    done: Annotated[CountField | None, Field(description="Trials done.")]
    trials: Annotated[CountField | None, Field(description="Trials of the stage.")]
    left: Annotated[str, Field(description="Its own estimate of the time left, or what it waits for.")]
    age: Annotated[DurationField | None, Field(description="Time since the sweep started.")]
    silent: Annotated[
        DurationField | None, Field(description="Time since it last wrote its progress, every 2 seconds.")
    ]
    rate: Annotated[
        float | None, Field(description="Meta-loops per second, summed over trials; null before the first.")
    ]
    best: Annotated[ShareField | None, Field(description="Best validation accuracy in this sweep so far.")]
    best_trial: Annotated[str, Field(description="Id of the trial that has it.")]
    packs: Annotated[list[RunningPack], Field(description="Packs in training.")]


class DiskUse(Document):
    """The size of the files of an experiment on disk."""

    checkpoint_bytes: Annotated[CountField, Field(description="Checkpoints and arrays.")]
    record_bytes: Annotated[CountField, Field(description="Records that are files of their own.")]


class StatusDocument(Document):
    """The output of `psa status --json`; with --watch one document per refresh."""

    name: Annotated[str, Field(description="Name of the experiment.")]
    state: Annotated[
        Literal["complete", "incomplete", "failed"],
        Field(description="`failed`: a trial has failed or its record is damaged. Exit code 0, 3 or 4."),
    ]
    stages: Annotated[list[StageCounts], Field(description="Stages in order; one where none is declared.")]
    failed: Annotated[list[TrialReason], Field(description="Failed trials.")]
    damaged: Annotated[list[TrialReason], Field(description="Trials whose record cannot be read.")]
    sweeps: Annotated[list[RunningSweep], Field(description="Active sweeps on --model-dir, of any grid.")]
    jobs: Annotated[list[str], Field(description="Training jobs, with --backend sagemaker.")]
    disk: Annotated[DiskUse, Field(description="Disk space of the experiment.")]


class FileProblem(Document):
    """A stored file with a problem."""

    path: Annotated[str, Field(description="Path of the file.")]
    kind: Annotated[Literal["damaged", "misplaced"], Field(description="Its content or its place is wrong.")]
    problem: Annotated[str, Field(description="The problem.")]


class NestedFolder(Document):
    """A results or models folder inside of the one that is checked."""

    path: Annotated[str, Field(description="Path of the folder.")]
    files: Annotated[CountField, Field(description="Files in it.")]


class ReplayDifference(Document):
    """A stored meta-loop that came out differently when it was trained again."""

    place: Annotated[str, Field(description="File or bundle that holds the loop.")]
    loop: Annotated[CountField, Field(description="Number of the loop.")]
    difference: Annotated[str, Field(description="The first difference.")]
    machines: Annotated[str, Field(description="The two machines, where they differ.")]


class VerifyDocument(Document):
    """The output of `psa verify --json`."""

    checked: Annotated[CountField, Field(description="Files checked.")]
    bundled: Annotated[CountField, Field(description="Records checked in bundles.")]
    problems: Annotated[list[FileProblem], Field(description="Damaged and misplaced files.")]
    set_aside: Annotated[
        list[str], Field(description="Damaged checkpoints that a later save has set aside; not used.")
    ]
    nested: Annotated[list[NestedFolder], Field(description="Folders of their own, not counted elsewhere.")]
    replayed: Annotated[CountField, Field(description="Meta-loops trained again, with --replay.")]
    rounding: Annotated[
        CountField,
        Field(description="Those of another kind of machine that differ by rounding alone."),
    ]
    differences: Annotated[list[ReplayDifference], Field(description="Those that came out differently.")]


class ReportPage(Document):
    """The report of one study and family."""

    page: Annotated[str, Field(description="Path of the HTML page.")]
    pdf: Annotated[str | None, Field(description="Path of the PDF document, with --pdf.")]
    folder: Annotated[str, Field(description="Folder of its tables, figures and rows.")]
    files: Annotated[list[str], Field(description="Paths of the files written there.")]
    trials: Annotated[
        CountField, Field(description="Trials of the grid or the records, missing ones included.")
    ]
    run_folders: Annotated[CountField, Field(description="Folders of trials written, with --runs.")]


class ReportDocument(Document):
    """The output of `psa report --json`."""

    reports: Annotated[list[ReportPage], Field(description="Reports written.")]


class SearchedConfiguration(Document):
    """A configuration of a search."""

    name: Annotated[str, Field(description="Name of the configuration.")]
    status: Annotated[
        Literal["running", "finished", "stopped early", "failed"],
        Field(description="Its state or end; `running` also if the search was stopped meanwhile."),
    ]
    settings: Annotated[dict[str, Any], Field(description="The sampled settings.")]
    loops: Annotated[CountField, Field(description="Meta-loops trained.")]
    accuracies: Annotated[
        list[float],
        Field(description="Best validation accuracy in percent of each seed that did not diverge."),
    ]
    error: Annotated[str, Field(description="Error of a failed configuration.")]


class SearchDocument(Document):
    """The output of `psa search --json`."""

    name: Annotated[str, Field(description="Name of the experiment.")]
    complete: Annotated[bool, Field(description="True if every configuration has ended without an error.")]
    samples: Annotated[CountField, Field(description="Configurations to try.")]
    configurations: Annotated[
        list[SearchedConfiguration], Field(description="Configurations, in the order of their names.")
    ]
    files: Annotated[list[str], Field(description="Paths of the table and the figure.")]


class FetchedStage(Document):
    """The trials of one stage that are here after a download."""

    name: Annotated[str, Field(description="Name of the stage; empty in a grid without stages.")]
    trials: Annotated[CountField, Field(description="Trials of the stage.")]
    done: Annotated[CountField, Field(description="Trials whose record is here.")]
    missing: Annotated[list[str], Field(description="Ids of the other trials.")]
    damaged: Annotated[list[TrialReason], Field(description="Trials whose record cannot be read.")]


class FetchDocument(Document):
    """The output of `psa fetch --json`."""

    name: Annotated[str, Field(description="Name of the experiment.")]
    complete: Annotated[bool, Field(description="True if no trial is missing.")]
    stages: Annotated[list[FetchedStage], Field(description="Stages whose trials are known.")]
