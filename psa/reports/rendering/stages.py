"""The stages of a grid in a report: which candidates were promoted, by which rule and by which scores."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from psa.core.formatting import join_names, pluralize
from psa.experiments.grid import GridPoint
from psa.experiments.grid_file import Promotion
from psa.experiments.promotion import Candidate, StageStatus
from psa.reports.rendering.html import Page, Section
from psa.reports.rendering.tables import Cell, Column, Table


def stage_files(stages: Sequence[StageStatus]) -> dict[str, bytes]:
    """Return `stage_policy.json` by its name; nothing for a grid of one stage."""
    return {"stage_policy.json": stage_policy_json(stages)} if len(stages) > 1 else {}


def stage_tables(stages: Sequence[StageStatus]) -> dict[str, Table]:
    """Return the table `stages` by its name; nothing while no candidate is known."""
    table = stages_table(stages)
    return {} if table is None else {"stages": table}


def stage_policy_json(stages: Sequence[StageStatus]) -> bytes:
    """Return the stages of a grid as JSON: their trials, and for each after the first its rule, and every
    candidate with its score (0 to 1), its rank within its group, and whether it was promoted. Scores and
    decisions are null until the stage before is complete.
    """
    first, *later = stages
    body = {
        "grid": first.grid.label,
        "criterion": _criterion(stages),
        "stages": [_facts(first), *(_facts(each) | _decision(each) for each in later)],
    }
    return (json.dumps(body, indent=1) + "\n").encode()


def _criterion(stages: Sequence[StageStatus]) -> str:
    unit = _unit(stages[0])
    score = "validation accuracy after" if unit == "epoch" else "bounty, the best validation accuracy up to"
    return f"{score} the last {unit} of the stage before, mean over its seeds"


def _unit(status: StageStatus) -> str:
    """Return the unit of training of a stage: loops of the ablation study, epochs of ordinary training."""
    ordinary = all(point.trial.method.policy == "keep" for point in status.stage.everyone)
    return "epoch" if ordinary else "loop"


def _facts(status: StageStatus) -> dict[str, Any]:
    stage = status.stage
    return {
        "name": stage.name,
        "meta_loops": stage.meta_loops,
        "seeds": sorted({point.trial.seed for point in stage.everyone}),
        "trials": None if status.points is None else len(status.points),
    }


def _decision(status: StageStatus) -> dict[str, Any]:
    candidates, rule = status.candidates, status.stage.promotion or Promotion()
    names = candidate_names(candidates)
    known = bool(candidates) and all(each.promoted is not None for each in candidates)
    return {
        "promoted_from": status.grid.stages[status.number - 1].name,
        "rule": rule.model_dump(mode="json"),
        "complete": known,
        "promoted": [name for name, each in zip(names, candidates, strict=True) if each.promoted]
        if known
        else None,
        "candidates": [
            {
                "candidate": name,
                "group": each.group,
                "rank": each.rank,
                "validation_accuracy": None if each.score is None else float(each.score),
                "promoted": each.promoted,
                "reason": reason(each, rule),
                "trials": [point.trial.id for point in each.points],
            }
            for name, each in zip(names, candidates, strict=True)
        ],
    }


def reason(candidate: Candidate, rule: Promotion) -> str:
    """Return why a candidate was promoted or was not: `always`, `best 1 of group 2`."""
    if candidate.promoted is None:
        return "not decided"
    if candidate.group is None:
        return "always" if candidate.promoted else "in no group"
    return f"{'' if candidate.promoted else 'below the '}best {rule.best} of group {candidate.group}"


def candidate_names(candidates: Sequence[Candidate]) -> list[str]:
    """Return the name of each candidate: its variant, and the settings that tell it from others of it."""
    points = [each.points[0] for each in candidates]
    alike: dict[str, list[Mapping[str, Any]]] = {}
    for point in points:
        alike.setdefault(point.variant, []).append(_settings(point))
    return [_name(point, alike[point.variant]) for point in points]


def _settings(point: GridPoint) -> dict[str, Any]:
    return dict(point.settings.model_dump(mode="json"))


def _name(point: GridPoint, rivals: Sequence[Mapping[str, Any]]) -> str:
    mine = _settings(point)
    differing = [key for key in mine if any(each.get(key) != mine[key] for each in rivals)]
    return " ".join([*filter(None, [point.variant]), *(f"{key}={mine[key]}" for key in differing)])


def stages_table(stages: Sequence[StageStatus]) -> Table | None:
    """Return every candidate of every decision with its score, None for a grid of one stage."""
    arms = _has_arms(stages)
    rows = tuple(row for status in stages[1:] for row in _rows(status, arms=arms))
    if not rows:
        return None
    # The mean of two seeds ends in half a hundredth, which decides ranks; two digits would hide it.
    score = Column("Validation (%)", "percent", 3)
    columns = (
        Column("Stage"), Column("Candidate", breaks=5), *[Column("Arm", breaks=5)] * arms,
        Column("Trials", "count"), Column("Group", "count"), Column("Rank", "count"), score,
        Column("Promoted"), Column("Rule"),
    )  # fmt: skip
    note = (
        f"Criterion: {_criterion(stages)}. The test split plays no part. Among equal scores the candidate "
        f"that comes first in the grid is taken. {_grouping(stages)} A candidate without a group is either "
        "always promoted, or listed in no group and never promoted."
        + " Arm: the name that other tables have for these settings."
        * arms
    )
    caption = "Candidates promoted to the next stage"
    return Table(caption, "tab:stages", columns, rows, note, long=True, wide=arms)


def _has_arms(stages: Sequence[StageStatus]) -> bool:
    """Return True if a candidate is another arm than a mode with its usual settings."""
    trials = (each.points[0].trial for status in stages for each in status.candidates)
    return any(trial.arm != trial.intervention.mode for trial in trials)


def _grouping(stages: Sequence[StageStatus]) -> str:
    """Return the sentence on which candidates compete in one group; of each stage if they differ in that."""
    kinds: dict[str, str] = {}
    for status in stages[1:]:
        rule = status.stage.promotion or Promotion()
        of_equal = f"the candidates of equal {join_names(rule.within)}" if rule.within else "all candidates"
        kinds[status.stage.name] = "the variants that the grid lists together" if rule.groups else of_equal
    if len(set(kinds.values())) == 1:
        return f"A group holds {next(iter(kinds.values()))}."
    return f"A group holds {'; '.join(f'{kind} (to {name})' for name, kind in kinds.items())}."


def _rows(status: StageStatus, *, arms: bool) -> Iterator[tuple[Cell, ...]]:
    rule = status.stage.promotion or Promotion()
    move = f"{status.grid.stages[status.number - 1].name} to {status.stage.name}"
    fates = {True: "yes", False: "no", None: "not decided"}
    for name, each in zip(candidate_names(status.candidates), status.candidates, strict=True):
        score = None if each.score is None else float(100 * each.score)  # exact until it is rounded, once
        arm = [each.points[0].trial.arm] * arms
        yield (
            move, name, *arm, len(each.points), each.group, each.rank, score, fates[each.promoted],
            reason(each, rule),
        )  # fmt: skip


def with_stages(page: Page, stages: Sequence[StageStatus]) -> Page:
    """Return the page with a section on its stages; of a grid of one stage unchanged."""
    if len(stages) < 2:  # a single stage promotes nothing
        return page
    tables = tuple(stage_tables(stages).values())
    whole = "Trials and candidates are counted over the whole grid, on all of its pages."
    section = Section("Stages", (whole, *map(_sentence, stages)), (), tables)
    return replace(page, sections=(*page.sections, section))


def _sentence(status: StageStatus) -> str:
    stage = status.stage
    trained = (
        "an unknown number of trials" if status.points is None else pluralize(len(status.points), "trial")
    )
    text = f"Stage {stage.name}: {trained}, up to {_unit(status)} {stage.meta_loops:,}"
    if status.number == 0:
        return f"{text}."
    if status.points is None:
        return f"{text}; it waits until the stage before it is complete."
    count = sum(bool(each.promoted) for each in status.candidates)
    promoted = f"{text}; {count} of {pluralize(len(status.candidates), 'candidate')} promoted."
    return f"{promoted} {_selection_bias(status)}" if count else promoted


def _selection_bias(status: StageStatus) -> str:
    """Return which means are too high because chance helped to select the candidates."""
    seeds = sorted({point.trial.seed for each in status.candidates for point in each.points})
    which = "this seed" if len(seeds) == 1 else "these seeds"
    named = f"seed{'s' * (len(seeds) > 1)} {join_names([str(seed) for seed in seeds])}"
    return (
        f"The promotion was decided with {named}, so the mean of a promoted candidate tends to be too high "
        f"if it contains {which}."
    )
