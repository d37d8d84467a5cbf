"""Gradients on disk: trained by command, verified, cleaned, brought home, exported, and reported."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from safetensors.numpy import load_file

from cloud.results_sync import sync_results
from psa.analysis.gradients.export import planned
from psa.analysis.gradients.file import GradientFile, paths_of, read_gradients
from psa.cli.app import PSA, run
from psa.core.errors import UserError
from psa.data.splits import load_splits as load_data
from psa.experiments.grid import load_grid
from psa.storage.store import Store

TRAIN = [
    "train", "--study", "gradients", "--hidden-sizes", "16", "--digits", "3,5,8", "--val-size", "57500",
    "--device", "cpu",
]  # fmt: skip
Say = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Path:
    """A folder with two seeds of a tiny network, with both kinds of gradients."""
    folder = tmp_path_factory.mktemp("gradients")
    (folder / "dataset").symlink_to(data_dir.resolve())
    _within(folder, [*TRAIN, "--probes", "gradients_online,gradients", "--num-runs", "2"])
    return folder


def _within(folder: Path, words: list[str]) -> int:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return run(PSA, words)
    finally:
        os.chdir(before)


@pytest.fixture
def copy(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it that a test may damage, to be in."""
    shutil.copytree(trained, tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def files(folder: Path) -> list[Path]:
    """Every file of arrays, in a fixed order."""
    return sorted(folder.rglob("*.arrays.safetensors"))


def kept(folder: Path, name: str = "gradients_online-1") -> GradientFile:
    """The gradients of the first seed."""
    return read_gradients(next(path for path in files(folder) if name in path.name), folder / "dataset")


def test_the_record_names_every_file_by_its_digest(copy: Path) -> None:
    """And the reader finds and checks them by it."""
    store = Store(copy / "models", copy / "results")
    assert len(files(copy)) == 4
    for path in store.record_paths():
        record = json.loads(path.read_bytes())
        assert sorted(record["files"]) == ["gradients-1", "gradients_online-1"]
        for name, where in paths_of(store, record).items():
            entry = record["files"][name]
            assert where.stat().st_size == entry["bytes"]
            assert len(read_gradients(where, copy / "dataset", entry["sha256"])) == record["samples"]["train"]


def test_what_is_read_back_belongs_together(copy: Path) -> None:
    """Index, digit, label and image of the same sample; delta of the output is softmax minus one-hot."""
    one = kept(copy)
    assert one.online
    assert one.epoch == 1
    assert one.layers == ["hidden.0", "output"]
    assert set(one.digits) == {3, 5, 8}
    np.testing.assert_array_equal(np.array([3, 5, 8])[one.labels], one.digits)
    rows = np.array([7, 0, len(one) - 1])
    images, layer = one.images(rows), one.layer("hidden.0", rows)
    np.testing.assert_array_equal(layer.activation.numpy(), images.numpy())
    split = load_data(one.trial.data, copy / "dataset").train
    places = [split.index.tolist().index(index) for index in one.index[rows]]
    np.testing.assert_array_equal(split.images[places].numpy(), images.numpy())
    np.testing.assert_array_equal(split.digits[places].numpy(), one.digits[rows])
    delta = one.layer("output").delta
    np.testing.assert_allclose(delta.sum(dim=1).numpy(), 0, atol=1e-5)
    np.testing.assert_array_equal(delta.argmin(dim=1).numpy(), one.labels)
    with pytest.raises(UserError, match=r"unknown layer 'x'.*hidden.0, output"):
        one.layer("x")


def test_verify_finds_a_flipped_bit(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In an array, by the digest of the record."""
    assert run(PSA, ["verify"]) == 0
    path = files(copy)[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert run(PSA, ["verify"]) == 2
    assert f"DAMAGED {path.relative_to(copy)} is damaged (its SHA-256" in capsys.readouterr().out


def test_clean_takes_the_arrays_with_their_checkpoint(copy: Path) -> None:
    """Named by the checkpoint, all that is beside it goes; the other seed's stays."""
    state = files(copy)[0].with_name("lkg.safetensors")
    assert run(PSA, ["clean", str(state.relative_to(copy)), "--yes"]) == 0
    assert not state.parent.exists()
    assert len(files(copy)) == 2


class Folder:
    """A folder as the storage of another machine."""

    def __init__(self, root: Path) -> None:
        self.root, self.uri = root, str(root)

    def read(self, name: str) -> bytes | None:
        """A file's content."""
        path = self.root / name
        return path.read_bytes() if path.exists() else None

    def read_start(self, name: str, count: int) -> bytes | None:
        """Its beginning."""
        content = self.read(name)
        return None if content is None else content[:count]

    def tree(self, name: str) -> Iterator[str]:
        """Every file below a folder."""
        for path in sorted((self.root / name).rglob("*")):
            if path.is_file() and "dataset" not in path.parts:
                yield path.relative_to(self.root / name).as_posix()


def test_what_was_kept_elsewhere_comes_home(copy: Path, tmp_path: Path) -> None:
    """Both kinds of files, whole; one that is damaged stays there, the state and the record come."""
    damaged, *sound = files(copy)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    home = Store(tmp_path / "home/models", tmp_path / "home/results")
    sync_results(Folder(tmp_path), "copy", home)
    assert [path.relative_to(home.models) for path in files(home.models)] == [
        path.relative_to(copy / "models") for path in sound
    ]
    assert len(list(home.record_paths())) == 2
    assert [finding.problem for finding in home.verify()] == [None] * len(list(home.verify()))


def test_a_longer_run_goes_on_from_the_stored_one(copy: Path) -> None:
    """And has the very files that two epochs in one go have."""
    words = [*TRAIN, "--probes", "gradients_online", "--epochs"]
    assert run(PSA, [*words, "1", "--model-dir", "a", "--results-dir", "ra"]) == 0
    assert run(PSA, [*words, "2", "--model-dir", "a", "--results-dir", "ra"]) == 0
    assert run(PSA, [*words, "2", "--model-dir", "b", "--results-dir", "rb"]) == 0
    one, other = ({path.name: path.read_bytes() for path in files(copy / name)} for name in "ab")
    assert one == other
    assert len(one) == 2


def test_an_export_is_the_gradients_written_out(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By epoch and by batch, in the order of training, with whose they are."""
    path = str(files(copy)[1])
    assert "online" in path
    assert run(PSA, ["export-gradients", path, "--output-dir", "out"]) == 0
    one = kept(copy)
    for layer in ("hidden.0", "output"):
        weight = load_file(f"out/{layer}.weight_epoch_1.safetensors")
        np.testing.assert_array_equal(weight["gradients"], one.layer(layer).dense(slice(None)).numpy())
        np.testing.assert_array_equal(weight["index"], one.index)
        bias = load_file(f"out/{layer}.bias_epoch_1.safetensors")
        np.testing.assert_array_equal(bias["gradients"], one.layer(layer).delta.numpy())
    words = [
        "export-gradients",
        path,
        "--by",
        "batch",
        "--parameters",
        "output.weight",
        "--output-dir",
        "parts",
    ]
    assert run(PSA, words) == 0
    names = [f"parts/output.weight_epoch_1_batch_{at}.safetensors" for at in range(1, -(-len(one) // 64) + 1)]
    assert len(list(Path("parts").iterdir())) == len(names)
    parts = [load_file(name) for name in names]
    whole = load_file("out/output.weight_epoch_1.safetensors")
    for key, array in whole.items():
        np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), array)
    capsys.readouterr()
    assert run(PSA, ["export-gradients", path, "--limit", "0.001", "--output-dir", "no"]) == 2
    assert "the export must be at most 0.001 GB" in capsys.readouterr().err
    assert not Path("no").exists()
    assert run(PSA, ["export-gradients", path, "--parameters", "x", "--output-dir", "no"]) == 2
    with pytest.raises(UserError, match="must be recorded in training"):
        planned(kept(copy, "gradients-1"), "batch")


def test_an_export_replaces_no_other_one(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names of files say no trial and no probe: the same again is written again, another is refused whole."""
    checkpoint, online, *others = map(str, files(copy))
    words = ["export-gradients", "--parameters", "output.bias", "--output-dir", "out"]
    assert run(PSA, [*words, online]) == 0
    assert run(PSA, [*words, online]) == 0
    before = Path("out/output.bias_epoch_1.safetensors").read_bytes()
    words[2:3] = ["hidden.0.bias", "output.bias"]
    for other in (checkpoint, *others):
        capsys.readouterr()
        assert run(PSA, [*words, other]) == 2
        assert "is there, with gradients_online-1 of gradients/" in capsys.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["output.bias_epoch_1.safetensors"]
    assert Path("out/output.bias_epoch_1.safetensors").read_bytes() == before


def test_an_export_asks_for_something_sound(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each parameter once, and a limit that something can exceed."""
    words = ["export-gradients", str(files(copy)[0]), "--output-dir", "out"]
    for more, said in (
        (["--limit", "nan"], "--limit must be a size in GB, got nan"),
        (["--limit", "-1"], "--limit must be a size in GB, got -1"),
        (
            ["--parameters", "output.bias", "output.bias"],
            "parameters must differ, got output.bias, output.bias",
        ),
    ):
        assert run(PSA, [*words, *more]) == 2
        assert said in capsys.readouterr().err
    assert not Path("out").exists()


@pytest.mark.slow
def test_the_report_says_what_is_a_tautology(copy: Path) -> None:
    """Tables, figures and sentences of what is there; what is not is said."""
    for path in files(copy)[2:]:
        path.unlink()
    assert run(PSA, ["report", "gradients"]) == 0
    (page,) = Path("results/reports").glob("*.html")
    text = page.read_text()
    assert "Agreement here is a tautology and no finding" in text
    assert "in 100.0 % of the samples" in text
    assert "delta alone" in text
    assert "does not exist" in text
    folder = page.with_suffix("")
    for name in ("agreement", "starts", "clusters", "choice", "diversity", "norms", "training"):
        assert (folder / f"{name}.csv").exists(), name
    for name in (
        "agreement",
        "tsne",
        "choice",
        "norms_output",
        "norms_hidden",
        "centres",
        "samples",
        "predictions",
    ):
        assert (folder / f"{name}.png").exists(), name


def test_the_grid_of_the_study_has_all_digits_and_the_four_sets(capsys: pytest.CaptureFixture[str]) -> None:
    """With the defaults of the original where they were sound; digits that are none are refused."""
    plan = load_grid(ROOT / "reproduction/gradients.toml")
    digits = {trial.data.digits for trial in plan.trials}
    assert digits == {None, (0, 1), (0, 2, 4, 6, 8), (2, 3, 5, 7), (6, 8, 9)}
    assert {str(trial.model.arch) for trial in plan.trials} == {"[1*512]"}
    for wrong, said in (
        ("7", "digits must name at least two digits, got 7"),
        ("3,3", "--digits must name each digit once, got 3, 3"),
        ("evne", "Did you mean even"),
        ("1,11", "--digits must be from 0 to 9, got 11"),
        ("[]", "must name at least two digits, got none"),
    ):
        assert run(PSA, ["train", "--study", "gradients", "--digits", wrong]) == 2
        assert said in capsys.readouterr().err


def test_the_options_of_a_probe_are_read_on_the_command_line(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where their bracket is the last character, as it is in the guide; what is no probe is named."""
    (tmp_path / "dataset").symlink_to(data_dir.resolve())
    monkeypatch.chdir(tmp_path)
    for said in ("gradients_online(epochs=1+3,layers=output)", "[gradients(layers=output)]"):
        assert run(PSA, [*TRAIN, "--probes", said]) == 0
    for name in ("gradients_online", "gradients"):
        (path,) = tmp_path.rglob(f"lkg.{name}-1.*")
        assert read_gradients(path).layers == ["output"]
    capsys.readouterr()
    assert run(PSA, [*TRAIN, "--probes", "gradients_online(layers=output"]) == 2
    assert "a probe must be NAME or NAME(key=value), got " in capsys.readouterr().err
