"""Sets of digits by name: how they are written, where they are understood, what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from psa.cli import app
from psa.core.errors import UserError
from psa.experiments.grid import load_grid
from psa.specs.data import PRESETS, WHY, digits_of, label_mapping

GRID = """
study = "ablation"
meta_loops = 1
[base]
family = "simplemlp"
arch = "1*4"
"""


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("binary", (0, 1)),
        ("even", (0, 2, 4, 6, 8)),
        ("prime", (2, 3, 5, 7)),
        ("similar", (6, 8, 9)),
        ("0,1,7", (0, 1, 7)),
        ("[3, 8]", (3, 8)),
        (" even ", (0, 2, 4, 6, 8)),
    ],
)
def test_names_and_lists_are_digits(text: str, digits: tuple[int, ...]) -> None:
    """The four sets of the study, and any other one."""
    assert digits_of(text) == digits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("evne", "unknown name 'evne'. Did you mean even?"),
        ("Prime", "Did you mean prime?"),
        ("odd", "unknown name 'odd'"),
        ("7", "digits must name at least two digits, got 7"),
        (
            "1,3,1",
            "digits must name each digit once, got 1, 3, 1. Write digits such as 0,1,7",
        ),
        ("7,3", "digits must be in rising order, got 7, 3. Labels follow the digits: write 3,7"),
        ("3,10", "digits must be from 0 to 9, got '10' in '3,10'. Write digits such as 0,1,7, or binary"),
        ("3,-1", "digits must be from 0 to 9, got '-1' in '3,-1'"),
        ("3,x", "digits must be from 0 to 9, got 'x'"),
        ("3,٤", "digits must be from 0 to 9"),
        ("", "digits must be from 0 to 9, got ''"),
    ],
)
def test_mistakes_are_named(text: str, said: str) -> None:
    """With what would be right."""
    with pytest.raises(UserError) as caught:
        digits_of(text)
    assert said in str(caught.value)


def written(folder: Path, more: str) -> Path:
    """A grid file."""
    path = folder / "grid.toml"
    path.write_text(GRID + more)
    return path


def digits(path: Path, *overrides: str, only: str = "") -> list[tuple[int, ...] | None]:
    """Of every trial of a grid."""
    return [trial.data.digits for trial in load_grid(path, overrides, only).trials]


def test_a_name_stands_wherever_digits_are_given(tmp_path: Path) -> None:
    """In the base, an axis, a variant, an override and a selection; the trial is that of the digits."""
    named = load_grid(written(tmp_path, 'digits = "prime"'))
    listed = load_grid(written(tmp_path, "digits = [2, 3, 5, 7]"))
    assert [trial.id for trial in named.trials] == [trial.id for trial in listed.trials]
    axis = written(tmp_path, '[axes]\ndigits = ["even", [0, 1], "similar"]')
    assert digits(axis) == [PRESETS["even"], (0, 1), PRESETS["similar"]]
    assert digits(axis, only="digits=even,[0,1]") == [PRESETS["even"], (0, 1)]
    variants = written(tmp_path, '[variants]\na = { digits = "even" }\nb = { digits = "binary" }')
    assert digits(variants) == [PRESETS["even"], PRESETS["binary"]]
    plain = written(tmp_path, "")
    assert digits(plain, "digits=similar") == [PRESETS["similar"]]
    assert digits(plain, "digits=0,1,7") == [(0, 1, 7)]
    assert digits(plain, "digits=even,prime,[0,1]") == [PRESETS["even"], PRESETS["prime"], (0, 1)]


@pytest.mark.parametrize(
    ("more", "overrides", "said"),
    [
        ('digits = "evne"', [], "grid.toml: digits: unknown name 'evne'. Did you mean even?"),
        ('digits = "3"', [], "digits must name at least two digits, got 3"),
        ("", ["digits=primes"], "Did you mean prime?"),
        ("", ["digits=11"], "digits must be from 0 to 9, got 11"),
        ("", ["digits=1,1"], "digits must name each digit once, got 1, 1"),
        ('[axes]\ndigits = ["even", "even"]', [], "axes.digits must have each value once, got 'even' twice"),
        ('[axes]\ndigits = ["binary", [0, 1]]', [], "must declare each trial once"),
    ],
)
def test_mistakes_in_a_grid_name_the_key(tmp_path: Path, more: str, overrides: list[str], said: str) -> None:
    """And are one line, like every other."""
    with pytest.raises(UserError) as caught:
        load_grid(written(tmp_path, more), overrides)
    assert said in str(caught.value)


def test_every_preset_says_why_and_is_a_filter() -> None:
    """Rising, at least two."""
    assert set(WHY) == set(PRESETS)
    for name, each in PRESETS.items():
        assert digits_of(",".join(map(str, each))) == each == digits_of(name)
    assert label_mapping((2, 3, 5, 7)) == "2→0 3→1 5→2 7→3"


def test_the_command_shows_every_preset(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Images per split, counted in the data, and the labels that stand for the digits."""
    assert app.run(app.app_of("data"), ["--filters", "--data-dir", str(data_dir)]) == 0
    out = capsys.readouterr().out
    rows = {name: next(line for line in out.splitlines() if f" {name} " in line) for name in PRESETS}
    assert "6→0 8→1 9→2" in rows["similar"]
    counts = [
        int(word.replace(",", "")) for word in rows["binary"].split() if word.replace(",", "").isdigit()
    ]
    assert counts[-1] == 980 + 1135  # the zeros and ones of MNIST's test file
    assert sum(counts[-3:-1]) == 5923 + 6742  # training and validation are all of the train file
