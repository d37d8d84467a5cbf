"""Workers are spread over the GPUs, as many as fit.

No GPU is at hand where these tests are run: a script called nvidia-smi, put first on PATH, stands in for the
driver's own and answers as it would. What a GPU does with several workers is not tested here.
"""

from __future__ import annotations

import contextlib
import os
import time
from functools import partial
from pathlib import Path

import pytest
from processes import GRID, PATIENCE_SECONDS, children, end, psa, until

from psa.execution import devices
from psa.execution.devices import device_slots, found
from psa.execution.machine import DeviceName
from psa.storage.sweep_registry import active_sweeps

GIB = 2**30
NEED = 2 * GIB


@pytest.fixture(autouse=True)
def _no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "usable_cores", lambda: 64)


def stand_in(folder: Path, body: str) -> str:
    """A PATH with a stand-in for nvidia-smi, which writes down how it was asked."""
    script = folder / "bin" / "nvidia-smi"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\necho "$@" >>"{folder}/asked"\n{body}\n')
    script.chmod(0o755)
    return f"{script.parent}{os.pathsep}{os.environ['PATH']}"


def answering(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> None:
    """Let nvidia-smi answer with these lines."""
    said = "".join(f"{line}\\n" for line in lines)
    monkeypatch.setenv("PATH", stand_in(folder, f"printf '{said}'"))


def visible(device: DeviceName | None = None, need: int = NEED, asked: int | None = None) -> list[str]:
    """The GPU that each worker would see; "" for none in particular."""
    return [
        "" if place is None else dict(place.environment)["CUDA_VISIBLE_DEVICES"]
        for place in device_slots(device, need, asked)
    ]


def test_four_workers_share_a_gpu_and_take_turns(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The first workers are spread over all GPUs; the question is the documented one."""
    answering(monkeypatch, tmp_path, "81559", "81559")
    assert visible() == visible("cuda") == ["0", "1"] * 4
    assert (tmp_path / "asked").read_text().splitlines() == [
        "--query-gpu=memory.total --format=csv,noheader,nounits"
    ] * 2


def test_memory_cores_and_the_user_say_how_many(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A GPU of 7 GiB holds three workers of 2, one of 1 GiB is tried with one; never more than cores."""
    answering(monkeypatch, tmp_path, "7168", "1024")
    assert visible() == ["0", "1", "0", "0"]
    assert visible(need=100 * GIB) == ["0", "1"]
    assert visible(asked=1) == ["0"]
    assert visible(asked=6) == ["0", "1", "0", "0", "0", "1"]
    monkeypatch.setattr(devices, "usable_cores", lambda: 3)
    assert visible() == ["0", "1", "0"]


def test_the_users_own_choice_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """CUDA_VISIBLE_DEVICES is divided among the workers, up to its first entry that names no GPU."""
    answering(monkeypatch, tmp_path, "81559", "81559", "1024", "81559")
    for chosen, expected in (
        ("3", ["3"] * 4),
        (" 1, 2", ["1", "2", "1", "1", "1"]),
        ("2,1,0", ["2", "1", "0", "1", "0", "1", "0", "1", "0"]),
        ("GPU-8d1f,0", ["GPU-8d1f", "0", "0", "0", "0"]),
        ("0,-1,1", ["0"] * 4),
        ("0,9,1", ["0"] * 4),
        ("", [""] * 64),
        ("-1", [""] * 64),
        ("none", [""] * 64),
    ):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert visible() == expected, chosen
        for gpu in found():
            assert "CUDA_DEVICE_ORDER" not in dict(gpu.environment)


def test_without_a_choice_the_order_is_that_of_nvidia_smi(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """CUDA numbers GPUs by speed unless told otherwise; the memory told belongs to the other order."""
    answering(monkeypatch, tmp_path, "81559")
    (gpu,) = found()
    assert dict(gpu.environment) == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": "0"}
    assert gpu.memory == 81559 * 2**20


def test_a_gpu_that_shares_the_hosts_memory_has_no_limit_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """nvidia-smi says [N/A]."""
    answering(monkeypatch, tmp_path, "[N/A]")
    assert visible() == ["0"] * 4


@pytest.mark.parametrize(
    "body",
    [
        "exit 9",
        "echo No devices were found",
        "exec sleep 600",
        "printf '\\377\\376'",
        "echo 81559; exit 1",
        ":",
    ],
)
def test_no_answer_is_no_gpu(body: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It fails, says something else, hangs: one worker per core, as where there is no nvidia-smi."""
    monkeypatch.setattr(devices, "ASKING_SECONDS", 0.5)
    monkeypatch.setenv("PATH", stand_in(tmp_path, body))
    begun = time.monotonic()
    assert visible() == [""] * 64
    assert time.monotonic() - begun < 300  # it would hang for 600
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert visible() == [""] * 64


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_another_device_asks_for_no_gpu(
    device: DeviceName, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One worker per core, and nvidia-smi is left alone."""
    answering(monkeypatch, tmp_path, "81559")
    assert visible(device) == [""] * 64
    assert visible(device, asked=2) == [""] * 2
    assert not (tmp_path / "asked").exists()


@pytest.mark.slow
def test_plan_and_sweep_count_alike(tmp_path: Path) -> None:
    """`psa plan` names workers and GPUs, and with --device cpu the cores."""
    path = stand_in(tmp_path, "printf '81559\\n81559\\n'")
    for device, said in (((), "GPU"), (("--device", "cpu"), "worker")):
        out, _ = psa(tmp_path, "plan", str(GRID), *device, PATH=path).communicate(timeout=PATIENCE_SECONDS)
        (line,) = (line for line in out.splitlines() if "time left here" in line)
        assert said in line
        assert ("GPU" in line) == (not device)
    out, _ = psa(tmp_path, "plan", str(GRID), "--workers", "3", PATH=path).communicate(
        timeout=PATIENCE_SECONDS
    )
    assert "with 3 workers on 2 GPUs" in out


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads what workers see in /proc")
def test_each_worker_of_a_sweep_sees_one_gpu(
    tmp_path: Path, data_dir: Path, request: pytest.FixtureRequest
) -> None:
    """Real workers, told of two GPUs that are not there: each is given one, and one that is killed is
    followed by another on the same.
    """
    path = stand_in(tmp_path, "printf '81559\\n81559\\n'")
    words = (
        "meta_loops=1000000",
        "--pack-size",
        "12",
        "--workers",
        "2",
        "--data-dir",
        str(data_dir.absolute()),
    )
    process = psa(tmp_path, "sweep", str(GRID), *words, PATH=path, CUDA_VISIBLE_DEVICES="1,0")
    request.addfinalizer(partial(end, process))

    def seen() -> dict[int, str]:
        found = {}
        for pid in children(process.pid):
            with contextlib.suppress(OSError):  # it has just ended
                names = Path(f"/proc/{pid}/environ").read_text().split("\0")
                found[pid] = dict(name.split("=", 1) for name in names if "=" in name)
        return {pid: names.get("CUDA_VISIBLE_DEVICES", "") for pid, names in found.items()}

    until(lambda: sorted(seen().values()) == ["0", "1"], process)
    until(lambda: "seeds 0-1 loop" in "".join(map(str, active_sweeps(tmp_path / "models"))), process)
    before = seen()
    gone = next(pid for pid, name in before.items() if name == "0")
    os.kill(gone, 9)
    until(lambda: gone not in seen() and sorted(seen().values()) == ["0", "1"], process)
    process.terminate()
    assert process.wait(PATIENCE_SECONDS) == 143
