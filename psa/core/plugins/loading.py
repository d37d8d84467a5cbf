"""Plugin files: read once, run as a module, and known by the SHA-256 of their bytes."""

from __future__ import annotations

import importlib.abc
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from psa.core.errors import CorruptFileError, UserError, named_error
from psa.core.formatting import quote
from psa.core.parsing import as_path
from psa.core.plugins.identity import PluginError, PluginId, call_register, registering
from psa.core.plugins.installed import MET
from psa.core.plugins.registry import REGISTRIES
from psa.core.stored_files import read_stored

MAX_BYTES: Final = 1_000_000  # of a plugin file, or of all files of a plugin's package
_RELATIVE: Final = "A path in a grid is relative to the folder of the grid"


@dataclass(frozen=True)
class PluginFile:
    """A plugin file that has been loaded: its identity, its bytes, and its module."""

    id: PluginId
    content: bytes
    module: ModuleType


_loaded: Final[dict[PluginId, PluginFile]] = {}
_at: Final[dict[Path, PluginId]] = {}  # what was loaded last from each path


def load_plugin(path: str | os.PathLike[str]) -> ModuleType:
    """Load a plugin file: run it, and call its function `register()`.

    The same bytes are loaded once in a process. If the file has changed since, what it registered before is
    replaced.

    Args:
        path: A Python file of its own: it may import installed packages, but no file beside it.

    Returns:
        The module that the file defines.

    Raises:
        PluginError: The file is missing, cannot be run, has no `register()`, or registers a name that psa or
            another plugin has.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "mine.py").write_text("def register(): pass")
        >>> load_plugin(folder / "mine.py").__name__.startswith("psa_plugin_mine_")
        True

    """
    place = as_path(path, "path")
    content = _read(place)
    plugin = PluginId.of_file(place.name, content)
    before = _at.get(place.resolve())
    if before is not None and before != plugin:
        unload(before)
    _at[place.resolve()] = plugin
    return load_content(plugin, content, str(place)).module


def load_plugins(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Load plugin files. Raises PluginError."""
    for path in paths:
        load_plugin(path)


def load_declared(paths: object, folder: Path, where: str) -> None:
    """Load the plugin files that a grid lists, relative to its folder. Raises UserError."""
    if not isinstance(paths, list | tuple) or not all(isinstance(path, str | os.PathLike) for path in paths):
        raise UserError(
            f"{where}: plugins must be a list of files, got {quote(paths)}",
            'Write plugins = ["my_plugin.py"]',
        )
    for path in paths:
        try:
            load_plugin(folder / path)
        except PluginError as error:
            raise PluginError(f"{where}: {error.message}", error.hint) from None


def load_content(plugin: PluginId, content: bytes, where: str) -> PluginFile:
    """Load a plugin from its bytes. where: names the file in messages. Raises PluginError."""
    if plugin not in _loaded:
        module = _run(plugin, content, where)
        _loaded[plugin] = PluginFile(plugin, content, module)
    return _loaded[plugin]


def loaded_file(plugin: PluginId) -> PluginFile | None:
    """Return a plugin file that has been loaded, None where it has not."""
    return _loaded.get(plugin)


def loaded_plugins() -> list[PluginId]:
    """Return the plugins that have been loaded, files and installed ones, sorted."""
    return sorted({*_loaded, *(plugin for plugin, _ in MET)})


def unload(plugin: PluginId) -> None:
    """Forget a plugin and all that it has registered."""
    for registry in REGISTRIES.values():
        registry.remove(plugin)
    found = _loaded.pop(plugin, None)
    if found is not None:
        sys.modules.pop(found.module.__name__, None)


def _read(path: Path) -> bytes:
    if path.suffix != ".py":
        raise PluginError(f"a plugin must be a Python file, got {path}", "Name a file that ends in .py")
    try:
        content = read_stored(path, MAX_BYTES)
    except CorruptFileError as error:
        raise PluginError(f"plugin {path}: {error.message}", "Name another file") from None
    if content is None:
        raise PluginError(f"plugin {path} must exist, got no such file", _RELATIVE)
    return content


class _Source(importlib.abc.SourceLoader):
    """A loader of a module from bytes that have been read: what runs is what the digest is of."""

    def __init__(self, content: bytes, where: str) -> None:
        self.content, self.where = content, where

    def get_data(self, path: str | bytes) -> bytes:
        return self.content

    def get_filename(self, fullname: str) -> str:
        return self.where


def _run(plugin: PluginId, content: bytes, where: str) -> ModuleType:
    stem = re.sub(r"\W", "_", Path(plugin.name).stem)
    name = f"psa_plugin_{stem}_{plugin.version.rpartition(':')[2][:12]}"
    loader = _Source(content, where)
    spec = importlib.util.spec_from_loader(name, loader)
    if spec is None:
        raise PluginError(f"plugin {where} cannot be loaded")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # for annotations of its classes, which are resolved by module
    try:
        loader.exec_module(module)
        with registering(plugin):
            call_register(module, where)
    except BaseException as error:
        unload(plugin)
        sys.modules.pop(name, None)
        if isinstance(error, PluginError) or not isinstance(error, Exception | SystemExit):
            raise
        raise _failed(error, where) from error
    return module


def _failed(error: BaseException, where: str) -> PluginError:
    """Return the one line for a plugin whose code fails, with the line of the file."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == where]
    if isinstance(error, SyntaxError) and error.filename == where:
        lines.append(error.lineno)
    line = f", line {lines[-1]}" if lines else ""
    beside = isinstance(error, ModuleNotFoundError)
    hint = "A plugin is one file; several files belong into a package with an entry point psa.plugins"
    return PluginError(
        f"plugin {where}{line} cannot be loaded ({named_error(error)[:300]})",
        hint if beside else "Correct the file",
    )
