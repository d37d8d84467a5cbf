"""A trial's growth between two epochs: whether it is due, and what becomes of its state.

A network grows as its next epoch begins, so a trial that ends at a horizon is tested as it was trained, and
a longer run of it goes on to the same bits.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from psa.interventions.growth import grow, grow_moments
from psa.specs.growth import Event, Moment, events
from psa.specs.shapes import INPUTS
from psa.storage.trial_state import TrialState


def due(state: TrialState, steps_per_epoch: int, validation: int) -> Event | None:
    """The growth that a trial's schedule asks for after its last loop and that is not done yet.

    validation: samples of the validation split.
    """
    trial = state.trial
    if trial.growth is None or not state.loops:
        return None
    if just_grown(state):
        return None
    history = [
        Moment(loop, loop * steps_per_epoch, correct / validation)
        for loop, correct in enumerate(state.history["correct"], start=1)
    ]
    found = events(trial.growth, trial.model.arch.widths, history, INPUTS, trial.data.classes)
    return found[-1] if found and found[-1].epoch == state.loops else None


def just_grown(state: TrialState) -> bool:
    """Whether the growth after its last loop is done, and no loop since."""
    return bool(state.events) and state.events[-1]["epoch"] == state.loops


def happen(state: TrialState, event: Event) -> None:
    """Book an event, and grow weights and what the optimiser remembers of them, in place."""
    number = 1 + sum(each["grew"] for each in state.events)
    state.events.append(booked(event))
    if not event.grew:
        return
    widths, seed = event.new_hidden_sizes, state.trial.seed
    state.lkg = grow(state.lkg, widths, seed, number)
    for kind, tensors in state.carried.items():
        weights = kind == "active"
        state.carried[kind] = (
            grow(tensors, widths, seed, number) if weights else grow_moments(tensors, widths)
        )


def booked(event: Event) -> dict[str, Any]:
    """An event as JSON holds it."""
    facts = asdict(event) | {
        "old_depth": event.old_depth,
        "new_depth": event.new_depth,
        "old_width": event.old_width,
        "new_width": event.new_width,
    }
    return {key: list(value) if isinstance(value, tuple) else value for key, value in facts.items()}
