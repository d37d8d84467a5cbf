"""The documented policies: what psa calls in a rehearsal is what they hold, and all works under them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="the extra rehearse is not installed")

from policies import POLICIES

from cloud.emulator import rehearsal
from cloud.emulator.services.policies import Authorizer
from cloud.sagemaker.account_check.policy_documents import policy_document, policy_template
from tools.policies import exercise, policy_of


@pytest.mark.slow
def test_everything_works_under_the_documented_policies(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command succeeds while they are enforced, and makes every call that they allow."""
    from cloud.aws.settings import read_partial_settings

    authorizer = Authorizer()
    with rehearsal(tmp_path / "stage", authorizer=authorizer) as stage:
        environment = {**stage.inherited(os.environ), "XDG_CONFIG_HOME": str(tmp_path / "config")}
        monkeypatch.chdir(tmp_path)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        settings = read_partial_settings()
        authorizer.policies = {name: policy_document(name, settings) for name in POLICIES}
        exercise(stage, tmp_path, data_dir, environment)
    for name in POLICIES:
        assert policy_of(authorizer.calls, name) == json.loads(policy_template(name))
