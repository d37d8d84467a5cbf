"""SageMaker on this machine, without Docker or an account: real HTTP, real S3, real processes."""

from __future__ import annotations

from cloud.emulator.emulator import Stage, rehearsal
from cloud.emulator.faults import Faults

__all__ = ["Faults", "Stage", "rehearsal"]
