"""What reading arrays in many small chunks costs: a Zarr, beside what zarr itself needs, and a million chunks of dask.

    python benchmarks/reading.py

Of dask it is the longest time between two steps, at which reading can be stopped, in the first seconds.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import dask.array as da
import numpy as np
import zarr

from napari_tinc.arrays.scratch import read_steps, to_array


def zarr_seconds(side: int) -> dict[str, float]:
    volume = np.random.default_rng(0).integers(0, 99, (side,) * 3, dtype="u2")
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        array = zarr.create_array(Path(folder, "a.zarr"), data=volume, chunks=(16, 16, 16))
        for name, read in (("zarr", lambda: array[...]), ("to_array", lambda: to_array(array))):
            started = time.perf_counter()
            assert (read() == volume).all()
            seconds[name] = round(time.perf_counter() - started, 1)
    return seconds


def longest_gap(chunks: int, seconds: float) -> float:
    """Longest time in which reading cannot be stopped, until it ends or the seconds are over."""
    side = round(chunks ** (1 / 3))
    steps = read_steps(da.from_array(np.ones((2 * side,) * 3, np.uint8), 2))
    started = last = time.monotonic()
    longest = 0.0
    for _ in steps:
        now = time.monotonic()
        last, longest = now, max(longest, now - last)
        if now - started > seconds:
            break
    steps.close()
    return round(max(longest, time.monotonic() - last), 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=384, help="of the Zarr, in voxels")
    parser.add_argument("--chunks", type=int, default=10**6, help="of the dask array")
    parser.add_argument("--seconds", type=float, default=10.0, help="after which dask is stopped")
    args = parser.parse_args()
    print(json.dumps({"chunks": (args.side // 16) ** 3, "seconds": zarr_seconds(args.side)}))
    print(json.dumps({"dask_chunks": args.chunks, "longest_gap": longest_gap(args.chunks, args.seconds)}))
