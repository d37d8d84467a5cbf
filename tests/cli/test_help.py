"""What commands say of themselves: a screen of them, an example each that is one, and a page of all."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

from psa.cli import app as cli
from psa.experiments.study import study_named, study_names

COMMANDS = [name for name in cli.PSA if not name.startswith("-")]
SAID = dict(
    re.findall(
        r"^## ([^\n]+)\n\n```text\n(.*?)^```$", (ROOT / "docs/tools.md").read_text(), re.MULTILINE | re.DOTALL
    )
)
# Commands that are other names of those in their examples.
SAME = {"psa data": "analyze-dataset", "make-figure-design-space": "make-design-space-figure"}


def test_the_list_of_commands_fits_a_screen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal of 80 columns every command has one line below a heading, and how to begin is said."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(cli.PSA, ["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40
    for name in COMMANDS:
        (line,) = (line for line in lines if re.match(rf"│ {name} ", line))
        assert line.rstrip("│ ").endswith("."), line
    for heading in ("Train", "Inspect", "Results", "Remote"):
        assert sum(f"─ {heading} ─" in line for line in lines) == 1
    assert "psa sweep reproduction/smoke.toml" in "\n".join(lines[-4:])


@pytest.mark.slow
def test_the_page_of_commands_is_what_they_say() -> None:
    """docs/tools.md is what `make docs` would write now."""
    words = [sys.executable, ROOT / "tools/tools_page.py", "--check"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("command", [each for each in SAID if each != "psa"])
def test_each_has_an_example(command: str) -> None:
    """Of that command, or of the one that it is another name of."""
    example = re.search(r"^Example: (.+?)\n\n", SAID[command], re.MULTILINE | re.DOTALL)
    assert example is not None
    name = SAME.get(command, command)
    assert example[1].startswith((name, name.removeprefix("psa ")))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_understood(name: str) -> None:
    """Its options and values are those of the command: it is bound to them, and nothing is left over."""
    app = cli.app_of(name)
    example = re.search(r"^Example: (.+)$", app.help, re.MULTILINE)
    assert example is not None
    words = shlex.split(example[1])
    tokens = words[2:] if words[0] == "psa" else words[1:]
    _, bound, _ = app.parse_args(tokens, exit_on_error=False, print_error=False)
    assert bound.arguments or not tokens


@pytest.mark.parametrize("name", sorted(study_names()))
def test_every_setting_of_a_study_is_described(name: str) -> None:
    """Each in a sentence that is not just its name, and none with a default that nobody can type."""
    for key, field in study_named(name, "study").Settings.model_fields.items():
        assert field.description, key
        assert field.description.endswith((".", "]")), key
    assert "[default: None]" not in SAID.get(f"train --study {name}", "")


def test_the_shell_is_told_every_command_and_option() -> None:
    """What it completes: the commands, and the options of each."""
    script = cli.PSA.generate_completion(shell="bash")  # noqa: S604 -- the name of a shell, which is not run
    for word in (*COMMANDS, "--meta-loops", "--keep-weights", "--interrupt-every"):
        assert word in script


def test_completion_is_installed_for_the_shell_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One command, which says where it wrote."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    assert cli.run(cli.PSA, ["--install-completion"]) == 0
    installed = tmp_path / ".local/share/bash-completion/completions/psa"
    assert installed.is_file()
    assert str(installed) in capsys.readouterr().out.replace("\n", "")
