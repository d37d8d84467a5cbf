"""Plugins whose code fails or returns something else: one line that names them, and no harm to others."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from plugin_files import forgotten, loaded, plugin_file
from pydantic import ValidationError

from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.core.plugins.identity import PluginError, plugin_code
from psa.core.plugins.loading import load_plugin
from psa.data.own import content_of
from psa.experiments.study import study_named
from psa.interventions.ablation import choose_unit
from psa.probes import probe_named
from psa.reports.contract import ReportContext, report_of
from psa.specs.arch import Arch
from psa.specs.model import NetworkSpec
from psa.specs.probes import check_observations
from psa.specs.shapes import Linear, Shape, shape_of
from psa.specs.training import Ablation, RatchetTraining
from psa.specs.trial import Trial, check_shape
from psa.storage.store import Store

SHAPE = Shape((Linear("hidden.0", 784, 4, "hidden"), Linear("output", 4, 10, "output")), hidden=(0,))
FAILS = """
from psa import register_mode

def choose(shape, draws):
    raise RuntimeError("no neuron")

def register():
    register_mode("input", choose)
"""
GRID = """
study = "ablation"
plugins = ["mine.py"]
meta_loops = 2
seeds = [0, 1]
[base]
family = "simplemlp"
arch = "1*4"
lr = 1e-3
train_size = 500
val_size = 500
test_size = 500
[axes]
mode = ["none", "input"]
"""


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Nothing that a test loads is there in the next one."""
    with forgotten():
        yield


def test_a_failing_mode_fails_its_own_trials(
    tmp_path: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The others of its pack are trained, and the reason names plugin and line."""
    plugin_file(tmp_path, FAILS)
    grid = tmp_path / "small.toml"
    grid.write_text(GRID)
    trees = ["--results-dir", str(tmp_path / "results"), "--model-dir", str(tmp_path / "models")]
    code = run(PSA, ["sweep", str(grid), *trees, "--data-dir", str(data_dir), "--workers", "1"])
    assert code == 1
    assert "2 of 4 trials done, 2 failed" in capfd.readouterr().out
    store = Store(tmp_path / "models", tmp_path / "results")
    assert sorted(str(record["id"]).split("/")[-2] for record in store.records.all()) == ["none", "none"]
    run(PSA, ["status", str(grid), *trees])
    shown = " ".join(capfd.readouterr().out.split())
    assert "mode 'input' of plugin mine.py" in shown
    assert "RuntimeError: no neuron, line 5 of mine.py" in shown


def test_a_plugin_may_be_mended(tmp_path: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Failed trials are trained again with the mended file; finished ones refuse another version."""
    plugin_file(tmp_path, FAILS)
    (tmp_path / "small.toml").write_text(GRID)
    trees = ["--results-dir", str(tmp_path / "results"), "--model-dir", str(tmp_path / "models")]
    words = ["sweep", str(tmp_path / "small.toml"), *trees, "--data-dir", str(data_dir), "--workers", "1"]
    assert run(PSA, words) == 1
    capfd.readouterr()
    plugin_file(tmp_path, FAILS.replace("no neuron", "still none"))
    assert run(PSA, words) == 1
    capfd.readouterr()
    plugin_file(tmp_path, FAILS.replace('raise RuntimeError("no neuron")', "return None"))
    assert run(PSA, ["status", *words[1:2], *trees]) == 3
    assert run(PSA, words) == 0
    said = capfd.readouterr()
    assert "4 of 4 trials done, 0 failed" in said.out
    warning = "2 trials of this grid failed with another version of a plugin, and are trained from the start"
    assert said.err.count(warning) == 2
    plugin_file(tmp_path, FAILS.replace('raise RuntimeError("no neuron")', "return None  # anew"))
    assert run(PSA, words) == 2
    assert "must come from plugin mine.py" in capfd.readouterr().err
    assert run(PSA, ["status", *words[1:2], *trees]) == 3
    assert "must come from plugin mine.py" in capfd.readouterr().err


@pytest.mark.parametrize(
    "unit", ["Unit(0, 1.5, outgoing=False)", "Unit(0, 4, outgoing=True)", "Unit(2, 0, outgoing=False)", "3"]
)
def test_a_mode_must_choose_a_neuron_of_the_network(unit: str, tmp_path: Path) -> None:
    """By whole numbers."""
    text = f"""
    from psa import register_mode
    from psa.specs.shapes import Unit

    def register():
        register_mode("input", lambda shape, draws: {unit})
    """
    with (
        loaded(plugin_file(tmp_path, text)),
        pytest.raises(UserError, match=r"plugin mine\.py.* must choose a Unit of the network or None, got"),
    ):
        choose_unit("input", SHAPE, 0, 2)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "int64", "uint64", "intp"])
def test_a_mode_may_choose_by_numbers_of_numpy(kind: str, tmp_path: Path) -> None:
    """Its choice is stored in the history, as JSON."""
    text = f"""
    import numpy as np
    from psa import register_mode
    from psa.specs.shapes import Unit

    def choose(shape, draws):
        return Unit(np.{kind}(0), draws.integers(4, dtype=np.{kind}), outgoing=np.bool_(True))

    def register():
        register_mode("input", choose)
    """
    with loaded(plugin_file(tmp_path, text)):
        unit = choose_unit("input", SHAPE, 0, 2)
    assert unit is not None
    assert json.loads(json.dumps(asdict(unit))) == asdict(unit)


@pytest.mark.parametrize("hidden", ["(1, 0)", "(0, 1)", "(0, 0)", "(-1,)", "(0.5,)", "('hidden.0',)"])
def test_a_family_must_name_hidden_layers(hidden: str, tmp_path: Path) -> None:
    """Mode hidden chooses among them: a wrong number ended in an IndexError in the middle of a sweep."""
    with (
        loaded(plugin_file(tmp_path, _family_of_two_layers(hidden))),
        pytest.raises(
            UserError, match=r"family 'two' of plugin mine\.py .* must name hidden layers by number"
        ),
    ):
        shape_of(NetworkSpec(family="two", arch=Arch.parse("1*4")))


def test_a_family_without_hidden_layers_has_no_mode_hidden(tmp_path: Path) -> None:
    """It is refused before training, as a network that is too large is; other modes can be used."""
    with loaded(plugin_file(tmp_path, _family_of_two_layers("()"))):
        for mode in ("output", "hidden"):
            trial = Trial(
                study="own",
                model=NetworkSpec(family="two", arch=Arch.parse("1*4")),
                method=RatchetTraining(),
                intervention=Ablation(mode=mode),
            )
            with (
                contextlib.nullcontext() if mode == "output" else pytest.raises(UserError, match="names none")
            ):
                check_shape(trial)


def _family_of_two_layers(hidden: str) -> str:
    return f"""
    from psa import register_family
    from psa.specs.shapes import Linear, Shape

    def build(widths, classes, sample):
        first = Linear("hidden.0", 784, widths[0], "hidden")
        return Shape((first, Linear("output", widths[0], classes, "output")), hidden={hidden})

    def register():
        register_family("two", build)
    """


@pytest.mark.parametrize(
    ("function", "kind"),
    [
        ("register_mode", "mode"),
        ("register_family", "family"),
        ("register_data_source", "data source"),
        ("register_tracker", "tracker"),
    ],
)
def test_what_is_called_must_be_a_function(function: str, kind: str, tmp_path: Path) -> None:
    """It was found out in the middle of a sweep."""
    text = f"""
    from psa import {function}

    def register():
        {function}("mine", 3)
    """
    with pytest.raises(PluginError, match=f"plugin mine.py: the {kind} 'mine' must be a function, got 3"):
        load_plugin(plugin_file(tmp_path, text))


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ('register_study("mine", DataSettings, 3)', "from_settings of the study 'mine' .* got 3"),
        (
            'register_study("mine", DataSettings, dict, warnings=None)',
            "warnings of the study 'mine' .* got None",
        ),
        ('register_report("mine", object())', "parts of the report 'mine' .* got None"),
    ],
)
def test_each_part_of_a_contract_must_be_a_function(call: str, fault: str, tmp_path: Path) -> None:
    """It is found out when the plugin is loaded, not when the part is needed."""
    text = f"""
    from psa import register_report, register_study
    from psa.experiments.study import DataSettings

    def register():
        {call}
    """
    with pytest.raises(
        PluginError, match=f"plugin mine.py: {fault.replace(' .* ', ' must be a function, ')}"
    ):
        load_plugin(plugin_file(tmp_path, text))


_FAILING = """
from psa import register_data_source, register_family, register_report, register_study
from psa.experiments.study import DataSettings
from psa.probes import register_probe

def fails(*arguments, **options):
    raise ValueError("not today")

def fails_later(frame):
    fails()
    yield

class Norms:
    name = "norms"
    places = on_loop_end = on_finish = fails
    def __init__(self):
        fails()

class Page:
    parts, tables, figures, listings, page = fails_later, fails, fails, fails, fails

def register():
    register_data_source("mine", fails)
    register_family("mine", fails)
    register_report("mine", Page)
    register_study("mine", DataSettings, fails, warnings=fails)
    register_probe(Norms)
"""


@pytest.mark.parametrize(
    ("run_it", "what"),
    [
        (lambda: content_of("source:mine"), "data source 'mine'"),
        (lambda: shape_of(NetworkSpec(family="mine", arch=Arch.coerce("1*4"))), "family 'mine'"),
        (lambda: list(report_of("mine").parts(pd.DataFrame())), "parts of report 'mine'"),
        (
            lambda: report_of("mine").listings(pd.DataFrame(), ReportContext(Path())),
            "listings of report 'mine'",
        ),
        (lambda: study_named("mine", "x").from_settings(None, 0, "x"), "from_settings of study 'mine'"),
        (lambda: study_named("mine", "x").warnings([]), "warnings of study 'mine'"),
        (lambda: probe_named("norms"), "probe 'norms'"),
    ],
)
def test_whatever_function_of_a_plugin_fails_is_named(
    run_it: Callable[[], object], what: str, tmp_path: Path
) -> None:
    """With the plugin, its error, and the line."""
    with loaded(plugin_file(tmp_path, _FAILING)), pytest.raises(UserError) as error:
        run_it()
    assert error.value.message.startswith(f"{what} of plugin mine.py (SHA-256 ")
    assert error.value.message.endswith("must not fail, got ValueError: not today, line 7 of mine.py")


def test_settings_that_contradict_each_other_are_no_failure_of_a_study(tmp_path: Path) -> None:
    """Its `from_settings` may raise what the specs raise."""
    text = """
    from psa import register_study
    from psa.experiments.study import DataSettings

    def register():
        register_study("mine", DataSettings, lambda settings, seed, name: DataSettings(train_size=-1))
    """
    with loaded(plugin_file(tmp_path, text)), pytest.raises(ValidationError):
        study_named("mine", "x").from_settings(None, 0, "x")


@pytest.mark.parametrize(
    ("seen", "fault"),
    [
        (None, "a list of 1 mapping, one per network, got None"),
        ([], "a list of 1 mapping, one per network, got"),
        ([[1.0]], "a list of 1 mapping, one per network, got"),
        ([{"share": [1.0, 2.0]}], "1 number as 'share', one per place, got"),
        ([{"val.share": []}], "1 number as 'val.share', one per place, got"),
        ([{"share": ["x"]}], "a list of numbers as 'share', got"),
        ([{"other": 1.0}], "a list of numbers as 'other', got 1.0"),
    ],
)
def test_a_probe_must_return_numbers_that_its_places_name(seen: object, fault: str) -> None:
    """One mapping per network; a quantity without places may have any count of numbers."""
    with pytest.raises(UserError, match=f"probe 'norms' of plugin None must return {fault}"):
        check_observations("norms", seen, {"share": ["a"]}, 1)
    check_observations("norms", [{"share": [1.0], "other": [1, None, 2.5]}], {"share": ["a"]}, 1)
    with pytest.raises(UserError, match="a mapping of lists of names as places"):
        check_observations("norms", [{}], ["a"], 1)


@pytest.mark.parametrize("fails", ["follow", "arrays", "on_loop_end", "on_finish"])
def test_a_probe_that_fails_is_named(
    fails: str, tmp_path: Path, data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whichever of its functions fails: the reason is one line with the plugin and the line."""
    text = """
    from psa.probes import register_probe
    from psa.probes.base import NetworkProbe

    class Norms(NetworkProbe):
        name = "norms"

        def _of(self, probe_input, row):
            return {"norm": [1.0]}

        def FAILS(self, *arguments):
            raise RuntimeError("no norm")

    def register():
        register_probe(Norms)
    """
    plugin_file(tmp_path, text.replace("FAILS", fails))
    grid = tmp_path / "small.toml"
    head = GRID.partition("[axes]")[0].replace("ablation", "gradients").replace('family = "simplemlp"\n', "")
    grid.write_text(f'{head}probes = ["norms"]\n')
    trees = ["--results-dir", str(tmp_path / "results"), "--model-dir", str(tmp_path / "models")]
    assert run(PSA, ["sweep", str(grid), *trees, "--data-dir", str(data_dir), "--workers", "1"]) == 1
    shown = capfd.readouterr().out
    assert "probe 'norms' of plugin mine.py" in shown
    assert "RuntimeError: no norm, line 12 of mine.py" in shown


def test_code_of_psa_keeps_its_own_error() -> None:
    """Only that of a plugin is named."""
    with pytest.raises(ValueError, match="could not convert"), plugin_code("mode 'full'", None):
        float("x")
