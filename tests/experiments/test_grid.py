"""Declared experiments: what a grid file may say, and one clear line for everything else."""

from __future__ import annotations

import contextlib
import random
import string
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from paths import ROOT

from psa.core.errors import UserError
from psa.experiments.grid import MAX_TRIALS, load_grid
from psa.reports.rendering.trials import selections

REPRODUCTION = ROOT / "reproduction"
GOOD = """
study = "ablation"
meta_loops = 3
seeds = "0..1"
[base]
family = "simplemlp"
lr = 1e-3
[axes]
arch = ["1*4", "2*3"]
mode = ["none", "hidden"]
"""

STAGED = """
study = "ablation"
[base]
family = "simplemlp"
[axes]
arch = ["1*4", "2*3"]
mode = ["none", "hidden"]
[[stages]]
name = "a"
meta_loops = 1
seeds = [0]
[[stages]]
name = "b"
meta_loops = 2
seeds = "0..2"
promote = { best = 1 }
"""


def written(folder: Path, text: str) -> Path:
    """A grid file."""
    path = folder / "grid.toml"
    path.write_text(text)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("family", ["simplemlp", "resmlp"])
def test_the_published_grids(family: str) -> None:
    """98 architectures x 6 modes x 10 seeds x 100 loops, in the order of the study."""
    grid = load_grid(REPRODUCTION / f"{family}.toml")
    assert len(grid.trials) == 5880
    assert grid.meta_loops == 100
    labels = list(dict.fromkeys(trial.model.arch.label for trial in grid.trials))
    lines = (REPRODUCTION / "configurations.txt").read_text().splitlines()
    assert labels == [line for line in lines if not line.startswith("#")]
    assert len(labels) == 98
    assert {trial.model.family for trial in grid.trials} == {family}
    assert {trial.method.weight_decay for trial in grid.trials if trial.intervention.mode != "decay"} == {0.0}
    assert {trial.model.dropout for trial in grid.trials if trial.intervention.mode != "dropout"} == {0.0}


def test_the_asymmetric_architectures_are_the_last_three_groups() -> None:
    """The 30 architectures that the study labels Asymmetric close the list of all."""
    everyone = (REPRODUCTION / "configurations.txt").read_text().splitlines()
    asymmetric = [
        line for line in (REPRODUCTION / "asymmetric.txt").read_text().splitlines() if line[0] != "#"
    ]
    assert len(asymmetric) == 30
    assert everyone[-30:] == asymmetric


def test_overrides_are_typed_by_the_schema(tmp_path: Path) -> None:
    """lr=1e-4 is a number, digits a list, an override of an axis takes its place."""
    grid = load_grid(
        written(tmp_path, GOOD), ["lr=1e-4", "mode=full", "seeds=3..4", "meta_loops=7", "digits=0,1"]
    )
    assert {trial.method.lr for trial in grid.trials} == {1e-4}
    assert {trial.intervention.mode for trial in grid.trials} == {"full"}
    assert {trial.seed for trial in grid.trials} == {3, 4}
    assert {trial.data.digits for trial in grid.trials} == {(0, 1)}
    assert grid.meta_loops == 7


def test_an_override_and_the_file_give_the_same_trial(tmp_path: Path) -> None:
    """How a number was written does not change a trial's identity: 1e-3, 0.001 and lr=.001 are one."""
    ids = {
        load_grid(written(tmp_path, GOOD.replace("1e-3", text))).trials[0].id for text in ("1e-3", "0.001")
    }
    ids.add(load_grid(written(tmp_path, GOOD), ["lr=.001"]).trials[0].id)
    assert len(ids) == 1


def test_only_selects(tmp_path: Path) -> None:
    """Clauses are joined by and, values by or."""
    path = written(tmp_path, GOOD)
    assert len(load_grid(path, only="arch=1*4").trials) == 4
    assert len(load_grid(path, only="arch=1*4,2*3 mode=hidden seed=1").trials) == 2
    with pytest.raises(UserError, match="must match a trial"):
        load_grid(path, only="arch=9*9")
    with pytest.raises(UserError, match="Did you mean arch"):
        load_grid(path, only="arhc=1*4")


def test_only_knows_every_setting_and_its_types(tmp_path: Path) -> None:
    """Architectures of several segments, numbers however written, ranges of seeds, digits."""
    text = GOOD.replace('"2*3"]', '"2*4, 1*7"]').replace("lr = 1e-3\n", "").replace('"0..1"', '"0..9"')
    path = written(tmp_path, text.replace("[axes]", "[axes]\nlr = [1e-3, 1e-4]\ndigits = [[0, 1], [2, 3]]"))
    assert len(load_grid(path).trials) == 160
    assert len(load_grid(path, only="arch=[2*4,1*7]").trials) == 80
    assert len(load_grid(path, only="arch=[2*4, 1*7],1*4 mode=none").trials) == 80
    assert len(load_grid(path, only="lr=.0001 digits=0,1").trials) == 40
    assert {trial.seed for trial in load_grid(path, only="seed=2..4").trials} == {2, 3, 4}
    assert {trial.seed for trial in load_grid(path, only="seed=2,7").trials} == {2, 7}
    for clause, named in (
        ("lr=fast", "--only lr must be a number, got 'fast'"),
        ("mode=hiden", "--only mode must be 'none', .* or 'output', got 'hiden'"),
        ("foo=1", "unknown key 'foo'. Known: amount, arch"),  # nothing near, so nothing is suggested
        ("seed=x", "seed"),
        ("arch", "arch"),
    ):
        with pytest.raises(UserError, match=named):
            load_grid(path, only=clause)


def test_an_override_of_several_values_is_an_axis(tmp_path: Path) -> None:
    """`mode=none,full` asks for both; within brackets a comma belongs to the value."""
    path = written(tmp_path, GOOD)
    grid = load_grid(path, ["mode=none,full", "arch=[2*4, 1*7],1*16", "digits=[0,1],[2,3]"])
    assert {trial.intervention.mode for trial in grid.trials} == {"none", "full"}
    assert {trial.model.arch.label for trial in grid.trials} == {"2*4, 1*7", "1*16"}
    assert {trial.data.digits for trial in grid.trials} == {(0, 1), (2, 3)}


def test_variants_are_run_with_every_combination(tmp_path: Path) -> None:
    """Named variants multiply the axes and can be picked by name."""
    text = GOOD + "[variants]\nslow = { batch_size = 64 }\nfast = { batch_size = 512 }\n"
    path = written(tmp_path, text)
    grid = load_grid(path)
    assert len(grid.trials) == 16
    assert {point.variant for point in grid.points} == {"slow", "fast"}
    assert {trial.method.batch_size for trial in load_grid(path, only="variant=fast").trials} == {512}


NAMES = [
    "grün & <b>",
    "big, slow",
    "it's",
    'say "no"',
    '"quoted"',
    "a(b",
    "plain",
    "x=1 seed=0",
    "two  blanks",
]


def test_variants_of_any_name_are_selected(tmp_path: Path) -> None:
    """With quotes around a name that holds blanks or commas; a report writes the same selection."""
    variants = {name: {"lr": 1e-3 * (place + 1)} for place, name in enumerate(NAMES)}
    body = {"meta_loops": 1, "seeds": [0, 1], "base": {"arch": "1*2"}, "variants": variants}
    found = selections(load_grid(body))
    for name, trial in ((point.variant, point.trial) for point in load_grid(body).points):
        (selected,) = load_grid(body, only=found[trial.id]).points
        assert (selected.variant, selected.trial) == (name, trial), found[trial.id]
    both = load_grid(body, only="""variant="big, slow",it's,'grün & <b>' seed=1""").points
    assert [point.variant for point in both] == ["grün & <b>", "big, slow", "it's"]
    with pytest.raises(UserError, match="must match a trial for each value, got none for xplainx"):
        load_grid(body, only="variant=xplainx")


@pytest.mark.parametrize("spelling", ["4*8", "[4*8]", "4x8", "[4x8]", " 4 X 8 "])
def test_an_architecture_is_the_same_in_every_notation(spelling: str, tmp_path: Path) -> None:
    """In a grid, in an override and in --only: four layers of eight, and the same trial."""
    path = tmp_path / "grid.toml"
    path.write_text(GOOD)
    wanted = [trial.id for trial in load_grid(path, ["arch=4*8"]).trials]
    assert [trial.id for trial in load_grid(path, [f"arch={spelling}"]).trials] == wanted
    path.write_text(GOOD.replace('["1*4", "2*3"]', f'["1*4", "{spelling}"]'))
    assert [trial.id for trial in load_grid(path, only=f"arch={spelling.replace(' ', '')}").trials] == wanted


BAD = {
    "unknown key at the top": GOOD.replace("meta_loops", "metaloops"),
    "unknown key in base": GOOD.replace("lr =", "lrr ="),
    "unknown axis": GOOD.replace("mode = [", "mood = ["),
    "unknown table": GOOD + "[axis]\nlr = [1]\n",
    "a text for a number": GOOD.replace("1e-3", '"fast"'),
    "a list for a number": GOOD.replace("1e-3", "[1e-3]"),
    "negative rate": GOOD.replace("1e-3", "-1e-3"),
    "zero rate": GOOD.replace("1e-3", "0.0"),
    "nan twice in an axis": GOOD.replace("lr = 1e-3\n", "").replace("[axes]", "[axes]\nlr = [nan, nan]"),
    "nan": GOOD.replace("1e-3", "nan"),
    "infinity": GOOD.replace("1e-3", "inf"),
    "empty axis": GOOD.replace('["1*4", "2*3"]', "[]"),
    "bad arch": GOOD.replace('"1*4"', '"1-4"'),
    "arch of nothing": GOOD.replace('"1*4"', '""'),
    "zero width": GOOD.replace('"1*4"', '"1*0"'),
    "huge arch": GOOD.replace('"1*4"', '"10000*65000"'),
    "unknown mode": GOOD.replace('"hidden"', '"hiden"'),
    "unknown family": GOOD.replace('"simplemlp"', '"cnn"'),
    "the same value twice": GOOD.replace('["none", "hidden"]', '["none", "none"]'),
    "the same arch in two spellings": GOOD.replace('["1*4", "2*3"]', '["1*4", "[1*4]"]'),
    "the same arch with another sign": GOOD.replace('["1*4", "2*3"]', '["1*4", "1x4"]'),
    "key in base and axes": GOOD.replace("[axes]", "[axes]\nlr = [1e-3, 1e-4]"),
    "the same variant twice": GOOD + "[variants]\na = { batch_size = 64 }\nb = { batch_size = 64 }\n",
    "variant that is no table": GOOD + "[variants]\na = 3\n",
    "variant with unknown key": GOOD + "[variants]\na = { batchsize = 64 }\n",
    "variant over an axis": GOOD + '[variants]\na = { mode = "none" }\n',
    "base that is no table": 'base = 3\n[axes]\narch = ["1*4"]\n',
    "axes that is no table": "axes = [1]\n",
    "no arch at all": 'study = "ablation"\n',
    "unknown study": GOOD.replace('"ablation"', '"ablatoin"'),
    "name with a path in it": 'name = "../../etc"\n' + GOOD,
    "name that is a number": "name = 3\n" + GOOD,
    "name with a capital": 'name = "Mine"\n' + GOOD,
    "rate that is a truth": GOOD.replace("1e-3", "true"),
    "rate that is a date": GOOD.replace("1e-3", "2026-01-01"),
    "rate above ten": GOOD.replace("1e-3", "11.0"),
    "rate axis with text": GOOD.replace("lr = 1e-3\n", "").replace("[axes]", '[axes]\nlr = [1e-3, "x"]'),
    "batch that is a fraction": GOOD.replace("lr = 1e-3", "batch_size = 64.5"),
    "batch that is a whole fraction": GOOD.replace("lr = 1e-3", "batch_size = 64.0"),
    "batch that is text": GOOD.replace("lr = 1e-3", 'batch_size = "64"'),
    "batch of more than there is": GOOD.replace("lr = 1e-3", "batch_size = 60001"),
    "digits that are text": GOOD.replace("lr = 1e-3", 'digits = "01"'),
    "digits out of order": GOOD.replace("lr = 1e-3", "digits = [7, 3]"),
    "digits twice": GOOD.replace("lr = 1e-3", "digits = [3, 3]"),
    "digits as truths": GOOD.replace("lr = 1e-3", "digits = [false, true]"),
    "split seed that is negative": GOOD.replace("lr = 1e-3", "split_seed = -1"),
    "scaling of no kind": GOOD.replace("lr = 1e-3", 'scaling = "unti"'),
    "data set of no kind": GOOD.replace("lr = 1e-3", 'dataset = "imagenet"'),
    "arch that is a number": GOOD.replace('"1*4"', "14"),
    "arch that is a list": GOOD.replace('"1*4"', '["1*4"]'),
    "arch that is a table": GOOD.replace('"1*4"', "{ depth = 1 }"),
    "arch of a thousand layers of one": GOOD.replace('"1*4"', '"10001*1"'),
    "weight decay of zero in mode decay": GOOD.replace("lr = 1e-3", "weight_decay = 0.0").replace(
        '"hidden"', '"decay"'
    ),
    "negative weight decay": GOOD.replace("lr = 1e-3", "weight_decay = -0.1"),
    "axis that is a table": GOOD.replace('["1*4", "2*3"]', "{ a = 1 }"),
    "axis file outside of text": GOOD.replace('["1*4", "2*3"]', '"@"'),
    "range that goes on": GOOD.replace('"0..1"', '"0..1..2"'),
    "seeds as a table": GOOD.replace('"0..1"', "{ a = 1 }"),
    "seed twice": GOOD.replace('"0..1"', "[1, 1]"),
    "seed in two spellings": GOOD.replace('"0..1"', '[1, "1"]'),
    "seed that is a truth": GOOD.replace('"0..1"', "[true]"),
    "too many loops": GOOD.replace("meta_loops = 3", "meta_loops = 10000001"),
    "loops as a fraction": GOOD.replace("meta_loops = 3", "meta_loops = 3.0"),
    "stages that are no tables": "stages = [1]\n" + GOOD,
    "stages as a table": GOOD + "[stages]\na = 1\n",
    "stage without a name": GOOD + "[[stages]]\nmeta_loops = 1\n",
    "stage with a bad name": GOOD + '[[stages]]\nname = "a b"\n',
    "stage with an unknown key": STAGED.replace("promote", "promot"),
    "stage without promotion": STAGED.replace("promote = { best = 1 }\n", ""),
    "promotion in the first stage": STAGED.replace('name = "a"', 'name = "a"\npromote = { best = 1 }'),
    "promotion that is a number": STAGED.replace("{ best = 1 }", "1"),
    "promotion of none": STAGED.replace("best = 1", "best = 0"),
    "promotion of a half": STAGED.replace("best = 1", "best = 0.5"),
    "promotion by an unknown key": STAGED.replace("best = 1", "bets = 1"),
    "promotion within an unknown key": STAGED.replace("best = 1", 'best = 1, within = ["mood"]'),
    "promotion of an unknown variant": STAGED.replace("best = 1", 'always = ["x"]'),
    "promotion in groups of unknown variants": STAGED.replace("best = 1", 'groups = [["x"]]'),
    "promotion by test accuracy": STAGED.replace("best = 1", 'by = "test"'),
    "two stages of one name": STAGED.replace('name = "b"', 'name = "a"'),
    "stage with an unknown setting": STAGED.replace("promote", "settings = { lrr = 1 }\npromote"),
    "stage with a bad setting": STAGED.replace("promote", "settings = { lr = -1.0 }\npromote"),
    "stage over an axis": STAGED.replace("promote", 'settings = { mode = "none" }\npromote'),
    "stage with no loops": STAGED.replace("meta_loops = 2", "meta_loops = 0"),
    "stage with no seeds": STAGED.replace('seeds = "0..2"', "seeds = []"),
    "loops in every stage and above": "meta_loops = 3\n" + STAGED,
    "seed that is text": GOOD.replace('"0..1"', '"a"'),
    "seed that is a fraction": GOOD.replace('"0..1"', "[1.5]"),
    "negative seed": GOOD.replace('"0..1"', "[-1]"),
    "no seeds": GOOD.replace('"0..1"', "[]"),
    "backward range": GOOD.replace('"0..1"', '"3..1"'),
    "enormous range": GOOD.replace('"0..1"', '"0..9999999999"'),
    "seed beyond 64 bits": GOOD.replace('"0..1"', "[99999999999999999999]"),
    "ten million trials": GOOD.replace('"0..1"', '"0..199999"').replace(
        'mode = ["none", "hidden"]',
        'mode = ["none", "hidden"]\nbatch_size = [8, 16, 32, 64, 128, 256, 1, 2, 3, 4, 5, 6, 7]',
    ),
    "zero loops": GOOD.replace("meta_loops = 3", "meta_loops = 0"),
    "loops as text": GOOD.replace("meta_loops = 3", 'meta_loops = "3"'),
    "loops as truth": GOOD.replace("meta_loops = 3", "meta_loops = true"),
    "missing file of values": GOOD.replace('["1*4", "2*3"]', '"@nowhere.txt"'),
    "study with a path": GOOD.replace('"ablation"', '"../../etc"'),
    "study that is a number": GOOD.replace('"ablation"', "3"),
    "digit ten": GOOD.replace("lr = 1e-3", "digits = [3, 10]"),
    "one digit": GOOD.replace("lr = 1e-3", "digits = [3]"),
    "batch of zero": GOOD.replace("lr = 1e-3", "batch_size = 0"),
    "validation of everything": GOOD.replace("lr = 1e-3", "val_size = 60000"),
    "dropout of one": GOOD.replace("lr = 1e-3", "dropout = 1.0").replace('"hidden"', '"dropout"'),
    "not TOML": "this is not TOML",
    "half a line": GOOD + "[axes",
    "key twice": GOOD + 'study = "y"\n[base]\n',
    "empty file": "",
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_grid_is_one_clear_line(what: str, tmp_path: Path) -> None:
    """Every mistake is named in one line with the file, and never a traceback of another kind."""
    path = written(tmp_path, BAD[what])
    with pytest.raises(UserError) as refused:
        load_grid(path)
    message = str(refused.value)
    assert "\n" not in message
    assert "grid.toml" in message
    assert refused.value.hint


@pytest.mark.parametrize("loops", ["1e3", '"3"', "true", "2.5"])
def test_meta_loops_are_asked_for_as_a_whole_number(loops: str, tmp_path: Path) -> None:
    """1e3 is within the limits, and no whole number in TOML."""
    with pytest.raises(UserError, match="meta_loops must be a whole number from 1 to 10,000,000, got "):
        load_grid(written(tmp_path, GOOD.replace("meta_loops = 3", f"meta_loops = {loops}")))


@pytest.mark.parametrize(
    "override",
    [
        "lr",
        "lr=",
        "=3",
        "lr=fast",
        "lrr=3",
        "batch_size=1.5",
        "mode=hiden",
        "arch=2-3",
        "seeds=x",
        "digits=a",
        "digits=0",
        "digits=[0,1],[1]",
        "lr=true",
        "lr=nan",
        "mode=none,none",
        "mode=none,hiden",
        "seeds=",
        "seeds=3..1",
        "meta_loops=0",
        "meta_loops=1.5",
        "stages.lr=1",
        "a.lr=1",
        ".lr=1",
    ],
)
def test_a_bad_override_is_one_clear_line(override: str, tmp_path: Path) -> None:
    """The same for overrides."""
    with pytest.raises(UserError) as refused:
        load_grid(written(tmp_path, GOOD), [override])
    assert "\n" not in str(refused.value)


def test_noise_in_a_grid_never_crashes(tmp_path: Path) -> None:
    """A hundred grids with random characters changed are accepted or refused, nothing else."""
    draws = random.Random(0)
    for _ in range(100):
        text = list(GOOD)
        for _ in range(draws.randint(1, 6)):
            text[draws.randrange(len(text))] = draws.choice(string.printable)
        with contextlib.suppress(UserError):
            load_grid(written(tmp_path, "".join(text)))


def test_the_nearest_right_name_is_offered(tmp_path: Path) -> None:
    """A typo names the key that was probably meant."""
    with pytest.raises(UserError, match="Did you mean batch_size"):
        load_grid(written(tmp_path, GOOD.replace("lr =", "batchsize =")))
    with pytest.raises(UserError, match=r"Did you mean .*grid\.toml"):
        load_grid(written(tmp_path, GOOD).with_name("gird.toml"))


@pytest.mark.slow
def test_a_grid_too_large_is_refused_without_being_built(tmp_path: Path) -> None:
    """Ten million trials are counted, not made: memory stays bounded."""
    path = written(tmp_path, BAD["ten million trials"])
    tracemalloc.start()
    with pytest.raises(UserError, match=f"{MAX_TRIALS:,}"):
        load_grid(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000_000


@pytest.mark.slow
def test_planning_imports_no_torch() -> None:
    """`psa plan` of 5,880 trials needs neither torch nor ray nor boto3."""
    code = (
        "import sys; from psa.cli.app import PSA, run; "
        "code = run(PSA, ['plan', 'reproduction/simplemlp.toml']); "
        "assert not {'torch', 'ray', 'boto3'} & set(sys.modules); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "5,880" in done.stdout


def test_a_decay_that_is_rounded_away_is_remarked(tmp_path: Path) -> None:
    """The published rates multiply weights by 1 - 1e-8, which no float32 number notices."""
    path = written(tmp_path, GOOD.replace('"hidden"', '"decay"'))
    for overrides, said in (((), 0), (("lr=1e-4",), 1), (("lr=1e-4", "mode=none"), 0), (("lr=3e-4",), 0)):
        assert len(load_grid(path, overrides).warnings) == said


VARIED = GOOD + "[variants]\nsmall = { batch_size = 64 }\nlarge = { batch_size = 512 }\n"


@pytest.mark.parametrize(
    ("text", "override", "named"),
    [
        (
            VARIED,
            "batch_size=128",
            "batch_size must be set in one place, got an override and variant 'small'",
        ),
        (
            STAGED.replace("promote", "settings = { lr = 1e-2 }\npromote"),
            "lr=1e-3",
            "lr must not be set by a stage, got it in 'b'",
        ),
        (STAGED, "b.lr=1e-2,1e-3", "b.lr must be one value, got 2"),
    ],
)
def test_an_override_reaches_all_or_none(text: str, override: str, named: str, tmp_path: Path) -> None:
    """Where it would reach only some trials, or only a part of it any, it is refused."""
    with pytest.raises(UserError, match=named):
        load_grid(written(tmp_path, text), [override])


def test_an_overridden_axis_keeps_its_place(tmp_path: Path) -> None:
    """The order of candidates decides ties, so an axis overridden by its own values changes nothing."""
    path = written(tmp_path, STAGED)
    assert load_grid(path, ["arch=1*4,2*3"]) == load_grid(path)


def test_seeds_and_values_are_written_in_one_way(tmp_path: Path) -> None:
    """Lists, ranges and both together, in overrides and in --only; files of values, too."""
    path = written(tmp_path, GOOD)
    (tmp_path / "archs.txt").write_text("1*5\n2*5\n")
    assert {trial.seed for trial in load_grid(path, ["seeds=0..2,7"]).trials} == {0, 1, 2, 7}
    assert {trial.seed for trial in load_grid(path, ["seeds=0..9"], "seed=0..2,7").trials} == {0, 1, 2, 7}
    assert {trial.model.arch.label for trial in load_grid(path, ["arch=@archs.txt"]).trials} == {"1*5", "2*5"}
    assert {trial.data.split_seed for trial in load_grid(path, ["split_seed=0..3"]).trials} == {0, 1, 2, 3}
    with pytest.raises(UserError, match=r"seeds must be FIRST\.\.LAST .* got 5\.\.1\. Write 1\.\.5"):
        load_grid(path, ["seeds=5..1"])
    with pytest.raises(UserError, match="must be a whole number, got '1_0'"):
        load_grid(path, ["seeds=1_0"])


def test_names_that_two_trials_would_share_are_told_from_doubles(tmp_path: Path) -> None:
    """Of ten thousand rates some have digests that begin alike: that is no repetition."""
    rates = ", ".join(f"{number * 1e-6:.6f}" for number in range(1, 10_000))
    text = f'seeds = [0]\n[base]\nfamily = "simplemlp"\narch = "1*4"\n[axes]\nlr = [{rates}]\n'
    with pytest.raises(UserError, match="trials must have different ids"):
        load_grid(written(tmp_path, text))


def test_an_override_is_given_once(tmp_path: Path) -> None:
    """The second of two would take the place of the first without a word."""
    path = tmp_path / "grid.toml"
    path.write_text('name = "tiny"\n[base]\nfamily = "simplemlp"\narch = "1*1"\n')
    for given in (["lr=1e-3", "lr=1e-4"], ["seeds=1", "mode=none", "seeds=2"]):
        with pytest.raises(UserError, match=r"must be given once, got 2.*=A,B"):
            load_grid(path, given)
    assert len(load_grid(path, ["lr=1e-3,1e-4"]).trials) == 2 * len(load_grid(path).trials)


@pytest.mark.parametrize("sizes", [["train_size=60000"], ["train_size=40000", "val_size=30000"]])
def test_splits_larger_than_the_data_are_refused_before_anything_starts(
    sizes: list[str], tmp_path: Path
) -> None:
    """By planning, which needs no data."""
    path = tmp_path / "grid.toml"
    path.write_text('study = "ablation"\n[base]\nfamily = "simplemlp"\narch = "1*1"\n')
    with pytest.raises(UserError, match="train_size and val_size must be at most 60,000 together"):
        load_grid(path, sizes)
    assert load_grid(path, ["train_size=50000"]).trials


def test_an_axis_may_have_no_effect_in_some_trials() -> None:
    """A rate of dropout beside mode none: that is one trial per seed, and the plan says so."""
    source = {
        "study": "ablation",
        "base": {"family": "simplemlp", "arch": "1*4"},
        "axes": {"mode": ["none", "dropout", "hidden"], "dropout": [0.1, 0.3, 0.5]},
        "seeds": [0, 1],
        "meta_loops": 2,
    }
    grid = load_grid(source)
    modes = Counter(str(trial.intervention.mode) for trial in grid.trials)
    assert modes == {"none": 2, "dropout": 6, "hidden": 2}
    said = "dropout has no effect in some trials, which are trained once: 8 repetitions left out"
    assert grid.warnings == (said,)
    assert len(load_grid(source, only="mode=none").trials) == 2


@pytest.mark.parametrize(
    ("key", "lines", "values"),
    [
        ("batch_size", "64\n128 # large\n", [64, 128]),
        ("lr", "1e-3\n0.01\n", [1e-3, 1e-2]),
        ("dropout", "0.25\n0.5\n", [0.25, 0.5]),
        ("mode", "dropout\nhidden\n", ["dropout", "hidden"]),
    ],
)
def test_an_axis_of_a_file_has_the_values_of_a_list(
    key: str, lines: str, values: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers and names; the same file can be an override."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "values.txt").write_text(lines)
    base = {"family": "simplemlp", "arch": "1*4", **({"mode": "dropout"} if key == "dropout" else {})}

    def trials(axis: object, *overrides: str) -> set[str]:
        body = {"study": "ablation", "base": base, **({"axes": {key: axis}} if axis else {})}
        return {trial.id for trial in load_grid(body, overrides).trials}

    assert trials("@values.txt") == trials(values) == trials(None, f"{key}=@values.txt")
    assert len(trials(values)) == 2
