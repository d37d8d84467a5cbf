"""Errors of a node rather than of a pack: memory, devices and files. Tune retries the pack, a few times."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from cloud.object_store import ObjectStore
from cloud.retry import retry_until_reachable
from psa.core.errors import lacks_memory

NODE_RETRIES: Final = 3  # of a pack; then it is trained by halves, as the error may be that of a trial
NODE_PAUSE_SECONDS: Final = 30.0  # before a failed pack is given back, so that other nodes take the next ones
_DEVICE_ERROR: Final = "AcceleratorError"  # of torch, which would take seconds to import here
_OF_DEVICE: Final = ("cuda error", "hip error", "cublas_status", "cudnn_status")


def is_node_error(error: BaseException | None) -> bool:
    """Return whether an error, or the one that caused it, may not occur on another node."""
    while error is not None:
        is_of_device = any(kind.__name__ == _DEVICE_ERROR for kind in type(error).__mro__)
        says_so = isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _OF_DEVICE)
        if lacks_memory(error) or isinstance(error, OSError) or is_of_device or says_so:
            return True
        error = error.__cause__
    return False


class NodeRetries:
    """The retries of a pack after errors of nodes, counted in the storage, since each may be another process.

    config: of the Tune trial: `storage`, `experiment`, and `pack` but for a search, which has no retries.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._counted: BaseException | None = None

    @property
    def is_search(self) -> bool:
        """True for a configuration of a search."""
        return "pack" not in self.config

    def allow(self, error: BaseException) -> bool:
        """Return whether an error is to be raised for a retry, and count it once."""
        if self.is_search or not is_node_error(error):
            return False
        if error is not self._counted and retry_until_reachable(self._count):
            self._counted = error
        return error is self._counted

    def _count(self) -> bool:
        storage = ObjectStore.at(self.config["storage"])
        name = f"{self.config['experiment']}/retries/{self.config['pack']}"
        made = len(storage.read(name) or b"")
        if made >= NODE_RETRIES:
            return False
        storage.write(name, b"." * (made + 1))
        return True
