"""The code of plugins on its way to workers, Ray's nodes and training containers.

A pack that is sent carries the code of the plugins that its trials use. Only code that trains loads it: a
pack that is merely read back runs nothing.
"""

from __future__ import annotations

import atexit
import base64
import importlib
import importlib.metadata
import importlib.util
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from psa.core.files import write_atomically
from psa.core.plugins.identity import PluginError, PluginId
from psa.core.plugins.installed import GROUP, check_installed_plugins, installed_plugins, load_installed
from psa.core.plugins.loading import MAX_BYTES, load_content, loaded_file

_SKIPPED: Final = frozenset({"__pycache__"})


class PluginPayload(BaseModel):
    """A plugin with its code: the one file, or those of a package, compressed and in Base64, by path."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    version: Annotated[str, Field(min_length=1)]
    files: dict[str, str]

    @property
    def id(self) -> PluginId:
        """Its identity."""
        return PluginId(self.name, self.version)

    def content(self, path: str) -> bytes:
        """Return the bytes of a file. Raises PluginError."""
        try:
            packer = zlib.decompressobj()
            content = packer.decompress(base64.b64decode(self.files[path], validate=True), MAX_BYTES)
        except (KeyError, ValueError, zlib.error) as error:
            raise PluginError(f"plugin {self.id}: its code is damaged ({type(error).__name__})") from None
        if packer.unconsumed_tail:
            raise PluginError(f"plugin {self.id}: {path} must have at most {MAX_BYTES:,} bytes, got more")
        return content


_PAYLOADS: Final = TypeAdapter(list[PluginPayload])


def plugin_payloads(plugins: Iterable[PluginId]) -> list[dict[str, Any]]:
    """Return the code of plugins as JSON values. Raises PluginError for one that is not loaded."""
    return [_payload(plugin).model_dump(mode="json") for plugin in sorted(set(plugins))]


@cache
def _payload(plugin: PluginId) -> PluginPayload:
    if plugin.is_file:
        file = loaded_file(plugin)
        if file is None:
            raise PluginError(
                f"plugin {plugin} must be loaded, got none", f"Name the file with --plugin {plugin.name}"
            )
        files = {plugin.name: file.content}
    else:
        files = dict(_package_files(plugin))
    size = sum(map(len, files.values()))
    if size > MAX_BYTES:
        raise PluginError(
            f"plugin {plugin} must have at most {MAX_BYTES:,} bytes of files, got {size:,}",
            "Move data and tests out of its package",
        )
    packed = {path: base64.b64encode(zlib.compress(content)).decode() for path, content in files.items()}
    return PluginPayload(name=plugin.name, version=plugin.version, files=packed)


def _package_files(plugin: PluginId) -> Iterator[tuple[str, bytes]]:
    """Yield the files of a plugin's packages, and metadata by which they are found where they are unpacked.

    They are taken from where Python imports them, since an editable installation lists no files.
    """
    points = [point for found, point in installed_plugins() if found == plugin]
    if not points:
        raise PluginError(f"plugin {plugin} must be installed, got none", f"Install {plugin.name}")
    for top in sorted({point.module.partition(".")[0] for point in points}):
        spec = importlib.util.find_spec(top)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            yield from _files_below(Path(folder))
        if spec is not None and spec.origin and spec.submodule_search_locations is None:
            yield Path(spec.origin).name, Path(spec.origin).read_bytes()
    info = f"{plugin.name.replace('-', '_')}-{plugin.version}.dist-info"
    entries = "".join(f"{point.name} = {point.value}\n" for point in points)
    yield (
        f"{info}/METADATA",
        f"Metadata-Version: 2.1\nName: {plugin.name}\nVersion: {plugin.version}\n".encode(),
    )
    yield f"{info}/entry_points.txt", f"[{GROUP}]\n{entries}".encode()


def _files_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not _SKIPPED.intersection(path.parts):
            yield f"{folder.name}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def load_payloads(bodies: object) -> None:
    """Load the plugins that a pack carries. Raises PluginError."""
    try:
        plugins = _PAYLOADS.validate_python(bodies or [])
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        raise PluginError(f"the plugins of a pack cannot be read ({fault['msg']})") from None
    for plugin in plugins:
        (_load_file if plugin.id.is_file else _load_package)(plugin)


def _load_file(plugin: PluginPayload) -> None:
    content = plugin.content(plugin.name)
    if PluginId.of_file(plugin.name, content) != plugin.id:
        raise PluginError(f"plugin {plugin.id}: its code is damaged (its digest differs)")
    load_content(plugin.id, content, plugin.name)


def _load_package(plugin: PluginPayload) -> None:
    """Unpack a package into a folder of this process, unless that version is installed here."""
    try:
        here = importlib.metadata.version(plugin.name)
    except importlib.metadata.PackageNotFoundError:
        here = None
    if here is not None and here != plugin.version:
        raise PluginError(
            f"plugin {plugin.name} must have version {plugin.version} on every machine, got {here}",
            "Install the same version everywhere",
        )
    if here is None:
        sys.path.append(str(_unpacked(plugin)))
        importlib.invalidate_caches()
        load_installed(again=True)
        check_installed_plugins(plugin.name)


def _unpacked(plugin: PluginPayload) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="psa-plugin-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in plugin.files:
        inner = PurePosixPath(name)
        if inner.is_absolute() or ".." in inner.parts:
            raise PluginError(f"plugin {plugin.id}: a file must lie in its package, got {name!r}")
        write_atomically(folder / inner, plugin.content(name))
    return folder
