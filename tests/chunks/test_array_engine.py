"""Where tasks run: what is said when workers are missing, of another version, or die; and Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from napari_tinc import InputError, Metadata, write_volume
from napari_tinc.chunks.engine import Cluster, Threads
from napari_tinc.chunks.manifest import UNFINISHED
from napari_tinc.encode.framing import software_version
from napari_tinc.samples import neuron_phantom


class Client:
    """A client whose workers answer what a test wants."""

    dashboard_link = ""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def wait_for_workers(self, count: int, timeout: float) -> None:
        if isinstance(self.answer, TimeoutError):
            raise self.answer

    def run(self, function: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (TimeoutError(), "got none; start some"),
        (ModuleNotFoundError("No module named 'napari_tinc'"), "install it there"),
        ({"a": software_version(), "b": "0.0.1"}, r"got 0\.0\.1; install the same version everywhere"),
    ],
)
def test_workers_that_cannot_be_used_are_said_at_once(answer: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cluster(Client(answer))


def test_threads_hand_on_results_as_they_come_and_give_up_when_closed() -> None:
    begun: list[int] = []

    def slow(number: int) -> int:
        begun.append(number)
        time.sleep(0.05)
        return number * 2

    assert dict(Threads().run(slow, ((n,) for n in range(20)))) == {n: 2 * n for n in range(20)}
    begun.clear()
    running = Threads().run(slow, ((n,) for n in range(1000)))
    next(running)
    running.close()  # type: ignore[attr-defined]
    assert len(begun) < 100


def test_ctrl_c_says_that_it_goes_on_and_it_does(tmp_path: Path) -> None:
    write_volume(tmp_path / "in.zarr", neuron_phantom((32, 128, 128)).noisy, Metadata.default(3))
    command = [sys.executable, "-m", "napari_tinc", "compress", "in.zarr", "out.zarr", "--step", "20", "--chunk", "16"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    unfinished = tmp_path / f"out.zarr{UNFINISHED}"
    while process.poll() is None and not list(unfinished.glob("0/c/*/*/*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert said.strip().splitlines()[-1] == "interrupted: a Zarr that was begun goes on with the same command"
    assert unfinished.is_dir()
    assert not (tmp_path / "out.zarr").exists()
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert not unfinished.exists()
