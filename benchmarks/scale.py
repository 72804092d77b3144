"""Cost per voxel against the size of the volume: seconds and memory of encoding and decoding, in memory and in files.

    OMP_NUM_THREADS=1 python benchmarks/scale.py --megavoxels 1 2 4 8 16 32
    OMP_NUM_THREADS=1 python benchmarks/scale.py --megavoxels 256 --memory-limit 64

The volumes are a simulated vessel stack repeated by mirroring, so that all have the same content; ``fast``, ratio 128.
They are read from a Zarr, every size in a process of its own. Memory is the largest private memory of that process
above what it had before; pages of files, which the system takes back when it needs them, are left out.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import dask.array as da
import numpy as np
import psutil
import zarr

from napari_tinc import CompressedVolume, Target, compress, memory_limit, samples

SIDE = 64


def stack(megavoxels: float) -> da.Array:
    """Mirror a small stack along all axes until it has so many voxels: planes of at most 512 x 512."""
    brick = da.from_array(np.asarray(samples.vessel_tree((SIDE, 2 * SIDE, 2 * SIDE)).noisy))
    counts = [1, 1, 1]
    while math.prod(counts) * brick.size < megavoxels * 2**20:
        axis = 0 if counts[2] == 4 else int(np.argmin([counts[0] * SIDE, counts[1] * 2 * SIDE, counts[2] * 2 * SIDE]))
        counts[axis] *= 2
    for axis, count in enumerate(counts):
        brick = da.concatenate([brick if i % 2 == 0 else da.flip(brick, axis) for i in range(count)], axis)
    return brick


@contextmanager
def watched(peaks: list[float]) -> Iterator[None]:
    """Append the largest private memory beyond that at the start, in bytes."""
    process, done = psutil.Process(), threading.Event()

    def private() -> int:
        info = process.memory_info()
        return int(info.rss - info.shared)

    before = largest = private()

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.02):
            largest = max(largest, private())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peaks.append(largest - before)


def measure(path: str, limit: float | None) -> None:
    """Print one row."""
    volume = zarr.open_array(path, mode="r")
    small = np.asarray(volume[:16, :32, :32])
    compress(small, Target.ratio(16), preset="fast").decode()  # kernels
    peaks: list[float] = []
    voxels = math.prod(volume.shape)
    start = time.perf_counter()
    with memory_limit(int(limit * 1e6)) if limit else nullcontext(), watched(peaks):
        compressed = compress(volume, Target.ratio(128), preset="fast")
    encoded = time.perf_counter()
    file = CompressedVolume(compressed.to_bytes())
    decoding = time.perf_counter()
    depth = 64
    for plane in range(0, volume.shape[0], depth):
        file.decode((slice(plane, plane + depth),))
    decoded = time.perf_counter()
    print(
        f"| {voxels / 2**20:.0f} | {' x '.join(map(str, volume.shape))} | {(encoded - start) / voxels * 1e6:.2f} "
        f"| {peaks[0] / voxels:.2f} | {peaks[0] / 1e6:.0f} | {voxels / 1e6 / (decoded - decoding):.1f} "
        f"| {compressed.provenance['psnr']} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megavoxels", type=float, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--memory-limit", type=float, help="largest array in memory, in MB")
    parser.add_argument("--volume", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.volume:
        measure(args.volume, args.memory_limit)
        return
    print("| Mvoxel | shape | encode, s/Mvoxel | memory, bytes a voxel | MB | decode, Mvoxel/s | PSNR |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for size in args.megavoxels:
            volume = stack(size)
            path = str(Path(folder) / f"{size:g}.zarr")
            da.to_zarr(volume.rechunk((64, 128, 128)), path)
            limit = [] if args.memory_limit is None else ["--memory-limit", str(args.memory_limit)]
            subprocess.run([sys.executable, __file__, "--volume", path, *limit], check=True)


if __name__ == "__main__":
    main()
