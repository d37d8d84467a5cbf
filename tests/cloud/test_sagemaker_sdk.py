"""AWS's own SDK, unmodified, against the rehearsal: what it takes for SageMaker is near enough to it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="the extra rehearse is not installed")
pytest.importorskip("sagemaker.train", reason="the extra sagemaker is not installed: AWS's SDK for Python")

from cloud.emulator import rehearsal

SCRIPT = """
import os
from pathlib import Path
Path(os.environ["SM_MODEL_DIR"], "done.txt").write_text("trained")
"""
# Its session asks STS for the account by an address of its own, unless it is told a bucket.
TRAINER = """
import os
from sagemaker.core.helper.session_helper import Session
from sagemaker.train import ModelTrainer
from sagemaker.train.configs import Compute, SourceCode

trainer = ModelTrainer(
    training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch:2.14-cpu-amzn2023-sagemaker",
    role=os.environ["AWS_SAGEMAKER_ROLE"],
    source_code=SourceCode(source_dir="source", entry_script="train.py"),
    compute=Compute(instance_type="ml.c5.xlarge", instance_count=1),
    base_job_name="sdk",
    sagemaker_session=Session(default_bucket=os.environ["S3_BUCKET_NAME"]),
)
trainer.train(wait=True, logs=False)
print(trainer._latest_training_job.training_job_status)
"""


@pytest.mark.slow
def test_the_sdks_own_trainer_completes_a_job(tmp_path: Path) -> None:
    """ModelTrainer uploads its source, submits, waits, and finds the artifact."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source/train.py").write_text(SCRIPT)
    with rehearsal(tmp_path / "stage") as stage:
        done = subprocess.run(
            [sys.executable, "-c", TRAINER],
            cwd=tmp_path,
            env={**stage.inherited(os.environ), "SAGEMAKER_VALIDATE_ROLE": "false"},
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
    assert done.stdout.splitlines()[-1:] == ["Completed"], done.stderr[-2000:]
