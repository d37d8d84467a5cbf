"""Settings that are off by default: the identity of published trials, labels of arms, and what is refused."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from paths import ROOT
from pydantic import ValidationError
from questions import EXAMPLES, question

from psa.core.errors import UserError
from psa.experiments.grid import load_grid
from psa.experiments.studies.ablation import Settings, from_settings
from psa.specs.base import canonical_json
from psa.specs.training import Ablation, RatchetTraining, StandardTraining
from psa.specs.training.settings import AblationSettings, RatchetSettings, lr_of_rule
from psa.specs.trial import Trial, training_key

# The ids and digests of all trials of each grid, as they were before these settings.
BEFORE = {
    "activations": (285, "dfdb469d71211af8"),
    "architectures": (35, "67acd4c57486b9b9"),
    "glonet": (144, "4312daac53ecd8f0"),
    "gradients": (15, "8c9e764c3e0cc456"),
    "growth": (56, "3a335acba73958c4"),
    "memory": (84, "1d221ee62623478c"),
    "resmlp": (5880, "d21505137cca86cb"),
    "screen": (2940, "5a61aaca318fa581"),
    "simplemlp": (5880, "cf94fa3baaf4be80"),
    "smallest": (600, "c1d4d59409d04c01"),
    "smoke": (24, "a12d0796e1075eda"),
    "stochastic": (90, "16cc7175705b7595"),
}


@pytest.mark.parametrize("name", BEFORE)
def test_trials_without_these_settings_are_the_trials_they_were(name: str) -> None:
    """Every id and digest of every grid that was published before."""
    trials = load_grid(ROOT / "reproduction" / f"{name}.toml").trials
    text = "\n".join(f"{each.id} {each.digest}" for each in trials)
    assert (len(trials), hashlib.sha256(text.encode()).hexdigest()[:16]) == BEFORE[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_setting_is_stored_and_makes_another_trial(name: str) -> None:
    """It survives its JSON, and distinguishes digest, id, label and the key of equal training."""
    each = question(**EXAMPLES[name])
    plain = question(mode=each.intervention.mode)
    text = canonical_json(each.model_dump(mode="json"))
    assert Trial.model_validate_json(text) == each
    assert each.digest != plain.digest
    assert each.id.rsplit("/", 1)[0] != plain.id.rsplit("/", 1)[0]
    assert each.arm.startswith(f"{each.intervention.mode}, ")
    assert training_key(each) != training_key(plain)
    stored = each.model_dump(mode="json")["intervention"] | each.model_dump(mode="json")["method"]
    fields = {*AblationSettings.model_fields, *RatchetSettings.model_fields}
    assert {*stored} & fields == {*EXAMPLES[name]} - {"mode"}


def test_labels_name_mode_and_settings() -> None:
    """As tables show them, and as folders are called."""
    arm = question(mode="hidden", units=4, regularizer="dropout", patience=10)
    assert arm.arm == "hidden, units 4, regularizer dropout, patience 10"
    assert arm.id.split("/")[2] == "hidden-units-4-regularizer-dropout-patience-10"
    assert question(mode="none", switch=("5:hidden", "9:none")).arm == "none, switch 5:hidden 9:none"
    assert question(mode="full").arm == "full"
    everything = question(**EXAMPLES["together"]).id.split("/")[2]
    assert len(everything) <= 80


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mode": "none", "units": 2}, "mode must be full, hidden or output with units, got none"),
        ({"mode": "decay", "rate": 0.5}, "mode must be full, hidden or output with rate, got decay"),
        ({"mode": "decay", "switch": ("5:full",)}, "mode must be none, full, hidden or output with switch"),
        ({"mode": "none", "regularizer": "decay"}, "mode must be full, hidden or output with regularizer"),
        ({"mode": "full", "units": 2, "share": 0.5}, "units must be left out with share, got 2"),
        ({"mode": "full", "change": "noise"}, "amount must be given with change noise, got None"),
        ({"mode": "full", "amount": 0.5}, "amount must be left out with change zero, got 0.5"),
        ({"mode": "full", "change": "scale", "amount": 1.0}, "amount must differ from 1 with change scale"),
        ({"mode": "full", "schedule": "cosine"}, "schedule_loops must be given with schedule cosine"),
        ({"mode": "full", "schedule_loops": 9}, "schedule_loops must be left out with schedule constant"),
        ({"mode": "full", "end_rate": 0.5}, "end_rate must be that of a schedule and differ from rate"),
        ({"mode": "full", "switch": ("5:full",)}, "switch must name another mode at rising loops from 2 on"),
        ({"mode": "full", "switch": ("9:none", "5:full")}, "switch must name another mode at rising loops"),
        ({"mode": "full", "switch": ("1:none",)}, "switch must name another mode at rising loops from 2"),
        ({"mode": "output", "units": 11}, "units must be at most 10 in mode output, got 11"),
        ({"mode": "output", "target": "block"}, "target block must have residual blocks to ablate in mode"),
        (
            {"mode": "hidden", "target": "block", "family": "simplemlp"},
            "target block must have residual blocks",
        ),
        ({"mode": "none", "switch": ("3:output",), "units": 11}, "units must be at most 10 in mode output"),
        ({"mode": "full", "rate": 0.0}, "greater than 0"),
        ({"mode": "full", "share": 1.5}, "less than or equal to 1"),
        ({"mode": "full", "units": 0}, "greater than or equal to 1"),
        ({"mode": "full", "choice": "best"}, "'random', 'fixed'"),
        ({"mode": "full", "switch": ("5:decay",)}, "match pattern"),
        ({"mode": "none", "patience": 0}, "greater than or equal to 1"),
        ({"mode": "none", "lr_rule": "size:3"}, "match pattern"),
    ],
)
def test_settings_without_a_meaning_are_refused(settings: dict[str, Any], said: str) -> None:
    """With what must hold, and what was given."""
    with pytest.raises(ValidationError) as refusal:
        question(**settings)
    assert said in str(refusal.value)


def test_silent_mixtures_are_still_refused() -> None:
    """Decay and dropout need a mode or a regularizer that names them, and a named one has to act."""
    hidden = Ablation(mode="hidden")
    for part in ({"method": RatchetTraining(weight_decay=0.1)}, {"model": {"dropout": 0.1}}):
        with pytest.raises(ValidationError, match="must be 0 outside mode"):
            Trial.model_validate({"intervention": hidden} | part)
    for regularizer in ("decay", "dropout"):
        with pytest.raises(ValidationError, match="must be above 0"):
            Trial(intervention=Ablation(mode="hidden", regularizer=regularizer))


def test_ordinary_training_ablates_nothing_later_either() -> None:
    """A switch to an ablating mode needs the ratchet as the mode itself does."""
    with pytest.raises(ValidationError, match="policy must be ratchet with switch"):
        Trial(method=StandardTraining(), intervention=Ablation(switch=("3:hidden",)))


def test_a_trial_with_other_buffers_is_no_continuation() -> None:
    """What the state does not hold cannot be gone on with."""
    for settings in ({"patience": 3}, {"optimizer_state": "persistent"}, {"units": 2}):
        with pytest.raises(UserError, match="must be that of the checkpoint"):
            question(mode="hidden").continued_by(question(mode="hidden", **settings), 4)
    rated = question(mode="hidden").continued_by(question(mode="hidden", rate=0.5), 4)
    assert [leg.until for leg in rated.legs] == [4]


@pytest.mark.parametrize(
    ("rule", "widths", "rate"),
    [
        (None, (7, 9), 1e-3),
        ("width:64", (64,), 1e-3),
        ("width:64", (16, 16), 2e-3),
        ("width:16", (32, 96), 5e-4),
        ("depth:4", (8,), 2e-3),
        ("depth:1", (8,) * 16, 2.5e-4),
    ],
)
def test_the_rate_by_a_rule(rule: str | None, widths: tuple[int, ...], rate: float) -> None:
    """Inverse square roots of mean width and of depth, relative to the reference."""
    assert lr_of_rule(rule, 1e-3, widths) == pytest.approx(rate, rel=1e-12)


def test_a_grid_resolves_the_rule_and_names_the_arm() -> None:
    """The trial holds the rate, and its arm the rule, so that it is not taken for another one."""
    settings = Settings.model_validate({"arch": "2*16", "mode": "hidden", "lr": 1e-3, "lr_rule": "width:64"})
    found = from_settings(settings, 0)
    assert found.method.lr == pytest.approx(2e-3)
    assert found.arm == "hidden, lr rule width:64"


def test_a_grid_takes_decay_and_dropout_beside_an_ablation() -> None:
    """As the regularizer that the arm is named for, and nowhere else."""
    shared = {"arch": "2*16", "mode": "hidden", "weight_decay": 0.1, "dropout": 0.2}
    for regularizer, decay, dropout in (("none", 0, 0), ("decay", 0.1, 0), ("dropout", 0, 0.2)):
        found = from_settings(Settings.model_validate(shared | {"regularizer": regularizer}), 0)
        assert (found.method.weight_decay, found.model.dropout) == (decay, dropout)
