"""SageMaker on this machine, without Docker or an account: real HTTP, real S3, real processes."""

from __future__ import annotations

from cloud.rehearsal.faults import Faults
from cloud.rehearsal.stage import Stage, rehearsal

__all__ = ["Faults", "Stage", "rehearsal"]
