"""How long a compression goes on between two steps, at which it can be stopped.

python benchmarks/gaps.py [--preset fast] [--voxels 9]   # millions of voxels of noise and structure
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from itertools import chain

import dask.array as da
import numpy as np

from napari_tinc import Target, compress_steps
from napari_tinc.settings import Settings


def volume(voxels: int) -> np.ndarray:
    side = round(voxels ** (1 / 3))
    grid = np.linspace(0, 20, side, dtype=np.float32)
    smooth = np.sin(grid)[:, None, None] * np.cos(1.3 * grid)[:, None] * np.sin(0.7 * grid)
    noise = np.random.default_rng(0).normal(0, 60, smooth.shape).astype(np.float32)
    return (2000 + 1500 * smooth + noise).astype(np.uint16)


def measure(array: object, preset: str) -> dict[str, object]:
    """Drive a compression; return its time and the longest gaps by the phase that a gap ended with."""
    gaps: dict[str, float] = defaultdict(float)
    begun = last_cpu = time.process_time()
    most = 0.0
    started = last = time.monotonic()
    steps = compress_steps(array, Target.ratio(64), Settings(preset=preset, device="cpu"))
    for phase in chain((progress.phase for progress in steps), ["end"]):
        now, cpu = time.monotonic(), time.process_time()
        gaps[phase], most = max(gaps[phase], now - last), max(most, cpu - last_cpu)
        last, last_cpu = now, cpu
    return {
        "seconds": round(last - started, 1),
        "longest_gap": round(max(gaps.values()), 2),
        "by_phase": {phase: round(gap, 2) for phase, gap in gaps.items()},
        "processor_seconds": round(last_cpu - begun, 1),
        "most_processor_seconds_between_steps": round(most, 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--voxels", type=float, default=9.0, help="millions")
    given = parser.parse_args()
    array = volume(round(given.voxels * 1e6))
    compress_steps(array[:8, :16, :16], Target.ratio(4), Settings(preset="fast")).close()
    for _ in compress_steps(array[:20, :40, :40], Target.ratio(20), Settings(preset="fast", device="cpu")):
        pass  # compiles
    for name, source in (("memory", array), ("dask", da.from_array(array, chunks=64))):
        print(json.dumps({"from": name, "shape": array.shape, "preset": given.preset} | measure(source, given.preset)))
