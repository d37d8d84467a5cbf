"""The identity of a plugin: which plugin, and which version of its code."""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from psa.core.errors import Interrupted, UserError, named_error

_SHA256: Final = "sha256:"
_SHOWN: Final = 12  # hexadecimal digits of a digest in messages
NAME: Final = r"^[a-z][a-z0-9_-]{0,39}$"  # of what a plugin registers: a part of paths
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

    kind: mode, probe, family or data source. name: the registered name. plugin, version: see PluginId.
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
def plugin_code(what: str, plugin: PluginId | None) -> Iterator[None]:
    """Run code of a plugin, None for code of psa.

    Raises UserError in place of the plugin's own error, with its name and the line.
    """
    try:
        yield
    except (UserError, Interrupted):
        raise
    except Exception as error:
        if plugin is None:
            raise
        frames = traceback.extract_tb(error.__traceback__)[1:]
        own = [frame for frame in frames if Path(frame.filename).stem == Path(plugin.name).stem]
        lines = "".join(f", line {frame.lineno} of {Path(frame.filename).name}" for frame in own[-1:])
        raise UserError(
            f"{what} of plugin {plugin} must not fail, got {named_error(error)[:300]}{lines}",
            "Mend the plugin, or leave it out",
        ) from error


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
