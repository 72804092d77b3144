"""Every family through every door, on an image, a thin stack, channels and four million voxels.

    OMP_NUM_THREADS=1 python benchmarks/doors.py VOLUMES --time-limit 10
    python benchmarks/doors.py --table

Each is compressed 64-fold, written and opened again: decoded as a whole, in part, at a quarter of its size, and as a
lazy array. A row is written only if all of them agree. PSNR over the range, decoding in million voxels a second. The
command line and napari are other ways to the same calls, which the tests go. Appends to
``benchmarks/results/doors.csv``.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import tifffile

from napari_tinc import CompressedVolume, Target, compress
from napari_tinc.arrays.metadata import Metadata
from napari_tinc.choices import FAMILIES
from napari_tinc.lazy import lazy_levels
from napari_tinc.measures import metrics

RESULTS = Path(__file__).parent / "results" / "doors.csv"
COLUMNS = ["array", "shape", "model", "limit_s", "bytes", "psnr_dB", "encode_s", "decode_Mvoxel_s", "region_s"]


def arrays(folder: Path) -> dict[str, tuple[str, npt.NDArray[np.generic]]]:
    """Axes and voxels of what the doors are tried on."""
    read = {name: tifffile.imread(next(folder.glob(f"{name}*.tif"))) for name in
            ("neuron_somata", "tinc_demo", "neuron_brainbow", "neuron_phantom_64x256x256_u16")}  # fmt: skip
    somata, thin, channels, large = read.values()
    return {"image": ("yx", somata[len(somata) // 2]), "thin stack": ("zyx", thin), "channels": ("zcyx", channels),
            "4 Mvoxel": ("zyx", large)}  # fmt: skip


def through(array: npt.NDArray[np.generic], axes: str, model: str, limit: float) -> dict[str, object]:
    """Take an array through all doors; return what was measured."""
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder) / "a.tinc"
        metadata = Metadata(axes, (1.0,) * len(axes), ("",) * len(axes))
        began = time.perf_counter()
        compress(array, Target.ratio(64), model=model, time_limit=limit, metadata=metadata).save(packed)
        encoded = time.perf_counter() - began
        volume = CompressedVolume.open(packed)
        began = time.perf_counter()
        decoded = volume.decode()
        took = time.perf_counter() - began
        region = tuple(slice(n // 4, n // 4 + min(32, -(-n // 2))) for n in array.shape)
        began = time.perf_counter()
        part = CompressedVolume.open(packed).decode(region)
        of_part = time.perf_counter() - began
        assert volume.shape == array.shape, volume.shape
        assert volume.nbytes <= array.nbytes / 64
        for same in (part, np.asarray(lazy_levels(volume)[0][region])):
            assert np.abs(same.astype(float) - decoded[region]).max() <= 1
        assert volume.decode(scale=0.25).shape == volume.scaled_shape(0.25)
        return {
            "bytes": volume.nbytes,
            "psnr_dB": f"{metrics.psnr(array, decoded):.2f}",
            "encode_s": f"{encoded:.1f}",
            "decode_Mvoxel_s": f"{array.size / took / 1e6:.2f}",
            "region_s": f"{of_part:.2f}",
        }


def table(results: Path) -> None:
    rows = pd.read_csv(results)
    found = list(dict.fromkeys(rows.array))
    print("| model | " + " | ".join(found) + " |\n|---|" + "---|" * len(found))
    for model, own in rows.groupby("model", sort=False):
        cells = {r.array: f"{r.psnr_dB:.1f} / {r.encode_s:.0f} s / {r.decode_Mvoxel_s:.1f}" for r in own.itertuples()}
        print(f"| {model} | " + " | ".join(cells[name] for name in found) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--models", nargs="+", default=list(FAMILIES))
    parser.add_argument("--time-limit", type=float, default=10)
    parser.add_argument("--table", action="store_true", help="print what is there and run nothing")
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.table:
        table(args.results)
        return
    with args.results.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        for name, (axes, array) in arrays(args.folder).items():
            for model in args.models:
                row = dict(zip(COLUMNS, (name, "x".join(map(str, array.shape)), model, args.time_limit), strict=False))
                writer.writerow(row | through(array, axes, model, args.time_limit))
                file.flush()
                print(name, model, flush=True)


if __name__ == "__main__":
    main()
