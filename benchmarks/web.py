"""How large web pages are, and how fast they show a volume: ``python benchmarks/web.py VESSEL.tif``.

The volume, 100 voxels a side, is mirrored to planes of 512 × 512 and to 400 voxels a side (64 million), compressed 64
times, and shared as pages; ``web/tests/bench.ts`` opens them in a headless Chromium. Needs node, Chromium, and
``npm ci && node build.mjs tests`` in ``web/``. Prints a table in Markdown; times are medians, in milliseconds. What the
same plane takes of a processor in Python, whose decoder is native code, says what WebAssembly could gain.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import tifffile

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.share import Shareable, write_page

BENCH = Path(__file__).parents[1] / "web/build/tests/bench.mjs"
SHAPES = (100, 512, 512), (400, 400, 400)
RATIO = 64


def mirrored(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    extra = [(0, new - old) for old, new in zip(volume.shape, shape, strict=True)]
    return np.pad(volume, extra, mode="symmetric")


def measure(volume: np.ndarray, folder: Path) -> dict[str, object]:
    compressed = compress(volume, Target.ratio(RATIO), preset="fast", model="wavelet")
    file = folder / "volume.tinc"
    compressed.save(file, overwrite=True)
    data = compressed.to_bytes()
    page = write_page(folder / "volume.html", [Shareable.read(file)], overwrite=True)
    command = ["node", BENCH, file, folder / "volume.html"]
    said = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return said | {
        "python": python_times(data),
        "bytes": len(data),
        "page": page,
        "overhead": page - 4 * -(-len(data) // 3),
    }


def python_times(data: bytes) -> list[float]:
    """Processor time for the plane in the middle, nothing decoded before; the first, which compiles, is left out."""
    times = []
    for _ in range(6):
        volume = CompressedVolume(data)
        began = time.process_time()
        volume.decode((volume.shape[0] // 2,))
        times.append(1000 * (time.process_time() - began))
    return times[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--shape", nargs=3, type=int, help="one shape instead of the two of the table")
    arguments = parser.parse_args()
    vessel = tifffile.imread(arguments.volume)
    shapes = (tuple(arguments.shape),) if arguments.shape else SHAPES
    with tempfile.TemporaryDirectory() as folder:
        rows = [(shape, measure(mirrored(vessel, shape), Path(folder))) for shape in shapes]
    print(f"{rows[0][1]['product']}, {rows[0][1]['workers']} workers, load {os.getloadavg()[0]:.1f}\n")
    columns = "shape", "file", "page without it", "first picture", "first sharp plane", "a plane, alone"
    print("| " + " | ".join((*columns, "its processor time", "in Python", "the next one")) + " |")
    print("|---|---|---|---|---|---|---|---|---|")
    for shape, said in rows:
        times = " | ".join(f"{median(said[key]):.0f}" for key in ("first", "sharp", "plane", "cpu", "python", "next"))  # type: ignore[call-overload]
        print(f"| {' × '.join(map(str, shape))} | {said['bytes']:,} | {said['overhead']:,} | {times} |")


if __name__ == "__main__":
    main()
