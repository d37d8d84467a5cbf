"""A plugin with a mode, a probe, a network and a study: every backend gives the bytes of this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import cluster_of
from plugin_files import example_grid, forgotten
from processes import PATIENCE_SECONDS, end, psa, sweep, train_in_process, tree

LOOPS = 2
BACKENDS = ("local", "ray", "sagemaker", "slurm")


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> dict[str, bytes]:
    """What the grid leaves when it is trained in this process."""
    folder = tmp_path_factory.mktemp("reference")
    with forgotten():
        train_in_process(folder, data_dir, LOOPS, example_grid(folder / "grids"))
    return tree(folder)


@pytest.fixture(scope="module", params=BACKENDS)
def where(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """The options of each backend; SageMaker in a rehearsal, whose containers reach no network."""
    options = ["--backend", request.param]
    if request.param == "ray":
        pytest.importorskip("ray", reason="the extra ray is not installed")
        with cluster_of(num_cpus=2) as cluster:
            yield [*options, "--address", cluster.address]
        return
    if request.param == "slurm":
        request.getfixturevalue("slurm").clear()
    if request.param in ("local", "slurm"):
        yield options
        return
    pytest.importorskip("moto", reason="the extra rehearse is not installed")
    from cloud.emulator import Faults, rehearsal

    stage_folder = tmp_path_factory.mktemp("stage")
    with (
        rehearsal(stage_folder, Faults(no_network=True)) as stage,
        pytest.MonkeyPatch.context() as context,
    ):
        for name, value in stage.environment.items():
            context.setenv(name, value)
        yield options


def swept(folder: Path, data_dir: Path, grid: Path, *options: str) -> tuple[int, str, str]:
    """Sweep to the end; return exit code, output and errors."""
    process = sweep(folder, data_dir, "--pack-size", "2", *options, grid=grid)
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    return process.returncode, out, err


@pytest.mark.slow
def test_every_backend_gives_the_same_bytes(
    where: list[str], reference: dict[str, bytes], tmp_path: Path, data_dir: Path
) -> None:
    """The plugin is nowhere but beside the grid: it travels with the packs. Records name it."""
    grid = example_grid(tmp_path / "grids")
    code, out, err = swept(tmp_path, data_dir, grid, *where)
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == "4 of 4 trials done, 0 failed"
    assert tree(tmp_path) == reference
    record = next(
        path for path in (tmp_path / "results").rglob("input/s00-*.json") if "machine" not in path.name
    )
    used = json.loads(record.read_bytes())["spec"]["plugins"]
    assert [use["name"] for use in used] == ["bottleneck", "input", "norms"]
    assert {use["plugin"] for use in used} == {"psa_plugin_example.py"}


@pytest.mark.slow
def test_commands_on_stored_trials_of_a_plugin(tmp_path: Path, data_dir: Path) -> None:
    """Verify, replay, report and export with the plugin; one line without it; a changed one is refused."""
    grid = example_grid(tmp_path)
    plugin = tmp_path / "psa_plugin_example.py"
    with forgotten():
        train_in_process(tmp_path, data_dir, LOOPS, grid)
    data = ("--data-dir", str(data_dir.absolute()))

    def said(*words: str) -> tuple[int, str, str]:
        process = psa(tmp_path, *words)
        try:
            out, err = process.communicate(timeout=PATIENCE_SECONDS)
        finally:
            end(process)
        return process.returncode, out, err

    before = tree(tmp_path)
    code, _, err = said("verify")
    assert (code, err.count("\n")) == (2, 1)
    assert "of plugin psa_plugin_example.py (SHA-256 " in err
    assert "which is not loaded. Name the file with --plugin psa_plugin_example.py" in err
    code, out, err = said("verify", "--replay", "3", "--plugin", plugin.name, *data)
    assert (code, err) == (0, "")
    assert "Loops trained again: 3, differing from what is stored: 0" in out
    assert said("report", "example")[0] == 2
    assert said("report", "example", "--plugin", plugin.name, *data)[0] == 0
    assert "| 1*4 " in (tmp_path / "results/reports/example/bounties.md").read_text()
    code, out, _ = said("status", grid.name)
    assert (code, out.splitlines()[0]) == (0, "example: 4 of 4 trials done")
    trial = next(name for name in before if name.endswith("lkg.safetensors"))
    assert said("export-model", str(trial), "--plugin", plugin.name)[0] == 0
    kept = tmp_path / "kept.py"
    shutil.copy(plugin, kept)
    plugin.write_text(plugin.read_text() + "# edited\n")
    # the progress can still be read
    for code, *command in ((2, "sweep", grid.name, *data), (3, "status", grid.name), (2, "plan", grid.name)):
        exit_code, _, err = said(*map(str, command))
        assert (exit_code, err.count("\n")) == (code, 1)
        assert err.count("psa_plugin_example.py (SHA-256 ") == 2
        assert "Restore that version of the plugin" in err
    code, _, err = said("verify", "--replay", "1", "--plugin", plugin.name, *data)
    assert (code, err.count("\n"), err.count("SHA-256")) == (2, 1, 2)
    assert tree(tmp_path) == before
    shutil.copy(kept, plugin)
    code, out, err = said("sweep", grid.name, *data)
    assert (code, out, err) == (0, "4 of 4 trials done, 0 failed\n", "")


SEARCH = """
study = "example"
plugins = ["psa_plugin_example.py"]
name = "drawn"
meta_loops = 1
seeds = [0, 1]
[base]
arch = "1*4"
val_size = 59_000
test_size = 500
mode = "input"
[space]
lr = [1e-3, 1e-2]
[search]
samples = 2
scheduler = "none"
"""


@pytest.mark.slow
def test_a_search_trains_what_a_plugin_adds(tmp_path: Path, data_dir: Path) -> None:
    """Its processes are Ray's, which load the plugin; a study, a network, a probe and a mode of it."""
    pytest.importorskip("ray", reason="the extra search is not installed")
    example_grid(tmp_path)
    (tmp_path / "search.toml").write_text(SEARCH)
    process = psa(
        tmp_path, "search", "search.toml", "--data-dir", str(data_dir.absolute()), "--device", "cpu"
    )
    try:
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
    finally:
        end(process)
    assert process.returncode == 0, out + err
    records = [path for path in tmp_path.rglob("input/s0*.json") if "machine" not in path.name]
    assert records
    for path in records:
        used = json.loads(path.read_bytes())["spec"]["plugins"]
        assert [use["name"] for use in used] == ["bottleneck", "input", "norms"]
