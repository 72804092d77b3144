"""What masks change: preset ``fast`` of this checkout and of an older one, in turn on the same machine.

    python benchmarks/masks.py VOLUMES --against CHECKOUT --ratios 64 256 --output results/masks.csv

Every run is a process of its own with the checkout first on its path. Seconds are of the processor, without the time
to load or compile. The table has PSNR over the volume's own range, bytes of the file and of its masks, whether both
files are the same to the byte, and this checkout's times as multiples of the other's.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

HERE = Path(__file__).resolve().parent.parent
_MASK = 4  # kind of segment, which older checkouts have no name for


def measure(path: Path, ratio: float) -> dict[str, Any]:
    """Compress and decode a volume with whatever napari-tinc is on the path."""
    from napari_tinc import CompressedVolume, Target, compress

    voxels = tifffile.imread(path)
    small = tuple(slice(0, 40) for _ in voxels.shape)
    compress(voxels[small], Target.ratio(8), preset="fast").decode()  # loads or compiles
    begun = time.process_time()
    made = compress(voxels, Target.ratio(ratio), preset="fast").to_bytes()
    encoded = time.process_time()
    volume = CompressedVolume(made)
    decoded = volume.decode()
    seconds = encoded - begun, time.process_time() - encoded
    original = voxels.astype(np.float64)
    mse = np.square(original - decoded).mean()
    return {
        "psnr": 10 * np.log10((original.max() - original.min()) ** 2 / mse),
        "bytes": len(made),
        "mask_bytes": sum(len(s.payload) for s in volume._frame.segments if s.kind == _MASK),
        "sha": hashlib.sha256(made).hexdigest(),
        "encode": seconds[0],
        "decode": seconds[1],
    }


def run(checkout: Path, path: Path, ratio: float) -> dict[str, Any]:
    """Measure in a process of its own."""
    called = [sys.executable, __file__, str(path), "--measure", "--ratios", str(ratio)]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(called, env=environment, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compare(path: Path, ratio: float, against: Path) -> dict[str, Any]:
    """One row of the table."""
    before, now = run(against, path, ratio), run(HERE, path, ratio)
    return {
        "volume": path.stem,
        "ratio": ratio,
        "psnr_before": round(before["psnr"], 3),
        "psnr": round(now["psnr"], 3),
        "bytes_before": before["bytes"],
        "bytes": now["bytes"],
        "mask_bytes": now["mask_bytes"],
        "same_file": before["sha"] == now["sha"],
        "encode_before_s": round(before["encode"], 2),
        "encode_times": round(now["encode"] / before["encode"], 2),
        "decode_before_s": round(before["decode"], 2),
        "decode_times": round(now["decode"] / before["decode"], 2),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", type=Path)
    parser.add_argument("--against", type=Path, help="checkout to compare with")
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 256])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(measure(given.volumes[0], given.ratios[0])))
        sys.exit()
    rows = []
    for volume in given.volumes:
        for ratio in given.ratios:
            rows.append(compare(volume, ratio, given.against))
            print(json.dumps(rows[-1]), flush=True)
    if given.output:
        with given.output.open("w", newline="") as file:
            table = csv.DictWriter(file, rows[0])
            table.writeheader()
            table.writerows(rows)
