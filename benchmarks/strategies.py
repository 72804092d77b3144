"""Allocation strategies at equal bytes.

    python benchmarks/strategies.py VOLUME.tif [VOLUME.tif ...] --ratio 128 --levels 3

Every strategy between levels with equal shares within, then every strategy within a level with the default between.
"""

import argparse
from pathlib import Path

import numpy as np
import tifffile

from napari_tinc import Target, compress
from napari_tinc.core import metrics


def row(volume: np.ndarray, args: argparse.Namespace, between: str, within: str) -> str:
    result = compress(
        volume, Target.ratio(args.ratio), preset=args.preset, levels=args.levels, between=between, within=within
    )
    decoded = result.decode()
    worst = min(octant.psnr for octant in result.octants)
    dice = metrics.binary_scores(volume, decoded, metrics.otsu_threshold(volume)).dice
    return (
        f"{between:8} {within:11} {metrics.psnr(volume, decoded):6.2f} dB, worst octant {worst:5.1f}, Dice {dice:.3f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", type=Path)
    parser.add_argument("--ratio", type=float, default=128)
    parser.add_argument("--levels", type=int, default=3)
    parser.add_argument("--preset", default="fast")
    args = parser.parse_args()
    for path in args.volumes:
        volume = tifffile.imread(path)
        print(path.stem, flush=True)
        for between in ("even", "shallow", "deep"):
            print("  " + row(volume, args, between, "equal"), flush=True)
        for within in ("importance", "variance"):
            print("  " + row(volume, args, "auto", within), flush=True)


if __name__ == "__main__":
    main()
