"""A SageMaker emulator on this machine, without Docker or an account: real HTTP, real S3, real processes."""

from __future__ import annotations

from cloud.emulator.emulator import Emulator, rehearsal
from cloud.emulator.faults import Faults

__all__ = ["Emulator", "Faults", "rehearsal"]
