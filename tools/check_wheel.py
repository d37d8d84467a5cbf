"""Check a built wheel: its content, and that it imports and starts outside the checkout.

Usage: python tools/check_wheel.py FOLDER, with the project's own Python. FOLDER holds the one wheel, which is
installed into a fresh environment outside the checkout. All other packages come from this Python's
environment.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from importlib.metadata import Distribution, distributions
from pathlib import Path

DISTRIBUTION = "persistent-stochastic-ablation"
PACKAGES = ("psa", "cloud")


class BadWheel(Exception):
    """The wheel lacks a file, has an extra one, or does not run."""


def main(folder: Path) -> int:
    """Check the wheel in `folder`. Return the exit status, 0 if it is fine."""
    (wheel,) = folder.glob("*.whl")
    with tempfile.TemporaryDirectory(prefix="psa-wheel-") as outside:
        try:
            check_contents(wheel)
            scripts = check_installed(wheel.resolve(), Path(outside).resolve())
        except BadWheel as error:
            print(f"{wheel.name}: {error}", file=sys.stderr)
            return 1
    print(f"{wheel.name}: imports, and starts as {', '.join(scripts)}")
    return 0


def check_contents(wheel: Path) -> None:
    """Raise BadWheel unless the wheel holds exactly the two packages with type markers, and the licence."""
    names = set(zipfile.ZipFile(wheel).namelist())
    strangers = {name for name in names if name.split("/")[0] not in PACKAGES and ".dist-info/" not in name}
    if strangers:
        raise BadWheel(f"must not hold {', '.join(sorted(strangers))}")
    missing = {f"{package}/py.typed" for package in PACKAGES} - names
    if missing or not any(name.endswith("/LICENSE") for name in names):
        raise BadWheel(f"lacks {', '.join(sorted(missing)) or 'the licence'}")


def check_installed(wheel: Path, outside: Path) -> list[str]:
    """Install the wheel into `outside`, import it, and start each of its commands. Return their names."""
    fresh = outside / "env"
    venv.create(fresh, symlinks=True)
    python = str(fresh / "bin" / "python")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(fresh)}))
    # A .pth line adds only that folder and ignores .pth files in it, so the link to the checkout is not used.
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(outside, *pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel))
    for package in PACKAGES:
        found = run(outside, python, "-I", "-c", f"import {package}; print({package}.__file__)").strip()
        if not Path(found).is_relative_to(site):
            raise BadWheel(f"is not where the import found {package}: {found}")
    scripts = [script.name for script in installed(site).entry_points if script.group == "console_scripts"]
    for script in scripts:
        run(outside, str(fresh / "bin" / script), "--help")
    return scripts


def installed(site: Path) -> Distribution:
    """Return the project as installed in `site`."""
    (found,) = distributions(name=DISTRIBUTION, path=[str(site)])
    return found


def run(folder: Path, *command: str) -> str:
    """Run a command in `folder` and return its output. Raises BadWheel if it fails."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=folder, env=plain, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BadWheel(f"`{' '.join(command)}` failed:\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
