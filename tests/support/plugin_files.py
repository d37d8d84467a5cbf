"""Plugins for tests: the example of the documentation, and small ones that tests write themselves."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from paths import ROOT

from psa.core.plugins import installed as installed_packages
from psa.core.plugins.loading import load_plugin, loaded_plugins, unload

EXAMPLE = ROOT / "examples/plugin/psa_plugin_example.py"
GRID = """
study = "example"
plugins = ["psa_plugin_example.py"]
meta_loops = 2
seeds = [0, 1]
[base]
arch = "1*4"
val_size = 59_000
test_size = 500
[axes]
mode = ["none", "input"]
"""


def example_grid(folder: Path) -> Path:
    """Write the example plugin into a folder, with a grid that uses everything in it. Return the grid."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(EXAMPLE, folder)
    grid = folder / "example.toml"
    grid.write_text(GRID)
    return grid


def plugin_file(folder: Path, text: str, name: str = "mine.py") -> Path:
    """Write a plugin into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(textwrap.dedent(text))
    return path


def mode_plugin(folder: Path, mode: str = "first", layer: int = 0, name: str = "mine.py") -> Path:
    """Write a plugin with one mode, which always ablates neuron 0 of a layer."""
    return plugin_file(
        folder,
        f"""
        from psa import register_mode
        from psa.specs.shapes import Unit

        def register():
            register_mode({mode!r}, lambda shape, draws: Unit({layer}, 0, outgoing=False))
        """,
        name,
    )


@contextlib.contextmanager
def forgotten() -> Iterator[None]:
    """Forget, at the end of the block, every plugin file that was loaded in it."""
    before = set(loaded_plugins())
    try:
        yield
    finally:
        for plugin in set(loaded_plugins()) - before:
            unload(plugin)


@contextlib.contextmanager
def loaded(*paths: Path) -> Iterator[None]:
    """Load plugin files for the block."""
    with forgotten():
        for path in paths:
            load_plugin(path)
        yield


def install(folder: Path, version: str = "1.0.0", value: str = "psa_plugin_example", text: str = "") -> Path:
    """Install the example into a folder, as pip does with --target: its module and its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "psa_plugin_example.py").write_text(EXAMPLE.read_text() + text)
    info = folder / f"psa_plugin_example-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: psa-plugin-example\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[psa.plugins]\nexample = {value}\n")
    return folder


@contextlib.contextmanager
def on_path(folder: Path | None) -> Iterator[None]:
    """Search for installed plugins anew, in a folder as well, and forget afterwards what was found."""
    path, before = list(sys.path), set(installed_packages.MET)
    searched, failed = list(installed_packages._searched), set(installed_packages.FAILED)
    installed_packages._searched.clear()
    if folder is not None:
        sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        with forgotten():
            yield
    finally:
        sys.path[:] = path
        sys.modules.pop("psa_plugin_example", None)
        for plugin, name in set(installed_packages.MET) - before:
            unload(plugin)
            installed_packages.MET.discard((plugin, name))
        for key in set(installed_packages.FAILED) - failed:
            del installed_packages.FAILED[key]
        installed_packages._searched[:] = searched
        importlib.invalidate_caches()
