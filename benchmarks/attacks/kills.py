"""Kill whole commands, and saves, at random moments; what was there before is still there, or what is new is whole."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_tinc.encode.compression import compress
from napari_tinc.errors import TincError
from napari_tinc.files import read_volume
from napari_tinc.format import parse
from napari_tinc.system.output import PARTIAL_PREFIX
from napari_tinc.target import Target

GRID = np.stack(np.meshgrid(*(np.linspace(0, 9, n) for n in (20, 60, 70)), indexing="ij"))
VOLUME = (3000 * np.exp(-((GRID - 4) ** 2).sum(0) / 9) + 40 * np.sin(7 * GRID[1])).astype(np.int16)
LEFT = (PARTIAL_PREFIX, "tinc-")
SAVES = """
import sys
from napari_tinc.format import write_atomic
old, new = (open(path, "rb").read() for path in sys.argv[2:])
while True:
    write_atomic(sys.argv[1], new, True)
    write_atomic(sys.argv[1], old, True)
"""
Check = Callable[[Path], None]


def kill_compress(count: int, seed: int, processes: int) -> dict[str, Any]:
    """Kill ``compress --overwrite`` over an older file."""

    def prepare(folder: Path) -> tuple[list[str], Check]:
        np.save(folder / "in.npy", VOLUME)
        old = _compressed(30)
        (folder / "out.tinc").write_bytes(old)

        def check(path: Path) -> None:
            data = path.read_bytes()
            assert data == old or parse(data).header.shape == VOLUME.shape

        return _command("compress", folder / "in.npy", folder / "out.tinc", "--preset", "fast", "--overwrite"), check

    return _kill_commands(count, seed, processes, prepare, "out.tinc")


def kill_decompress(count: int, seed: int, processes: int) -> dict[str, Any]:
    """Kill ``decompress --overwrite`` into every format over an older file."""
    found: list[str] = []
    for i, name in enumerate(("out.tif", "out.npy", "out.zarr")):
        third = _kill_decompress(count // 3 + (i < count % 3), seed + i, processes, name)
        found += [f"{name}: {text}" for text in third["found"]]
    return {"kills": count, "found": found}


def _kill_decompress(count: int, seed: int, processes: int, name: str) -> dict[str, Any]:
    def prepare(folder: Path) -> tuple[list[str], Check]:
        (folder / "in.tinc").write_bytes(_compressed(30))
        other = _compressed(90)
        (folder / "other.tinc").write_bytes(other)
        _run(_command("decompress", folder / "other.tinc", folder / name), folder)
        before = read_volume(folder / name).data
        after = _decoded(_compressed(30))

        def check(path: Path) -> None:
            data = read_volume(path).data
            assert (data == before).all() or (data == after).all()

        return _command("decompress", folder / "in.tinc", folder / name, "--overwrite"), check

    return _kill_commands(count, seed, processes, prepare, name)


def kill_saves(count: int, seed: int, processes: int) -> dict[str, Any]:
    """Kill a process that does nothing but save over one file."""

    def prepare(folder: Path) -> tuple[list[str], Check]:
        files = {}
        for name, ratio in (("out.tinc", 30), ("old", 30), ("new", 90)):
            files[name] = _compressed(ratio)
            (folder / name).write_bytes(files[name])

        def check(path: Path) -> None:
            assert path.read_bytes() in files.values()

        return [sys.executable, "-c", SAVES, *(str(folder / name) for name in files)], check

    return _kill_commands(count, seed, processes, prepare, "out.tinc", endless=True)


def kill_demo(count: int, seed: int, processes: int) -> dict[str, Any]:
    """Kill ``demo --overwrite``: both files are whole, or not there."""

    def prepare(folder: Path) -> tuple[list[str], Check]:
        def check(path: Path) -> None:
            if path.exists():
                parse(path.read_bytes())
            picture = path.with_name("demo.png")
            assert not picture.exists() or picture.read_bytes().endswith(b"IEND\xaeB`\x82")

        return _command("demo", "--sample", "brain", "--out-dir", folder, "--overwrite"), check

    return _kill_commands(count, seed, processes, prepare, "demo.tinc")


def kill_comparisons(count: int, seed: int) -> dict[str, Any]:
    """Kill ``compare`` again and again on one store; no worker lives on, and in the end the table is whole."""
    if not count:
        return {"kills": 0, "found": []}
    found: list[str] = []
    source = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "in.npy", VOLUME)
        (folder / "tmp").mkdir()
        rest = ("--ratio", "20", "--ratio", "50", "--strategies", "none", "--peers", "sperr,sz3", "--csv")
        command = [*_command("compare", folder / "in.npy", *rest, folder / "t.csv"), "--overwrite"]
        environment = {"TMPDIR": str(folder / "tmp"), "XDG_CACHE_HOME": str(folder / "cache")}
        for number in range(count):
            process = _start(command, folder, environment)
            time.sleep(source.uniform(1, 7))
            below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.kill()
            process.wait()
            _, alive = psutil.wait_procs(below, 15)
            if alive:
                found.append(f"comparison {number}: {len(alive)} workers live on")
                for one in alive:
                    one.kill()
        done = _run(command, folder, environment)
        if done.returncode or len((folder / "t.csv").read_text().splitlines()) != 5:
            found.append(f"comparison after {count} kills: code {done.returncode}, {done.stderr[-300:]}")
        found += [f"comparison: {left} is left" for left in _left(folder / "tmp")]
    return {"kills": count, "found": found}


def _kill_commands(
    count: int,
    seed: int,
    processes: int,
    prepare: Callable[[Path], tuple[list[str], Check]],
    name: str,
    endless: bool = False,
) -> dict[str, Any]:
    """Kill a command at moments spread evenly over its time; check what is there after every kill."""

    def work(worker: int) -> tuple[int, list[str]]:
        found: list[str] = []
        finished = 0
        source = random.Random(f"{seed} {worker}")
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            (folder / "tmp").mkdir()
            environment = {"TMPDIR": str(folder / "tmp")}
            command, check = prepare(folder)
            started = time.monotonic()
            if not endless:
                _run(command, folder, environment)
            seconds = 2.0 if endless else time.monotonic() - started
            for _ in range(count // processes + (worker < count % processes)):
                process = _start(command, folder, environment)
                moment = source.uniform(0, 1.1 * seconds)
                try:
                    process.wait(moment)
                    finished += 1
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                try:
                    check(folder / name)
                except (AssertionError, TincError, OSError) as error:
                    found.append(f"killed after {moment:.2f} s: {type(error).__name__} {error}")
            if not endless:
                done = _run(command, folder, environment)
                found += [f"after the kills: {done.stderr[-300:]}"] * bool(done.returncode)
                found += [f"{left} is left" for left in (*_left(folder), *_left(folder / "tmp"))]
        return finished, found

    with ThreadPoolExecutor(processes) as pool:
        results = list(pool.map(work, range(min(processes, count))))
    ended = sum(finished for finished, _ in results)
    return {"kills": count, "ended_before": ended, "found": [text for _, texts in results for text in texts]}


def _left(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(LEFT)]


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "napari_tinc", *map(str, arguments)]


def _start(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, cwd=folder, env=os.environ | environment, stdout=quiet, stderr=quiet)


def _run(
    command: list[str], folder: Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=os.environ | (environment or {}), capture_output=True, text=True)


def _compressed(ratio: float) -> bytes:
    return compress(VOLUME, Target.ratio(ratio), preset="fast", device="cpu").to_bytes()


def _decoded(data: bytes) -> np.ndarray:
    from napari_tinc.volume import CompressedVolume

    return np.asarray(CompressedVolume(data, "cpu").decode())


__all__ = ["kill_comparisons", "kill_compress", "kill_decompress", "kill_demo", "kill_saves"]
