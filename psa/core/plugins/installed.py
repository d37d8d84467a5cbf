"""Plugins of installed packages: entry points of the group `psa.plugins`.

They are imported when a name is met that neither psa nor a plugin file defines, so that commands without one
take no longer, and a broken package disturbs nothing that does not use it.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import Final

from psa.core.errors import named_error
from psa.core.plugins.identity import PluginError, PluginId, call_register, registering

GROUP: Final = "psa.plugins"
MET: Final[set[tuple[PluginId, str]]] = set()  # those that have been loaded, with their entry points
FAILED: Final[dict[tuple[PluginId, str], PluginError]] = {}  # those that could not be loaded, and why
_searched: Final[list[bool]] = []  # not empty once the installed packages have been searched


def installed_plugins() -> Iterator[tuple[PluginId, EntryPoint]]:
    """Yield the entry points of installed plugins with their distributions, in the order of their names."""
    # by name: a path that is listed twice has each of its distributions twice
    found = {
        (PluginId(point.dist.name, point.dist.version), point.name): point
        for point in entry_points(group=GROUP)
        if point.dist is not None
    }
    for plugin, name in sorted(found):
        yield plugin, found[plugin, name]


def load_installed(*, again: bool = False) -> None:
    """Load every installed plugin, once in a process. One that cannot be loaded stops no other; see
    check_installed_plugins.

    again: search the installed packages once more, after one has been added.
    """
    if _searched and not again:
        return
    _searched.append(True)
    for plugin, point in installed_plugins():
        key = (plugin, point.name)
        if key in MET or key in FAILED:
            continue
        try:
            _load(plugin, point)
        except PluginError as error:
            FAILED[key] = error
        else:
            MET.add(key)


def check_installed_plugins(name: str = "") -> None:
    """Raise PluginError if an installed plugin could not be loaded; with a name, only for the plugin of that
    name. To be asked where a name is unknown, which may be one of that plugin's.
    """
    for (plugin, _), error in FAILED.items():
        if name in ("", plugin.name):
            raise PluginError(error.message, error.hint) from error.__cause__


def _load(plugin: PluginId, point: EntryPoint) -> None:
    with registering(plugin):
        try:
            call_register(point.load(), f"{plugin}: {point.value}")
        except PluginError:
            raise
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {plugin} cannot be loaded from {point.value} ({named_error(error)[:300]})",
                f"Mend or uninstall {plugin.name}",
            ) from error
