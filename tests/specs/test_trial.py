"""Arch, Trial and Pack: one grammar, one identity, and no arm contaminated by the setting of another."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from psa.core.errors import UserError
from psa.specs.arch import MAX_DEPTH, MAX_WIDTH, Arch
from psa.specs.base import MAX_SEED, canonical_json, first_error, parse_spec
from psa.specs.data import DataSpec
from psa.specs.model import PublishedModelSpec
from psa.specs.shapes import shape_of
from psa.specs.training import Ablation, Mode, RatchetTraining, StandardTraining
from psa.specs.trial import Leg, Pack, Trial, pack_key

# The grammar of --arch, written down a second time and in another way than in psa.specs.arch.
_BLANK = r"[ \t\r\n\f\v]*"
_SIZE = f"{_BLANK}[0-9]+{_BLANK}"
_SEGMENTS = rf"{_SIZE}[*xX]{_SIZE}(,{_SIZE}[*xX]{_SIZE})*"
GRAMMAR = re.compile(rf"{_BLANK}(\[{_SEGMENTS}\]|{_SEGMENTS}){_BLANK}")


def trial(mode: Mode = "none", arch: str = "[1*4]", seed: int = 0, **ratchet: Any) -> Trial:
    """A trial of the study, with what belongs to its mode."""
    return Trial(
        model=PublishedModelSpec(arch=Arch.parse(arch), dropout=0.1 if mode == "dropout" else 0.0),
        method=RatchetTraining(weight_decay=1e-4 if mode == "decay" else 0.0, **ratchet),
        intervention=Ablation(mode=mode),
        seed=seed,
    )


@pytest.mark.parametrize(
    ("text", "widths"),
    [
        ("[4*4, 2*8]", (4, 4, 4, 4, 8, 8)),
        (" [ 1 * 1024 ] ", (1024,)),
        ("[1*8,1*8]", (8, 8)),
        ("[1*8,1*4,1*8]", (8, 4, 8)),
        ("[03*0000000000002]", (2, 2, 2)),
        ("1*4", (4,)),
        ("4x8", (8, 8, 8, 8)),
        (" 4X2 , 1*3", (2, 2, 2, 2, 3)),
        ("[2x4, 1*8]", (4, 4, 8)),
    ],
)
def test_an_arch_is_count_times_width(text: str, widths: tuple[int, ...]) -> None:
    """Each segment stands for so many hidden layers of one width, in order."""
    assert Arch.parse(text).widths == widths


def test_equal_neighbours_are_one_stack() -> None:
    """`[1*8, 1*8]` and `[2*8]` are one arch, with one label, one slug and so one trial."""
    assert Arch.parse("[1*8, 1*8]") == Arch.parse("[2*8]")
    assert trial(arch="[1*8, 1*8]").id == trial(arch="[2*8]").id
    arch = Arch.parse("[4*4,2*8, 1*8]")
    assert (arch.label, arch.slug, str(arch)) == ("4*4, 3*8", "4x4-3x8", "[4*4, 3*8]")
    assert Arch.parse(str(arch)) == Arch.coerce(arch.label) == Arch.coerce(arch) == arch


def test_a_slug_is_short_enough_for_a_file_name_and_the_digest_tells_trials_apart() -> None:
    """An arch of hundreds of stacks has a short slug; two that share it still have two ids."""
    first = "[" + ",".join(f"1*{width}" for width in range(1, 200)) + "]"
    second = first.replace("1*199", "1*198")
    assert len(Arch.parse(first).slug) <= 80
    assert Arch.parse(first).slug == Arch.parse(second).slug
    assert trial(arch=first).id != trial(arch=second).id


WRONG = [
    "", " ", "[", "]", "[]", "[ ]", "][", "4*4,", "[4*4", "4*4]", "[4*4,]", "[,4*4]", "[4*4,,4*4]", "[4x4",
    "4", "4x", "x4", "4xx4", "4x4x4", "4*x4", "4x4-2x8",
    "[4]", "[*4]", "[4*]", "[4**4]", "[4*4*4]", "[-4*4]", "[+4*4]", "[4.0*4]", "[4e1*4]", "[0*4]", "[4*0]",
    "[[4*4]]", "[[4*4],[2*8]]", "(4*4)", "{4*4}", "[4*4];[2*8]", "[4*4][2*8]", "[4*4\x00]", "[4\x00*4]",
    "[٤*4]", "[\uff14*4]", "[²*4]", "[4\u2217*4]", "[4×4]", "\u3000[4*4]",
    "[4*\u00a04]", "[1_0*4]", "[0x4*4]",
    "[9999999999*4]", "[1*65537]", "[10001*1]", "[" + "9" * 3000 + "*1]", "[" + "1*1," * 5000 + "1*1]",
    "[4*4]\n[2*8]", "[\x1b[2J4*4]", "[4*4", "\ud800[4*4]", "[True*4]", "[None]", "nan", "[1*nan]",
]  # fmt: skip


@pytest.mark.parametrize("text", WRONG)
def test_a_wrong_arch_is_refused_in_one_line(text: str) -> None:
    """Nothing outside the grammar is accepted, and the refusal is one short printable line."""
    with pytest.raises(UserError) as refusal:
        Arch.parse(text)
    said = str(refusal.value)
    assert said.startswith("arch")
    assert said.isprintable()
    assert len(said) < 250


def _mutated(text: str, at: int, junk: str) -> str:
    at %= len(text) + 1
    return text[:at] + junk + text[at + 1 :]


NEARLY = st.builds(
    _mutated,
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), min_size=1, max_size=4).map(
        lambda stacks: "[" + ", ".join(f"{depth}*{width}" for depth, width in stacks) + "]"
    ),
    st.integers(0, 60),
    st.one_of(st.sampled_from(["", ",", "*", "[", "]", "\n", "\0", " ", "٤", "-"]), st.text(max_size=3)),
)


@settings(deadline=None, database=None, derandomize=True, max_examples=500)
@given(st.one_of(NEARLY, st.text(alphabet="[]0123456789*, \n", max_size=30), st.text(max_size=60)))
def test_what_is_accepted_matches_the_grammar(text: str) -> None:
    """A text is accepted exactly if it matches the grammar and its sizes are possible; nothing crashes."""
    try:
        arch = Arch.parse(text)
    except UserError as refused:
        said = str(refused)
        if GRAMMAR.fullmatch(text):
            sizes = [int(number) for number in re.findall("[0-9]+", text)]
            assert 0 in sizes or max(sizes[1::2]) > MAX_WIDTH or sum(sizes[::2]) > MAX_DEPTH
        assert said.isprintable()
    else:
        assert GRAMMAR.fullmatch(text)
        assert ",".join(f"{width}" for width in arch.widths) == ",".join(
            width
            for depth, width in re.findall(r"0*([0-9]+)\s*\*\s*0*([0-9]+)", text)
            for _ in range(int(depth))
        )


def test_a_network_that_no_machine_can_train_is_refused_before_anything_is_built() -> None:
    """Sizes that are possible each, but not together, are refused with the number of parameters."""
    with pytest.raises(UserError, match=r"at most 1,000,000,000 parameters, got .* of \[10000\*65536\]"):
        shape_of(PublishedModelSpec(arch=Arch.parse("[10000*65536]")))


GOLDEN = "2d0088f78455c61c0237116aed7ea922300e434460c812266c0cf1434e339653"


def test_the_identity_of_a_trial_never_changes() -> None:
    """A pinned id: if this fails, every stored state and record has lost its trial."""
    default = Trial()
    assert default.id == f"ablation/resmlp-1x1024/none/s00-{default.digest[:6]}"
    assert default.digest == GOLDEN
    text = canonical_json(default.model_dump(mode="json"))
    assert Trial.model_validate_json(text) == default
    assert Trial.model_validate_json(text).digest == default.digest


@pytest.mark.parametrize(
    "other",
    [
        trial(seed=1),
        trial("hidden"),
        trial("decay"),
        trial("dropout"),
        trial(arch="[2*4]"),
        trial(lr=2e-4),
        trial(batch_size=128),
        Trial(model=PublishedModelSpec(family="simplemlp", arch=Arch.parse("[1*4]"))),
        Trial(model=PublishedModelSpec(arch=Arch.parse("[1*4]")), data=DataSpec(name="fashion-mnist")),
        Trial(model=PublishedModelSpec(arch=Arch.parse("[1*4]")), data=DataSpec(digits=(3, 8))),
        Trial(model=PublishedModelSpec(arch=Arch.parse("[1*4]")), study="other"),
        Trial(model=PublishedModelSpec(arch=Arch.parse("[1*4]")), method=StandardTraining(lr=1e-4)),
    ],
    ids=lambda other: other.id,
)
def test_whatever_touches_the_numbers_is_part_of_the_identity(other: Trial) -> None:
    """A trial that differs in one setting has another digest and another id."""
    assert other.digest != trial().digest
    assert other.id != trial().id


def test_equal_settings_are_one_trial_however_they_are_written() -> None:
    """An integer rate, a minus sign before zero or a value from JSON text make no second trial."""
    written = {"method": {"policy": "ratchet", "lr": 1, "weight_decay": -0.0}, "model": {"dropout": -0.0}}
    assert Trial.model_validate(written).digest == Trial(method=RatchetTraining(lr=1.0)).digest


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"sede": 3}, "unknown key 'sede'"),
        ({"method": {"policy": "ratchet", "momentum": 0.9}}, "unknown key 'method.momentum'"),
        ({"model": {"dropuot": 0.1}}, "unknown key 'model.dropuot'"),
        ({"method": {"policy": "ratchet", "lr": -1.0}}, "method.lr must be greater than 0, got -1.0"),
        ({"method": {"policy": "ratchet", "lr": float("nan")}}, "method.lr must be a finite number, got nan"),
        (
            {"method": {"policy": "ratchet", "batch_size": 0}},
            "method.batch_size must be greater than or equal to 1, got 0",
        ),
        ({"method": {"policy": "push"}}, "method"),
        ({"model": {"arch": "[0*4]"}}, "model.arch must have counts and widths from 1, got 0*4"),
        ({"model": {"arch": 7}}, "model.arch must be a string, got 7"),
        ({"model": {"dropout": 1.0}}, "model.dropout must be less than 1, got 1.0"),
        ({"seed": -1}, "seed must be greater than or equal to 0, got -1"),
        ({"seed": MAX_SEED + 1}, f"seed must be less than or equal to {MAX_SEED}, got {MAX_SEED + 1}"),
        ({"seed": "x" * 500}, "seed must be a valid integer, got 'xxx"),
        ({"study": "../up"}, "study must match pattern '^[a-z][a-z0-9_-]{0,39}$', got '../up'"),
        (
            {"intervention": {"mode": "hiden"}},
            "intervention.mode must be 'none', 'decay', 'dropout', 'full', 'hidden' or 'output', got 'hiden'",
        ),
        ({"data": {"digits": [3]}}, "at least two"),
        ({"data": {"digits": [8, 3]}}, "rising order"),
        ({"legs": [{"until": 0}]}, "legs.0.until must be greater than or equal to 1, got 0"),
    ],
)
def test_a_fault_of_a_spec_names_key_and_value_in_one_line(values: dict[str, object], said: str) -> None:
    """An unknown key is an error, and a bad value is named with its place."""
    with pytest.raises(UserError) as refusal:
        parse_spec(Trial, values, "grid.toml")
    assert str(refusal.value).startswith("grid.toml: ")
    assert said in str(refusal.value)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 250


@pytest.mark.parametrize("mode", ["none", "full", "hidden", "output", "dropout"])
def test_decay_reaches_no_arm_but_decay(mode: Mode) -> None:
    """Weight decay anywhere but in mode decay is refused: it spoilt a published data set."""
    with pytest.raises(ValidationError, match="weight_decay must be 0 outside mode decay"):
        Trial(method=RatchetTraining(weight_decay=0.01), intervention=Ablation(mode=mode))


@pytest.mark.parametrize("mode", ["none", "full", "hidden", "output", "decay"])
def test_dropout_reaches_no_arm_but_dropout(mode: Mode) -> None:
    """Dropout anywhere but in mode dropout is refused: it spoilt a published data set."""
    with pytest.raises(ValidationError, match="dropout must be 0 outside mode dropout"):
        Trial(model=PublishedModelSpec(dropout=0.1), intervention=Ablation(mode=mode))


@pytest.mark.parametrize("mode", ["full", "hidden", "output"])
def test_ablation_needs_the_ratchet(mode: Mode) -> None:
    """Ordinary training has no LKG that could be damaged, so an ablation mode is refused."""
    with pytest.raises(ValidationError, match="policy must be ratchet in mode"):
        Trial(method=StandardTraining(), intervention=Ablation(mode=mode))


def test_the_same_trial_asked_for_again_continues_itself() -> None:
    """More loops of the same settings leave the trial as it is: the horizon is not part of it."""
    before = trial("hidden")
    assert before.continued_by(trial("hidden"), 7) == before
    assert before.continued_by(trial("hidden"), 0) == before


def test_a_switch_of_mode_is_a_new_trial_that_remembers_its_legs() -> None:
    """After a switch the earlier settings are a leg, and each loop knows what it was trained with."""
    switched = trial("none").continued_by(trial("decay"), 3)
    again = switched.continued_by(trial("hidden"), 5)
    assert [(leg.until, leg.intervention.mode) for leg in again.legs] == [(3, "none"), (5, "decay")]
    assert again.intervention.mode == "hidden"
    assert len({trial("none").id, trial("decay").id, trial("hidden").id, switched.id, again.id}) == 5
    modes = [again.at_loop(loop).intervention.mode for loop in (1, 3, 4, 5, 6, 100)]
    assert modes == ["none", "none", "decay", "decay", "hidden", "hidden"]
    assert again.at_loop(4).method == trial("decay").method


def test_a_digest_read_before_a_switch_does_not_get_into_it() -> None:
    """The digest is remembered once asked for, and may not slip into the continuation as a field."""
    before, after = trial("none"), trial("hidden")
    assert before.digest
    assert after.digest
    switched = before.continued_by(after, 3)
    assert switched.digest not in (before.digest, after.digest)
    assert switched.at_loop(1).digest == before.digest


def test_switching_back_is_a_third_leg() -> None:
    """none, hidden, none: the last is not the first one continued, since hidden came between."""
    back = trial("none").continued_by(trial("hidden"), 3).continued_by(trial("none"), 5)
    assert [(leg.until, leg.intervention.mode) for leg in back.legs] == [(3, "none"), (5, "hidden")]
    assert back.continued_by(trial("none"), 9) == back


def test_settings_under_which_no_loop_was_trained_leave_no_trace() -> None:
    """A switch before the first loop, or twice at the same loop, is the trial that was really trained."""
    assert trial("none").continued_by(trial("hidden"), 0) == trial("hidden")
    none_then = trial("none").continued_by(trial("hidden"), 3)
    assert none_then.continued_by(trial("output"), 3) == trial("none").continued_by(trial("output"), 3)
    assert none_then.continued_by(trial("none"), 3) == trial("none")


def test_a_change_of_rate_or_batch_size_is_a_leg_as_well() -> None:
    """What is trained with may change, and is recorded, within one mode too."""
    changed = trial(lr=1e-3).continued_by(trial(lr=1e-4, batch_size=64), 2)
    assert [leg.method.lr for leg in changed.legs] == [1e-3]
    assert (changed.method.lr, changed.method.batch_size) == (1e-4, 64)


@pytest.mark.parametrize(
    ("later", "option"),
    [
        (trial(arch="[1*5]"), "--arch must be that of the checkpoint, [1*4], got [1*5]"),
        (trial(seed=1), "--seed must be that of the checkpoint, 0, got 1"),
        (Trial(model=PublishedModelSpec(family="simplemlp", arch=Arch.parse("[1*4]"))), "--model"),
        (
            Trial(model=PublishedModelSpec(arch=Arch.parse("[1*4]")), data=DataSpec(name="fashion-mnist")),
            "--dataset",
        ),
        (Trial(model=PublishedModelSpec(arch=Arch.parse("[1*4]")), method=StandardTraining()), "--policy"),
    ],
)
def test_another_network_data_set_or_seed_is_refused_with_the_way_out(later: Trial, option: str) -> None:
    """What is continued may not change; the refusal names the option, both values and what to do."""
    with pytest.raises(UserError) as refusal:
        trial().continued_by(later, 3)
    assert str(refusal.value).startswith(option)
    assert "--model-dir" in refusal.value.hint
    assert "`clean`" in refusal.value.hint


def test_a_continued_trial_survives_its_json() -> None:
    """Legs are part of the spec that states and records store."""
    switched = trial("decay").continued_by(trial("dropout"), 3)
    assert Trial.model_validate_json(canonical_json(switched.model_dump(mode="json"))) == switched
    assert switched.legs == (
        Leg(until=3, model=PublishedModelSpec(arch=Arch.parse("[1*4]")), method=trial("decay").method,
            intervention=Ablation(mode="decay")),
    )  # fmt: skip


def test_trials_pack_by_data_network_and_batch_size() -> None:
    """Within one tensor modes, seeds, rates and legs may differ; data, network, batch size, optimiser not."""
    one = pack_key(trial())
    together = [trial(mode) for mode in ("decay", "dropout", "full", "hidden", "output")]
    together += [trial(seed=7), trial(lr=1e-3), trial("none").continued_by(trial("hidden"), 3)]
    assert {pack_key(each) for each in together} == {one}
    model = PublishedModelSpec(arch=Arch.parse("[1*4]"))
    apart = [
        trial(arch="[1*5]"),
        trial(batch_size=64),
        Trial(model=model.model_copy(update={"family": "simplemlp"})),
        Trial(model=model, data=DataSpec(digits=(3, 8))),
        Trial(model=model, data=DataSpec(scaling="unit")),
        Trial(model=model, method=StandardTraining()),
        Trial(model=model, method=StandardTraining(optimizer="adam")),
    ]
    assert len({one, *(pack_key(each) for each in apart)}) == len(apart) + 1


def test_a_pack_holds_each_trial_once_and_only_what_packs() -> None:
    """A pack of mixed shapes, of the same trial twice, of nothing or without a loop to train is refused."""
    assert len(Pack(trials=(trial(), trial("hidden")), horizon=1).trials) == 2
    for trials, horizon in (
        ((trial(), trial()), 1),
        ((trial(), trial(arch="[1*5]")), 1),
        ((), 1),
        ((trial(),), 0),
    ):
        with pytest.raises(ValidationError) as fault:
            Pack(trials=trials, horizon=horizon)
        assert first_error(fault.value)
