"""Arrays of many chunks: speed with workers, cost against one file, memory, kills, the scheduler, a plane in view.

    python benchmarks/cluster.py speed kills tasks plane          # some quarter of an hour on two cores
    python benchmarks/cluster.py large --megavoxels 1024          # a gigavoxel, end to end

``speed``: CPU seconds of the chunked path against one file of as many bytes, and what that costs in PSNR; one worker
against two. ``kills``: workers, or the program itself, are killed at random moments until it is done; are the bytes
those of an undisturbed run? ``tasks``: what the scheduler adds to every task. ``plane``: reading a plane of 512² voxels
through zarr, coarse and at full resolution, and the next one. ``large``: time, bytes, and the memory of every worker.
The volumes are simulated neurons; the large one repeats them, mirrored.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from napari_tinc import Target, compress
from napari_tinc.chunks.array import Options, compress_array
from napari_tinc.chunks.engine import Cluster
from napari_tinc.chunks.image import of_zarr
from napari_tinc.chunks.manifest import Manifest
from napari_tinc.progress import Progress
from napari_tinc.samples import neuron_phantom
from napari_tinc.system.cluster import local_workers
from napari_tinc.system.steps import complete

RATIO = 64


def source(folder: Path, side: int, repeats: tuple[int, int, int] = (1, 1, 1)) -> Path:
    """Write an OME-less Zarr of simulated neurons, mirrored at every repetition."""
    path = folder / "source.zarr"
    volume = neuron_phantom((side,) * 3).noisy
    shape = tuple(side * n for n in repeats)
    array = zarr.create_array(path, shape=shape, chunks=(128,) * 3, dtype=volume.dtype)
    for cell in product(*map(range, repeats)):
        mirrored = volume[tuple(slice(None, None, -1 if i % 2 else 1) for i in cell)]
        array[tuple(slice(i * side, (i + 1) * side) for i in cell)] = mirrored
    return path


def cpu_seconds() -> float:
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def size_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    wall, cpu, said = time.perf_counter(), cpu_seconds(), dict[str, float]()
    yield said
    said |= {"seconds": time.perf_counter() - wall, "cpu_seconds": cpu_seconds() - cpu}


def finest_psnr(manifest: Manifest) -> float:
    return float(manifest.facts["psnr"])


def speed(folder: Path, side: int, chunk: int) -> dict[str, Any]:
    """Chunks against one file, and two workers against one, of the finest level only: a file has no others."""
    path = source(folder, side)
    image = of_zarr(path)
    image = replace(image, shapes=image.shapes[:1])
    voxels = zarr.open_array(path)[...]
    compress(voxels[:64, :64, :64], Target.ratio(RATIO))  # compiled before anything is timed
    with timed() as file:
        whole = compress(voxels, Target.ratio(RATIO))
    options = Options(Target.size(whole.nbytes), chunk=chunk)
    with timed() as chunks:
        manifest = complete(compress_array(image, folder / "chunks.zarr", options))
    step = float(manifest.facts["step"])
    bound = Options(Target.step(step), chunk=chunk, shard=chunk)
    with timed() as again:
        complete(compress_array(image, folder / "step.zarr", bound))
    with timed() as one_step:
        compress(voxels, Target.step(step))
    walls = {}
    for workers in (1, 2, 2, 1):
        with local_workers(workers) as client:
            engine, small = Cluster(client), image.part((slice(0, 64),) * 3)
            complete(compress_array(small, folder / "warm.zarr", bound, engine))
            shutil.rmtree(folder / "warm.zarr")
            began = time.perf_counter()
            complete(compress_array(image, folder / "workers.zarr", bound, engine))
            walls[workers] = min(walls.get(workers, np.inf), time.perf_counter() - began)
        shutil.rmtree(folder / "workers.zarr")
    return {
        "megavoxels": voxels.size / 1e6,
        "cpu, chunks over one file, same bytes": chunks["cpu_seconds"] / file["cpu_seconds"],
        "cpu, chunks over one file, same step": again["cpu_seconds"] / one_step["cpu_seconds"],
        "PSNR of one file": float(whole.provenance["psnr"]),
        "PSNR of chunks": finest_psnr(manifest),
        "bytes of one file": whole.nbytes,
        "bytes of chunks, and of all that describes them": size_of(folder / "chunks.zarr"),
        "speed of two workers over one": walls[1] / walls[2],
        "faces over inside, error": faces(voxels, folder / "step.zarr", chunk),
    }


def faces(voxels: np.ndarray, path: Path, chunk: int) -> float:
    """Root mean squared error of voxels at a chunk's face over that of all others."""
    errors = (zarr.open_group(path)["0"][...].astype(np.float32) - voxels) ** 2
    touching = np.zeros(voxels.shape, bool)
    for axis, side in enumerate(voxels.shape):
        for cut in range(chunk, side, chunk):
            touching[(slice(None),) * axis + (slice(cut - 1, cut + 1),)] = True
    return float(np.sqrt(errors[touching].mean() / errors[~touching].mean()))


def kills(folder: Path, side: int, chunk: int, wanted: int) -> dict[str, Any]:
    """Kill workers and programs at random until so many were killed and the array is done."""
    path = source(folder, side)
    options = Options(Target.ratio(RATIO), chunk=chunk, shard=chunk)
    complete(compress_array(of_zarr(path), folder / "whole.zarr", options, name=str(path.resolve())))
    generator, output = random.Random(0), folder / "out.zarr"
    program = [sys.executable, "-m", "napari_tinc", "compress", str(path), str(output), "--ratio", str(RATIO)]
    program += ["--chunk", str(chunk), "--shard", str(chunk), "--workers", "2"]
    killed = {"worker": 0, "program": 0}
    runs = 0
    while True:
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
        runs += 1
        while process.poll() is None:
            time.sleep(generator.uniform(2.0, 9.0))
            if process.poll() is not None:
                break
            workers = children(process.pid)
            if sum(killed.values()) < wanted and workers and generator.random() < 0.7:
                os.kill(generator.choice(workers), signal.SIGKILL)
                killed["worker"] += 1
            elif sum(killed.values()) < wanted and runs <= wanted:
                os.killpg(process.pid, signal.SIGKILL)
                killed["program"] += 1
        if output.exists():
            break
    return {
        "workers killed": killed["worker"],
        "programs killed, scheduler and all": killed["program"],
        "runs": runs,
        "same bytes": content_of(output) == content_of(folder / "whole.zarr"),
    }


def children(pid: int) -> list[int]:
    import psutil

    try:
        found = psutil.Process(pid).children(recursive=True)
        return [one.pid for one in found if any("spawn_main" in word for word in one.cmdline())]
    except psutil.Error:
        return []


def tasks(count: int) -> dict[str, Any]:
    """What a task costs besides its work: tasks that do nothing, through the window that arrays use."""
    with local_workers(2) as client:
        engine = Cluster(client)
        sum(1 for _ in engine.run(int, ((0,) for _ in range(100))))
        began = time.perf_counter()
        done = sum(1 for _ in engine.run(int, ((number,) for number in range(count))))
        return {"tasks": done, "milliseconds a task": (time.perf_counter() - began) / count * 1e3}


def plane(folder: Path, side: int, chunk: int) -> dict[str, Any]:
    """Seconds to read planes of an array, each array opened anew."""
    path = source(folder, side, (1, -(-512 // side), -(-512 // side)))
    complete(compress_array(of_zarr(path), folder / "out.zarr", Options(Target.ratio(RATIO), chunk=chunk)))
    program = """
import json, sys, time
began = time.perf_counter()
import zarr
group = zarr.open_group(sys.argv[1], mode="r")
said = {"import": time.perf_counter() - began}
def read(name, level, z):
    began = time.perf_counter()
    group[level][z, :512, :512]
    said[name] = time.perf_counter() - began
read("coarsest level, first", max(key for key in group if key.isdigit()), 20)
read("512 x 512, first", "0", 40)
read("512 x 512, next", "0", 41)
read("512 x 512, other chunks", "0", -20)
print(json.dumps(said))
"""
    said = subprocess.run([sys.executable, "-c", program, str(folder / "out.zarr")], check=True, capture_output=True)
    return {key: round(value, 3) for key, value in json.loads(said.stdout).items()}


def large(folder: Path, megavoxels: float, chunk: int, workers: int, step: float | None) -> dict[str, Any]:
    """A large array, end to end, with so many workers; at a ratio, or at a step."""
    side = 256
    count = max(1, round(megavoxels * 1e6 / side**3))
    counts = [
        cell
        for cell in product(range(1, round(count ** (1 / 3)) + 2), repeat=3)
        if np.prod(cell) >= count and sorted(cell) == list(cell)
    ]
    repeats = min(counts, key=lambda cell: (max(cell), np.prod(cell)))
    path = source(folder, side, repeats)
    voxels = side**3 * int(np.prod(repeats))
    memory: dict[str, int] = {}

    def look(progress: Progress) -> None:
        if progress.phase == "coding":
            for address, used in client.run(peak).items():
                memory[address] = max(memory.get(address, 0), used)

    target = Target.ratio(RATIO) if step is None else Target.step(step)
    with local_workers(workers) as client:
        began = time.perf_counter()
        steps = compress_array(of_zarr(path), folder / "out.zarr", Options(target, chunk=chunk), Cluster(client))
        manifest = complete(steps, look)
        seconds = time.perf_counter() - began
    size = size_of(folder / "out.zarr")
    return {
        "gigavoxels": voxels / 1e9,
        "seconds": seconds,
        "megavoxels a second": voxels / 1e6 / seconds,
        "ratio": manifest.facts["raw_bytes"] / size,
        "PSNR": finest_psnr(manifest),
        "chunks": manifest.facts["chunks"],
        "files": sum(1 for file in (folder / "out.zarr").rglob("*") if file.is_file()),
        "most memory of a worker, MB": max(memory.values()) / 1e6,
    }


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=["speed", "kills", "tasks", "plane", "large"])
    parser.add_argument("--side", type=int, default=400, help="voxels a side of the volume of speed")
    parser.add_argument("--kill-side", type=int, default=256, help="voxels a side of the volume of kills")
    parser.add_argument("--plane-side", type=int, default=256, help="voxels a side of what the volume of plane repeats")
    parser.add_argument("--chunk", type=int, default=128)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--megavoxels", type=float, default=1024)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--step", type=float, help="of the large array, instead of a ratio of 64")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary one by default")
    parser.add_argument("--results", type=Path, help="a JSON file to add to")
    args = parser.parse_args()
    runs = {
        "speed": lambda folder: speed(folder, args.side, args.chunk),
        "kills": lambda folder: kills(folder, args.kill_side, 32, args.kills),
        "tasks": lambda folder: tasks(args.tasks),
        "plane": lambda folder: plane(folder, args.plane_side, args.chunk),
        "large": lambda folder: large(folder, args.megavoxels, args.chunk, args.workers, args.step),
    }
    for name in args.what:
        with tempfile.TemporaryDirectory(dir=args.folder) as folder:
            said = runs[name](Path(folder))
        print(f"{name}:", flush=True)
        for key, value in said.items():
            print(f"  {key}: {value:.4g}" if isinstance(value, float) else f"  {key}: {value}", flush=True)
        if args.results:
            known = json.loads(args.results.read_text()) if args.results.exists() else {}
            args.results.write_text(json.dumps(known | {name: said}, indent=1))


if __name__ == "__main__":
    main()
