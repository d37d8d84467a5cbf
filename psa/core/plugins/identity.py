"""The identity of a plugin: which plugin, and which version of its code."""

from __future__ import annotations

import functools
import hashlib
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from psa.core.errors import Interrupted, UserError, named_error
from psa.core.formatting import quote

_SHA256: Final = "sha256:"
_SHOWN: Final = 12  # hexadecimal digits of a digest in messages
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class PluginError(UserError):
    """A plugin that is missing, cannot be loaded, or is another version than the one that is needed."""


@dataclass(frozen=True, order=True)
class PluginId:
    """A version of a plugin.

    name: the name of its file, or of its distribution. version: `sha256:` and the digest of the file, or the
    version of the distribution.
    """

    name: str
    version: str

    @classmethod
    def of_file(cls, name: str, content: bytes) -> PluginId:
        """Return the identity of a file."""
        return cls(name, f"{_SHA256}{hashlib.sha256(content).hexdigest()}")

    @property
    def is_file(self) -> bool:
        """True for a file, False for an installed distribution."""
        return self.version.startswith(_SHA256)

    @property
    def shown_version(self) -> str:
        """The version as messages name it: `SHA-256 0a1b2c3d4e5f` or `version 1.0`."""
        digest = self.version.removeprefix(_SHA256)[:_SHOWN]
        return f"SHA-256 {digest}" if self.is_file else f"version {self.version}"

    def __str__(self) -> str:
        return f"{self.name} ({self.shown_version})"


class PluginUse(BaseModel):
    """Something that a trial uses of a plugin, as a part of the trial's identity.

    kind: mode, probe or family. name: the registered name. plugin, version: see PluginId.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: _Text
    name: _Text
    plugin: _Text
    version: _Text

    @property
    def id(self) -> PluginId:
        """The plugin that it comes from."""
        return PluginId(self.plugin, self.version)


_registering: ContextVar[PluginId | None] = ContextVar("psa_registering", default=None)


@contextmanager
def registering(plugin: PluginId) -> Iterator[None]:
    """Attribute what is registered within the block to a plugin."""
    token = _registering.set(plugin)
    try:
        yield
    finally:
        _registering.reset(token)


def registering_plugin(function: str) -> PluginId:
    """Return the plugin that is being loaded. Raises PluginError outside of its function register()."""
    plugin = _registering.get()
    if plugin is None:
        raise PluginError(
            f"{function} must be called by the function register() of a plugin",
            "Load the plugin with psa.load_plugin, --plugin, or `plugins` in a grid",
        )
    return plugin


@contextmanager
def plugin_code(
    what: str, plugin: PluginId | None, passing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Run code of a plugin, None for code of psa.

    Raises UserError in place of the plugin's own error, with its name and the line. passing: further errors
    that the code may raise, which are not replaced.
    """
    try:
        yield
    except (UserError, Interrupted):
        raise
    except Exception as error:
        if plugin is None or isinstance(error, passing):
            raise
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [frame for frame in frames if Path(frame.filename).stem == Path(plugin.name).stem]
        lines = "".join(f", line {frame.lineno} of {Path(frame.filename).name}" for frame in own[-1:])
        raise UserError(
            f"{what} of plugin {plugin} must not fail, got {named_error(error)[:300]}{lines}",
            "Mend the plugin, or leave it out",
        ) from error


def plugin_functions(
    kind: str, name: str, functions: Mapping[str, object], passing: tuple[type[Exception], ...] = ()
) -> dict[str, Callable[..., Any]]:
    """Return the parts of what a plugin registers as functions that are run by plugin_code.

    Raises PluginError for a part that cannot be called. kind, name: what is registered. passing: see
    plugin_code.
    """
    plugin = registering_plugin(f"register_{kind}")
    found = {}
    for part, value in functions.items():
        if not callable(value):
            raise PluginError(
                f"plugin {plugin.name}: {part} of the {kind} {name!r} must be a function, got {quote(value)}"
            )
        found[part] = _run_as_plugin(f"{part} of {kind} {name!r}", plugin, value, passing)
    return found


def _run_as_plugin(
    what: str, plugin: PluginId, function: Callable[..., Any], passing: tuple[type[Exception], ...]
) -> Callable[..., Any]:
    """Return a function that is run by plugin_code, as is the iterator that it may return."""

    def each(values: Iterator[Any]) -> Iterator[Any]:
        with plugin_code(what, plugin, passing):
            yield from values

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        with plugin_code(what, plugin, passing):
            found = function(*args, **kwargs)
        return each(found) if isinstance(found, Iterator) else found

    return called


def call_register(found: object, where: str) -> None:
    """Call the function register() of a module, or the function that an entry point names.

    Raises PluginError where there is none. where: names the plugin in the message.
    """
    register = getattr(found, "register", None) if isinstance(found, ModuleType) else found
    if not callable(register):
        raise PluginError(
            f"plugin {where} must have a function register(), got none", "See docs/extending.md for examples"
        )
    register()
