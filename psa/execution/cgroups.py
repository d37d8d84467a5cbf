"""Limits that Linux control groups (versions 1 and 2) put on this process: processor time and memory.

A container or a job of a batch system is limited by the group it is in and by each group above it.
joblib.cpu_count, which comes with scikit-learn, knows the topmost group alone and loads NumPy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_ROOT: Final = Path("/sys/fs/cgroup")


def cpu_quota(membership: Path = _MEMBERSHIP, root: Path = _ROOT) -> float:
    """Return the cores that the groups' quotas of time amount to; infinity without one."""
    quotas = [math.inf]
    for folder in _groups("cpu", membership, root):
        fields = _read(folder / "cpu.max").split() or [
            _read(folder / "cpu.cfs_quota_us"),
            _read(folder / "cpu.cfs_period_us"),
        ]
        quota, period = (_number(field) for field in (*fields, "", "")[:2])
        if 0 < quota < math.inf and 0 < period < math.inf:
            quotas.append(quota / period)
    return min(quotas)


def memory_limit(membership: Path = _MEMBERSHIP, root: Path = _ROOT) -> float:
    """Return the bytes that the groups allow; infinity without a limit."""
    limits = [math.inf]
    for folder in _groups("memory", membership, root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(_read(folder / name))
            if limit > 0:
                limits.append(limit)
    return min(limits)


def _groups(controller: str, membership: Path, root: Path) -> Iterator[Path]:
    """Yield the folders of this process's groups and of all above them, in both versions.

    In a container the paths may be the host's, which are not there; its own group is the topmost one then.
    """
    yield root
    for line in _read(membership).splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers and controller not in controllers.split(","):
            continue
        tops = [root / controllers, root / controller] if controllers else [root, root / "unified"]
        parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
        for top in tops:
            yield from (top.joinpath(*parts[:count]) for count in range(len(parts) + 1))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:  # not there: no such limit
        return ""


def _number(text: str) -> float:
    """Return a number of a control file; infinity for "max" and -1, which mean no limit."""
    return float(text) if text.isdecimal() and len(text) < 30 else math.inf
