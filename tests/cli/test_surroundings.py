"""Commands in the surroundings of users: closed streams, foreign settings, few cores, little memory."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import GRID, PATIENCE_SECONDS, ROOT, end, psa, train_in_process

from psa.cli import app
from psa.cli.console import console
from psa.core.errors import UserError
from psa.core.parsing import parse_values, strip_brackets
from psa.core.text_file import decode_text, read_toml
from psa.execution import cgroups
from psa.execution.devices import device_slots
from psa.experiments.grid import load_grid
from psa.specs.data import digits_of, resolved
from psa.storage.sweep_registry import register_sweep

ONE = ["meta_loops=1", "arch=1*4", "mode=none", "seeds=0"]
START = [sys.executable, "-c", "from psa.cli.app import main; main()"]
STREAMS = (">&-", "2>&-", "<&-", ">&- 2>&-", "<&- >&- 2>&-")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder in which the trial of ONE is complete."""
    folder = tmp_path_factory.mktemp("done")
    train_in_process(folder, data_dir, 1, overrides=ONE)
    return folder


def shell(
    folder: Path, words: list[str], streams: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `psa` by a shell, which may close streams or set limits; the exit code is psa's."""
    variables = {key: value for key, value in os.environ.items() if key != "SAGEMAKER_MODEL_DIR"}
    paths = os.pathsep.join(filter(None, [environment.pop("PYTHONPATH", ""), str(ROOT)]))
    return subprocess.run(
        ["bash", "-c", f'{environment.pop("BEFORE", "")} "$@" {streams}', "bash", *START, *words],
        cwd=folder, env=variables | environment | {"PYTHONPATH": paths}, capture_output=True, text=True,
        timeout=PATIENCE_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("streams", STREAMS)
def test_closed_streams_do_not_change_the_exit_code(streams: str, done: Path) -> None:
    """A complete sweep ends with 0, and a mistake with 2."""
    result = shell(done, ["sweep", str(GRID), *ONE], streams)
    assert (result.returncode, result.stderr) == (0, "")
    assert shell(done, ["plan", "no.toml"], streams).returncode == 2


def test_files_never_take_the_number_of_a_closed_stream(done: Path) -> None:
    """What a library prints would be written into them."""
    script = (
        "import os; from psa.core import process; process.take_over()\n"
        "file = os.open('psa.txt', os.O_WRONLY | os.O_CREAT)\n"
        "print('lost'); os.write(2, b'lost'); os._exit(file < 3)"
    )
    words = ["bash", "-c", '"$@" <&- >&- 2>&-', "bash", sys.executable, "-c", script]
    assert (
        subprocess.run(words, cwd=done, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode
        == 0
    )
    assert (done / "psa.txt").read_bytes() == b""


@pytest.mark.slow
def test_a_sweep_goes_on_when_the_reader_of_its_output_leaves(tmp_path: Path, data_dir: Path) -> None:
    """`psa sweep ... | head -1`: the trials are done, and the exit code is the sweep's."""
    process = psa(
        tmp_path, "sweep", str(GRID), *ONE, "--data-dir", str(data_dir.absolute()), "--pack-size", "1"
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    assert process.wait(PATIENCE_SECONDS) == 0
    end(process)
    assert list((tmp_path / "results").rglob("s00-*[0-9a-f].json"))


RC = "backend: nonsense\ntext.usetex: true\nfont.family: fantasy\naxes.facecolor: red\nno line\n"
SETTINGS = {
    "a notebook, settings of the user": {
        "MPLBACKEND": "module://matplotlib_inline.backend_inline", "MATPLOTLIBRC": "user",
    },
    "backend that is none, no folder for settings": {
        "MPLBACKEND": "nonsense", "MPLCONFIGDIR": "/proc/none", "HOME": "/nonexistent",
    },
    "settings of the folder": {},
}  # fmt: skip


def drawn(folder: Path, **environment: str) -> dict[str, bytes]:
    """The files of a figure that is drawn in a folder, by a process of its own."""
    (folder / "archs.txt").write_text("1*4\n2*3\n")
    script = (
        "import sys; from psa.core import process; process.take_over(); from psa.cli import app as cli\n"
        "import psa.reports.ablation.figures.map_marks\n"
        "from psa.cli.named import make_design_space_figure as start; start()"
    )
    variables = {key: value for key, value in os.environ.items() if not key.startswith("MPL")}
    result = subprocess.run(
        [sys.executable, "-c", script, "--config-file", "archs.txt", "--output-file", "out/x"], cwd=folder,
        env=variables | environment | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of the figure where nobody has set anything."""
    return drawn(tmp_path_factory.mktemp("plain"), MPLBACKEND="agg")


@pytest.mark.slow
@pytest.mark.parametrize("settings", SETTINGS)
def test_figures_are_drawn_with_the_settings_of_psa_alone(
    settings: str, plain: dict[str, bytes], tmp_path: Path
) -> None:
    """The same bytes whatever the user has, and nothing on standard error."""
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / "matplotlibrc").write_text(RC)
    if settings == "settings of the folder":
        (tmp_path / "matplotlibrc").write_bytes(RC.encode() + b"\xff\n")
    assert plain.keys() == {"x.png", "x.pdf", "x.txt"}
    assert drawn(tmp_path, **SETTINGS[settings]) == plain


@pytest.mark.slow
def test_another_package_called_cloud_is_named(done: Path) -> None:
    """What needs no cloud works; what does ends with one line."""
    (done / "other" / "cloud").mkdir(parents=True, exist_ok=True)
    (done / "other" / "cloud" / "__init__.py").write_text("")
    where = {"PYTHONPATH": str(done / "other")}
    for words in (
        ["--help"],
        ["sweep", str(GRID), *ONE],
        ["status", str(GRID), *ONE],
        ["rehearse", "--help"],
    ):
        result = shell(done, words, **where)
        assert (result.returncode, result.stderr) == (0, ""), words
    for words in (["rehearse", "--", "true"], ["sweep", str(GRID), *ONE, "--backend", "ray"]):
        result = shell(done, words, **where)
        assert (result.returncode, result.stderr.count("\n")) == (2, 1), words
        assert str(done / "other" / "cloud") in result.stderr


OF_CLOUD = {
    "sagemaker_cost_estimator": ["--by", "status"],
    "sagemaker_estimate_storage": ["--detailed"],
    "sagemaker_get_training_logs": ["--reconstruct-jobs"],
    "sagemaker_logs_parser": [],
    "sagemaker_results_parser": [],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_CLOUD)
def test_scripts_of_cloud_name_another_package_of_that_name(name: str, tmp_path: Path) -> None:
    """In one line, as `psa` does; and without that package they start."""
    (tmp_path / "other" / "cloud").mkdir(parents=True)
    (tmp_path / "other" / "cloud" / "__init__.py").write_text("")
    words = [sys.executable, str(ROOT / "scripts" / f"{name}.py")]
    for folders, options, code in ([tmp_path / "other", ROOT], OF_CLOUD[name], 2), ([ROOT], ["--help"], 0):
        path = os.pathsep.join(map(str, folders))
        result = subprocess.run(
            [*words, *options], cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert result.returncode == code, result.stderr
        assert result.stderr.count("\n") == (code == 2)
        assert (str(tmp_path / "other" / "cloud") in result.stderr) == (code == 2)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux")
def test_only_allotted_cores_are_planned_with(done: Path) -> None:
    """`taskset` to one of them."""
    core = min(os.sched_getaffinity(0))
    script = (
        f"import os; os.sched_setaffinity(0, [{core}])\n"
        "from psa.execution.devices import device_slots; print(len(device_slots('cpu', 1)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout == "1\n"


CGROUPS = {
    "version 2": ("0::/job/step\n", {"job/cpu.max": "150000 100000", "job/step/cpu.max": "max 100000"}, 1.5),
    "version 2, the topmost": ("0::/\n", {"cpu.max": "50000 100000"}, 0.5),
    "host's path": ("0::/docker/1f\n", {"cpu.max": "200000 100000"}, 2.0),
    "outside": ("0::/../../job\n", {"job/cpu.max": "100000 100000"}, 1.0),
    "version 1": (
        "4:cpu,cpuacct:/a\n3:memory:/a\n",
        {"cpu,cpuacct/a/cpu.cfs_quota_us": "300000", "cpu,cpuacct/a/cpu.cfs_period_us": "100000"},
        3.0,
    ),
    "version 1 without a quota": (
        "4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, float("inf"),
    ),
    "nothing": ("", {}, float("inf")),
    "nonsense": ("x\n::\n0::/a\n", {"a/cpu.max": "many few", "cpu.max": ""}, float("inf")),
}  # fmt: skip


def lay_group(folder: Path, membership: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Write what the kernel would show of a group."""
    (folder / "membership").write_text(membership)
    for name, content in files.items():
        path = folder / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content + "\n")
    return folder / "membership", folder / "root"


@pytest.mark.parametrize("case", CGROUPS)
def test_quotas_of_cgroups_count(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The least of all groups above the process; a part of a core is one worker."""
    membership, files, quota = CGROUPS[case]
    found = cgroups.cpu_quota(*lay_group(tmp_path, membership, files))
    assert found == quota
    monkeypatch.setattr(cgroups, "cpu_quota", lambda: found)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert len(device_slots("cpu", 1)) == {0.5: 1, 1.0: 1, 1.5: 2, 2.0: 2, 3.0: 3}.get(quota, 64)


@pytest.mark.parametrize(
    ("membership", "files", "limit"),
    [
        ("0::/a/b\n", {"a/memory.max": "1000", "a/b/memory.max": "max"}, 1000.0),
        ("5:memory:/a\n", {"memory/a/memory.limit_in_bytes": "2000"}, 2000.0),
        ("0::/a\n", {}, float("inf")),
    ],
)
def test_memory_limits_of_cgroups_count(
    membership: str, files: dict[str, str], limit: float, tmp_path: Path
) -> None:
    """Those of every group above the process."""
    assert cgroups.memory_limit(*lay_group(tmp_path, membership, files)) == limit


@pytest.mark.slow
@pytest.mark.parametrize("words", [["sweep", str(GRID), *ONE], ["train", "--arch", "[1*4]"]])
def test_memory_too_small_for_torch_is_one_line(words: list[str], tmp_path: Path, data_dir: Path) -> None:
    """`ulimit -v`: no traceback of every worker, exit code 2."""
    few = ["--pack-size", "1", "--workers", "1"] if words[0] == "sweep" else []
    result = shell(tmp_path, [*words, *few, "--data-dir", str(data_dir)], BEFORE="ulimit -v 700000;")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "memory" in result.stderr


EVIL = "\x1b[31mred\x1b]0;title\x07 \x9b2J \u202eabc\u2066 \x7f"


def test_no_control_character_of_stored_text_reaches_the_terminal(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Progress of others, reasons of failures, paths: they are shown as escapes."""
    monkeypatch.chdir(done)
    facts = {"grid": EVIL, "done": 1, "total": 2, "left": EVIL, "best": [1.0, EVIL], "running": [EVIL]}
    models = done / f"models{EVIL}"
    with register_sweep(models) as tell:
        tell(facts)
        for words, code in ((["status"], 0), (["plan"], 0)):
            assert app.run(app.PSA, [*words, str(GRID), *ONE, "--model-dir", str(models)]) == code
    (done / EVIL).mkdir()
    assert app.run(app.PSA, ["verify", "--model-dir", str(models), "--results-dir", str(done / EVIL)]) == 0
    console().print(f"[b]{EVIL}", style="bold")
    out, err = capsys.readouterr()
    assert "\\x1b[31mred" in out
    assert not re.findall(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", out + err)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_encode_is_escaped(encoding: str, done: Path) -> None:
    """A path of Chinese characters and one that is no text at all."""
    for name in ("结果", "\udcff"):
        grid = done / f"{name}.toml"
        grid.write_text("nonsense")
        for words in (["plan", str(grid)], ["verify", "--results-dir", f"no-{name}"], ["--help"]):
            result = shell(done, words, PYTHONIOENCODING=encoding)
            assert "Traceback" not in result.stderr
            assert "unexpected" not in result.stderr
            assert result.returncode == (0 if words[0] == "--help" else 2), (words, result.stderr)


TEXT = "# Größe\nstudy = 'ablation'\n"
ACCEPTED = {
    "byte order mark": "\ufeff" + TEXT, "CRLF": TEXT.replace("\n", "\r\n"), "Ctrl-Z": TEXT + "\x1a",
    "no end of line": TEXT.rstrip(), "all": "\ufeff" + TEXT.replace("\n", "\r\n") + "\x1a",
}  # fmt: skip


@pytest.mark.parametrize("how", ACCEPTED)
def test_text_of_other_editors_is_read(how: str, tmp_path: Path) -> None:
    """Grids and files of values."""
    assert read_toml(ACCEPTED[how].encode(), "x", "grid") == {"study": "ablation"}
    values = ACCEPTED[how].replace("study = 'ablation'", "1*4").encode()
    (tmp_path / "a.txt").write_bytes(values)
    assert parse_values("@a.txt", tmp_path, "axes.arch") == ["1*4"]


@pytest.mark.parametrize(
    ("encoding", "said"),
    [("utf-16", "UTF-16"), ("utf-32", "UTF-32"), ("utf-16-le", "zero bytes"), ("latin-1", "line 1 .*0xf6")],
)
def test_other_encodings_are_named(encoding: str, said: str, tmp_path: Path) -> None:
    """In one line, without what the file holds."""
    with pytest.raises(UserError, match=said):
        decode_text(TEXT.encode(encoding), "x")
    with pytest.raises(UserError, match=said):
        read_toml(TEXT.encode(encoding), "x", "grid")
    (tmp_path / "a.txt").write_bytes(TEXT.encode(encoding))
    with pytest.raises(UserError, match=said):
        parse_values("@a.txt", tmp_path, "axes.arch")


def test_a_grid_cannot_have_other_files_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`mode = "@/etc/shadow"`, a link to it, a hidden file: refused without a word of what they hold."""
    outside, inside = tmp_path / "outside", tmp_path / "inside"
    outside.mkdir()
    inside.mkdir()
    monkeypatch.chdir(inside)
    (outside / "shadow").write_text("root:secret:1\n")
    (inside / ".env").write_text("KEY=secret\n")
    (inside / "link").symlink_to(outside / "shadow")
    (inside / "key").write_bytes(b"secret\x00" * 100)
    (inside / "long").write_text("secret" * 10_000)
    for name in (str(outside / "shadow"), "../outside/shadow", "link", ".env", "key", "long"):
        (inside / "grid.toml").write_text(f'study = "ablation"\n[axes]\nmode = "@{name}"\n')
        with pytest.raises(UserError) as refused:
            load_grid(inside / "grid.toml", [])
        assert "secret" not in str(refused.value)
    (outside / "grid.toml").write_text('study = "ablation"\n[axes]\narch = "@archs"\n')
    (outside / "archs").write_text("1*4\n")
    assert len(load_grid(outside / "grid.toml", []).trials) == 1


LONG = {
    "digits": lambda: resolved([0] * 400_000),
    "digits of a text": lambda: digits_of("0," * 200_000 + "1"),
    "brackets": lambda: strip_brackets("[" * 300_000 + "]" * 300_000),
    "values": lambda: parse_values([0] * 400_000, Path(), "x"),
}


@pytest.mark.parametrize("what", LONG)
def test_long_lists_take_time_by_their_length(what: str) -> None:
    """A second for a megabyte."""
    begun = time.process_time()
    with contextlib.suppress(UserError, ValueError):
        LONG[what]()
    assert time.process_time() - begun < 3


def test_a_user_without_a_home_can_clean(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """HOME is not set, and the id is unknown to the system."""
    monkeypatch.chdir(done)

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert app.run(app.CLEAN, ["--model-dir", "none"]) == 0
    assert app.run(app.PSA, ["clean", "--all", "--dry-run"]) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("library", "entry"), [("numpy", ""), ("torch", "shelf"), ("matplotlib", "")])
def test_a_file_in_the_place_of_a_library_is_named(
    library: str, entry: str, done: Path, tmp_path: Path
) -> None:
    """PYTHONPATH may have an empty entry (from a variable that is not set) or name the folder of the file."""
    (tmp_path / entry).mkdir(exist_ok=True)
    (tmp_path / entry / f"{library}.py").write_text("")
    path = f"{tmp_path / entry if entry else ''}{os.pathsep}/nothing"
    words = {
        "matplotlib": ["report", "smoke", "--results-dir", str(done / "results")],
        "torch": ["train", "--arch", "[1*1]"],
    }.get(library, ["sweep", str(GRID), *ONE])
    start = f"import sys; sys.path.append({str(ROOT)!r}); from psa.cli.app import main; main()"
    result = subprocess.run(
        [sys.executable, "-c", start, *words], cwd=tmp_path, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    assert f"{library} must be the installed library, got {tmp_path / entry / library}.py" in result.stderr
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("columns", ["0", "1", "2", "99999999", "²", "9" * 5000])
def test_a_terminal_of_any_width_gets_an_answer(columns: str, tmp_path: Path) -> None:
    """The help ends, in lines of at least 20 and at most 1,000 columns."""
    result = shell(tmp_path, ["data", "--help"], COLUMNS=columns)
    assert (result.returncode, result.stderr) == (0, "")
    assert 20 <= max(map(len, result.stdout.splitlines())) <= 1_000
