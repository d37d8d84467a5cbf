"""The content of the bucket: bytes per job and per kind of file, from one listing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.aws.job_names import job_name_in_key
from cloud.aws.pricing import PriceTable

STORAGE_KINDS: Final = ("model artifacts", "checkpoints", "profiler output", "code", "other")
SHARED_FOLDERS: Final = "(shared)"
_PROFILER: Final = ("profiler-output", "rule-output", "debug-output")
_CODE: Final = ("source", "code", "sourcedir.tar.gz")


@dataclass
class Usage:
    """Bytes and files by (job, kind). The checkpoints of a managed job are listed under it, since all of its
    attempts share them; classes: bytes by S3 storage class.
    """

    sizes: Counter[tuple[str, str]] = field(default_factory=Counter)
    files: Counter[tuple[str, str]] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)

    @property
    def size(self) -> int:
        """The total number of bytes."""
        return sum(self.sizes.values())

    @property
    def count(self) -> int:
        """The total number of files."""
        return sum(self.files.values())

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Return the number of files and bytes of each kind."""
        files, sizes = Counter[str](), Counter[str]()
        for (job, kind), size in self.sizes.items():
            files[kind] += self.files[job, kind]
            sizes[kind] += size
        return {kind: (files[kind], sizes[kind]) for kind in STORAGE_KINDS}

    def by_job(self) -> dict[str, tuple[int, int]]:
        """Return the number of files and bytes of each job, the largest first."""
        sizes, files = Counter[str](), Counter[str]()
        for (job, kind), size in self.sizes.items():
            sizes[job] += size
            files[job] += self.files[job, kind]
        return {job: (files[job], size) for job, size in sorted(sizes.items(), key=lambda e: (-e[1], e[0]))}

    def json(self, uri: str, table: PriceTable) -> dict[str, Any]:
        """Return the complete report."""
        jobs = self.by_job()
        return {
            "uri": uri,
            "prices": {"dated": table.dated.isoformat(), "region": table.region},
            "jobs": len(set(jobs) - {SHARED_FOLDERS}),
            "files": self.count,
            "bytes": self.size,
            "dollars_a_month": round(table.monthly_cost(self.size), 4),
            "kinds": {kind: {"files": n, "bytes": size} for kind, (n, size) in self.by_kind().items()},
            "storage_classes": dict(sorted(self.classes.items())),
            "job_details": [
                {
                    "job": job,
                    "files": n,
                    "bytes": size,
                    "kinds": {kind: self.sizes[job, kind] for kind in STORAGE_KINDS if self.files[job, kind]},
                }
                for job, (n, size) in jobs.items()
            ],
        }


def measure_usage(listing: Iterable[tuple[str, int, str]], only: Collection[str] | None = None) -> Usage:
    """Sum up a listing of (name, bytes, storage class), restricted to the jobs in `only` if it is given."""
    usage = Usage()
    for key, size, kept in listing:
        place = place_in_bucket(key)
        if only is not None and place[0] not in only:
            continue
        usage.sizes[place] += size
        usage.files[place] += 1
        usage.classes[kept] += size
    return usage


def place_in_bucket(key: str) -> tuple[str, str]:
    """Return the owner (a job, a managed job or shared folders) and the kind of a file, from its name."""
    parts = key.split("/")
    if parts[0] == "lines" and len(parts) > 3:
        owner = job_name_in_key(key) or f"managed job {parts[1]}"
    else:
        owner = job_name_in_key(key) or SHARED_FOLDERS
    return owner, _kind(parts)


def _kind(parts: list[str]) -> str:
    if any(part in _PROFILER for part in parts):
        return "profiler output"
    if "checkpoints" in parts[:-1]:
        return "checkpoints"
    if parts[-1] == "model.tar.gz":
        return "model artifacts"
    if any(part in _CODE for part in parts):
        return "code"
    return "other"
