"""Plugin files: loaded once, told apart by their bytes, and refused in one clear line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plugin_files import forgotten, loaded, mode_plugin, plugin_file

import psa
from psa.core.errors import UserError
from psa.core.plugins.identity import PluginError, PluginId
from psa.core.plugins.loading import load_plugin, loaded_plugins
from psa.core.plugins.registry import Registry, check_loaded
from psa.experiments.grid import load_grid
from psa.specs.training import MODE_PLUGINS, Ablation
from psa.specs.trial import Trial


@pytest.fixture(autouse=True)
def _apart() -> Iterator[None]:
    """Nothing that a test loads is there in the next one."""
    with forgotten():
        yield


def test_a_plugin_is_known_by_its_name_and_bytes(tmp_path: Path) -> None:
    """Loading it again changes nothing, and a copy elsewhere is the same plugin."""
    one, other = mode_plugin(tmp_path / "a"), mode_plugin(tmp_path / "b")
    module = load_plugin(one)
    assert load_plugin(one) is module
    assert load_plugin(other) is module
    (plugin,) = loaded_plugins()
    assert plugin == PluginId.of_file("mine.py", one.read_bytes())
    assert MODE_PLUGINS.names[-1] == "first"


def test_plugins_of_one_name_with_other_bytes_are_told_apart(tmp_path: Path) -> None:
    """Each mode says which of the two it is of, and so do the identities of trials."""
    load_plugin(mode_plugin(tmp_path / "a", "first"))
    load_plugin(mode_plugin(tmp_path / "b", "second"))
    one, other = (Trial(intervention=Ablation(mode=mode)).plugins for mode in ("first", "second"))
    assert one[0].plugin == other[0].plugin == "mine.py"
    assert one[0].version != other[0].version


def test_a_changed_file_takes_the_place_of_what_was_loaded_from_it(tmp_path: Path) -> None:
    """As when a notebook loads a file again after an edit: another identity, and no name twice."""
    load_plugin(mode_plugin(tmp_path, "first", layer=0))
    before = Trial(intervention=Ablation(mode="first"))
    load_plugin(mode_plugin(tmp_path, "first", layer=1))
    after = Trial(intervention=Ablation(mode="first"))
    assert before.digest != after.digest
    with pytest.raises(PluginError) as error:
        check_loaded(before.plugins, before.id)
    for use in (*before.plugins, *after.plugins):
        assert use.id.shown_version in str(error.value)
    check_loaded(after.plugins, after.id)


BROKEN = {
    "syntax": ("def register(:", "line 1 cannot be loaded (SyntaxError: "),
    "no function": ("x = 1", "must have a function register(), got none"),
    "raises": ("\n\n1 / 0", "line 3 cannot be loaded (ZeroDivisionError: division by zero)"),
    "exits": ("import sys\nsys.exit(3)", "line 2 cannot be loaded (SystemExit: 3)"),
    "raises in register": ("def register():\n    missing", "line 2 cannot be loaded (NameError: "),
    "file beside": ("import helper_beside", "cannot be loaded (ModuleNotFoundError: "),
    "name of psa": (
        "from psa import register_mode\ndef register():\n    register_mode('full', None)",
        "a mode must have a name that psa does not use, got 'full'. Names of psa: none, decay",
    ),
    "family of psa": (
        "from psa import register_family\ndef register():\n    register_family('resmlp', None)",
        "a family must have a name that psa does not use, got 'resmlp'",
    ),
    "report of psa": (
        "from psa import register_report\ndef register():\n    register_report('ablation', None)",
        "a report must have a name that psa does not use, got 'ablation'",
    ),
    "name": (
        "from psa import register_mode\ndef register():\n    register_mode('A B', None)",
        "the name of a mode must be up to 40 of a-z, 0-9, - and _, got 'A B'",
    ),
    "twice": (
        "from psa import register_mode\ndef register():\n    [register_mode('x', print) for _ in range(2)]",
        "mode 'x' must be registered once, got it twice by mine.py",
    ),
    "study": (
        "from psa import register_study\ndef register():\n    register_study('x', dict, None)",
        "study 'x' must be a subclass of psa.experiments.study.DataSettings, got <class 'dict'>",
    ),
    "probe": (
        "from psa import register_probe\ndef register():\n    register_probe(dict)",
        "the attribute name of a probe must be up to 40 of a-z, 0-9 and _, got None",
    ),
    "methods of a probe": (
        "from psa import register_probe\nclass P:\n    name = 'p'\n    places = on_finish = print\n"
        "def register():\n    register_probe(P)",
        "a probe must have the methods places, on_loop_end, on_finish, got p without on_loop_end",
    ),
    "backend": (
        "from psa import register_backend\ndef register():\n    register_backend('x', dict, ('speed',))",
        "the options of backend 'x' must be fields of BackendOptions, got 'speed'. Known: ",
    ),
    "null byte": ("x = '\0'", "cannot be loaded (SyntaxError: "),
}  # fmt: skip


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_plugin_is_refused_in_one_line(fault: str, tmp_path: Path) -> None:
    """Nothing of it stays registered."""
    text, message = BROKEN[fault]
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(PluginError) as error:
        load_plugin(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert loaded_plugins() == []
    assert set(MODE_PLUGINS.names) == set(MODE_PLUGINS.built_in())


def test_a_file_that_is_no_plugin_is_refused(tmp_path: Path) -> None:
    """Missing, not Python, a folder, too large."""
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "large.py").write_bytes(b"#" * 1_000_001)
    for name, message in {
        "none.py": "none.py must exist, got no such file",
        "notes.txt": "a plugin must be a Python file, got ",
        "large.py": "must have at most 1,000,000 bytes, got 1,000,001",
    }.items():
        with pytest.raises(PluginError, match=message):
            load_plugin(tmp_path / name)
    with pytest.raises(UserError):
        load_plugin(tmp_path / "folder.py")


def test_what_fails_while_it_registers_leaves_nothing(tmp_path: Path) -> None:
    """The modes that it registered before the fault are gone, too."""
    path = plugin_file(
        tmp_path,
        """
        from psa import register_mode

        def register():
            register_mode("kept", None)
            register_mode("none", None)
        """,
    )
    with pytest.raises(PluginError):
        load_plugin(path)
    assert MODE_PLUGINS.find("kept") is None


def test_one_name_of_two_plugins_is_refused_with_both(tmp_path: Path) -> None:
    """The line names both files and their digests."""
    load_plugin(mode_plugin(tmp_path, "first", name="one.py"))
    with pytest.raises(PluginError, match=r"once, got it by one\.py \(SHA-256 .*\) and two\.py \(SHA-256"):
        load_plugin(mode_plugin(tmp_path, "first", layer=1, name="two.py"))


def test_registration_needs_a_plugin() -> None:
    """Outside of register() nobody would know what to take into the identity of a trial."""
    with pytest.raises(PluginError, match="register_mode must be called by the function register"):
        psa.register_mode("alone", lambda shape, draws: None)


def test_an_unknown_name_is_refused_with_the_nearest_and_its_plugin(tmp_path: Path) -> None:
    """All names are listed, and where those of plugins come from."""
    with loaded(mode_plugin(tmp_path, "first")), pytest.raises(ValueError, match="mode must be") as error:
        Ablation(mode="frist")
    assert "'output' or 'first' (mine.py), got 'frist'. Did you mean 'first'?" in str(error.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("mine.py", "plugins must be a list of files, got 'mine.py'"),
        ([1], "plugins must be a list of files, got "),
        (["none.py"], "plugin none.py must exist, got no such file"),
    ],
)
def test_the_plugins_of_a_grid_are_checked(value: object, message: str) -> None:
    """The line begins with the grid."""
    with pytest.raises(UserError) as error:
        load_grid({"study": "ablation", "name": "mine", "plugins": value})
    assert str(error.value).startswith("experiment mine: ")
    assert message in str(error.value)


def test_a_grid_finds_its_plugins_beside_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the current folder is."""
    mode_plugin(tmp_path / "grids", "first")
    grid = tmp_path / "grids" / "grid.toml"
    grid.write_text('plugins = ["mine.py"]\n[base]\narch = "1*4"\nmode = "first"\n')
    monkeypatch.chdir(tmp_path)
    assert [use.name for use in load_grid(grid).trials[0].plugins] == ["first"]


def test_an_experiment_loads_plugins(tmp_path: Path) -> None:
    """From Python, as a list of files."""
    path = mode_plugin(tmp_path, "first")
    made = psa.Experiment("ablation", base={"arch": "1*4"}, axes={"mode": ["none", "first"]}, plugins=[path])
    assert [len(trial.plugins) for trial in made.grid.trials] == [0, 1]


def test_a_registry_lists_its_names_in_order() -> None:
    """Those of psa first."""
    registry = Registry[int]("test of a registry", lambda: ("b", "a"))
    assert registry.names == ("b", "a")


def test_a_data_source_is_a_data_set_by_its_content(tmp_path: Path) -> None:
    """Equal data are the same trials, whichever plugin they come from; an unknown name has a hint."""
    text = """
    import numpy as np
    from psa import register_data_source

    def made():
        return np.arange(40.0).reshape(20, 2) * {factor}, ["even", "odd"] * 10

    def register():
        register_data_source("counts", made)
    """
    digests = []
    for number, factor in enumerate((1, 1, 2)):
        path = plugin_file(tmp_path, text.format(factor=factor) + f"\n    # {number}\n", f"p{number}.py")
        with loaded(path):
            declared = {"study": "activations", "base": {"dataset": "source:counts", "arch": "1*4"}}
            (trial,) = load_grid(declared).trials
            digests.append(trial.digest)
            assert (trial.data.name, trial.data.class_names, trial.plugins) == ("counts", ("even", "odd"), ())
            with pytest.raises(UserError, match=r"unknown data source 'count'\. Did you mean counts\?"):
                load_grid({"study": "activations", "base": {"dataset": "source:count"}})
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 / 0", r"must not fail, got ZeroDivisionError: division by zero, line 5 of mine.py"),
        ("return [[1.0], [2.0]],", "must return samples, labels and optionally splits, got 1 values"),
        ("return [[1.0], [2.0]], [0]", r"dataset source:bad of plugin mine\.py"),
    ],
)
def test_a_data_source_that_fails_is_named_in_one_line(body: str, message: str, tmp_path: Path) -> None:
    """With its plugin."""
    path = plugin_file(
        tmp_path,
        f"""
        from psa import register_data_source

        def bad():
            {body}

        def register():
            register_data_source("bad", bad)
        """,
    )
    with loaded(path), pytest.raises(UserError, match=message):
        load_grid({"study": "activations", "base": {"dataset": "source:bad"}})
