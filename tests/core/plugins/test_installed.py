"""Plugins of installed packages: found by entry points, known by name and version, and carried along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from paths import ROOT
from plugin_files import EXAMPLE, GRID, install, on_path
from processes import PATIENCE_SECONDS

from psa.core.plugins.identity import PluginError
from psa.core.plugins.loading import loaded_plugins
from psa.core.plugins.registry import check_loaded
from psa.execution.worker.protocol import pack_body, received_pack
from psa.experiments.grid import load_grid
from psa.specs.model import NetworkSpec
from psa.specs.training import MODE_PLUGINS, Ablation
from psa.specs.trial import Pack, Trial


def test_the_template_declares_the_entry_point_that_psa_looks_for() -> None:
    """And its module is there, with its test and its grid."""
    folder = EXAMPLE.parent
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["psa.plugins"] == {"example": EXAMPLE.stem}
    assert {"README.md", "example.toml", "tests"} <= {path.name for path in folder.iterdir()}


def test_an_installed_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """When a name is met that psa does not know, and not before."""
    with on_path(install(tmp_path)):
        assert MODE_PLUGINS.names == tuple(MODE_PLUGINS.built_in())
        trial = Trial(intervention=Ablation(mode="input"))
        (use,) = trial.plugins
        assert (use.plugin, use.version) == ("psa-plugin-example", "1.0.0")
        grid = load_grid({"study": "example", "base": {"arch": "1*4"}})
        assert {use.version for use in grid.trials[0].plugins} == {"1.0.0"}


def test_another_version_makes_other_trials(tmp_path: Path) -> None:
    """The version stands for the code, and a stored trial asks for its own."""
    found = []
    for version in ("1.0.0", "1.1.0"):
        with on_path(install(tmp_path / version, version)):
            found.append(Trial(intervention=Ablation(mode="input")))
    assert found[0].digest != found[1].digest
    with (
        on_path(tmp_path / "1.1.0"),
        pytest.raises(
            PluginError, match=r"\(version 1\.0\.0\), .* got psa-plugin-example \(version 1\.1\.0\)"
        ),
    ):
        check_loaded(found[0].plugins, found[0].id)


@pytest.mark.parametrize(
    ("value", "text", "message"),
    [
        (
            "psa_plugin_example:missing",
            "",
            "cannot be loaded from psa_plugin_example:missing (AttributeError",
        ),
        (
            "psa_plugin_example",
            "\nraise ValueError('no')",
            "cannot be loaded from psa_plugin_example (ValueError: no)",
        ),
        ("psa_plugin_example:Norms.name", "", "must have a function register(), got none"),
    ],
)
def test_a_broken_package_is_named_in_one_line(value: str, text: str, message: str, tmp_path: Path) -> None:
    """Only where a name is looked for that it might have: trials without one are not disturbed."""
    with on_path(install(tmp_path, value=value, text=text)):
        assert Trial(intervention=Ablation(mode="hidden")).plugins == ()
        with pytest.raises(PluginError) as error:
            Ablation(mode="input")
    assert "plugin psa-plugin-example (version 1.0.0)" in str(error.value)
    assert message in str(error.value)


@pytest.mark.parametrize("broken", [(), ("aaa",), ("zzz",), ("aaa", "mmm"), ("aaa", "mmm", "zzz")])
def test_a_broken_package_stops_no_other_one(broken: tuple[str, ...], tmp_path: Path) -> None:
    """The modes of the others are there, and an unknown name reports the broken one on every use."""
    packages = ("aaa", "mmm", "zzz")
    for name in packages:
        (tmp_path / f"{name}_package.py").write_text(
            "from psa import register_mode\n" + "1 / 0\n" * (name in broken) + "def register():\n"
            f"    register_mode('mode-of-{name}', lambda shape, draws: None)\n"
        )
        info = tmp_path / f"{name}_package-1.0.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0.0\n")
        (info / "entry_points.txt").write_text(f"[psa.plugins]\nmine = {name}_package\n")
    try:
        with on_path(tmp_path):
            for _ in range(2):
                for name in packages:
                    if name not in broken:
                        assert Ablation(mode=f"mode-of-{name}").mode == f"mode-of-{name}"
                with pytest.raises((PluginError, ValueError)) as error:
                    Ablation(mode="mode-of-none")
                assert all(name in str(error.value) for name in broken[:1])
                assert isinstance(error.value, PluginError) == bool(broken)
            loaded = {plugin.name.removesuffix("-package") for plugin in loaded_plugins()}
            assert loaded.isdisjoint(broken)
            assert loaded >= set(packages) - set(broken)
    finally:
        for name in packages:
            sys.modules.pop(f"{name}_package", None)


def test_a_function_can_be_the_entry_point(tmp_path: Path) -> None:
    """As well as the module that it is in."""
    with on_path(install(tmp_path, value="psa_plugin_example:register")):
        assert Trial(intervention=Ablation(mode="input")).plugins


def test_a_package_travels_with_a_pack(tmp_path: Path) -> None:
    """To where it is not installed; another version there is refused."""
    with on_path(install(tmp_path / "here", "1.0.0")):
        model = NetworkSpec(family="bottleneck", arch="1*4")
        pack = Pack(
            trials=(Trial(model=model, intervention=Ablation(mode="input"), probes=("norms",)),), horizon=1
        )
        body = pack_body(pack)
    with on_path(None):
        assert not MODE_PLUGINS.accepts("input")
        assert received_pack(body, "a pack") == pack
        assert MODE_PLUGINS.accepts("input")
        assert pack_body(pack) == body
    with (
        on_path(install(tmp_path / "there", "1.1.0")),
        pytest.raises(PluginError, match=r"must have version 1\.0\.0 on every machine, got 1\.1\.0"),
    ):
        received_pack(body, "a pack")


@pytest.mark.slow
def test_the_template_passes_its_own_test_and_trains(tmp_path: Path, data_dir: Path) -> None:
    """Installed into a folder on the path; no command names it."""
    target = install(tmp_path / "target")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(target), str(ROOT)))}

    def run(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True,
            check=False, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    tests = EXAMPLE.parent / "tests"
    assert "4 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, str(tests))
    (tmp_path / "example.toml").write_text(GRID.replace("plugins =", "# plugins ="))
    psa = ("-c", "from psa.cli.app import main; main()")
    out = run(*psa, "sweep", "example.toml", "--data-dir", str(data_dir.absolute()), "--device", "cpu")
    assert out.splitlines()[-1] == "4 of 4 trials done, 0 failed"
    paths = [path for path in (tmp_path / "results").rglob("s*.json") if ".machine." not in path.name]
    for path in paths:
        uses = json.loads(path.read_bytes())["spec"]["plugins"]
        assert {(use["plugin"], use["version"]) for use in uses} == {("psa-plugin-example", "1.0.0")}
    assert "4 of 4 trials done" in run(*psa, "status", "example.toml")
