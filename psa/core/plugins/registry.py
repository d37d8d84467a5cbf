"""Registries: what plugins add to the names that psa defines, one registry for each kind of thing."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from psa.core.errors import UserError
from psa.core.formatting import quote
from psa.core.parsing import NAME_PATTERN, nearest
from psa.core.plugins.identity import PluginError, PluginId, PluginUse, registering_plugin
from psa.core.plugins.installed import check_installed_plugins, load_installed

Registered = TypeVar("Registered")

REGISTRIES: Final[dict[str, Registry[Any]]] = {}
# What a stored trial says that it uses. Its names are valid without the plugin: a record stays readable.
_claimed: ContextVar[frozenset[tuple[str, str]]] = ContextVar("psa_claimed", default=frozenset())


@dataclass(frozen=True)
class _Entry(Generic[Registered]):
    value: Registered
    plugin: PluginId


class Registry(Generic[Registered]):
    """The names of one kind of thing: those built into psa, and those of plugins with their values.

    kind: how messages and records name the kind. built_in: returns the names of psa, which no plugin may use;
    reserved: further names that none may use.
    """

    def __init__(
        self, kind: str, built_in: Callable[[], Collection[str]], reserved: Collection[str] = ()
    ) -> None:
        self.kind, self.built_in, self.reserved = kind, built_in, reserved
        self._entries: dict[str, _Entry[Registered]] = {}
        REGISTRIES[kind] = self

    def add(self, name: str, value: Registered, *, function: bool = False) -> None:
        """Register a value for the plugin that is being loaded. function: it must be one that can be called.

        Raises PluginError for another value, and for a name that is invalid, built into psa, or registered
        already.
        """
        plugin = registering_plugin(f"register_{self.kind.replace(' ', '_')}")
        if re.fullmatch(NAME_PATTERN, str(name)) is None:
            raise PluginError(
                f"plugin {plugin.name}: the name of a {self.kind} must be up to 40 of a-z, 0-9, - and _, "
                f"got {quote(name)}",
                "Begin with a letter",
            )
        if name in self.built_in() or name in self.reserved:
            raise PluginError(
                f"plugin {plugin.name}: a {self.kind} must have a name that psa does not use, got {name!r}",
                f"Names of psa: {', '.join((*self.built_in(), *self.reserved))}",
            )
        if (other := self._entries.get(name)) is not None:
            both = f"twice by {plugin}" if other.plugin == plugin else f"by {other.plugin} and {plugin}"
            raise PluginError(
                f"{self.kind} {name!r} must be registered once, got it {both}", "Rename or remove one"
            )
        if function and not callable(value):
            raise PluginError(
                f"plugin {plugin.name}: the {self.kind} {name!r} must be a function, got {quote(value)}"
            )
        self._entries[name] = _Entry(value, plugin)

    def remove(self, plugin: PluginId) -> None:
        """Forget what a plugin has registered."""
        self._entries = {name: each for name, each in self._entries.items() if each.plugin != plugin}

    def find(self, name: str) -> Registered | None:
        """Return what a plugin has registered under a name, None for a built-in or unknown name."""
        entry = self._entry(name)
        return None if entry is None else entry.value

    def origin(self, name: str) -> PluginId | None:
        """Return the plugin that a name comes from, None for a built-in or unknown name."""
        entry = self._entry(name)
        return None if entry is None else entry.plugin

    def get(self, name: str) -> Registered:
        """Return what a plugin has registered under a name. Raises PluginError where no plugin has."""
        entry = self._entry(name)
        if entry is None:
            raise PluginError(
                f"{self.kind} {name!r} must come from a plugin that is loaded, got none",
                "Name its file with --plugin, or in `plugins` of the grid",
            )
        return entry.value

    def _entry(self, name: str) -> _Entry[Registered] | None:
        if name not in self._entries and name not in self.built_in() and name not in self.reserved:
            load_installed()
            if name not in self._entries:
                check_installed_plugins()
        return self._entries.get(name)

    @property
    def names(self) -> tuple[str, ...]:
        """All names: those of psa in their order, then those of the plugins that are loaded."""
        return (*self.built_in(), *sorted(self._entries))

    def accepts(self, name: object) -> bool:
        """Return True for a name of psa, of a plugin, or of the stored trial that is being read."""
        if not isinstance(name, str):
            return False
        known = name in self.built_in() or (self.kind, name) in _claimed.get()
        return known or self._entry(name) is not None

    def check(self, name: object, what: str) -> str:
        """Return a name that is known. Raises ValueError with all names, their plugins, and the nearest."""
        if isinstance(name, str) and self.accepts(name):
            return name
        shown = [repr(each) + self._source(each) for each in self.names]
        listed = f"{', '.join(shown[:-1])} or {shown[-1]}"
        near = nearest(name, self.names) if isinstance(name, str) else None
        hint = f". Did you mean {near!r}?" if near else ""
        raise ValueError(f"{what} must be {listed}, got {quote(name)}{hint}")

    def check_choice(self, name: object, where: str) -> None:
        """Raise UserError unless a name is known, as psa.core.parsing.check_choice does."""
        if not self.accepts(name):
            near = nearest(name, self.names) if isinstance(name, str) else None
            shown = [each + self._source(each) for each in sorted(self.names)]
            hint = f"Did you mean {near}?" if near else f"Known: {', '.join(shown)}"
            raise UserError(f"{where}: unknown {self.kind} {quote(name)}", hint)

    def _source(self, name: str) -> str:
        entry = self._entries.get(name)
        return "" if entry is None else f" ({entry.plugin.name})"


def uses_among(names: Iterable[tuple[str, str]], stored: Sequence[PluginUse]) -> tuple[PluginUse, ...]:
    """Return what comes from plugins among (kind, name), sorted.

    stored: the uses of the stored trial that the names are of, whose versions hold.
    """
    claims = {(use.kind, use.name): use for use in stored}
    found = []
    for kind, name in sorted(set(names)):
        if (kind, name) in claims:
            found.append(claims[kind, name])
        elif (plugin := REGISTRIES[kind].origin(name)) is not None:
            found.append(PluginUse(kind=kind, name=name, plugin=plugin.name, version=plugin.version))
    return tuple(found)


def joined_uses(stored: Sequence[PluginUse], later: Sequence[PluginUse]) -> tuple[PluginUse, ...]:
    """Return the uses of a trial and its continuation. Raises PluginError for a plugin that has changed."""
    found = {(use.kind, use.name): use for use in stored}
    for use in later:
        before = found.setdefault((use.kind, use.name), use)
        if before != use:
            raise changed_plugin(f"{use.kind} {use.name!r}", before.id, use.id)
    return tuple(found.values())


def changed_plugin(what: str, stored: PluginId, given: PluginId) -> PluginError:
    """Return the error for a plugin that is another version than the one that trained what is stored."""
    return PluginError(
        f"{what} must come from plugin {stored}, with which it was trained, got {given}",
        "Restore that version of the plugin, or start again under another name or in other folders",
    )


@contextmanager
def claimed(uses: object) -> Iterator[None]:
    """Accept the names of stored uses within the block, whether or not their plugins are loaded."""
    listed = uses if isinstance(uses, list | tuple) else ()
    names = frozenset(_named(use) for use in listed)
    token = _claimed.set(names | _claimed.get())
    try:
        yield
    finally:
        _claimed.reset(token)


def _named(use: object) -> tuple[str, str]:
    """Return kind and name of a use, parsed or as stored; empty ones where validation will refuse it."""
    if isinstance(use, dict):
        return str(use.get("kind")), str(use.get("name"))
    return (use.kind, use.name) if isinstance(use, PluginUse) else ("", "")


def plugin_uses(spec: Mapping[str, Any]) -> list[PluginUse]:
    """Return what the stored settings of a trial use of plugins. Raises pydantic.ValidationError."""
    return [PluginUse.model_validate(use) for use in spec.get("plugins", ())]


def check_loaded(uses: Iterable[PluginUse], what: str) -> None:
    """Raise PluginError unless the plugins of a trial are loaded in the very versions that it names.

    what: the trial, or the file that holds it, for the message.
    """
    for use in uses:
        plugin = REGISTRIES[use.kind].origin(use.name)
        if plugin is None:
            raise PluginError(
                f"{what} uses {use.kind} {use.name!r} of plugin {use.id}, which is not loaded",
                f"Name the file with --plugin {use.plugin}" if use.id.is_file else f"Install {use.plugin}",
            )
        if plugin.version != use.version or not (use.id.is_file or plugin.name == use.plugin):
            raise changed_plugin(f"{what}: {use.kind} {use.name!r}", use.id, plugin)
