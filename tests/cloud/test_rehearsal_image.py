"""The interpreter of a rehearsal's containers: it holds what AWS's image holds, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from packaging.tags import compatible_tags, cpython_tags
from paths import ROOT

from cloud.emulator.containers import image
from cloud.emulator.containers.environment import make_environment
from cloud.emulator.containers.image import IMAGE_PACKAGES, image_python, packages_from_archive
from cloud.sagemaker.container import wheels
from psa.core.errors import UserError

FINDS = "import importlib.util, sys; print(*filter(importlib.util.find_spec, sys.argv[1:]))"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def output_of(python: Path, *words: str, **environment: str) -> str:
    """Return the output of an interpreter started in this checkout, where psa lies beside it."""
    done = subprocess.run(
        [python, "-P", "-c", *words],
        cwd=ROOT,
        env={"HOME": "/tmp", **environment},  # noqa: S108
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_the_image_holds_torch_and_not_psa(tmp_path: Path) -> None:
    """Whatever the user's folder and the interpreter of psa hold."""
    python = image_python(tmp_path)
    names = (*IMAGE_PACKAGES, "psa", "cloud", "safetensors", "boto3", "pytest", "rich")
    assert output_of(python, FINDS, *names).split() == list(IMAGE_PACKAGES)
    assert output_of(python, "import site; print(site.ENABLE_USER_SITE)") == "False"
    assert output_of(python, "import torch; print(float(torch.ones(2) @ torch.ones(2)))") == "2.0"
    assert packages_from_archive() == ("safetensors",) or os.uname().machine != "x86_64"


@pytest.mark.parametrize(
    ("built_for", "is_brought"),
    [
        ("cp38-abi3-manylinux_2_17_x86_64.manylinux2014_x86_64", True),
        ("cp312-cp312-manylinux_2_17_x86_64", False),
        ("cp312-abi3-manylinux_2_17_x86_64", False),
        ("cp38-abi3-manylinux_2_17_aarch64", False),
        ("cp38-abi3-musllinux_1_2_x86_64", False),
        ("py3-none-any", True),
    ],
)
def test_the_image_holds_what_the_interpreter_here_cannot_load_from_the_archive(
    built_for: str, is_brought: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python 3.11 with glibc on x86_64: another Python counts as much as another machine."""
    ours = list(cpython_tags((3, 11), ["cp311"], ["manylinux_2_17_x86_64"]))
    ours += compatible_tags((3, 11), "cp311", ["manylinux_2_17_x86_64"])
    about = {"safetensors-1.dist-info/WHEEL": f"Wheel-Version: 1.0\nTag: {built_for}\n".encode()}
    monkeypatch.setattr(wheels, "sys_tags", lambda: iter(ours))
    monkeypatch.setattr(wheels, "package_files", lambda *_, **__: about)
    assert packages_from_archive() == (("safetensors",) if is_brought else ())


def test_the_image_holds_what_would_have_to_be_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network a rehearsal has no other source for it."""
    monkeypatch.setattr(wheels, "package_files", lambda *_, **__: None)
    assert packages_from_archive() == ()


def test_two_rehearsals_at_once_make_one_image(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one waits for the first; a later one finds it."""
    made = []

    def counted(folder: Path, *words: Any, **options: Any) -> Path:
        made.append(folder)
        return make_environment(folder, *words, **options)

    monkeypatch.setattr(image, "IMAGE_PACKAGES", ("numpy", "filelock"))
    monkeypatch.setattr(image, "make_environment", counted)
    with ThreadPoolExecutor() as pool:
        pythons = set(pool.map(image_python, [tmp_path / "a", tmp_path / "b"]))
    assert pythons == {image_python(tmp_path / "c")}
    assert len(made) == 1
    assert made[0].is_relative_to(cache)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["unfinished", "a link leads nowhere", "no interpreter"])
def test_a_damaged_image_is_made_again(
    damage: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal was killed while it made it, or the installation has moved since."""
    monkeypatch.setattr(image, "IMAGE_PACKAGES", ("numpy", "filelock"))
    python = image_python(tmp_path)
    folder = python.parents[1]
    packages = next(folder.glob("lib/*/site-packages"))
    if damage == "unfinished":
        (folder / "complete").unlink()
        (packages / "numpy").unlink()
    elif damage == "no interpreter":
        python.unlink()
    else:
        (packages / "numpy").unlink()
        (packages / "numpy").symlink_to(tmp_path / "nowhere")
    assert image_python(tmp_path) == python
    assert output_of(python, "import numpy; print(numpy.arange(3).sum())") == "3"


def test_a_cache_that_cannot_be_written_to_is_gone_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The image then lies in the rehearsal's own folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    monkeypatch.setattr(image, "IMAGE_PACKAGES", ("filelock",))
    assert image_python(tmp_path).is_relative_to(tmp_path)


def test_an_image_in_which_psa_is_found_is_refused(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hide what a container on AWS lacks."""

    def leaking(folder: Path, *_: Any, **__: Any) -> None:
        python = make_environment(folder, ["filelock"])
        packages = next(python.parents[1].glob("lib/*/site-packages"))
        (packages / "psa.pth").write_text(f"{ROOT}\n")

    monkeypatch.setattr(image, "IMAGE_PACKAGES", ("filelock",))
    monkeypatch.setattr(image, "make_environment", leaking)
    with pytest.raises(UserError, match=r"must find filelock and not psa.*differing packages: cloud, psa"):
        image_python(tmp_path)


def distribution(folder: Path, name: str, files: dict[str, str], **metadata: str) -> None:
    """An installed distribution, as pip would leave it."""
    info = f"{name.replace('-', '_')}-1.0.dist-info"
    lines = "".join(f"{key}: {value}\n" for key, value in metadata.items())
    files = {**files, f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n{lines}"}
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    (folder / info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


def test_an_environment_holds_what_is_required_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packages, parts of a shared namespace, modules, extras and scripts; what is left out stays out."""
    here = tmp_path / "installed"
    monkeypatch.syspath_prepend(str(here))
    distribution(here, "made-a", {"shared/a/__init__.py": "", "single.py": ""}, **{"Requires-Dist": "made-b"})
    distribution(
        here,
        "made-b",
        {
            "shared/b/__init__.py": "def main():\n    print('made b')\n",
            "made_b-1.0.dist-info/entry_points.txt": "[console_scripts]\nrun-b = shared.b:main\n",
        },
        **{"Requires-Dist": 'made-c; extra == "more"', "Provides-Extra": "more"},
    )
    distribution(here, "made-c", {"made_c/__init__.py": "", "made_c/data/x.txt": ""})
    distribution(here, "made-d", {"made_d/__init__.py": ""}, **{"Requires-Dist": "made-c"})
    names = ("shared.a", "single", "shared.b", "made_c")
    plain = make_environment(tmp_path / "plain", ["made-a"])
    assert output_of(plain, FINDS, *names).split() == ["shared.a", "single", "shared.b"]
    script = subprocess.run([plain.with_name("run-b")], capture_output=True, text=True, check=True)
    assert script.stdout == "made b\n"
    extra = make_environment(tmp_path / "extra", ["made-a", "made-b[more]", "made-d"], without=["Made_D"])
    assert output_of(extra, FINDS, *names, "made_d", "psa").split() == list(names)
    with pytest.raises(UserError, match="nothing-of-this-name is not installed"):
        make_environment(tmp_path / "none", ["nothing-of-this-name"])
    assert sys.version.split()[0] == output_of(plain, "import sys; print(sys.version.split()[0])")
