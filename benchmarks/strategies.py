"""Levels, strategies and ratios at equal bytes, on the engine of ``napari-tinc compare``.

    python benchmarks/strategies.py VOLUME.tif [VOLUME.tif ...] --ratios 64 256

Per volume and ratio: one SIREN, every strategy between levels on trees of 2 to 4 levels with equal shares within, and
every strategy within a level on trees of 3. Of a volume larger than ``--voxels`` its middle is taken. Writes
``benchmarks/results/strategies.csv``; finished runs are kept in the user's cache, so it goes on where it was stopped.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile

from napari_tinc import Candidate, Comparison

RESULTS = Path(__file__).parent / "results" / "strategies.csv"
BETWEEN = ("even", "shallow", "deep")
COLUMNS = [
    "volume",
    "ratio",
    "candidate",
    "bytes",
    "psnr_dB",
    "worst_octant_dB",
    "dice",
    "cldice",
    "encode_s",
    "problem",
]


def strategies(levels: list[int]) -> list[str]:
    between = [f"{name}/equal@{count}" for count in levels for name in BETWEEN]
    within = [f"{name}/{measure}@3" for measure in ("importance", "variance") for name in ("even", "shallow")]
    return ["siren", *between, *within]


def middle(volume: np.ndarray, voxels: int) -> np.ndarray:
    """Halve the longest axis until at most so many voxels are left."""
    while volume.size > voxels:
        axis = int(np.argmax(volume.shape))
        side = volume.shape[axis] // 2
        first = (volume.shape[axis] - side) // 2
        volume = volume[(slice(None),) * axis + (slice(first, first + side),)]
    return np.ascontiguousarray(volume)


def middle_of(folder: Path, name: str, voxels: int) -> tuple[str, np.ndarray]:
    """Find the first volume in a folder whose name begins so, masks left out; its whole name, and its middle."""
    path = next(path for path in sorted(folder.glob(f"{name}*.tif")) if "mask" not in path.stem)
    return path.stem, middle(tifffile.imread(path), voxels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("volumes", nargs="+", type=Path)
    parser.add_argument("--ratios", nargs="+", type=float, default=[64, 256])
    parser.add_argument("--levels", nargs="+", type=int, default=[2, 3, 4])
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--voxels", type=int, default=1_200_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--strategies", nargs="+", help="these alone")
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    tables: list[pd.DataFrame] = []
    names = args.strategies or strategies(args.levels)
    chosen = [Candidate.tinc(name, args.preset, time_limit=args.time_limit) for name in names]
    for path in args.volumes:
        comparison = Comparison(middle(tifffile.imread(path), args.voxels), candidates=chosen, ratios=args.ratios)
        print(path.stem, comparison.facts, flush=True)
        for event in comparison.run(args.jobs):
            if event.result is not None:
                found = event.result.measures
                said = (
                    event.result.problem
                    if found is None
                    else f"{found.psnr:.2f} dB, worst octant {found.worst_octant_psnr:.1f}"
                )
                print(f"  {event.target_ratio:5g} {event.candidate.name:25} {said}", flush=True)
        table = comparison.table().drop(columns="ratio").rename(columns={
            "target_ratio": "ratio", "psnr": "psnr_dB", "worst_octant_psnr": "worst_octant_dB",
            "encode_seconds": "encode_s"})  # fmt: skip
        table.insert(0, "volume", path.stem)
        tables.append(table[COLUMNS])
    pd.concat(tables).to_csv(args.output, index=False, float_format="%.3f")


if __name__ == "__main__":
    main()
